"""The charts of the report as data: bars with a label, a value, a start and a width."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from particle_agent.contract.inspection import Package

from particle_os.boot.observation.verdict import Verdict
from particle_os.report.results import Result, StageResult
from particle_os.report.table import human_bytes

ITEMS = 500
LARGEST, SLOWEST = 12, 8
YEAR = 366 * 86400
BLAMED = re.compile(r" *(\d{1,9}\.\d{3})s (\S+)")
# A part of the sum in the output of systemd-analyze(1), such as "1min 34.486s (userspace)".
PART = re.compile(r"((?:\d{1,9}(?:\.\d{1,9})?(?:h|min|s|ms|us) ?)+)\((\w{1,20})\)")
TIME = re.compile(r"(\d+(?:\.\d+)?)(h|min|s|ms|us)")
UNITS = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True)
class Bar:
    """A line of a bar chart; `start` and `width` in per cent of the chart's width."""

    label: str
    value: str
    start: float
    width: float
    kind: str = ""


def duration(seconds: float) -> str:
    """Seconds for people: 0.4 s, 12.3 s, 4 min 5 s, 2 h 3 min."""
    # A guest may report any time.
    if not 0 <= seconds < YEAR:
        return "?"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def waterfall(verdict: Verdict) -> list[Bar]:
    """A bar for each phase, from its first sign to the first sign of the next phase.

    The last phase ends with the verdict. The firmware starts at 0.
    """
    seen = list(verdict.phases.items())[:ITEMS]
    phases = [(name, 0.0 if name == "firmware" else at) for name, at in seen]
    total = max([verdict.seconds, *verdict.phases.values()], default=0.0)
    ends = [*(at for _, at in phases), total][1:]
    found = []
    for index, ((name, at), end) in enumerate(zip(phases, ends, strict=True)):
        last = index == len(phases) - 1
        found.append(
            Bar(
                label=name,
                value=duration(end - at),
                start=percent(at, total),
                width=percent(end - at, total),
                kind="bad" if last and not verdict.accepted else "",
            )
        )
    return found


def build_waterfall(result: Result) -> list[Bar]:
    """A bar for each phase of a build, in the order of their starts.

    A phase can lie within another one. Results of earlier versions do not have the starts: then
    each phase follows the one before.
    """
    starts: Mapping[str, float] = result.phase_starts
    if not set(result.phases) <= set(starts):
        starts = _one_after_another(result.phases)
    total = build_seconds(result)
    ordered = sorted(result.phases.items(), key=lambda phase: starts[phase[0]])
    return [
        Bar(name, duration(seconds), percent(starts[name], total), percent(seconds, total))
        for name, seconds in ordered[:ITEMS]
    ]


def build_seconds(result: Result) -> float:
    """The time from the start of the first phase to the end of the last one."""
    starts = result.phase_starts
    if set(result.phases) <= set(starts):
        return max((starts[name] + seconds for name, seconds in result.phases.items()), default=0.0)
    return sum(result.phases.values())


def _one_after_another(phases: Mapping[str, float]) -> dict[str, float]:
    starts, at = {}, 0.0
    for name, seconds in phases.items():
        starts[name], at = at, at + seconds
    return starts


def startup(text: str) -> list[tuple[str, str]]:
    """The figures in the output of systemd-analyze(1): the parts of the start, and their sum.

    Empty for any other text.
    """
    parts = [(name, _seconds(time)) for time, name in PART.findall(text[:1000])]
    if not parts:
        return []
    parts.append(("in all", sum(seconds for _, seconds in parts)))
    return [(name, duration(seconds)) for name, seconds in parts]


def _seconds(text: str) -> float:
    return sum(float(number) * UNITS[unit] for number, unit in TIME.findall(text))


def slowest(lines: Sequence[str]) -> list[Bar]:
    """The units that took longest to start."""
    found = filter(None, map(BLAMED.fullmatch, lines[:SLOWEST]))
    return bars([(m[2], float(m[1])) for m in found])


def percent(part: float, whole: float) -> float:
    return round(min(100.0, max(0.0, 100 * part / whole)), 2) if whole > 0 else 0.0


def bars(values: Sequence[tuple[str, float]]) -> list[Bar]:
    longest = max((seconds for _, seconds in values), default=0.0)
    return [
        Bar(label, duration(seconds), 0.0, percent(seconds, longest)) for label, seconds in values
    ]


def stages(result: Result) -> list[Bar]:
    longest = max((stage.seconds or 0.0 for stage in result.stages[:ITEMS]), default=0.0)
    found = []
    for stage in result.stages[:ITEMS]:
        if stage.status == "failed" and stage.seconds is not None:
            value = f"failed, {duration(stage.seconds)}"
        elif stage.status != "done":
            value = stage.status.replace("-", " ")
        elif stage.cached:
            value = "cached"
        else:
            value = duration(stage.seconds or 0.0)
        found.append(
            Bar(
                label=called(stage),
                value=value,
                start=0.0,
                width=percent(stage.seconds or 0.0, longest),
                kind="bad" if stage.status == "failed" else "",
            )
        )
    return found


def called(stage: StageResult) -> str:
    called = f"{stage.name} ({stage.type})" if stage.name else stage.type
    return f"{stage.index + 1}. {called}"


def largest(packages: Sequence[Package]) -> list[Bar]:
    found = sorted(packages, key=lambda package: package.size, reverse=True)[:LARGEST]
    return [
        Bar(p.name, human_bytes(p.size), 0.0, percent(p.size, found[0].size))
        for p in found
        if p.size > 0
    ]
