"""Files from the network that stages name; the host fetches them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from particle_agent.contract.options import Options
from particle_agent.contract.values import DownloadUrl, Sha256


@dataclass(frozen=True, kw_only=True)
class Download(Options):
    """A file from the network, which the host fetches and keeps in its cache."""

    url: DownloadUrl
    """The URL, with http or https."""
    sha256: Sha256
    """The SHA-256 digest of the file, from a source that you trust. Another file is refused."""

    @property
    def reference(self) -> str:
        """The reference to the attached file (see `OnHost`)."""
        return f"sha256:{self.sha256}"


def downloads(value: object) -> Iterator[Download]:
    """The downloads among the options of a stage."""
    if isinstance(value, Download):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from downloads(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from downloads(getattr(value, field.name))
