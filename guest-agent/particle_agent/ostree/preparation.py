"""The way from an image to the tree of a commit."""

from __future__ import annotations

from collections.abc import Iterator

from particle_agent.contract.needs import Need
from particle_agent.disk import boot
from particle_agent.ostree import account_rules, boot_counting, machine_files, tree
from particle_agent.ostree.image import automatic_updates, initramfs, lints
from particle_agent.ostree.image.choices import Choices
from particle_agent.system import generalize
from particle_agent.target.target import Target


def boot_needs(architecture: boot.Architecture) -> Iterator[Need]:
    """The things that an image needs to boot."""
    yield boot.kernel_need(architecture)
    yield boot.init_need()


def needs(counted_boots: int) -> Iterator[Need]:
    """The things that an image needs to become a commit, beside a kernel and an init."""
    yield from initramfs.package_needs()
    if counted_boots:
        yield boot_counting.need()


def check(target: Target, choices: Choices, kernel: str) -> None:
    """Reports the faults of the image, whose commit boots the `kernel` of this version.

    Raises StageError.
    """
    lints.check(target, choices, kernel, account_rules.flaws(target, choices.users))


def prepare(target: Target, choices: Choices, kernel: str) -> None:
    """Adds what machines need, and removes what must differ between them."""
    initramfs.make(target, kernel, choices.root)
    tree.move_kernel(target, kernel)
    boot_counting.install(target, choices.counted_boots)
    automatic_updates.install(target, choices.automatic_updates)
    generalize.run(target)


def convert(target: Target, choices: Choices) -> None:
    """Moves the files to their places in a commit."""
    tree.empty(target)
    if choices.users == "sysusers":
        account_rules.write(target)
    tree.convert(target)
    if choices.var == "initial":
        machine_files.keep(target)
    else:
        machine_files.write_rules(target)
