"""What must hold in a booted image: one class a kind of check.

A check asks by programs that run in the image, given as argument lists, and judges what they
printed. The image is not believed to print little, or text: replies are bounded by the probe, and
regular expressions are those of Rust's regex crate, whose time is linear in the text.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import pydantic_core
from particle_agent.contract.options import AtLeastOne, Between, Options, Text, kebab_case
from particle_agent.contract.values import (
    AbsolutePath,
    Argument,
    FileMode,
    LocaleName,
    PackageName,
    UnitName,
    ZoneName,
    bytes_of,
)
from pydantic_core import PydanticCustomError, SchemaValidator, core_schema

CONTENT_BYTES = 65536
QUESTION_SECONDS = 30
# /proc/net/tcp: the state TCP_LISTEN, and for udp that of a socket that is not connected.
LISTENING = {"tcp": "0A", "udp": "07"}


@functools.cache
def _expression(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern))


def _compiles(pattern: str) -> str:
    try:
        _expression(pattern)
    except pydantic_core.SchemaError:
        raise PydanticCustomError(
            "not_accepted",
            "expected {what}",
            {"what": "a regular expression without look-around and back-references"},
        ) from None
    return pattern


Expression = Annotated[str, pydantic.AfterValidator(_compiles)]
MemorySize = Annotated[
    str, Text("a size in M or G (powers of 1024) such as '512M' or '2G'", r"[1-9][0-9]{0,6}[MG]")
]
PortNumber = Annotated[int, Between(1, 65535)]
WebPath = Annotated[str, Text("a path such as '/' or '/health?full=1'", r"/[!-~]*", 2048)]
Word = Annotated[
    str, Text("a word without spaces and control characters", r"[^\x00-\x20\x7f]+", 2048)
]
# What may be in an image, not only what stages make: Debian-exim, first.last, libc6:amd64.list.
# getent(1) and id(1) take a number for an id.
AccountName = Annotated[
    str,
    Text(
        "the name of a user or group: no number, and without spaces, ':', '/', control characters, "
        "or '+' or '-' at its start",
        r"([^\x00-\x20\x7f:/0-9+-]|[0-9]+[^\x00-\x20\x7f:/0-9])[^\x00-\x20\x7f:/]*",
    ),
]
ImagePath = Annotated[
    str,
    Text(
        "an absolute path without parts '.' and '..', control characters, or '/' at its end",
        r"(/([^./\x00-\x1f\x7f]|\.[^./\x00-\x1f\x7f]|\.\.[^/\x00-\x1f\x7f])[^/\x00-\x1f\x7f]*)+|/",
        4096,
    ),
]


@dataclass(frozen=True)
class Reply:
    """How a program ended in the image, and what it printed; untrusted.

    `status` is None when it took too long, and was ended.
    """

    status: int | None
    output: str

    @property
    def text(self) -> str:
        return self.output.strip()


NO_REPLY = Reply(-1, "")


@dataclass(frozen=True)
class Finding:
    """Whether a check holds, and what was found instead or as a proof."""

    holds: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class _Check(Options):
    kind: ClassVar[str]
    seconds: ClassVar[int] = QUESTION_SECONDS

    @property
    def name(self) -> str:
        """How the check is called in a result: its kind and what it is about."""
        return f"{self.kind} {getattr(self, self.kind.replace('-', '_'))}"

    def asks(self) -> tuple[tuple[str, ...], ...]:
        """The programs, with their arguments, that run in the image."""
        return ()

    def judge(self, replies: Sequence[Reply]) -> Finding:
        """What the replies to `asks`, in that order, mean."""
        return Finding(True, "")


def _content(text: str, contains: str | None, matches: str | None) -> Finding:
    """Whether a text has what it must; both may be asked for."""
    shown = text.strip()[:200] or "nothing"
    if contains is not None and contains not in text:
        return Finding(False, f"'{contains}' is not in: {shown}")
    if matches is not None and not _matches(matches, text):
        return Finding(False, f"'{matches}' does not match: {shown}")
    return Finding(True, shown)


def _matches(pattern: str, text: str) -> bool:
    """Whether a pattern matches somewhere; the newline at the end is no part of the text."""
    try:
        _expression(pattern).validate_python(text.removesuffix("\n"))
    except pydantic_core.ValidationError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class UnitCheck(_Check):
    """A systemd unit is active."""

    kind = "unit"
    unit: UnitName
    """The unit's name."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("systemctl", "is-active", "--", self.unit),)

    def judge(self, replies: Sequence[Reply]) -> Finding:
        state = replies[0].text or "unknown"
        return Finding(state == "active", f"{self.unit} is {state}")


