"""What a boot test asks of the system, as text that is handed into the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from particle_os.recipe.checks.kinds import Check

# All of SMBIOS has 64 KiB in its older form.
QUESTIONS_LIMIT = 24 << 10
TOO_LONG = f"the checks are longer than the {QUESTIONS_LIMIT} bytes that can be handed to an image"
TOO_LONG_HINT = "put long commands into a script of the image"


def first_beyond_limit(checks: Sequence[Check]) -> int | None:
    """The index of the check with which they become too long to be handed to an image."""
    lengths = accumulate(map(len, questions(checks)))
    return next((index for index, length in enumerate(lengths) if length > QUESTIONS_LIMIT), None)


def questions(checks: Sequence[Check]) -> Iterator[bytes]:
    """What each check asks, a line a program."""
    for number, check in enumerate(checks):
        lines = []
        for index, argv in enumerate(check.asks()):
            words = " ".join(f".{_escaped(word)}" for word in argv)
            lines.append(f"{number}.{index} {check.seconds} {words}\n")
        yield "".join(lines).encode()


def _escaped(word: str) -> str:
    """A word for `printf %b` of any shell: what is not plain as an octal number."""
    plain = b"%+,-./:=@_"
    return "".join(
        chr(byte) if byte in plain or (chr(byte).isalnum() and byte < 128) else f"\\0{byte:03o}"
        for byte in word.encode()
    )
