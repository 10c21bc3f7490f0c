"""The subordinate IDs of a user (subuid(5), subgid(5))."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from particle_agent.contract.options import Options, refuse
from particle_agent.contract.values import IdCount, SubordinateId
from particle_agent.errors import StageError
from particle_agent.system.accounts import LARGEST_ID, subordinate_ids
from particle_agent.target.target import Target

# The files, and the options of usermod(8) for them.
FILES = {"/etc/subuid": "--add-subuids", "/etc/subgid": "--add-subgids"}


@dataclass(frozen=True, kw_only=True)
class SubordinateIds(Options):
    """A range of user IDs and group IDs for the user's containers (subuid(5), subgid(5))."""

    first: SubordinateId
    """The first ID."""
    count: IdCount = 65536
    """The number of IDs."""

    def __post_init__(self) -> None:
        if self.ids[-1] > LARGEST_ID:
            message = f"subordinate-ids: the last ID would be {self.ids[-1]}; {LARGEST_ID} is the "
            refuse([(("count",), f"{message}largest one")])

    @property
    def ids(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def text(self) -> str:
        """The range in the notation of usermod(8)."""
        return f"{self.ids[0]}-{self.ids[-1]}"

    def check(self, target: Target, name: str) -> None:
        """Raises StageError if some of the IDs belong to another range of the image."""
        for path in FILES:
            for other, ids in subordinate_ids(target, path):
                first = max(ids.start, self.ids.start)
                if first < min(ids.stop, self.ids.stop) and (other, ids) != (name, self.ids):
                    raise StageError(
                        f"user {name}: the subordinate ID {first} belongs to {other} in {path}",
                        hint="Choose another 'first', above the ranges of the image.",
                    )

    def add(self, target: Target, name: str) -> None:
        """Gives the IDs to a user, unless the user has them."""
        options = []
        for path, option in FILES.items():
            if not target.exists(path):
                # usermod(8) refuses to make the file.
                target.write(path, "")
            if (name, self.ids) not in subordinate_ids(target, path):
                options += [option, self.text]
        if options:
            target.chroot(["usermod", *options, "--", name])


def overlaps(given: Iterable[SubordinateIds | None]) -> Iterator[tuple[int, str]]:
    """The positions and faults of ranges that have IDs of another one."""
    ranges = [(each.ids.start, i, each.ids) for i, each in enumerate(given) if each is not None]
    highest = range(0)
    for first, index, ids in sorted(ranges):
        if first < highest.stop:
            yield index, f"another user of the stage has the subordinate ID {first}, too"
        highest = max(highest, ids, key=lambda each: each.stop)
