"""A base image that is a commit of OSTree: its faults, its key, and the stages after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_agent.contract import keys
from particle_agent.stages.base import Need, StageOptions
from particle_agent.stages.output.qemu import Qemu

from particle_os.documents.document import Key, Source
from particle_os.documents.words import unlike_a_path
from particle_os.errors import UsageError
from particle_os.ostree.deployable import Deployable, MountSettings, deployable
from particle_os.ostree.objects import BadObject
from particle_os.recipe.commits.reference import commit_of
from particle_os.recipe.files.inside import outside
from particle_os.system.regular_file import read_regular

KEY: Key = ("base-image-key",)
KEY_BYTES = 1 << 16
# The file that lets a machine write GRUB's menu for an update.
GENERATOR = "/usr/lib/particle-os/ostree-grub-generator"
BUILD_AGAIN = "add it to the recipe of the commit, and build the commit again"
# Yields the options that a disk cannot have with a commit: place, message and hint.
RefusedOptions = Callable[[Qemu, MountSettings], Iterable[tuple[Key, str, str]]]


@dataclass(frozen=True)
class WantedDisk:
    """The stages after a base image that is a commit, by their places, and the boot test."""

    stages: Sequence[tuple[int, StageOptions]]
    upgrade: bool
    fallback: bool
    # The needs of a disk's boot loader, which depend on the firmware and the architecture.
    boot_needs: Callable[[Qemu], Iterable[Need]]


@dataclass(frozen=True)
class BaseCommitChecks:
    """The checks of a recipe; they note problems in `source`.

    `reference` is the base image, and `given` says that it is from the command line. `key` is the
    public key that must have signed the commit.
    """

    source: Source
    reference: str
    given: bool
    key: bytes | None
    disk: WantedDisk
    refused: RefusedOptions

    def run(self) -> None:
        self._check_stages()
        directory = Path() if self.given else self.source.path.parent
        try:
            path, ref = commit_of(self.reference)
            with deployable(directory / path, ref) as found:
                self._check_commit(found)
        except UsageError as error:
            code = "bad-file" if isinstance(error, BadObject) else "no-file"
            self._complain(code, error.brief, error.hint)

    def _complain(self, code: str, message: str, hint: str | None) -> None:
        """Notes a problem of the base image, which may be on the command line."""
        name, key = self._place
        self._problem(key, code, f"{name}: {message}", hint)

    def _note(self, key: Key, code: str, message: str) -> None:
        name = self._place[0]
        self.source.note(self.source.mark(key), code, f"{name}: {message}")

    @property
    def _place(self) -> tuple[str, Key]:
        return ("--base", ()) if self.given else ("base-image", ("base-image",))

    def _problem(self, key: Key, code: str, message: str, hint: str | None) -> None:
        self.source.problem(self.source.mark(key), code, message, hint)

    def _check_stages(self) -> None:
        """Notes stages that would change the commit, and a test that it cannot have."""
        for index, stage in self.disk.stages:
            if not isinstance(stage, Qemu):
                message = f"the stage '{stage.type}' cannot change the commit of the base image"
                hint = "remove it: only 'qemu' may follow; the recipe of the commit has such stages"
                self._problem(("stages", index), "bad-order", message, hint)
        if self.disk.upgrade:
            message = "upgrade: the commit of the base image is no update of a version before it"
            hint = "remove it; the recipe of a commit with 'parent' tests its upgrade"
            self._problem(("boot-test", "upgrade"), "bad-value", message, hint)

    def _check_commit(self, found: Deployable) -> None:
        if faults := list(found.faults()):
            for fault in faults:
                self._complain("bad-file", fault, "name a commit of the stage 'ostree'")
            return
        # An object that is missing is an error.
        found.objects()
        for index, stage in self.disk.stages:
            if isinstance(stage, Qemu):
                self._check_disk(index, stage, found)
        if self.disk.fallback and not found.settings.counts_boots:
            message = "fallback: the commit of the base image counts no boots"
            self._problem(("boot-test", "fallback"), "bad-value", message, "remove 'fallback'")
        self._check_signature(found)
        if not found.has(GENERATOR):
            self._note(
                self._place[1],
                "foreign-commit",
                "the stage 'ostree' has not made this commit: its machines write GRUB's menu with "
                "grub-mkconfig when they update, and leave no bad update",
            )

    def _check_disk(self, index: int, disk: Qemu, found: Deployable) -> None:
        refused = list(self.refused(disk, found.settings))
        for key, message, hint in refused:
            self._problem(("stages", index, *key), "bad-value", message, hint)
        if refused:
            return
        for need in (*self.disk.boot_needs(disk), *disk.needs()):
            if need.files and not any(found.has(pattern) for pattern in need.files):
                message = f"the commit of the base image lacks the {need.what}"
                self._problem(("stages", index, *need.key), "missing-need", message, BUILD_AGAIN)

    def _check_signature(self, found: Deployable) -> None:
        if self.key is not None and not found.is_signed:
            message = "base-image-key: the commit of the base image has no signature"
            self._problem(KEY, "bad-value", message, "remove it, or name a signed commit")
        elif self.key is None and found.is_signed:
            message = (
                "the signature of the commit is not checked: no 'base-image-key' names its key"
            )
            self._note(self._place[1], "signature-not-checked", message)
        elif self.key is None:
            self._note(self._place[1], "no-signature", "the commit has no signature")


def refuse_key(source: Source) -> None:
    """Notes a key for a base image that is no commit."""
    message = "base-image-key: only a base image 'ostree:…' has a signature that it could check"
    source.problem(source.mark(KEY), "bad-value", message, "remove it")


def read_key(source: Source, name: str, inside: Path | None) -> bytes | None:
    """The public key in the file that the recipe names; notes a file that holds none."""
    mark = source.mark(KEY)
    path = mark.path.parent / name
    shown = unlike_a_path(name) or name
    try:
        if fault := outside(path, inside):
            raise ValueError(fault)
        content = read_regular(path, KEY_BYTES)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        source.problem(mark, "no-file", f"{shown}: {why}")
        return None
    faults = list(keys.signing_key_faults(content))
    for fault in faults:
        source.problem(mark, "bad-file", f"{shown}: {fault}")
    return None if faults else content
