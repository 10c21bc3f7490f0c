"""The protocol between the host and the agent.

The host writes JSON objects to the agent's standard input, one a line: the request, and an answer
to each `StageStart`, `PackagesNeeded` and `Frozen`. The agent writes events to its standard output,
one a line. Only `Done` means success. End of stream, silence past the deadline and a dead VM mean
failure.
The agent cuts texts to `TEXT_LIMIT` characters a field. The host refuses lines longer than
`LINE_LIMIT` bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from particle_agent.contract.architectures.record import Architecture
from particle_agent.contract.architectures.table import ARCHITECTURES
from particle_agent.contract.decode import DecodeError, decode_any, encode

PROTOCOL = 7
HEARTBEAT_SECONDS = 5.0
# Characters of a field, then bytes of lines and files.
TEXT_LIMIT = 8192
LINE_LIMIT = 65536
IMAGE_LIMIT = 1 << 20
PACKAGES_REQUEST = "/run/particle-os/packages.json"
PACKAGES_REQUEST_LIMIT = 64 << 20
# Directories for the host's files, named by their digests, and for secrets, named by keyed hashes.
ATTACHED = "/run/particle-os/attached"
HELD = "/run/particle-os/secrets"
INSPECTION = "/run/particle-os/inspection.json"
INSPECTION_LIMIT = 16 << 20
# The `CommitFacts` of the stage `ostree`, on the scratch disk.
COMMIT_FACTS_NAME = "facts.json"
COMMIT_FACTS = f"/scratch/ostree/{COMMIT_FACTS_NAME}"
COMMIT_FACTS_LIMIT = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Hello:
    """The agent's first line. It lets the host reject a stale agent before it does anything."""

    type: Literal["hello"] = "hello"
    protocol: int
    agent_sha256: str


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """A sign of life every `HEARTBEAT_SECONDS`, also while a command prints nothing."""

    type: Literal["heartbeat"] = "heartbeat"


@dataclass(frozen=True, kw_only=True)
class StageStart:
    """The stage with this index in the request begins; the guest waits for a `Continue`.

    The host gives the VM the network that the recipe allows this stage, and the secrets that the
    stage names (`HELD`). Nothing of the stages before runs any more.
    """

    type: Literal["stage-started"] = "stage-started"
    index: int


@dataclass(frozen=True, kw_only=True)
class OutputLine:
    """One line that a command of the current stage printed, without its line end."""

    type: Literal["output"] = "output"
    text: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Information for the user that is no failure."""

    type: Literal["note"] = "note"
    text: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """The time that a part of a stage took: a command, or the handling of a package by dpkg."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StageEnd:
    """The stage succeeded. The guest's clock measures `seconds`. The longest part comes first."""

    type: Literal["stage-finished"] = "stage-finished"
    index: int
    seconds: float
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The scratch disk is complete and frozen for a checkpoint, until a `Continue`.

    `index` is the index of the stage that has finished.
    """

    type: Literal["frozen"] = "frozen"
    index: int


@dataclass(frozen=True, kw_only=True)
class Continue:
    """From the host to the guest: the stage may begin, or the checkpoint is complete."""


@dataclass(frozen=True, kw_only=True)
class LayerBlob:
    """A layer of a container image: a tar archive, possibly compressed, in a blob of `size` bytes.

    `diff_id` is "sha256:" and the SHA-256 of the uncompressed archive.
    """

    size: int
    diff_id: str


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """From the host to the guest: a line that precedes the blobs of these layers, lowest first."""

    layers: tuple[LayerBlob, ...]


@dataclass(frozen=True, kw_only=True)
class BaseCommit:
    """From the host to the guest: the commit on the disk `INPUT_DISK` that becomes the base.

    The disk is a tar archive of a repository of the mode `archive`, in which `ref` names the
    commit. `key` is the public key that must have signed it, in base64.
    """

    ref: str
    checksum: str
    stateroot: str
    version: str | None
    key: str | None


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """The base has arrived: its size in bytes and its SHA-256."""

    type: Literal["unpacked"] = "unpacked"
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AptProxy:
    """A proxy for apt, under the URL that the recipient of this message reaches.

    `https` selects how apt fetches https URLs: "connect" with the usual CONNECT method, "rewrite"
    with apt-cacher-ng's http://HTTPS///HOST/PATH, "direct" without the proxy. `caches` is true for
    apt-cacher-ng, which by default accepts http on port 80 only.
    """

    url: str
    https: Literal["connect", "rewrite", "direct"]
    caches: bool


@dataclass(frozen=True, kw_only=True)
class ShellOptions:
    """The options of a shell; with `apt_indexes`, apt first fetches its indexes."""

    apt_proxy: AptProxy | None = None
    apt_indexes: bool = False


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run, which all stages share. `hostname` is the recipe's name.

    `architecture` is Debian's name of the image's architecture. With `source_date` (seconds since
    1970) the image is reproducible. With `checkpoints` the agent waits after each stage except the
    last (`Frozen`). With `verify` it verifies the disk that the last stage has written. With
    `plain` the agent takes no shortcuts (docs/shortcuts.md).
    """

    hostname: str
    source_date: int | None = None
    plain: bool = False
    apt_proxy: AptProxy | None = None
    checkpoints: bool = False
    verify: bool = False
    architecture: str = "amd64"

    @property
    def record(self) -> Architecture:
        """The architecture of the image. Raises DecodeError for an unknown one."""
        if (found := ARCHITECTURES.get(self.architecture)) is None:
            raise DecodeError(f"options: unknown architecture {self.architecture!r}")
        return found


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """A file of the target. `content` is base64."""

    path: str
    content: str