@dataclass(frozen=True, kw_only=True)
class CommandCheck(_Check):
    """A program ends as it should. It runs as root, without a shell and without input."""

    kind = "command"
    command: Annotated[tuple[Argument, ...], AtLeastOne()]
    """The program and its arguments."""
    exit: Annotated[int, Between(0, 255)] = 0
    """The status that it must end with."""
    contains: str | None = None
    """A text that must be in the first 64 KiB of what it prints."""
    matches: Expression | None = None
    """A regular expression that must match somewhere in it."""
    timeout: Annotated[int, Between(1, 600)] = QUESTION_SECONDS
    """The seconds that it may take."""

    @property
    def name(self) -> str:
        return f"command {' '.join(self.command)}"[:100]

    @property
    def seconds(self) -> int:  # type: ignore[override]
        return self.timeout

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (self.command,)

    def judge(self, replies: Sequence[Reply]) -> Finding:
        reply = replies[0]
        if reply.status != self.exit:
            what = (
                f"took longer than {self.timeout} s"
                if reply.status is None
                else f"ended with {reply.status}, not {self.exit}"
            )
            return Finding(False, f"it {what}: {reply.text[-1000:] or 'no output'}")
        return _content(reply.output, self.contains, self.matches)


@dataclass(frozen=True, kw_only=True)
class FileCheck(_Check):
    """A file, directory or link is there, and is as it should be."""

    kind = "file"
    file: ImagePath
    """The path; a symbolic link is followed."""
    exists: bool = True
    """Whether it must be there, or must not."""
    mode: FileMode | None = None
    """Its mode, in quotes."""
    owner: AccountName | None = None
    """The user that it belongs to."""
    group: AccountName | None = None
    """The group that it belongs to."""
    contains: str | None = None
    """A text that must be in its first 64 KiB."""
    matches: Expression | None = None
    """A regular expression that must match somewhere in them."""

    def __post_init__(self) -> None:
        about = (self.mode, self.owner, self.group, self.contains, self.matches)
        if not self.exists and any(each is not None for each in about):
            raise ValueError(f"{self.file}: of what must not exist nothing else can be said")

    def asks(self) -> tuple[tuple[str, ...], ...]:
        about = ("stat", "--dereference", "--format=%a %U %G", "--", self.file)
        content = ("head", f"--bytes={CONTENT_BYTES}", "--", self.file)
        wanted = self.contains is not None or self.matches is not None
        return (about, content) if wanted else (about,)

    def judge(self, replies: Sequence[Reply]) -> Finding:
        there = replies[0].status == 0
        # stat(1) ends with 1 and says which file is missing; timeout(1) says otherwise.
        if not there and replies[0].status != 1:
            return Finding(False, f"it cannot be looked at: {replies[0].text[-200:]}")
        if there != self.exists:
            return Finding(False, "it is there" if there else f"it is not there: {replies[0].text}")
        if not there:
            return Finding(True, "it is not there")
        mode, owner, group = (*replies[0].text.split(), "", "", "")[:3]
        if self.mode is not None and int(self.mode, 8) != int(mode or "0", 8):
            return Finding(False, f"its mode is {mode}, not {self.mode}")
        for what, wanted, found in (("owner", self.owner, owner), ("group", self.group, group)):
            if wanted is not None and wanted != found:
                return Finding(False, f"its {what} is {found}, not {wanted}")
        if len(replies) == 1:
            return Finding(True, f"{mode} {owner} {group}")
        if replies[1].status != 0:
            return Finding(False, f"it cannot be read: {replies[1].text[-200:]}")
        return _content(replies[1].output, self.contains, self.matches)


