"""The files of a pulled image: their name, and whether they may replace others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_os.errors import UsageError
from particle_os.jobs.delivery import image_names
from particle_os.publishing.pulled_result import NAME
from particle_os.registry.reference import SCHEME, RegistryReference
from particle_os.report.results import ENDINGS
from particle_os.system import publication
from particle_os.system.publication import Change
from particle_os.system.regular_file import read_regular

# NAME.pulled.json says where the files of NAME are from.
RECORD, RECORD_LIMIT = "pulled.json", 1 << 16


@dataclass(frozen=True)
class PulledSet:
    """The files of the image `name` from a repository, in a directory."""

    name: str
    source: str
    directory: Path

    @classmethod
    def of(cls, reference: RegistryReference, name: str | None, directory: Path) -> PulledSet:
        """The set with the name that the user gives, or that of the repository. Raises UsageError.

        What is in the registry has no say in it.
        """
        found = name or reference.repository.rpartition("/")[2]
        if not NAME.fullmatch(found):
            raise UsageError(
                f"'{found}' is no name for an image: it has other characters than a-z, 0-9 and '-'",
                hint="Name the files with --name.",
            )
        return cls(found, f"{SCHEME}{reference.name}", directory)

    @property
    def record(self) -> str:
        """The name of the file that says where the set is from."""
        return f"{self.name}.{RECORD}"

    def write_record(self, directory: Path, disk: str, sha256: str) -> None:
        """Writes the record: the repository, and the disk with its checksum."""
        found = {"source": self.source, "disk": disk, "sha256": sha256}
        (directory / self.record).write_text(json.dumps(found) + "\n")

    def change(self, disk: str, others: Sequence[str], sha256: str) -> Change:
        """The publication of a disk and other files, after which no older file is left."""
        # The result comes last, as that of a build does.
        new = [disk, self.record, *others[::-1]]
        return Change(
            new,
            removed=[f"{self.name}.evidence", f"{self.name}.failed"],
            outdated=sorted({*image_names(self.name)} - {disk}),
            stale=[name for name in self.stale() if name not in new],
            sums={disk: sha256},
        )

    def stale(self) -> list[str]:
        """The names of files of an older set, apart from its images."""
        return [f"{self.name}.{ending}" for ending in (*ENDINGS, RECORD)]

    def check(self) -> None:
        """Raises UsageError if the directory has files of this name from anywhere else."""
        names = [*image_names(self.name), *self.stale()]
        there = [name for name in names if (self.directory / name).exists()]
        if there and not self._is_own():
            raise UsageError(
                f"{self.directory / there[0]} is there already, and not from {self.source}",
                hint="Name the files with --name, name another directory with --output, or replace "
                "them with --force.",
            )

    def _is_own(self) -> bool:
        """Whether the set there was pulled from the same repository, and is still the same."""
        try:
            text = read_regular(self.directory / self.record, RECORD_LIMIT, follow=False)
            found, sums = json.loads(text), publication.listed_sums(self.directory)
            same = sums.get(found["disk"]) == found["sha256"]
            return bool(same and found["source"] == self.source)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False
