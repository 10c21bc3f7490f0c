"""Searches everything that a run leaves for a secret, whatever form it has there.

The search decodes what it finds and knows nothing of the forms that particle-os hides, so a form
that particle-os forgets is noticed. `unit/test_canary.py` shows that the search detects each form.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

from .waiting import POLL_SECONDS

# Larger files are disks: there only the secret as it is, is searched for.
DECODED_BYTES = 16 << 20
CHUNK = 1 << 20
# What logs, reports and the kernel put between two lines of a guest, by the name of the reading.
STAMP = rb"(?:\[ *\d+\.\d{6}\] )?"
DIVIDERS = {
    "divided": re.compile(rb"[\r\n]+" + STAMP),
    "divided on a terminal": re.compile(rb"[\r\n]+(?: {4}|  \| )" + STAMP),
    "divided in a log": re.compile(rb"\n *\d+\.\d\d " + STAMP),
    "divided in JSON": re.compile(rb'",\s*"' + STAMP),
    "divided by blanks": re.compile(rb"\s+"),
}
ESCAPE = re.compile(rb"\\(?:u00([0-9a-f]{2})|x([0-9a-fA-F]{2})|([0-7]{3})|([^ux0-7]))")


def new_secret() -> str:
    """A secret of this run, with characters that documents and shells quote."""
    return f"canary-{secrets.token_urlsafe(9)}'\"<&>/+ %{secrets.token_hex(6)}"


def canary_word() -> str:
    """A secret of this run that YAML reads as text: digits alone would be a number."""
    return f"c{secrets.token_hex(8)}"


def _unescaped(data: bytes) -> bytes:
    def plain(found: re.Match[bytes]) -> bytes:
        unicode, byte, octal, other = found.groups()
        if digits := unicode or byte:
            return bytes([int(digits, 16)])
        return bytes([int(octal, 8) & 255]) if octal else other

    return ESCAPE.sub(plain, data)


def _base64(data: bytes) -> Iterator[bytes]:
    for run in re.findall(rb"[A-Za-z0-9+/_-]{8,}", re.sub(rb"\s", b"", data)):
        digits = run.translate(bytes.maketrans(b"-_", b"+/"))
        for start in range(4):
            part = digits[start:]
            if len(part) % 4 == 1:
                part = part[:-1]
            yield base64.b64decode(part + b"=" * (-len(part) % 4))


def _hex(data: bytes) -> Iterator[bytes]:
    for run in re.findall(rb"[0-9a-fA-F]{8,}", re.sub(rb"\s|:|\\x|0x|,", b"", data)):
        for start in range(2):
            part = run[start:]
            yield binascii.unhexlify(part[: len(part) // 2 * 2])


def views(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the ways to read `data`."""
    joined = ((name, divider.sub(b"", data)) for name, divider in DIVIDERS.items())
    for name, text in (("plain", data), *joined):
        yield name, text
        yield f"{name}, from a URL", unquote_to_bytes(text)
        yield f"{name}, from a form", unquote_to_bytes(text.replace(b"+", b" "))
        yield f"{name}, escaped", _unescaped(text)
        yield (
            f"{name}, from HTML",
            html.unescape(text.decode("latin-1")).encode("latin-1", "replace"),
        )
        yield f"{name}, quoted by a shell", text.replace(b"'\\''", b"'").replace(b"'\"'\"'", b"'")
        yield f"{name}, base64", b"\n".join(_base64(text))
        yield f"{name}, hex", b"\n".join(_hex(text))


def traces(data: bytes, secret: str) -> list[str]:
    """The names of the views of `data` that show the secret."""
    wanted = secret.encode()
    if len(data) > DECODED_BYTES:
        return ["plain"] if wanted in data else []
    return [name for name, view in views(data) if wanted in view]


def in_files(place: Path, secret: str, since: float = 0.0) -> list[str]:
    """The files below `place` that show the secret, in their names or contents.

    Files that were last changed before `since` (in seconds since 1970) are left out.
    """
    found = []
    for path in sorted(place.rglob("*")):
        seen = traces(str(path).encode(), secret)
        if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= since:
            seen += _in_file(path, secret)
        found += [f"{path}: {name}" for name in seen]
    return found


def _in_file(path: Path, secret: str) -> list[str]:
    if path.stat().st_size <= DECODED_BYTES:
        return traces(path.read_bytes(), secret)
    wanted, rest = secret.encode(), b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            if wanted in rest + chunk:
                return ["plain"]
            rest = chunk[-len(wanted) :]
    return []


def in_process(
    place: Path, secret: str, names: Sequence[str] = ("cmdline", "environ")
) -> list[str]:
    """The views of a process's directory in /proc that show the secret."""
    found = []
    for name in names:
        try:
            data = (place / name).read_bytes()
        except OSError:
            continue
        found += [f"{place / name}: {view}" for view in traces(data, secret)]
    return found


class Watch:
    """Searches all programs that a process starts, for as long as the context lasts."""

    def __init__(self, pid: int, secret: str) -> None:
        self._pid = pid
        self._secret = secret
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self.programs: set[str] = set()
        self.found: list[str] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        seen: set[tuple[int, bytes]] = set()
        while not self._over.wait(POLL_SECONDS):
            for place in _descendants(self._pid):
                try:
                    arguments = (place / "cmdline").read_bytes()
                except OSError:
                    continue
                # Before exec, a child has the arguments and the variables of its parent. During
                # exec, and after its end, it has none.
                if (int(place.name), arguments) in seen or arguments in (b"", self._own()):
                    continue
                seen.add((int(place.name), arguments))
                self.programs.add(Path(arguments.split(b"\0")[0].decode("utf-8", "replace")).name)
                self.found += in_process(place, self._secret)

    def _own(self) -> bytes:
        try:
            return Path(f"/proc/{self._pid}/cmdline").read_bytes()
        except OSError:
            return b""


def _descendants(pid: int) -> Iterator[Path]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            continue
        for child in found:
            yield Path(f"/proc/{child}")
            yield from _descendants(int(child))