@dataclass(frozen=True, kw_only=True)
class PackageCheck(_Check):
    """A Debian package is installed."""

    kind = "package"
    package: PackageName
    """Its name."""
    version: Word | None = None
    """Its exact version."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        shown = "--showformat=${db:Status-Status} ${Version}"
        return (("dpkg-query", "--show", shown, "--", self.package),)

    def judge(self, replies: Sequence[Reply]) -> Finding:
        state, _, version = replies[0].text.partition(" ")
        if replies[0].status != 0 or state != "installed":
            return Finding(False, "it is not installed")
        if self.version not in (None, version):
            return Finding(False, f"its version is {version}, not {self.version}")
        return Finding(True, f"version {version}")


@dataclass(frozen=True, kw_only=True)
class UserCheck(_Check):
    """An account exists."""

    kind = "user"
    user: AccountName
    """Its name."""
    groups: tuple[AccountName, ...] = ()
    """Groups that it must be in."""
    shell: AbsolutePath | None = None
    """Its login shell."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("getent", "--", "passwd", self.user), ("id", "-Gn", "--", self.user))

    def judge(self, replies: Sequence[Reply]) -> Finding:
        fields = replies[0].text.split(":")
        if replies[0].status != 0 or len(fields) != 7:
            return Finding(False, "there is no such user")
        groups = replies[1].text.split()
        if missing := [group for group in self.groups if group not in groups]:
            return Finding(False, f"it is not in {', '.join(missing)}")
        if self.shell not in (None, fields[6]):
            return Finding(False, f"its shell is {fields[6]}, not {self.shell}")
        return Finding(True, f"uid {fields[2]}, shell {fields[6]}, groups {' '.join(groups)}")


@dataclass(frozen=True, kw_only=True)
class PortCheck(_Check):
    """Something listens on a port."""

    kind = "port"
    port: PortNumber
    """The port."""
    protocol: Literal["tcp", "udp"] = "tcp"
    """The protocol."""
    reachable: bool = False
    """Whether the host must be able to connect to it (TCP)."""

    def __post_init__(self) -> None:
        if self.reachable and self.protocol == "udp":
            raise ValueError(f"port {self.port}: 'reachable' is for TCP only")

    @property
    def name(self) -> str:
        return f"port {self.port}/{self.protocol}"

    def asks(self) -> tuple[tuple[str, ...], ...]:
        tables = (f"/proc/net/{self.protocol}", f"/proc/net/{self.protocol}6")
        return tuple(("head", f"--bytes={CONTENT_BYTES}", "--", table) for table in tables)

    def judge(self, replies: Sequence[Reply]) -> Finding:
        state = LISTENING[self.protocol]
        listening = re.compile(
            rf"^ *\d+: [0-9A-F]+:{self.port:04X} [0-9A-F]+:0000 {state} ", re.MULTILINE
        )
        holds = any(listening.search(reply.output) for reply in replies)
        return Finding(holds, "something listens" if holds else "nothing listens there")


@dataclass(frozen=True, kw_only=True)
class HttpCheck(_Check):
    """The host gets an answer over HTTP."""

    kind = "http"
    http: WebPath
    """The path that is asked for."""
    port: PortNumber = 80
    """The port of the image."""
    status: Annotated[int, Between(100, 599)] = 200
    """The status that must come."""
    contains: str | None = None
    """A text that must be in the first 64 KiB of the body."""
    matches: Expression | None = None
    """A regular expression that must match somewhere in them."""

    @property
    def name(self) -> str:
        return f"http :{self.port}{self.http}"

    def judge_response(self, status: int, body: str) -> Finding:
        """What the server's answer means."""
        if status != self.status:
            return Finding(False, f"status {status}, not {self.status}: {body.strip()[:200]}")
        return _content(body, self.contains, self.matches)


