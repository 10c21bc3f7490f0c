"""Data classes of results that folders below `report` need."""

from __future__ import annotations

import pydantic


class Record(pydantic.BaseModel):
    """A frozen data class that pydantic reads and writes. Unknown keys are errors."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class AptProxyResult(Record):
    """The proxy that delivered the packages.

    `hits` and `misses` are the requests that apt-cacher-ng counted during the build, including
    requests of other users. They are None when the proxy does not report them. `gone` is true when
    the proxy disappeared during the build.
    """

    url: str
    gone: bool
    hits: int | None
    misses: int | None
