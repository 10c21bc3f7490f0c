"""A minimal imitation of the files that extlinux installs."""

import struct

# The place of the loader's file in its partition.
CORE_OFFSET = 2 << 20
# The offsets in the boot sector of the two halves of the file's sector number.
LOW, HIGH = 0x11A, 0x120


def core(places=600):
    """An ldlinux.sys of syslinux 6. `places` is the offset of its table of places."""
    data = bytearray(b"\r\nSYSLINUX 6.04 \0\r\n\x1a".ljust(1024, b"\x90"))
    struct.pack_into("<IIHHIIHH", data, 24, 0x3EB202FE, 1, 2, 2, 256, 0, 127, places)
    struct.pack_into("<10H", data, places, 0, 0, 0, 0, 0, 0, 0, LOW, HIGH, 0)
    rest = 0x3EB202FE - sum(struct.unpack("<256I", data))
    struct.pack_into("<I", data, 40, rest & 0xFFFFFFFF)
    return bytes(data)


def boot_sector():
    # Code stands around the two halves of the number.
    data = bytearray(b"\xeb\x58\x90EXTLINUX".ljust(512, b"\x90"))
    for place, half in ((LOW, CORE_OFFSET // 512), (HIGH, 0)):
        struct.pack_into("<I", data, place, half)
    return bytes(data)


CORE, BOOT_SECTOR = core(), boot_sector()
