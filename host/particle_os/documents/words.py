"""Finds the word that the user probably meant by a wrong word, and makes the hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word in `words` that the user probably meant by `word`; None without a near one."""
    candidates = list(words)
    spelled = word.replace("_", "-").lower()
    if spelled in candidates:
        return spelled
    if (begun := [word for word in candidates if word.startswith(spelled)]) and len(begun) == 1:
        return begun[0]
    return next(iter(difflib.get_close_matches(spelled, candidates, n=1, cutoff=0.6)), None)


def did_you_mean(near: str | None, allowed: list[str]) -> str | None:
    """The hint for a wrong word: the near word, or the allowed words."""
    if near:
        return f"did you mean '{near}'?"
    return f"allowed: {', '.join(allowed)}" if allowed else None
