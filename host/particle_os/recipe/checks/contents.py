"""Checks of the content of the image: files, packages, accounts, and the output of programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from particle_agent.contract import commands
from particle_agent.contract.options import AtLeastOne, Between, refuse
from particle_agent.contract.values import (
    AbsolutePath,
    Argument,
    FileMode,
    PackageName,
)

from particle_os.recipe.checks.base import (
    CONTENT_BYTES,
    QUESTION_SECONDS,
    AccountName,
    BaseCheck,
    Expression,
    ImagePath,
    Judgement,
    Reply,
    Word,
    judge_content,
)


@dataclass(frozen=True, kw_only=True)
class CommandCheck(BaseCheck):
    """A program exits with the expected status. It runs as root, without a shell or input."""

    kind = "command"
    command: Annotated[tuple[Argument, ...], AtLeastOne()]
    """The program and its arguments."""
    exit: Annotated[int, Between(0, 255)] = 0
    """The expected exit status."""
    contains: str | None = None
    """A text that the first 64 KiB of its output must contain."""
    matches: Expression | None = None
    """A regular expression that must match somewhere in the first 64 KiB of its output."""
    timeout: Annotated[int, Between(1, 600)] = QUESTION_SECONDS
    """The time limit in seconds."""

    def __post_init__(self) -> None:
        refuse((("command", index), fault) for index, fault in commands.faults(self.command))

    @property
    def name(self) -> str:
        return f"command {' '.join(self.command)}"[:100]

    @property
    def seconds(self) -> int:  # type: ignore[override]
        return self.timeout

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (self.command,)

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        reply = replies[0]
        if reply.status != self.exit:
            what = (
                f"took longer than {self.timeout} s"
                if reply.status is None
                else f"ended with {reply.status}, not {self.exit}"
            )
            return Judgement(False, f"it {what}: {reply.text[-1000:] or 'no output'}")
        return judge_content(reply.output, self.contains, self.matches)


@dataclass(frozen=True, kw_only=True)
class FileCheck(BaseCheck):
    """A file, directory or link exists, and has the expected properties."""

    kind = "file"
    file: ImagePath
    """The path; a symbolic link is followed."""
    exists: bool = True
    """Whether the file must exist (true) or must not exist (false)."""
    mode: FileMode | None = None
    """Its mode, in quotes."""
    owner: AccountName | None = None
    """The user that owns it."""
    group: AccountName | None = None
    """The group that owns it."""
    contains: str | None = None
    """A text that its first 64 KiB must contain."""
    matches: Expression | None = None
    """A regular expression that must match somewhere in its first 64 KiB."""

    def __post_init__(self) -> None:
        about = (self.mode, self.owner, self.group, self.contains, self.matches)
        if not self.exists and any(each is not None for each in about):
            raise ValueError(f"{self.file}: 'exists: false' excludes all other options")

    def asks(self) -> tuple[tuple[str, ...], ...]:
        about = ("stat", "--dereference", "--format=%a %U %G", "--", self.file)
        content = ("head", f"--bytes={CONTENT_BYTES}", "--", self.file)
        wanted = self.contains is not None or self.matches is not None
        return (about, content) if wanted else (about,)

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        there = replies[0].status == 0
        # stat(1) exits with 1 for a missing file; other statuses come from timeout(1).
        if not there and replies[0].status != 1:
            return Judgement(False, f"it cannot be examined: {replies[0].text[-200:]}")
        if there != self.exists:
            return Judgement(
                False, "it is there" if there else f"it is not there: {replies[0].text}"
            )
        if not there:
            return Judgement(True, "it is not there")
        mode, owner, group = (*replies[0].text.split(), "", "", "")[:3]
        if self.mode is not None and int(self.mode, 8) != int(mode or "0", 8):
            return Judgement(False, f"its mode is {mode}, not {self.mode}")
        for what, wanted, found in (("owner", self.owner, owner), ("group", self.group, group)):
            if wanted is not None and wanted != found:
                return Judgement(False, f"its {what} is {found}, not {wanted}")
        if len(replies) == 1:
            return Judgement(True, f"{mode} {owner} {group}")
        if replies[1].status != 0:
            return Judgement(False, f"it cannot be read: {replies[1].text[-200:]}")
        return judge_content(replies[1].output, self.contains, self.matches)


@dataclass(frozen=True, kw_only=True)
class PackageCheck(BaseCheck):
    """A Debian package is installed."""

    kind = "package"
    package: PackageName
    """Its name."""
    version: Word | None = None
    """Its exact version."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        shown = "--showformat=${db:Status-Status} ${Version}"
        return (("dpkg-query", "--show", shown, "--", self.package),)

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        state, _, version = replies[0].text.partition(" ")
        if replies[0].status != 0 or state != "installed":
            return Judgement(False, "it is not installed")
        if self.version not in (None, version):
            return Judgement(False, f"its version is {version}, not {self.version}")
        return Judgement(True, f"version {version}")


@dataclass(frozen=True, kw_only=True)
class UserCheck(BaseCheck):
    """An account exists."""

    kind = "user"
    user: AccountName
    """Its name."""
    groups: tuple[AccountName, ...] = ()
    """Groups that the account must belong to."""
    shell: AbsolutePath | None = None
    """Its login shell."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("getent", "--", "passwd", self.user), ("id", "-Gn", "--", self.user))

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        fields = replies[0].text.split(":")
        if replies[0].status != 0 or len(fields) != 7:
            return Judgement(False, "there is no such user")
        groups = replies[1].text.split()
        if missing := [group for group in self.groups if group not in groups]:
            return Judgement(False, f"it is not in {', '.join(missing)}")
        if self.shell not in (None, fields[6]):
            return Judgement(False, f"its shell is {fields[6]}, not {self.shell}")
        return Judgement(True, f"uid {fields[2]}, shell {fields[6]}, groups {' '.join(groups)}")
