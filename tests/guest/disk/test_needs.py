"""The last stage looks in the image for nothing but its declared needs."""

from itertools import product

import pytest
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.options import Faults
from particle_agent.disk.systemd_boot import PROGRAMS
from particle_agent.stages.output.qemu import Qemu

# systemd-boot depends on one of them.
PROGRAM = f"{PROGRAMS}/systemd-bootx64.efi"
OF_SYSTEMD_BOOT = {PROGRAM, f"{PROGRAM}.signed"}


def combinations():
    """Every combination of boot loader, partition table, file system and growth that is allowed."""
    for loader, unified, table, kind, grow in product(
        ("extlinux", "grub", "systemd-boot"),
        (False, True),
        ("gpt", "msdos"),
        ("ext4", "xfs", "btrfs"),
        (False, True),
    ):
        try:
            yield Qemu(
                boot_loader=loader,
                unified_kernel_image=unified,
                partition_table=table,
                file_system=kind,
                grow=grow,
            )
        except Faults:
            continue


def label(stage):
    unified = "-uki" if stage.unified_kernel_image else ""
    grow = "-grow" if stage.grow else ""
    return f"{stage.boot_loader}{unified}-{stage.partition_table}-{stage.file_system}{grow}"


class Image:
    """An image with every file but the `missing` one; `asked` are the files that a check needs."""

    def __init__(self, missing=None):
        self.missing = missing
        self.asked = set()

    def exists(self, path):
        self.asked.add(path)
        return path != self.missing


@pytest.mark.parametrize("stage", list(combinations()), ids=label)
def test_no_file_is_missed_only_when_the_stage_runs(stage):
    image = Image()
    stage._check(image, stage._loader())
    needs = (*stage.boot_needs(AMD64), *stage.needs())
    declared = {file for need in needs for file in need.files}
    assert image.asked - OF_SYSTEMD_BOOT <= declared
    assert stage.boot_loader == "extlinux" or image.asked


def test_the_combinations_are_many():
    assert len(list(combinations())) > 30
