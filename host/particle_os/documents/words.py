"""Finds the word that the user probably meant by a wrong word, and makes the hint."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from particle_agent.contract import keys

# In characters: the longest name of a file on Linux.
FILE_NAME_LIMIT = 255
# The most characters of a key in a message.
KEY_SHOWN = 40
# Templates of other programs have {{ x }}, which is a mapping with a mapping as its key in YAML.
VARIABLE_HINT = "write ${x} for a variable, not {{ x }}"


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word in `words` that the user probably meant by `word`; None without a near one."""
    candidates = list(words)
    spelled = word.replace("_", "-").lower()
    if spelled in candidates:
        return spelled
    begun = sorted((word for word in candidates if word.startswith(spelled)), key=len)
    # Of `base-image` and `base-image-key`, the first one is meant.
    if begun and all(word.startswith(begun[0]) for word in begun):
        return begun[0]
    return next(iter(difflib.get_close_matches(spelled, candidates, n=1, cutoff=0.6)), None)


def shown_key(key: str) -> str:
    """A wrong key as messages show it: without what follows a ':', '=' or blank.

    YAML reads `{password:X}`, without a blank before the value, as a key.
    """
    end = re.search(r"[:=\s]", key)
    shown = key[: end.start() + 1 if end else None][:KEY_SHOWN]
    return f"{shown}…" if shown != key else key


def unlike_a_path(text: str) -> str | None:
    """The description of a text that is no path, such as a pasted key; None for a possible path."""
    if keys.is_private(text):
        return "a private key"
    if lines := len(re.findall("[\r\n]+", text.strip())):
        return f"a text of {lines + 1} lines"
    if max(map(len, text.split("/"))) > FILE_NAME_LIMIT:
        return f"a text of {len(text)} characters"
    return None


def did_you_mean(near: str | None, allowed: list[str]) -> str | None:
    """The hint for a wrong word: the near word, or the allowed words."""
    if near:
        return f"did you mean '{near}'?"
    return f"allowed: {', '.join(allowed)}" if allowed else None
