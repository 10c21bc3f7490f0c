"""The parts of a recipe around the commit of OSTree: its packages, and its boot test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from particle_agent.stages import RecipeStage
from particle_agent.stages.output.ostree import Ostree
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.software.apt import Apt

from particle_os.documents.document import Key
from particle_os.errors import UsageError
from particle_os.ostree.deployable import deployable
from particle_os.recipe.checks.ostree import MadeVersion, OstreeCheck, contradictions
from particle_os.recipe.commits.reference import commit_of, is_commit
from particle_os.recipe.model import BootTest, Recipe
from particle_os.recipe.passes.reading import Reading

DRACUT = "dracut"
Fault = tuple[Key, str, str]


def check(reading: Reading) -> None:
    """Notes packages that the commit cannot have, and parts of the boot test that it cannot pass.

    A check `ostree` that says nothing about a signature then asks for the one that machines verify.
    """
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    stages = [stage for stage in recipe.stages if stage.applies(recipe.architecture)]
    made = next((stage for stage in stages if isinstance(stage, Ostree)), None)
    base = recipe.base_image if reading.base is None else reading.base
    faults: list[Fault] = []
    if is_commit(base):
        directory = Path() if reading.base is not None else source.path.parent
        faults += _against(recipe.boot_test, _of_base(directory, base))
    elif made is None:
        faults += _without_commit(recipe, stages)
    elif isinstance(stages[-1], Ostree):
        faults += _without_disk(recipe.boot_test)
    else:
        faults += _updates(recipe.boot_test, made)
        faults += _against(recipe.boot_test, _of_stage(made))
    for key, message, hint in faults:
        source.problem(source.mark(("boot-test", *key)), "bad-value", message, hint)
    if made is not None:
        _check_packages(reading, made)
        reading.recipe = replace(recipe, boot_test=_verified(recipe.boot_test, made))


def _check_packages(reading: Reading, made: Ostree) -> None:
    """Notes dracut where the commit needs initramfs-tools: they conflict with each other."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    found: Key | None = None
    for index, stage in enumerate(recipe.stages[: recipe.stages.index(made)]):
        if not isinstance(stage, Apt) or not stage.applies(recipe.architecture):
            continue
        names = [re.split("[:=/]", name)[0] for name in stage.packages]
        if DRACUT in names:
            found = ("stages", index, "packages", names.index(DRACUT))
        elif "initramfs-tools" in names or DRACUT in stage.remove:
            found = None
    if found is not None:
        message = (
            "packages: 'dracut' conflicts with 'initramfs-tools', with which the stage 'ostree' "
            "makes the initramfs"
        )
        source.problem(source.mark(found), "bad-value", message, "remove 'dracut'")


def _expected(wanted: BootTest) -> Iterator[tuple[Key, OstreeCheck]]:
    for index, each in enumerate(wanted.checks):
        if isinstance(each, OstreeCheck):
            yield ("checks", index), each


def _without_commit(recipe: Recipe, stages: Sequence[RecipeStage]) -> Iterator[Fault]:
    """The parts that only a commit can have, in a recipe that makes none."""
    wanted = recipe.boot_test
    for name, given in (("upgrade", wanted.upgrade is not None), ("fallback", wanted.fallback)):
        if given:
            message = f"{name}: only the system of a stage 'ostree' has updates"
            yield (name,), message, "add the stage 'ostree', or remove it"
    # bootc makes a system of OSTree, too.
    if any(isinstance(stage, Qemu) and stage.installer == "bootc" for stage in stages):
        return
    for key, _ in _expected(wanted):
        message = "ostree: only the system of a stage 'ostree' runs a version of OSTree"
        yield (*key, "ostree"), message, "add the stage 'ostree', or remove the check"


def _without_disk(wanted: BootTest) -> Iterator[Fault]:
    """The parts that need a boot, in a recipe that makes no disk."""
    asked = {
        "upgrade": wanted.upgrade is not None,
        "fallback": wanted.fallback,
        "checks": bool(wanted.checks),
        "goss": wanted.goss is not None,
    }
    for name in (name for name, given in asked.items() if given):
        message = f"{name}: the recipe ends with the stage 'ostree', so no disk boots"
        yield (name,), message, "add a stage 'qemu' with 'boot-loader: grub', or remove it"


def _updates(wanted: BootTest, stage: Ostree) -> Iterator[Fault]:
    """The tests of updates that the commit cannot pass."""
    if wanted.upgrade is not None and stage.input_disk is None:
        message = "upgrade: the stage 'ostree' names no 'parent' to update from"
        yield ("upgrade",), message, "write 'parent', or remove 'upgrade'"
    elif wanted.upgrade is not None and stage.remote is None:
        message = "upgrade: without 'remote' in the stage 'ostree', no machine updates"
        yield ("upgrade",), message, "write 'remote', or remove 'upgrade'"
    if wanted.fallback and not stage.boot_counting:
        message = "fallback: 'boot-counting: 0' leaves no bad update"
        yield ("fallback",), message, "count boots, or remove 'fallback'"


def _against(wanted: BootTest, made: MadeVersion | None) -> Iterator[Fault]:
    """The checks that expect another version than the one that boots."""
    if made is None:
        return
    for key, each in _expected(wanted):
        for name, message, hint in contradictions(each.ostree, made):
            yield (*key, "ostree", name), f"{name}: {message}", hint


def _of_stage(stage: Ostree) -> MadeVersion:
    why = None
    if stage.sign is None:
        why = "the stage 'ostree' has no 'sign'"
    elif not stage.is_verified:
        why = "machines verify no signature: the stage 'ostree' has no 'remote' with 'verify'"
    return MadeVersion(stage.ref, stage.version, why)


def _of_base(directory: Path, base: str) -> MadeVersion | None:
    """The commit of a base image; None for one that has a problem of its own."""
    with suppress(UsageError):
        path, ref = commit_of(base)
        with deployable(directory / path, ref) as found:
            why = None if found.is_signed else "the commit of the base image has no signature"
            return MadeVersion(ref, found.commit.version, why)
    return None


def _verified(wanted: BootTest, stage: Ostree) -> BootTest:
    """The boot test whose checks `ostree` say whether there must be a signature."""
    checks = tuple(
        each.verified(signed=stage.is_verified) if isinstance(each, OstreeCheck) else each
        for each in wanted.checks
    )
    return replace(wanted, checks=checks)
