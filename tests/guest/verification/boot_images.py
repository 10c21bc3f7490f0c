"""Disks with a boot loader, as the tests of their verification read them."""

import struct

from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.verification import boot
from particle_agent.verification.table import PartitionEntry, PartitionTable
from particle_agent.verification.volumes import FoundVolume

MIB = 1 << 20
ROOT_UUID, ESP_UUID = "a6cdd9c7-f5cb-4d61-aed1-5b849a34a970", "7E9F-EE80"
OTHER = "11111111-2222-3333-4444-555555555555"
COMMAND_LINE = f"root=UUID={ROOT_UUID} ro console=ttyS0"
EXTLINUX = f"""\
# made by hand
SERIAL 0 115200
DEFAULT linux
LABEL linux
  LINUX /vmlinuz
  INITRD /initrd.img
  APPEND {COMMAND_LINE}
label old
  kernel ../vmlinuz-1
  append initrd=../initrd.img-1 {COMMAND_LINE}
LABEL menu
  KERNEL vesamenu.c32
"""
GRUB = f"""\
set default="${{saved_entry}}"
search --no-floppy --fs-uuid --set=root {ROOT_UUID}
menuentry 'Linux' {{
	search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 {ROOT_UUID}
	linux	/boot/vmlinuz-1 {COMMAND_LINE}
	initrd	/boot/initrd.img-1 /boot/initrd.img-1
	linux ($root)/boot/vmlinuz-1 root=$x
	linux (hd0,gpt1)/elsewhere root=${{x}}
	linux $kernel root=UUID=${{uuid}}
}}
"""


class Image:
    """A disk with a small system on partition 2 and an EFI system partition."""

    def __init__(self, directory):
        self.path = directory / "disk"
        with self.path.open("wb") as file:
            file.truncate(8 * MIB)
        self.esp, self.root = directory / "esp", directory / "root"
        for place in (self.esp, self.root):
            place.mkdir()
        self.active, self.esp_active, self.end = True, False, 7 * MIB
        self.label, self.root_number, self.first_type = "gpt", 2, "x"
        self.root_type = "x"
        self.root_kind, self.subvolume = "ext4", ""
        self.write(self.root, "usr/bin/init", "program").chmod(0o755)
        self.write(self.root, "etc/hostname", "x")
        (self.root / "sbin").symlink_to("usr/bin")
        for name in ("vmlinuz", "initrd.img"):
            self.write(self.root, f"boot/{name}-1", name)
            (self.root / name).symlink_to(f"boot/{name}-1")

    def write(self, place, path, content):
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def write_disk(self, offset, data):
        with self.path.open("r+b") as disk:
            disk.seek(offset)
            disk.write(data)

    def judged(self):
        entries = (
            PartitionEntry(number=1, start=MIB, end=2 * MIB, type=self.first_type, uuid="1",
                  active=self.esp_active),
            PartitionEntry(number=self.root_number, start=2 * MIB, end=self.end,
                  type=self.root_type, uuid="2", active=self.active),
        )  # fmt: skip
        table = PartitionTable(label=self.label, entries=entries, first=MIB, last=7 * MIB)
        volumes = [
            FoundVolume(number=1, kind="vfat", uuid=ESP_UUID, label="", entry=entries[0],
                   tree=Tree(self.esp)),
            FoundVolume(number=2, kind=self.root_kind, uuid=ROOT_UUID, label="", entry=entries[1],
                   tree=Tree(self.root) if self.root_kind else None,
                   systems=(Tree(self.root / self.subvolume),) if self.root_kind else ()),
        ]  # fmt: skip
        reported = self.reported = []
        with self.path.open("rb") as disk:
            boot.check(disk, 8 * MIB, table, volumes, Findings(reported.append))
        return [finding.code for finding in reported]


def program(sections, machine=0x8664):
    """A PE program for a machine, with these sections, by name."""
    head = bytearray(0x200)
    head[:2], head[0x80:0x84] = b"MZ", b"PE\0\0"
    # The code of a program for DOS follows the offset of the header.
    struct.pack_into("<I2s", head, 0x3C, 0x80, b"\x0e\x1f")
    struct.pack_into("<HH12xHH", head, 0x84, machine, len(sections), 16, 0)
    data = b""
    for index, (name, content) in enumerate(sections.items()):
        where = 0x80 + 24 + 16 + 40 * index
        head[where : where + 8] = name.encode().ljust(8, b"\0")
        struct.pack_into("<IIII", head, where + 8, len(content), 0, len(content), 512 + len(data))
        data += content
    return bytes(head) + data


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
