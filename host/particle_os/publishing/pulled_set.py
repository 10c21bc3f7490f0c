"""The files of a pulled image: their name, and whether they may replace what is there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from particle_os.errors import UsageError
from particle_os.jobs.delivery import image_names
from particle_os.publishing.pulled_result import NAME
from particle_os.registry.reference import SCHEME, RegistryReference
from particle_os.report.results import ENDINGS
from particle_os.system import publication
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

    def recorded(self, disk: str, sha256: str) -> str:
        """The content of the record: the repository, and the disk with its checksum."""
        return json.dumps({"source": self.source, "disk": disk, "sha256": sha256}) + "\n"

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
                "what is there with --force.",
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
