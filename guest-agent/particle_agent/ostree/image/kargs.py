"""Files of bootc with words for the kernel's command line: /usr/lib/bootc/kargs.d.

Format: https://bootc.dev/bootc/building/kernel-arguments.html
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence

DIRECTORY = "/usr/lib/bootc/kargs.d"
KEYS = {"kargs", "match-architectures"}
# A file of words for the kernel is far smaller.
LIMIT = 1 << 16


def fault(data: bytes) -> str | None:
    """The reason why bootc cannot read the file; None if it can."""
    if len(data) > LIMIT:
        return f"it is larger than {LIMIT >> 10} KiB"
    try:
        found = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        return f"it is not TOML: {str(error)[:100]}"
    if unknown := sorted(found.keys() - KEYS):
        return f"the key {unknown[0][:40]!r} is unknown"
    if "kargs" not in found:
        return "the key 'kargs' is missing"
    for key, value in found.items():
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            return f"{key} is no list of strings"
    return None


def text(words: Sequence[str]) -> str:
    """A file with these words."""
    return f"kargs = [{', '.join(map(quoted, words))}]\n"


def quoted(word: str) -> str:
    """A basic string of TOML. Its escapes are those of JSON, without pairs of surrogates."""
    return json.dumps(word, ensure_ascii=False).replace("\x7f", r"\u007f")
