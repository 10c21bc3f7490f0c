"""Checks of calendar events, in the notation of systemd.time(7)."""

from __future__ import annotations

import difflib
import re

SHORTHANDS = (
    "minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly",
    # systemd takes this word, too.
    "anually",  # codespell:ignore anually
    "annually", "bi-annually", "biannually", "semi-annually",
)  # fmt: skip
# Words of people and of crontab(5) for some of them.
MEANT = {
    "everyday": "daily", "nightly": "daily", "midnight": "daily", "every": "hourly",
    "everyhour": "hourly", "everyweek": "weekly", "everymonth": "monthly", "never": "yearly",
}  # fmt: skip
_DAY = r"(mon(day)?|tue(sday)?|wed(nesday)?|thu(rsday)?|fri(day)?|sat(urday)?|sun(day)?)"
_DAYS = re.compile(rf"{_DAY}(\.\.{_DAY}|-{_DAY})?(,({_DAY}(\.\.{_DAY}|-{_DAY})?)?)*", re.IGNORECASE)
_FIELD = r"[0-9*][0-9*,./]*"
_DATE = re.compile(rf"({_FIELD}[-/])?{_FIELD}[-~]{_FIELD}")
_TIME = re.compile(rf"{_FIELD}:{_FIELD}(:{_FIELD})?")
# A number of a field, without steps and fractions of seconds.
_NUMBER = re.compile(r"(?<![0-9/])(?<![0-9]\.)[0-9]+")
# The most of the hours, minutes and seconds of a time, and of the months and days of a date.
_MOST_OF_TIME: tuple[int, ...] = (23, 59, 59)
_MOST_OF_DATE: tuple[int, ...] = (12, 31)
_SECONDS = re.compile(r"@[0-9]+")
# The last word may be a time zone, which only the image knows.
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")


def fault(text: str) -> str | None:
    """The reason that the text is certainly no calendar event; None if it may be one.

    systemd itself decides in the image about days that a month lacks, and about steps.
    """
    words = text.split()
    if not words:
        return "on-calendar: a time is missing"
    if words[0].lower() in SHORTHANDS:
        return _fault_of_zone(words[1:])
    forms = [_DAYS, _DATE, _TIME]
    rest = list(words)
    if _SECONDS.fullmatch(rest[0]):
        forms = [_SECONDS]
    for form in forms:
        if rest and form.fullmatch(rest[0]):
            del rest[0]
    if rest == words:
        return _unknown(words[0])
    return _fault_of_fields(words[: len(words) - len(rest)]) or _fault_of_zone(rest)


def _fault_of_fields(words: list[str]) -> str | None:
    """The reason that a date or a time has a number which is too large; None for all others."""
    for word in words:
        if _TIME.fullmatch(word):
            fields, most = word.split(":"), _MOST_OF_TIME
        elif _DATE.fullmatch(word):
            fields, most = re.split("[-~]", word)[-2:], _MOST_OF_DATE
        else:
            continue
        for field, limit in zip(fields, most, strict=False):
            for number in _NUMBER.findall(field):
                if int(number[:9]) > limit:
                    return f"on-calendar: '{word[:80]}' has a {number[:9]}, and {limit} is the most"
    return None


def _fault_of_zone(words: list[str]) -> str | None:
    """The reason that the rest of a calendar event is no time zone; None for no words."""
    for word in words:
        known = word.lower() in SHORTHANDS or _DAYS.fullmatch(word)
        if len(words) > 1 or known or not _ZONE.fullmatch(word):
            return _unknown(word)
    return None


def _unknown(word: str) -> str:
    known = [name for name in SHORTHANDS if name in ("minutely", "hourly", "daily", "weekly",
                                                     "monthly", "quarterly", "yearly")]  # fmt: skip
    near = next(iter(difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)), None)
    meant = MEANT.get(word.lower(), near)
    write = f"did you mean '{meant}'?" if meant else "write 'daily', or 'Mon *-*-* 03:00'"
    return f"on-calendar: systemd.time(7) has no '{word[:80]}': {write}"
