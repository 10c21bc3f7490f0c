"""Hands the end of a build over to a workflow: outputs, summary, and the evidence of a kill.

usage: report.py build|cache

The environment is that of job.sh, with what the runner sets: GITHUB_OUTPUT and GITHUB_STEP_SUMMARY.

The outputs are lines NAME=VALUE. `status` is that of NAME.result.json, or that of the summary of a
build that ended earlier. Without both it is `cancelled` if the job was, else `unknown`. `image` is
the first image, and `report` the page for people, both also in NAME.failed. `report.py cache` adds
`cache-key`, a digest of the content of the cache.

A build that was killed has written neither its JUnit file nor an annotation: this program does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from particle_os.errors import InfrastructureError, ParticleError
from particle_os.report.ci import github, junit, markdown

# The name of a build that was killed before it knew the name of its image.
NAME = "particle-os"
LIMIT = 64 << 20
# job.sh makes this file in PARTICLE_OS_VENV when the build begins.
BEGUN = "build.pid"
# How a build can end before it has a result, as the heading of its summary says.
WITHOUT_RESULT = ("failed", "infrastructure", "cancelled")
# The directories of the cache with content that stays the same under its name.
KEPT = ("helpers", "bases", "packages", "downloads", "apt")


class Build:
    """The files of the build that job.sh has begun; those of earlier builds do not count."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.directory = Path(environment["PARTICLE_OS_OUTPUT"])
        begun = Path(environment["PARTICLE_OS_VENV"], BEGUN)
        self._begun = begun.stat().st_mtime_ns if begun.is_file() else None

    def is_new(self, path: Path) -> bool:
        """Whether this build has written a file of bounded size."""
        if self._begun is None or path.is_symlink() or not path.is_file():
            return False
        found = path.stat()
        return found.st_size < LIMIT and found.st_mtime_ns >= self._begun

    def result(self) -> Path | None:
        """The result of this build, which may be beside an image that is not published."""
        found = [
            *self.directory.glob("*.result.json"),
            *self.directory.glob("*.failed/*.result.json"),
        ]
        newest = sorted(filter(self.is_new, found), key=lambda path: path.stat().st_mtime_ns)
        return newest[-1] if newest else None

    def rescue(self) -> None:
        """Copies the logs of a build that was killed out of its hidden directory."""
        for hidden in self.directory.glob(".particle-os-*/"):
            for path in hidden.glob("*.log"):
                if self.is_new(path):
                    name = path.name.removesuffix(".log").removesuffix(".console")
                    place = self.directory / f"{name}.failed"
                    place.mkdir(exist_ok=True)
                    shutil.copyfile(path, place / path.name)

    def outputs(self) -> dict[str, str]:
        """The outputs of the action that say how the build has ended."""
        path = self.result()
        if path is None:
            return {"status": self._status(), "image": "", "report": ""}
        result = json.loads(path.read_text())
        report = path.with_name(path.name.removesuffix(".result.json") + ".report.html")
        image = next((artifact["path"] for artifact in result["artifacts"]), None)
        there = image is not None and (path.parent / image).is_file()
        return {
            "status": result["status"],
            "image": str(path.parent / image) if there else "",
            "report": str(report) if report.is_file() else "",
        }

    def _status(self) -> str:
        """The status of a build that ended before it could write a result."""
        summary = self.directory / "summary.md"
        if self.has_reported():
            told = summary.read_text().partition("\n")[0].rpartition(": ")[2]
            if told in WITHOUT_RESULT:
                return told
        cancelled = self.environment.get("PARTICLE_OS_OUTCOME") == "cancelled"
        return "cancelled" if cancelled else "unknown"

    def has_reported(self) -> bool:
        """Whether the build itself has reported its end; one that was killed could not."""
        return self.is_new(self.directory / "summary.md")

    def end(self) -> ParticleError:
        """The end of a build that was killed, as an error."""
        end = InfrastructureError(
            "The build ended without a result. The log of the job has its last lines."
        )
        end.build_status = self.outputs()["status"]
        return end

    def summary(self) -> Iterator[str]:
        """The Markdown for the page of the run."""
        written = self.directory / "summary.md"
        yield (
            written.read_text() if self.has_reported() else markdown.failed_build(NAME, self.end())
        )
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
        write_junit(Path(file), junit.failed_build(NAME, build.end()))


def write_junit(path: Path, content: bytes) -> None:
    """Writes a new file beside, so that no link of the build's user is followed."""
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
