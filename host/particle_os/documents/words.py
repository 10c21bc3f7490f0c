"""Words that were probably meant by others, and the hints that offer them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that was probably meant."""
    candidates = list(words)
    spelled = word.replace("_", "-").lower()
    if spelled in candidates:
        return spelled
    if (begun := [word for word in candidates if word.startswith(spelled)]) and len(begun) == 1:
        return begun[0]
    return next(iter(difflib.get_close_matches(spelled, candidates, n=1, cutoff=0.6)), None)


def did_you_mean(near: str | None, allowed: list[str]) -> str | None:
    """The hint that goes with a wrong word."""
    if near:
        return f"did you mean '{near}'?"
    return f"allowed: {', '.join(allowed)}" if allowed else None
