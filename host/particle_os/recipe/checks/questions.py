"""Encodes the programs of all checks as text for the probe in the booted image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from particle_os.recipe.checks.kinds import Check

# Bytes. SMBIOS 2.x limits all its structures together to 64 KiB.
QUESTIONS_LIMIT = 24 << 10
TOO_LONG = f"the checks are longer than the {QUESTIONS_LIMIT} bytes that can be passed to an image"
TOO_LONG_HINT = "put long commands into a script of the image"


def first_beyond_limit(checks: Sequence[Check]) -> int | None:
    """The index of the first check that exceeds the limit; None when all checks fit."""
    lengths = accumulate(map(len, questions(checks)))
    return next((index for index, length in enumerate(lengths) if length > QUESTIONS_LIMIT), None)


def questions(checks: Sequence[Check]) -> Iterator[bytes]:
    """Yields for each check its programs, one program a line."""
    for number, check in enumerate(checks):
        lines = []
        for index, argv in enumerate(check.asks()):
            words = " ".join(f".{escaped(word.encode())}" for word in argv)
            lines.append(f"{number}.{index} {check.seconds} {words}\n")
        yield "".join(lines).encode()


def escaped(word: bytes) -> str:
    """A word for `printf %b` of any shell; special bytes become octal escapes."""
    plain = b"%+,-./:=@_"
    return "".join(
        chr(byte) if byte in plain or (chr(byte).isalnum() and byte < 128) else f"\\0{byte:03o}"
        for byte in word
    )