@dataclass(frozen=True, kw_only=True)
class AptSetting:
    """One value of apt's configuration (apt.conf(5))."""

    key: str
    value: str


@dataclass(frozen=True, kw_only=True)
class PackageRequest:
    """The input of apt's selection of packages: the installed packages, and apt's files.

    The host knows from the recipe what to install. `architectures` begins with the native
    architecture; an empty tuple means the native architecture only.
    """

    status: FileContent
    architectures: tuple[str, ...]
    sources: tuple[FileContent, ...]
    preferences: tuple[FileContent, ...]
    keyrings: tuple[FileContent, ...]
    settings: tuple[AptSetting, ...]


@dataclass(frozen=True, kw_only=True)
class PackagesNeeded:
    """The guest waits for a `PackagesAnswer` to the request in the file `PACKAGES_REQUEST`."""

    type: Literal["packages-needed"] = "packages-needed"


@dataclass(frozen=True, kw_only=True)
class PackagesAnswer:
    """From the host to the guest: the disk of packages is written, or the reason why it is not."""

    refused: str | None = None


# The serial number of a disk with a file from the host that is too large for the VM's memory.
INPUT_DISK = "input"
# The disks that receive results: the image, or the archive of a system; an OSTree repository; the
# public key of its signatures; a static delta; a container image; and, for the test of an update, a
# disk with the parent's system and one with the repository. They are the serial numbers of the
# disks, too.
OutputName = Literal["output", "repository", "key", "delta", "oci-archive", "parent", "update"]


@dataclass(frozen=True, kw_only=True)
class DiskNeeded:
    """The guest waits until the host has grown an output disk to `size` bytes.

    The guest will write about `content` bytes; the rest stays sparse.
    """

    type: Literal["disk-needed"] = "disk-needed"
    size: int
    content: int
    disk: OutputName = "output"


@dataclass(frozen=True, kw_only=True)
class DiskWritten:
    """An output disk is complete in its first `size` bytes. The guest writes no more to it."""

    type: Literal["disk-written"] = "disk-written"
    size: int
    disk: OutputName = "output"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A defect of the verified disk.

    `code` is a key of `contract.findings`, `place` a partition or a file, and `message` describes
    the defect.
    """

    type: Literal["finding"] = "finding"
    code: str
    place: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The verification of the disk is complete, in `seconds`. All findings came before."""

    type: Literal["verified"] = "verified"
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The end, without success.

    `kind` names the cause: a stage, the infrastructure, or an internal error. `index` is the index
    of the failed stage. `tail` holds the last lines of output.
    """

    type: Literal["failed"] = "failed"
    kind: Literal["stage", "infrastructure", "internal"]
    index: int | None
    message: str
    hint: str | None
    tail: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Done:
    """The end, with success."""

    type: Literal["done"] = "done"


AgentEvent = (
    Hello
    | Heartbeat
    | StageStart
    | OutputLine
    | Notice
    | StageEnd
    | Frozen
    | Unpacked
    | PackagesNeeded
    | DiskNeeded
    | DiskWritten
    | Finding
    | Verified
    | Failed
    | Done
)
EVENTS: tuple[type, ...] = get_args(AgentEvent)
HostAnswer = PackagesAnswer | Continue


def to_line(event: AgentEvent) -> str:
    """The event as one line of ASCII JSON, including the line feed."""
    return json.dumps(encode(event), ensure_ascii=True) + "\n"


def from_line(line: bytes) -> Any:
    """The event in a line. Raises DecodeError unless the line holds exactly one event."""
    if len(line) > LINE_LIMIT:
        raise DecodeError(f"a line of {len(line)} bytes; the limit is {LINE_LIMIT}")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON: {line[:80]!r}") from error
    return decode_any(EVENTS, value, "event")
