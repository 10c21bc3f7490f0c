"""The forms in which a program may print a secret: as it is, encoded, quoted or escaped."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

# Bytes. A shorter text stands in too many unrelated lines.
LEAST = 4
# A secret with more lines is hidden as a whole in every form, and line by line as it is.
ENCODED_LINES = 200
_SHELL_SPECIAL = re.compile(r"([^\w@%+=:,./-])")
_BASH_SPECIAL = re.compile(r"([^\w@%+=:./-])")
_ESCAPED_CHARACTER = re.compile(r"\\u([0-9a-f]{4})")
_ESCAPED_BYTE = re.compile(r"%[0-9A-F]{2}")


def plain_forms(values: Iterable[bytes]) -> set[bytes]:
    """The secrets and their lines as they are, quoted, or escaped."""
    return {form for part in _parts(values) for form in _plain(part)}


def encoded_forms(values: Iterable[bytes]) -> set[bytes]:
    """The secrets and their lines in base64 and hex, which programs wrap and divide by blanks."""
    return {form for part in _parts(values) for form in _encoded(part)}


def _parts(values: Iterable[bytes]) -> Iterator[bytes]:
    """Each value and each of its lines, also without blanks around it; only long enough ones."""
    for value in values:
        lines = value.splitlines()
        for part in (value, *lines[:ENCODED_LINES]):
            if len(stripped := part.strip()) >= LEAST:
                yield part
                yield stripped


def further_lines(values: Iterable[bytes]) -> set[bytes]:
    """The lines of long secrets beyond those that the other functions encode."""
    lines = (line.strip() for value in values for line in value.splitlines()[ENCODED_LINES:])
    return {line for line in lines if len(line) >= LEAST}


def _plain(value: bytes) -> Iterator[bytes]:
    yield value
    text = value.decode("utf-8", "replace")
    yield text.encode()
    for escaped in {*_of_documents(text), *_of_shells(text), *_of_urls(value)}:
        yield escaped.encode("utf-8", "replace")
    yield _escaped(value, "\\x{:02x}")
    yield _escaped(value, "\\{:03o}")


def _of_documents(text: str) -> Iterator[str]:
    """The forms in JSON, HTML, XML and Python."""
    for ascii_only in (True, False):
        quoted = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield quoted
        yield quoted.replace("/", "\\/")
        # Go escapes what HTML knows; .NET escapes quotes and the plus, too, in capital digits.
        yield _with_escapes(quoted, "<>&")
        yield _in_capitals(_with_escapes(quoted.replace('\\"', '"'), "<>&'+\"`"))
        yield _in_capitals(quoted)
    yield html.escape(text)
    yield html.escape(text).replace("&#x27;", "&apos;")
    yield html.escape(text, quote=False)
    yield html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    escaped = text.encode("unicode_escape").decode("ascii")
    yield escaped
    # Python's repr() of a text with both quotes, and bash's $'...'.
    yield escaped.replace("'", "\\'")
    yield text.replace("\\", "\\\\").replace("'", "\\'")


def _with_escapes(quoted: str, characters: str) -> str:
    """JSON text in which these characters are escaped, too."""
    return "".join(f"\\u{ord(c):04x}" if c in characters else c for c in quoted)


def _in_capitals(quoted: str) -> str:
    return _ESCAPED_CHARACTER.sub(lambda found: f"\\u{found[1].upper()}", quoted)


def _of_shells(text: str) -> Iterator[str]:
    """The forms of a shell's trace and of printf %q."""
    yield text.replace("'", "'\\''")
    yield text.replace("'", "'\"'\"'")
    yield _SHELL_SPECIAL.sub(r"\\\1", text)
    yield _BASH_SPECIAL.sub(r"\\\1", text)


def _of_urls(value: bytes) -> Iterator[str]:
    # JavaScript's encodeURIComponent() leaves more characters as they are.
    for quoted in (quote(value, safe=""), quote(value), quote_plus(value), quote(value, "!'()*")):
        yield quoted
        yield _ESCAPED_BYTE.sub(lambda found: found.group().lower(), quoted)


def _escaped(value: bytes, pattern: str) -> bytes:
    """The value with its unprintable bytes escaped, as bash and the kernel print them."""
    return "".join(chr(b) if 32 <= b < 127 else pattern.format(b) for b in value).encode()


def _encoded(value: bytes) -> Iterator[bytes]:
    for separator in ("", ":", "\\x"):
        digits = separator.join(f"{byte:02x}" for byte in value)
        yield digits.encode()
        yield digits.upper().replace("\\X", "\\x").encode()
    for before in range(3):
        core = _base64_core(value, before)
        yield core
        yield core.translate(bytes.maketrans(b"+/", b"-_"))


def _base64_core(value: bytes, before: int) -> bytes:
    """The base64 digits that `value` alone decides when `before` other bytes precede it."""
    bits = 8 * (before + len(value))
    digits = base64.b64encode(bytes(before) + value)
    return digits[(8 * before + 5) // 6 : bits // 6]
