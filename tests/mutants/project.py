"""The tree that mutants are made of: its sources, its tests, and the names of their contents."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]


@dataclass(frozen=True)
class Project:
    """A tree in git, and the folders of its packages and tests."""

    top: Path = TOP
    packages: tuple[str, ...] = ("host/particle_os", "guest-agent/particle_agent")
    tests: tuple[str, ...] = ("tests/unit", "tests/guest")
    # These tests read the sources of all packages, so they run no line of them.
    reading: tuple[str, ...] = tuple(
        f"tests/unit/test_{name}.py" for name in ("house", "imports", "modes", "sinks", "threads")
    )
    # `make` writes these files.
    generated: tuple[str, ...] = ("contract/debian.py", "shortcuts/known_scripts.py")

    def copy_to(self, to: Path) -> None:
        """Copies the files that git knows."""
        argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(argv, cwd=self.top, capture_output=True, check=True)
        for name in names.stdout.decode().split("\0")[:-1]:
            if (self.top / name).is_file():
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.top / name, to / name)

    def sources(self, tree: Path) -> list[str]:
        """The source files of the packages in a copy of the tree."""
        found = [path for package in self.packages for path in (tree / package).rglob("*.py")]
        names = sorted(str(path.relative_to(tree)) for path in found)
        return [name for name in names if not name.endswith(self.generated)]

    def test_files(self, tree: Path) -> list[str]:
        found = [path for folder in self.tests for path in (tree / folder).rglob("test_*.py")]
        return sorted(str(path.relative_to(tree)) for path in found)

    def keys(self, tree: Path) -> dict[str, str]:
        """For each test file, a name for all that its run depends on: all but other test files."""
        tests = self.test_files(tree)
        rest = hashlib.sha256(sys.version.encode())
        for path in sorted(p for p in tree.rglob("*") if p.suffix in (".py", ".sh", ".html")):
            name = str(path.relative_to(tree))
            if name not in tests:
                rest.update(f"{name} {_digest(path)}\n".encode())
        return {
            name: hashlib.sha256(f"{rest.hexdigest()} {_digest(tree / name)}".encode()).hexdigest()
            for name in tests
        }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
