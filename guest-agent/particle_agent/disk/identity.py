"""The identifiers of a disk, its partitions and its file systems."""

from __future__ import annotations

import uuid

from particle_agent.target.target import Target

# The UUID name space for the identifiers of reproducible images.
NAME_SPACE = uuid.UUID("8c1f2b6e-52a3-4c0e-9d1c-5d3f0c6f7a11")


class Identifiers:
    """The UUIDs of a disk by purpose: random, or for reproducible builds the same in each build."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._known: dict[str, str] = {}

    def __getitem__(self, what: str) -> str:
        if what not in self._known:
            self._known[what] = self._make(what)
        return self._known[what]

    def short(self, what: str) -> str:
        """An identifier of eight hexadecimal digits, for FAT and the MBR."""
        return self[what][:8]

    def _make(self, what: str) -> str:
        date = self._target.source_date
        if date is None:
            return str(uuid.uuid4())
        return str(uuid.uuid5(NAME_SPACE, f"{self._target.hostname} {date} {what}"))
