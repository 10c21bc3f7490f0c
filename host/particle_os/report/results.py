"""The results of builds and of single stages, as data (`NAME.result.json`)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import pydantic
from particle_agent.contract.decode import encode
from particle_agent.contract.inspection import CommitFacts
from particle_agent.stages.output.qemu import Format

from particle_os.boot.observation.verdict import Verdict
from particle_os.egress.record import Hosts
from particle_os.errors import ErrorStatus, printable
from particle_os.records import AptProxyResult, Record
from particle_os.sandbox.verification import Verification
from particle_os.system.regular_file import read_regular
from particle_os.vm.traffic import Traffic

# The endings of the other files of a build; the result is published last.
ENDINGS = ("report.html", "log", "console.log", "result.json")
# Bytes; the result of a build is far smaller.
RESULT_LIMIT = 64 << 20
NAME_CHARACTERS = 500
# The seconds that a time may be in the future, because a clock was set back a little.
CLOCK_SLACK = 300.0

BuildStatus = Literal["passed", "not-tested", "not-booted"] | ErrorStatus


class StageResult(Record):
    """One stage; `seconds` by the guest's clock, those of a failed stage by the host's.

    `parts` has the seconds of the slowest commands and packages. A part may contain another part,
    and parts may have run at the same time.
    """

    index: int
    type: str
    # The stage's name in the recipe.
    name: str | None = None
    status: Literal["done", "failed", "not-run"]
    seconds: float | None = None
    cached: bool = False
    # The time at which the stage ended, in this build or an earlier one; seconds since 1970.
    done_at: float | None = None
    parts: dict[str, float] = pydantic.Field(default_factory=dict)
    # What the VM has reached while the stage ran in this build; None if it did not run.
    network: Traffic | None = None
    # What it has asked its proxy for; None for a stage without a list of hosts.
    hosts: Hosts | None = None


ArtifactFormat = Format | Literal["ostree-repository", "gpg-key", "ostree-delta", "oci-archive"]


class ArtifactResult(Record):
    """One image file; `bytes` is its length, `allocated_bytes` its size on the disk.

    `tree_sha256` is `system.checksum.tree_sha256`, which does not read holes.
    """

    path: str
    format: ArtifactFormat
    # The compression of the whole file; None for a plain image.
    compression: Literal["zstd"] | None = None
    bytes: int
    virtual_bytes: int
    allocated_bytes: int
    sha256: str
    tree_sha256: str

    @property
    def is_image(self) -> bool:
        """Whether it is the image of a disk, and not a file beside the images."""
        return self.format in get_args(Format)


class HelperResult(Record):
    """The VM that the stages ran in."""

    template: str
    key: str
    qemu: str
    accelerator: Literal["kvm", "tcg"]
    acceleration_reason: str
    security_note: str | None
    # The version of Landlock that confined QEMU and the other programs; 0 without Landlock.
    landlock: int = 0


class PackageResult(Record):
    """A package that differs from the parent's; None where there is no such package."""

    name: str
    before: str | None
    after: str | None


class FilesResult(Record):
    """The files that differ from the parent's: their numbers, and the names of the first ones."""

    added: int
    changed: int
    removed: int
    names: tuple[str, ...]


class CommitResult(Record):
    """The commit of the stage `ostree`; its texts are untrusted, and therefore escaped.

    `signer` is the fingerprint of the key that has signed it. `packages` has the first ones of
    `packages_total`. `files` is None for a commit without a parent.
    """

    ref: str
    checksum: str
    parent: str | None
    version: str | None
    signer: str | None
    packages: tuple[PackageResult, ...]
    packages_total: int
    files: FilesResult | None

    @classmethod
    def of(cls, facts: CommitFacts) -> CommitResult:
        """The facts of the agent, with printable texts."""
        return cls.model_validate(_printable(encode(facts)))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, NAME_CHARACTERS)
    if isinstance(value, list):
        return tuple(map(_printable, value))
    if isinstance(value, dict):
        return {key.replace("-", "_"): _printable(item) for key, item in value.items()}
    return value


class ContainerLayerResult(Record):
    """A layer of a container image; `diff_id` is the digest of the uncompressed archive."""

    digest: str
    diff_id: str
    bytes: int


class ContainerResult(Record):
    """A published container image; its labels are untrusted, and therefore escaped.

    `digest` is that of its manifest, by which registries know it.
    """

    digest: str
    layers: tuple[ContainerLayerResult, ...]
    labels: dict[str, str]


class Result(Record):
    """Everything about one build. `version` grows when a field changes its meaning."""

    version: Literal[1] = 1
    particle_os: str
    status: BuildStatus
    # A digest of everything that the images depend on, except for data from the network.
    build_key: str
    # Seconds since 1970.
    created: float
    recipe: str
    # The digests of the recipe's file and of the included files, by the path from the recipe.
    recipe_sha256: str
    included_sha256: dict[str, str] = pydantic.Field(default_factory=dict)
    base: str
    base_digest: str
    # For a commit of OSTree: whether it has a good signature of the key that the recipe names.
    base_signature: Literal["good", "not-checked", "none"] | None = None
    architecture: str
    # The latest time in a reproducible image, in seconds since 1970.
    source_date: int | None = None
    # Whether it was built without shortcuts.
    plain: bool = False
    # Whether no result of an earlier build was used, with --no-cache.
    no_cache: bool = False
    helper: HelperResult
    apt_proxy: AptProxyResult | None = None
    stages: tuple[StageResult, ...]
    artifacts: tuple[ArtifactResult, ...]
    # The commit of the stage `ostree`, or of the base.
    commit: CommitResult | None = None
    # The container image of the same system.
    container: ContainerResult | None = None
    # The findings in the disk before its conversion and boot.
    verification: Verification | None = None
    boot: tuple[Verdict, ...]
    # Seconds by the host's clock.
    phases: dict[str, float]
    # When each phase started, in seconds since the first one did.
    phase_starts: dict[str, float] = pydantic.Field(default_factory=dict)
    # The peak memory of the controller, without QEMU.
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
        """The seconds since the earliest end of a stage that reads the network; 0 without one.

        `stages` says for each stage whether it reads the network.
        """
        pairs = zip(self.stages, stages, strict=True)
        done = [stage.done_at or self.created for stage, network in pairs if network]
        ages = [time.time() - at for at in done]
        # What has a time in the future would never be too old.
        return math.inf if any(age < -CLOCK_SLACK for age in ages) else max(ages, default=0.0)


class ArchiveResult(Record):
    """A root file system as a tar archive."""

    path: str
    bytes: int
    sha256: str


class SingleResult(Record):
    """Everything about one stage that ran alone; `version` as in `Result`."""

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


def read_result(path: Path) -> Result:
    """Reads a result, through no link.

    Raises OSError, and pydantic.ValidationError when the file holds none.
    """
    return Result.model_validate_json(read_regular(path, RESULT_LIMIT, follow=False))
