"""Data classes of results that are needed below the folder report."""

from __future__ import annotations

import pydantic


class Record(pydantic.BaseModel):
    """A frozen data class that pydantic reads and writes; unknown keys are errors."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class AptProxyResult(Record):
    """The proxy that packages came through.

    `hits` and `misses` are the requests that apt-cacher-ng counted while the build ran, other
    users' among them; None when it does not tell. `gone` says that it went away in between.
    """

    url: str
    gone: bool
    hits: int | None
    misses: int | None
