"""Hands the end of a build over to a workflow: outputs, summary, and the evidence of a kill.

usage: report.py build|cache

The environment is that of job.sh, with what the runner sets: GITHUB_OUTPUT and GITHUB_STEP_SUMMARY.

The outputs are lines NAME=VALUE. `status` is that of NAME.result.json. Of several images, and of a
build that ended before its result, it is that in the heading of the summary. Without a summary it
is `cancelled` if the job was, else `unknown`. `image` is the first image, and `report` the page for
people, both also in NAME.failed. `report.py cache` adds `cache-key`, a digest of the content of the
cache.

A build that was killed has written neither its JUnit file nor an annotation: this program does.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from particle_os.errors import InfrastructureError, ParticleError
from particle_os.fleet.summary import PAGE
from particle_os.report.ci import github, junit, markdown

# The name of a build that was killed before it knew the name of its image.
NAME = "particle-os"
LIMIT = 64 << 20
# job.sh makes this file in PARTICLE_OS_VENV when the build begins.
BEGUN = "build.pid"
# How a build can end before it has a result, as the heading of its summary says.
WITHOUT_RESULT = ("failed", "infrastructure", "cancelled")
# The summary of several images has a heading of all, with the status of the worst one.
SEVERAL = "## "
# The directories of the cache with content that stays the same under its name.
KEPT = ("helpers", "bases", "packages", "downloads", "apt")


@dataclass(frozen=True)
class NewFile:
    """A file that the build has written; `written` is the time, in ns since 1970."""

    path: Path
    written: int
    data: bytes


@contextmanager
def opened(folder: Path | str, within: int | None = None) -> Iterator[int]:
    """A descriptor of a directory, which is no link if it is `within` another. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if within is not None:
        flags |= os.O_NOFOLLOW
    descriptor = os.open(folder, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _listed(folder: int, pattern: str) -> list[str]:
    """The names in a directory that fit a pattern, as a shell matches names with a dot."""
    names = [name for name in os.listdir(folder) if fnmatch.fnmatchcase(name, pattern)]
    return sorted(name for name in names if name[0] != "." or pattern[0] == ".")


def _beside(result: Path, name: str) -> str:
    """The path of a file beside a result; "" if there is none, or a link leads elsewhere."""
    path = result.parent / name
    is_there = path.name == name and path.is_file() and not path.is_symlink()
    return str(path) if is_there else ""


class Build:
    """The files of the build that job.sh has begun; those of earlier builds do not count."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.directory = Path(environment["PARTICLE_OS_OUTPUT"])
        begun = Path(environment["PARTICLE_OS_VENV"], BEGUN)
        self._begun = begun.stat().st_mtime_ns if begun.is_file() else None

    def is_new(self, path: Path) -> bool:
        """Whether this build has written a file of bounded size."""
        if path.is_symlink() or not path.is_file():
            return False
        return self._counts(path.stat())

    def _counts(self, status: os.stat_result) -> bool:
        if self._begun is None or not stat.S_ISREG(status.st_mode):
            return False
        return status.st_size < LIMIT and status.st_mtime_ns >= self._begun

    def results(self) -> list[NewFile]:
        """The results of this build by their names, also those beside images not published."""
        found = [*self._files(None, "*.result.json"), *self._files("*.failed", "*.result.json")]
        return sorted(found, key=lambda file: file.path.name)

    def rescue(self) -> None:
        """Copies the logs of a build that was killed out of its hidden directory."""
        for file in self._files(".particle-os-*", "*.log"):
            name = file.path.name.removesuffix(".log").removesuffix(".console")
            try:
                self._write(f"{name}.failed", file.path.name, file.data)
            except OSError as error:
                sys.stderr.write(f"report.py: a log of the build is not kept: {error.strerror}\n")

    def _files(self, folders: str | None, names: str) -> Iterator[NewFile]:
        """The new files in the directory, or in those of its folders whose names fit.

        This program may be root, and the directory belongs to the user of the build, whose links it
        does not follow.
        """
        if not self.directory.is_dir():
            return
        with opened(self.directory) as top:
            for folder in _listed(top, folders) if folders else [""]:
                with suppress(OSError), opened(folder or ".", top) as place:
                    for name in _listed(place, names):
                        with suppress(OSError):
                            yield from self._read(place, name, self.directory / folder / name)

    def _read(self, place: int, name: str, shown: Path) -> Iterator[NewFile]:
        """The content of a new file; nothing for any other one. Raises OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, dir_fd=place), "rb") as file:
            status = os.fstat(file.fileno())
            if self._counts(status):
                yield NewFile(shown, status.st_mtime_ns, file.read(LIMIT))

    def _write(self, folder: str, name: str, data: bytes) -> None:
        """Writes a new file, which replaces one of its name. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        new = f".{secrets.token_hex(8)}.new"
        with opened(self.directory) as top:
            with suppress(FileExistsError):
                os.mkdir(folder, 0o755, dir_fd=top)
            with opened(folder, top) as place:
                with os.fdopen(os.open(new, flags, 0o644, dir_fd=place), "wb") as file:
                    file.write(data)
                os.rename(new, name, src_dir_fd=place, dst_dir_fd=place)

    def outputs(self) -> dict[str, str]:
        """The outputs of the action that say how the build has ended."""
        found = [(file.path, json.loads(file.data)) for file in self.results()]
        images = [_beside(path, each["path"]) for path, r in found for each in r["artifacts"][:1]]
        names = [(path, path.name.removesuffix(".result.json")) for path, _ in found]
        reports = [_beside(path, f"{name}.report.html") for path, name in names]
        page = self.directory / PAGE
        return {
            "status": self._status([result["status"] for _, result in found]),
            "image": next(filter(None, images), ""),
            "report": str(page) if self.is_new(page) else next(filter(None, reports), ""),
        }

    def _status(self, of_results: Sequence[str]) -> str:
        """The status of the worst image, whose build may have ended before it wrote a result."""
        if (summary := self._summary()) is not None:
            heading = summary.partition("\n")[0]
            if of_results and not heading.startswith(SEVERAL):
                return of_results[0]
            told = heading.rpartition(": ")[2]
            if told in WITHOUT_RESULT or heading.startswith(SEVERAL):
                return told
        cancelled = self.environment.get("PARTICLE_OS_OUTCOME") == "cancelled"
        return "cancelled" if cancelled else "unknown"

    def has_reported(self) -> bool:
        """Whether the build itself has reported its end; one that was killed could not."""
        return self._summary() is not None

    def _summary(self) -> str | None:
        found = next(self._files(None, "summary.md"), None)
        return None if found is None else found.data.decode("utf-8", "replace")

    def end(self) -> ParticleError:
        """The end of a build that was killed, as an error."""
        end = InfrastructureError(
            "The build ended without a result. The log of the job has its last lines."
        )
        end.build_status = self.outputs()["status"]
        return end

    def summary(self) -> Iterator[str]:
        """The Markdown for the page of the run."""
        written = self._summary()
        yield written if written is not None else markdown.failed_build(NAME, self.end())
        # GitHub shows no picture that a summary contains.
        pictures = [*self.directory.glob("*.evidence/*/screen.png")]
        pictures += self.directory.glob("*.failed/*.evidence/*/screen.png")
        for path in sorted(filter(self.is_new, pictures)):
            place = path.relative_to(self.directory)
            yield f"\nA picture of the screen is in the artifact: `{place}`\n"


def append(file: str | None, text: str) -> None:
    """Appends to one of the runner's files."""
    if file:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(text)


