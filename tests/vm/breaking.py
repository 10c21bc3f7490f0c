"""Programs that change a good image without mounting it: debugfs, mtools and plain writes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
BLOCK = 4096
CONF = "/boot/extlinux/extlinux.conf"
GRUB = "/boot/grub/grub.cfg"
ENTRY = r"/loader/entries/[^/]+\.conf"
UNITS = "/etc/systemd/system"
OLD_NONCE = "0123456789abcdef0123456789abcdef"
COM1, COM2 = 0x3F8, 0x2F8


def partition(image: Path, number: int) -> int:
    """The offset of a partition in bytes; number -1 is the last partition."""
    told = subprocess.run(["/sbin/sfdisk", "-J", image], check=True, capture_output=True).stdout
    return int(json.loads(told)["partitiontable"]["partitions"][number]["start"]) * 512


def debugfs(image: Path, *commands: str, write: bool = True) -> str:
    """Runs debugfs commands on the root file system and returns what they print."""
    device = f"{image}?offset={partition(image, -1)}"
    argv = ["/sbin/debugfs", *(["-w"] if write else []), "-f", "-", device]
    script = "".join(f"{command}\n" for command in commands)
    done = subprocess.run(
        argv, input=script, text=True, check=True, capture_output=True, timeout=120
    )
    return done.stdout


def mtools(image: Path, program: str, *arguments: str | Path, esp: int = 0) -> str:
    """Runs one of the mtools on the EFI system partition, whose index is `esp`."""
    device = f"{image}@@{partition(image, esp)}"
    argv = [program, "-i", device, *arguments]
    return subprocess.run(argv, text=True, check=True, capture_output=True, timeout=120).stdout


def esp_removed(*paths: str) -> Callable[[Path], None]:
    def change(image: Path) -> None:
        for path in paths:
            mtools(image, "mdel", f"::{esp_path(image, path)}")

    return change


def esp_put(path: str, data: bytes) -> Callable[[Path], None]:
    """Replaces the content of a file in the EFI system partition."""

    def change(image: Path) -> None:
        local = image.with_name("content")
        local.write_bytes(data)
        mtools(image, "mcopy", "-D", "o", local, f"::{esp_path(image, path)}")
        local.unlink()

    return change


def uefi_silent(*words: str) -> Callable[[Path], None]:
    """Replaces the serial console in the kernel's arguments by `words`."""

    def change(image: Path) -> None:
        entry = mtools(image, "mtype", f"::{esp_path(image, ENTRY)}")
        text, count = re.subn(r"console=ttyS0,115200", " ".join(words), entry)
        assert count, "the entry names no serial console"
        esp_put(ENTRY, text.encode())(image)

    return change


def esp_path(image: Path, pattern: str) -> str:
    """The only path of the EFI system partition that matches the whole regular expression."""
    paths = mtools(image, "mdir", "-/", "-b").splitlines()
    (found,) = [p[2:] for p in paths if p.startswith("::") and re.fullmatch(pattern, p[2:])]
    return found


def put(image: Path, path: str, text: str, *, mode: str = "0100644") -> None:
    """Writes a file of the image, or replaces it."""
    local = image.with_name("content")
    local.write_text(text)
    debugfs(image, f"rm {path}", f"write {local} {path}", f"set_inode_field {path} mode {mode}")
    local.unlink()


def read(image: Path, path: str) -> str:
    return debugfs(image, f"cat {path}", write=False).partition("\n")[2]


def overwrite(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def blocks(image: Path, path: str) -> list[int]:
    """The offsets of a file's blocks on the disk, in bytes."""
    text = debugfs(image, f"blocks {path}", write=False)
    numbers = [int(word) for word in text.splitlines()[-1].split() if word.isdecimal()]
    assert numbers, text
    start = partition(image, -1)
    return [start + number * BLOCK for number in numbers]


def configuration(pattern: str, replacement: str) -> Callable[[Path], None]:
    """Replaces `pattern` in extlinux.conf; the pattern must match."""

    def change(image: Path) -> None:
        text, count = re.subn(pattern, replacement, read(image, CONF), flags=re.MULTILINE)
        assert count, f"{pattern} is not in extlinux.conf"
        put(image, CONF, text)

    return change


def kernel_argument(word: str) -> Callable[[Path], None]:
    return configuration(r"^(\s*APPEND .*)$", rf"\1 {word}")


def zeros(image: Path, path: str, first: int, count: int) -> None:
    """Overwrites blocks of a file in place with zeros."""
    for offset in blocks(image, path)[first : first + count]:
        overwrite(image, offset, bytes(BLOCK))


def unit(name: str, text: str, *, target: str = "multi-user.target") -> Callable[[Path], None]:
    """Adds a unit to the image and enables it for `target`."""

    def change(image: Path) -> None:
        wanted = f"{UNITS}/{target}.wants"
        put(image, f"{UNITS}/{name}", text)
        debugfs(image, f"mkdir {wanted}", f"symlink {wanted}/{name} ../{name}")

    return change


def removed(*paths: str) -> Callable[[Path], None]:
    return lambda image: debugfs(image, *(f"rm {path}" for path in paths))


def appended(path: str, text: str) -> Callable[[Path], None]:
    return lambda image: put(image, path, read(image, path) + text)


def boot_code(code: bytes) -> Callable[[Path], None]:
    """Replaces the code of the master boot record."""
    assert len(code) <= 440
    return lambda image: overwrite(image, 0, code.ljust(440, b"\0"))


def say(port: int, text: bytes, at: int, *, forever: bool = False) -> bytes:
    """Real-mode code for the address 0x7c00 + `at` that sends a text to a serial port."""
    status, low = (port + 5).to_bytes(2, "little"), port.to_bytes(2, "little")
    loop = (
        b"\xac\x84\xc0\x74\x12\x88\xc4"  # next: lodsb; test al,al; jz done; mov ah,al
        b"\xba" + status + b"\xec\xa8\x20\x74\xf8"  # wait: in al,(status); test al,20h; jz wait
        b"\x88\xe0\xba" + low + b"\xee\xeb\xe9"  # mov al,ah; out (port),al; jmp next
    )
    length = 9 + len(loop)
    message = (0x7C00 + at + length).to_bytes(2, "little")
    start = b"\x31\xc0\x8e\xd8\xbe" + message + loop  # xor ax,ax; mov ds,ax; mov si,message
    # done: jump back to the start, or over the text to the next code.
    skip = -(len(start) + 2) & 0xFF if forever else len(text) + 1
    return start + b"\xeb" + bytes([skip]) + text + b"\0"
