"""The stages of an image that OSTree updates: their order, their suite, and their disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from particle_agent.stages import RecipeStage
from particle_agent.stages.output.ostree import Ostree
from particle_agent.stages.output.qemu import Qemu

from particle_os.documents.document import Key
from particle_os.ostree.deployable import MountSettings
from particle_os.ostree.parent import fault
from particle_os.recipe import around_commit
from particle_os.recipe.commits.base import (
    BaseCommitChecks,
    WantedDisk,
    read_key,
    refuse_key,
)
from particle_os.recipe.commits.reference import is_commit
from particle_os.recipe.dependencies import PREFIX, boot_needs
from particle_os.recipe.model import stage_kinds
from particle_os.recipe.passes.reading import Reading

# The suites whose OSTree is too old, or built without composefs.
WITHOUT_TRANSIENT = ("bookworm", "oldstable")
WITHOUT_COMPOSEFS = (*WITHOUT_TRANSIENT, "trixie", "stable")
# The reasons why GRUB counts no boots of an update on a file system.
UNCOUNTED = {
    "btrfs": "GRUB cannot write its counter to btrfs",
    "xfs": "no test has shown that GRUB's counter is safe on xfs",
}
# The reasons why a boot loader cannot start the commits of OSTree.
REASONS = {
    "extlinux": "extlinux cannot count the boots of an update",
    "systemd-boot": "OSTree switches versions with a link in /boot, and systemd-boot reads only "
    "FAT, which has no links",
}


def check(reading: Reading) -> None:
    """Notes stages after `ostree` that would change the commit, and options of its disk.

    Also notes options that the OSTree of the suite does not know, and wrong parts of the recipe
    around the commit.
    """
    around_commit.check(reading)
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    stages = [
        (index, stage)
        for index, stage in enumerate(recipe.stages)
        # A wrong stage is a placeholder.
        if stage.applies(recipe.architecture) and stage.type in stage_kinds()
    ]
    base = recipe.base_image if reading.base is None else reading.base
    _read_base_image_key(reading, base)
    if is_commit(base):
        _check_base(reading, base, stages)
        return
    first = next((n for n, (_, stage) in enumerate(stages) if isinstance(stage, Ostree)), None)
    if first is None:
        return
    commit = stages[first][1]
    assert isinstance(commit, Ostree)
    if first == len(stages) - 1:
        mark, message = source.mark(("stages", stages[first][0])), "the build makes no disk"
        source.note(mark, "no-disk", f"{message}: it publishes the commit, and boots nothing")
    for option, why, hint in _beyond(commit, base.removeprefix(PREFIX)):
        mark = source.mark(("stages", stages[first][0], option))
        source.problem(mark, "bad-value", f"{option}: {why}", hint)
    for index, stage in stages[first + 1 :]:
        if isinstance(stage, Ostree):
            mark, message = source.mark(("stages", index)), "a recipe has one stage 'ostree'"
            source.problem(mark, "bad-order", message)
        elif not isinstance(stage, Qemu):
            message = f"the stage '{stage.type}' cannot change the commit of the stage 'ostree'"
            mark = source.mark(("stages", index))
            source.problem(mark, "bad-order", message, "put it before the stage 'ostree'")
        else:
            for key, why, hint in _refused(stage, commit):
                mark = source.mark(("stages", index, *key))
                source.problem(mark, "bad-value", why, hint)


def _read_base_image_key(reading: Reading, base: str) -> None:
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    if recipe.base_image_key is not None and not is_commit(base):
        refuse_key(source)
    elif recipe.base_image_key is not None:
        reading.base_image_key = read_key(source, recipe.base_image_key, reading.inside)


def _check_base(reading: Reading, base: str, stages: Sequence[tuple[int, RecipeStage]]) -> None:
    """Notes the faults of a commit that is the base image, and what cannot follow it."""
    recipe = reading.recipe
    assert recipe is not None
    wanted = recipe.boot_test
    disk = WantedDisk(
        stages,
        upgrade=wanted.upgrade is not None,
        fallback=wanted.fallback,
        boot_needs=partial(
            boot_needs,
            recipe.architecture,
            "uefi-secure" in (wanted.firmware or ()),
        ),
    )
    given = reading.base is not None
    # A key that cannot be read has its own problem.
    if recipe.base_image_key is None or reading.base_image_key is not None:
        key = reading.base_image_key
        BaseCommitChecks(reading.source, base, given, key, disk, _refused).run()


def check_parent(reading: Reading) -> None:
    """Notes a parent that the host can see to be none: the VM would find that after all stages."""
    source, recipe, loaded = reading.source, reading.recipe, reading.loaded
    assert recipe is not None
    assert loaded is not None
    read = {attachment.path for found in loaded.attachments for attachment in found}
    for index, stage in enumerate(recipe.stages):
        key = ("stages", index, "parent")
        if isinstance(stage, Ostree) and stage.parent is not None:
            path = source.mark(key).path.parent / stage.parent
            # A file that cannot be read has its own problem already.
            if path in read and (why := fault(path, stage.ref, stage.stateroot)):
                source.problem(source.mark(key), "bad-file", f"parent: {why}")


def _beyond(commit: Ostree, suite: str) -> Iterator[tuple[str, str, str]]:
    """The options that the OSTree of a suite does not know: name, message and hint."""
    if commit.etc == "transient" and suite in WITHOUT_TRANSIENT:
        yield "etc", f"the OSTree of {suite} keeps all changes of /etc", "use trixie or later"
    if commit.composefs and suite in WITHOUT_COMPOSEFS:
        yield "composefs", f"the OSTree of {suite} is built without it", "use forky or later"


def _refused(disk: Qemu, commit: Ostree | MountSettings) -> Iterator[tuple[Key, str, str]]:
    """The options of a disk that cannot be with a commit: place, message and hint."""
    if disk.installer != "particle-os":
        message = "installer: bootc installs no commit of the stage 'ostree'"
        yield ("installer",), message, "remove the stage 'ostree', or leave 'installer' out"
    if commit.composefs:
        message = "composefs: the OSTree of the helper VM cannot write a disk with it"
        yield ("type",), message, "publish the repository alone, or leave 'composefs' out"
    if commit.etc == "transient":
        yield from _lost(disk)
    if disk.boot_loader != "grub":
        message = f"boot-loader: {REASONS[disk.boot_loader]}"
        yield ("boot-loader",), message, "write 'boot-loader: grub'"
    # The menu is that of the first version, and counts the boots of any later one.
    if why := UNCOUNTED.get(disk.file_system):
        message = f"file-system: {why}; a later update may count its boots"
        yield ("file-system",), message, "write 'ext4'"
    if disk.first_boot:
        message = "first-boot: a commit is the same for each boot of a machine"
        yield ("first-boot",), message, "leave it out"


def _lost(disk: Qemu) -> Iterator[tuple[Key, str, str]]:
    """The options that write to the /etc of a machine, which a transient one loses at each boot."""
    why = "each boot starts with the /etc of the commit, which has no"
    if disk.mounts:
        hint = "write mount units with a stage 'files', or 'etc: persistent'"
        yield ("mounts",), f"mounts: {why} fstab", hint
    if disk.swap != "none":
        yield ("swap",), f"swap: {why} fstab", "write 'etc: persistent', or leave 'swap' out"
    if disk.grow:
        message = f"grow: {why} unit for it"
        yield ("grow",), message, "write 'etc: persistent', or give the disk its final 'size'"