def cache_key(environment: Mapping[str, str]) -> str:
    """A digest of the names in the cache; empty without any."""
    cache = Path(environment["PARTICLE_OS_CACHE"], "particle-os")
    names = [
        f"{name}/{path.name}"
        for name in KEPT
        for path in (cache / name).glob("*")
        if path.suffix not in (".lock", ".new")
    ]
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16] if names else ""


def hand_over(outputs: Mapping[str, str]) -> None:
    """Sets outputs of the step."""
    # A line break would begin another output.
    lines = [
        f"{name}={''.join(c for c in value if c.isprintable())}\n"
        for name, value in outputs.items()
    ]
    append(os.environ.get("GITHUB_OUTPUT"), "".join(lines))


def report_build() -> None:
    """Hands the end of the build over."""
    build = Build(os.environ)
    build.rescue()
    hand_over(build.outputs())
    append(os.environ.get("GITHUB_STEP_SUMMARY"), "".join(build.summary()))
    if build.has_reported():
        return
    if github.reads_us(os.environ):
        sys.stdout.write(f"{github.failed_build(NAME, build.end())}\n")
    if file := os.environ.get("PARTICLE_OS_JUNIT"):
        write_junit(Path(file), junit.failed_build(NAME, build.end()), build.directory)


def write_junit(path: Path, content: bytes, output: Path) -> None:
    """Writes a new file and renames it, so that no link of the build's user is followed.

    That user can also plant a link in the directory `output`.
    """
    inside = path.absolute().is_relative_to(output.absolute())
    if inside and not path.parent.resolve().is_relative_to(output.resolve()):
        sys.stderr.write(f"report.py: {path} is not written: a link leads out of {output}\n")
        return
    # A job that is cancelled before its build has no directory yet.
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as new:
        new.write(content)
    Path(new.name).chmod(0o644)
    Path(new.name).replace(path)


if __name__ == "__main__":
    if sys.argv[1:] == ["cache"]:
        hand_over({"cache-key": cache_key(os.environ)})
    else:
        report_build()
