"""What the host and the agent say to each other.

The host writes JSON objects to the agent's standard input, one a line: the request, and an answer
to each `PackagesNeeded` and `Frozen`. The agent writes events to its standard output, one a line.
Only a received `Done` is success: end of stream, silence past the deadline or a dead VM is failure.
Text from the guest is cut to `TEXT_LIMIT` characters a field; a longer line is refused by the host.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from particle_agent.contract.decode import DecodeError, decode_any, encode

PROTOCOL = 5
HEARTBEAT_SECONDS = 5.0
TEXT_LIMIT = 8192
LINE_LIMIT = 65536
IMAGE_LIMIT = 1 << 20
PACKAGES_REQUEST = "/run/particle-os/packages.json"
PACKAGES_REQUEST_LIMIT = 64 << 20
# Files of the host, named by their digest; and secrets, by their keyed hash.
ATTACHED = "/run/particle-os/attached"
HELD = "/run/particle-os/secrets"
INSPECTION = "/run/particle-os/inspection.json"
INSPECTION_LIMIT = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Hello:
    """First line: who speaks, so that a stale agent is noticed before it does anything."""

    type: Literal["hello"] = "hello"
    protocol: int
    agent_sha256: str


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """Sent every `HEARTBEAT_SECONDS`, however long a command is silent."""

    type: Literal["heartbeat"] = "heartbeat"


@dataclass(frozen=True, kw_only=True)
class StageStart:
    """The stage with this index in the request begins."""

    type: Literal["stage-started"] = "stage-started"
    index: int


@dataclass(frozen=True, kw_only=True)
class OutputLine:
    """One line that a command of the current stage printed, without its line end."""

    type: Literal["output"] = "output"
    text: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something the user should know of, although nothing failed."""

    type: Literal["note"] = "note"
    text: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a stage, a command or a package, that took so many seconds."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StageEnd:
    """The stage succeeded; `seconds` by the guest's clock, the longest of its parts first."""

    type: Literal["stage-finished"] = "stage-finished"
    index: int
    seconds: float
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The scratch disk is complete and stands still until a `Continue`, for a checkpoint.

    `index` is that of the stage that has finished.
    """

    type: Literal["frozen"] = "frozen"
    index: int


@dataclass(frozen=True, kw_only=True)
class Continue:
    """The checkpoint is made; from the host to the guest."""


@dataclass(frozen=True, kw_only=True)
class LayerBlob:
    """A layer of a container image: a blob of `size` bytes, a tar archive, maybe compressed.

    `diff_id` is "sha256:" and the SHA-256 of the archive itself.
    """

    size: int
    diff_id: str


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """A line from the host to the guest, before the blobs of these layers, the lowest first."""

    layers: tuple[LayerBlob, ...]


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """The base arrived: so many bytes, with this SHA-256."""

    type: Literal["unpacked"] = "unpacked"
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AptProxy:
    """A proxy for apt: its URL as the reader of this reaches it, and how it takes https.

    "connect" is what proxies usually do, "rewrite" apt-cacher-ng's http://HTTPS///HOST/PATH;
    "direct" goes without it. `caches` tells apt-cacher-ng, which takes http on port 80 alone
    unless it is told otherwise.
    """

    url: str
    https: Literal["connect", "rewrite", "direct"]
    caches: bool


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How stages are run: the recipe's name, and what the stages share.

    With `source_date` (seconds since 1970) the image is to be reproducible. With `checkpoints` the
    agent waits after each stage but the last (`Frozen`), with `verify` it verifies the disk that
    the last one has written.
    """

    hostname: str
    source_date: int | None = None
    apt_proxy: AptProxy | None = None
    checkpoints: bool = False
    verify: bool = False


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """A file of the target; `content` is base64."""

    path: str
    content: str


@dataclass(frozen=True, kw_only=True)
class AptSetting:
    """One value of apt's configuration; see apt.conf(5)."""

    key: str
    value: str


@dataclass(frozen=True, kw_only=True)
class PackageRequest:
    """What decides which packages are taken: those that are there, and apt's files.

    What is to be installed the host knows from the recipe. `architectures` names the native one
    first; empty means the native one alone.
    """

    status: FileContent
    architectures: tuple[str, ...]
    sources: tuple[FileContent, ...]
    preferences: tuple[FileContent, ...]
    keyrings: tuple[FileContent, ...]
    settings: tuple[AptSetting, ...]


@dataclass(frozen=True, kw_only=True)
class PackagesNeeded:
    """The guest waits for a `PackagesAnswer` to the request in the file PACKAGES_REQUEST."""

    type: Literal["packages-needed"] = "packages-needed"


@dataclass(frozen=True, kw_only=True)
class PackagesAnswer:
    """The disk of packages is written, or the host cannot help; from the host to the guest."""

    refused: str | None = None


@dataclass(frozen=True, kw_only=True)
class DiskNeeded:
    """The guest waits until the host has grown the output disk to `size` bytes.

    About `content` bytes of it will be written; the rest stays sparse.
    """

    type: Literal["disk-needed"] = "disk-needed"
    size: int
    content: int


@dataclass(frozen=True, kw_only=True)
class DiskWritten:
    """The output disk is complete: its first `size` bytes, which nobody writes from here on."""

    type: Literal["disk-written"] = "disk-written"
    size: int


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something is wrong with a disk that is verified: `code` tells what (`verification.findings`),
    `place` where, and `message` how it shows."""

    type: Literal["finding"] = "finding"
    code: str
    place: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The disk has been looked at, in so many seconds; all findings have been told."""

    type: Literal["verified"] = "verified"
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The end, without success. `kind` tells whose fault it is; `index` is the stage's."""

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
    """The event as one line of ASCII JSON, with its end of line."""
    return json.dumps(encode(event), ensure_ascii=True) + "\n"


def from_line(line: bytes) -> Any:
    """The event in a line. Raises DecodeError for anything that is not exactly one."""
    if len(line) > LINE_LIMIT:
        raise DecodeError(f"a line of {len(line)} bytes; the limit is {LINE_LIMIT}")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON: {line[:80]!r}") from error
    return decode_any(EVENTS, value, "event")
