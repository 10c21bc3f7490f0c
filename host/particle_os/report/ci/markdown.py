"""Verdicts as Markdown, for the summary of a CI job (https://github.github.com/gfm/)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import ParticleError, printable, whole_line

# CI systems cut summaries at 1 MiB, and a page of more lines is not read.
MOST_LINES, MOST_CHARACTERS = 60, 300
PUNCTUATION = re.compile("[^A-Za-z0-9 ]")
FENCE = "`" * 3


def document(image: str, verdicts: Sequence[Verdict]) -> str:
    """A table of the boots, and below it failed checks, ends of consoles, and screens."""
    return "".join(f"{line}\n" for line in _document(image, verdicts))


def failed_build(name: str, error: ParticleError) -> str:
    """The error of a build without a verdict, with the last lines of its output."""
    lines = [_heading(name, error.build_status), "", _plain(error.brief), ""]
    if error.hint:
        lines += [_plain(error.hint), ""]
    return "".join(f"{line}\n" for line in (*lines, *_block(error.tail)))


def _document(image: str, verdicts: Sequence[Verdict]) -> Iterator[str]:
    bad = [verdict.status for verdict in verdicts if not verdict.accepted]
    usual = verdicts[-1].status if verdicts else "not booted"
    yield _heading(image, bad[0] if bad else usual)
    yield ""
    if verdicts:
        yield "| boot | verdict | seconds | |"
        yield "| --- | --- | --: | --- |"
    for verdict in verdicts:
        cells = (verdict.machine, verdict.status, f"{verdict.seconds:.1f}", verdict.message)
        yield f"| {' | '.join(map(_plain, cells))} |"
    yield ""
    for verdict in verdicts:
        for check in verdict.checks:
            if not check.passed:
                yield f"- {_plain(verdict.machine)}: {_plain(f'{check.name}: {check.detail}')}"
    for verdict in verdicts:
        if not verdict.accepted:
            machine = _plain(verdict.machine)
            yield from _shown(f"The end of the console under {machine}:", verdict.console_tail)
            yield from _shown(f"The screen under {machine}:", verdict.screen)


def _shown(heading: str, lines: Sequence[str]) -> Iterator[str]:
    """Lines of a guest below a heading; nothing without lines."""
    if lines:
        yield from ("", heading, "", *_block(lines))


def _heading(name: str, status: str) -> str:
    return f"### {_plain(name)}: {_plain(status)}"


def _plain(text: str) -> str:
    """One line of plain text: no character of it is markup, or a part of an address."""
    shown = whole_line(printable(text, MOST_CHARACTERS))
    return PUNCTUATION.sub(lambda found: f"&#{ord(found.group())};", shown)


def _block(lines: Sequence[str]) -> Iterator[str]:
    """The last lines as they are; their own fences do not end the block."""
    shown = [whole_line(printable(line, MOST_CHARACTERS)) for line in lines[-MOST_LINES:]]
    if not shown:
        return
    fence = FENCE
    while any(fence in line for line in shown):
        fence += "`"
    yield f"{fence}text"
    yield from shown
    yield fence