@dataclass(frozen=True, kw_only=True)
class MountCheck(_Check):
    """A file system is mounted."""

    kind = "mount"
    mount: ImagePath
    """Where."""
    type: Word | None = None
    """The file system's type."""
    options: tuple[Word, ...] = ()
    """Mount options that must be among those in force."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("head", f"--bytes={CONTENT_BYTES}", "/proc/self/mounts"),)

    def judge(self, replies: Sequence[Reply]) -> Finding:
        lines = replies[0].output.split("\n")
        mounts = [list(map(_unescaped, line.split(" "))) for line in lines]
        here = [fields for fields in mounts if len(fields) >= 4 and fields[1] == self.mount]
        if not here:
            return Finding(False, "nothing is mounted there")
        # What was mounted last hides what is below.
        kind, options = here[-1][2], here[-1][3].split(",")
        found = f"{kind} with {','.join(options)}"
        if self.type not in (None, kind):
            return Finding(False, f"it is {found}, not {self.type}")
        if missing := [option for option in self.options if option not in options]:
            return Finding(False, f"it is {found}, without {','.join(missing)}")
        return Finding(True, found)


def _unescaped(field: str) -> str:
    """A field of /proc/self/mounts, where a space is \\040, and a backslash \\134."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


@dataclass(frozen=True, kw_only=True)
class KernelArgumentCheck(_Check):
    """The kernel was started with an argument."""

    kind = "kernel-argument"
    kernel_argument: Word
    """The argument, whole: 'quiet' or 'console=ttyS0'."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("head", f"--bytes={CONTENT_BYTES}", "/proc/cmdline"),)

    def judge(self, replies: Sequence[Reply]) -> Finding:
        holds = self.kernel_argument in replies[0].text.split()
        return Finding(holds, replies[0].text if holds else f"not among: {replies[0].text}")


@dataclass(frozen=True, kw_only=True)
class TimezoneCheck(_Check):
    """The system's time zone."""

    kind = "timezone"
    timezone: ZoneName
    """Its name in the tz database."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (
            # Nothing, or the type of what is at the end of the link, and the link.
            ("find", "/etc", "-maxdepth", "1", "-name", "localtime", "-printf", "%Y %l"),
            ("cmp", "--", "/etc/localtime", f"/usr/share/zoneinfo/{self.timezone}"),
        )

    def judge(self, replies: Sequence[Reply]) -> Finding:
        found, compared = replies
        if found.status != 0:
            return Finding(False, f"it cannot be looked at: {found.text[-200:]}")
        kind, _, link = found.text.partition(" ")
        _, is_zone, zone = link.partition("zoneinfo/")
        # localtime(5): without the file it is UTC.
        if is_zone or not kind:
            zone = zone or "UTC"
            if {zone, self.timezone} <= {"UTC", "Etc/UTC"}:
                return Finding(True, zone)
            if zone == self.timezone and kind != "f":
                return Finding(False, f"{zone}, but {link} is not there")
            return Finding(zone == self.timezone, zone)
        # Some image builders copy the zone's file.
        if compared.status == 0:
            return Finding(True, f"{self.timezone}, by the content of /etc/localtime")
        why = f"has not the content of {self.timezone}"
        if compared.status != 1:
            why = f"cannot be compared with {self.timezone}: {compared.text[-200:]}"
        return Finding(False, f"/etc/localtime is no link to a zone, and {why}")


@dataclass(frozen=True, kw_only=True)
class LocaleCheck(_Check):
    """The system's locale, which must also have been generated."""

    kind = "locale"
    locale: LocaleName
    """Its name, as LANG has it."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (
            ("grep", "-hs", "^LANG=", "/etc/locale.conf", "/etc/default/locale"),
            ("locale", "-a"),
        )

    def judge(self, replies: Sequence[Reply]) -> Finding:
        lines = replies[0].text.splitlines() or ["LANG=C"]
        found = lines[-1].partition("=")[2].strip("'\"")
        if found != self.locale:
            return Finding(False, f"it is {found}")
        known = {_plain_locale(name) for name in replies[1].text.split()}
        there = _plain_locale(self.locale) in known
        return Finding(there, found if there else f"{found} has not been generated")


def _plain_locale(name: str) -> str:
    """locale(1) spells the codeset in its own way: de_DE.utf8."""
    language, dot, codeset = name.partition(".")
    return language + dot + codeset.lower().replace("-", "")


@dataclass(frozen=True, kw_only=True)
class BootTimeCheck(_Check):
    """How long the boot may take, by the clock of the booted system (systemd-analyze(1))."""

    kind = "systemd-analyze"
    systemd_analyze: Annotated[int, Between(1, 86400)]
    """Seconds from the kernel's start until systemd had nothing left to do."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("systemctl", "show", "--value", "--property=FinishTimestampMonotonic"),)

    def judge(self, replies: Sequence[Reply]) -> Finding:
        text = replies[0].text
        if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
            return Finding(False, "systemd does not know: it has not settled")
        seconds = int(text) / 1e6
        if seconds > self.systemd_analyze:
            return Finding(False, f"{seconds:.1f} s, more than {self.systemd_analyze} s")
        return Finding(True, f"{seconds:.1f} s")


