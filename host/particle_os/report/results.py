"""The result of a build, as data (`NAME.result.json`) and as a table for people."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pydantic
from particle_agent.stages.output.qemu import Format

from particle_os.boot.verdict import Verdict
from particle_os.records import AptProxyResult, Record
from particle_os.sandbox.verification import Verification

# The endings of the other files of a build; the result is published last.
ENDINGS = ("report.html", "log", "console.log", "result.json")

BuildStatus = Literal["passed", "not-tested", "not-booted", "defective", "failed"]


class StageResult(Record):
    """One stage; `seconds` by the guest's clock.

    `parts` are the commands and packages that took longest, in seconds; they contain each other,
    and some ran side by side.
    """

    index: int
    type: str
    # As the recipe calls it.
    name: str | None = None
    status: Literal["done", "failed", "not-run"]
    seconds: float | None = None
    cached: bool = False
    # When it was done, by this build or the one whose checkpoint this one stands on; since 1970.
    done_at: float | None = None
    parts: dict[str, float] = pydantic.Field(default_factory=dict)


class ArtifactResult(Record):
    """One image file; `bytes` is what it seems, `allocated_bytes` what it takes on the disk.

    `tree_sha256` is the checksum of system/checksum.py, which does not read holes.
    """

    path: str
    format: Format
    # What the file must be decompressed with before it is an image.
    compression: Literal["zstd"] | None = None
    bytes: int
    virtual_bytes: int
    allocated_bytes: int
    sha256: str
    tree_sha256: str


class HelperResult(Record):
    """The VM that the stages ran in."""

    template: str
    key: str
    qemu: str
    accelerator: Literal["kvm", "tcg"]
    acceleration_reason: str
    security_note: str | None


class Result(Record):
    """Everything about one build. `version` grows when a field changes its meaning."""

    version: Literal[1] = 1
    particle_os: str
    status: BuildStatus
    # Names all that the images depend on, but for what the network had to give.
    build_key: str
    # Seconds since 1970.
    created: float
    recipe: str
    # Of the recipe's own file, and of those that it includes, by their paths as seen from it.
    recipe_sha256: str
    included_sha256: dict[str, str] = pydantic.Field(default_factory=dict)
    base: str
    base_digest: str
    architecture: str
    # The time that nothing in a reproducible image exceeds, in seconds since 1970.
    source_date: int | None = None
    # Whether it was built without shortcuts.
    plain: bool = False
    helper: HelperResult
    apt_proxy: AptProxyResult | None = None
    stages: tuple[StageResult, ...]
    artifacts: tuple[ArtifactResult, ...]
    # What was found wrong with the disk before it was converted and booted.
    verification: Verification | None = None
    boot: tuple[Verdict, ...]
    # Seconds by the host's clock.
    phases: dict[str, float]
    # The most memory that the controller itself took, without QEMU.
    controller_peak_rss_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the images are published, not kept as evidence of a failure."""
        return self.status not in ("not-booted", "defective")

    def files(self, directory: Path) -> list[Path]:
        """The images and the other files of the build in `directory`."""
        names = [artifact.path for artifact in self.artifacts]
        names += [f"{self.recipe}.{ending}" for ending in ENDINGS]
        return [directory / name for name in names]

    def network_age(self, stages: Iterable[bool]) -> float:
        """Seconds since the first stage was done of those that read the network, as `stages` tells.

        0 when there is none.
        """
        pairs = zip(self.stages, stages, strict=True)
        done = [stage.done_at or self.created for stage, network in pairs if network]
        return max((time.time() - at for at in done), default=0.0)


class ArchiveResult(Record):
    """A root file system as a tar archive."""

    path: str
    bytes: int
    sha256: str


class SingleResult(Record):
    """Everything about one stage that was run alone. `version` as in `Result`."""

    version: Literal[1] = 1
    particle_os: str
    stage: StageResult
    options_sha256: str
    base: str
    base_digest: str
    helper: HelperResult
    apt_proxy: AptProxyResult | None = None
    archive: ArchiveResult | None
    phases: dict[str, float]
    notes: tuple[str, ...] = ()