@dataclass(frozen=True, kw_only=True)
class RebootCheck(_Check):
    """The system is shut down and boots a second time.

    All other checks are made again, and machine-id and SSH host keys must be the same.
    """

    kind = "reboot"
    reboot: Literal[True]
    """true"""

    @property
    def name(self) -> str:
        return "reboot"


@dataclass(frozen=True, kw_only=True)
class MemoryCheck(_Check):
    """The image boots in so much memory: that of the test machine."""

    kind = "memory"
    memory: MemorySize
    """The memory, such as '512M'."""

    @property
    def bytes(self) -> int:
        return bytes_of(self.memory)


# `http` has a `port` of its own: the first kind whose key is there counts.
KINDS: tuple[type[_Check], ...] = (
    UnitCheck, CommandCheck, FileCheck, PackageCheck, UserCheck, HttpCheck, PortCheck, MountCheck,
    KernelArgumentCheck, TimezoneCheck, LocaleCheck, BootTimeCheck, RebootCheck, MemoryCheck,
)  # fmt: skip


def _kind(value: Any) -> str | None:
    """Which check a mapping is, by the key that it has."""
    if isinstance(value, dict):
        return next((_tag(kind) for kind in KINDS if kind.kind in value), None)
    return _tag(type(value)) if isinstance(value, _Check) else None


def _tag(kind: type[_Check]) -> str:
    # Not the key itself: in the place of an error, tags must not look like keys.
    return f"check:{kind.kind}"


NAMES = ", ".join(f"'{kind.kind}'" for kind in KINDS)
_Discriminator = pydantic.Discriminator(
    _kind,
    custom_error_type="not_accepted",
    custom_error_message="expected {what}",
    custom_error_context={"what": f"a check, with one of the keys {NAMES}"},
)
Check = Annotated[
    Annotated[UnitCheck, pydantic.Tag("check:unit")]
    | Annotated[CommandCheck, pydantic.Tag("check:command")]
    | Annotated[FileCheck, pydantic.Tag("check:file")]
    | Annotated[PackageCheck, pydantic.Tag("check:package")]
    | Annotated[UserCheck, pydantic.Tag("check:user")]
    | Annotated[HttpCheck, pydantic.Tag("check:http")]
    | Annotated[PortCheck, pydantic.Tag("check:port")]
    | Annotated[MountCheck, pydantic.Tag("check:mount")]
    | Annotated[KernelArgumentCheck, pydantic.Tag("check:kernel-argument")]
    | Annotated[TimezoneCheck, pydantic.Tag("check:timezone")]
    | Annotated[LocaleCheck, pydantic.Tag("check:locale")]
    | Annotated[BootTimeCheck, pydantic.Tag("check:systemd-analyze")]
    | Annotated[RebootCheck, pydantic.Tag("check:reboot")]
    | Annotated[MemoryCheck, pydantic.Tag("check:memory")],
    _Discriminator,
]


def keys(given: Mapping[str, object]) -> list[str]:
    """The keys that a check may have which has those `given`; of any check, when none tells."""
    meant = [kind for kind in KINDS if kind.kind in given][:1] or KINDS
    return sorted({kebab_case(field.name) for kind in meant for field in dataclasses.fields(kind)})
