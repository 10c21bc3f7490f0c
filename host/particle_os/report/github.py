"""Verdicts as annotations of a GitHub workflow, which are "workflow commands".

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from particle_os.boot.verdict import Verdict


def reads_us(environment: Mapping[str, str]) -> bool:
    """Whether a GitHub workflow reads what this process prints."""
    return environment.get("GITHUB_ACTIONS") == "true"


def workflow_commands(image: str, verdicts: Sequence[Verdict]) -> list[str]:
    """One line for each boot: a notice if it passed, else a warning or an error with the reason."""
    return [_line(image, verdict) for verdict in verdicts]


def _line(image: str, verdict: Verdict) -> str:
    level = "notice" if verdict.passed else "warning" if verdict.accepted else "error"
    title = _property(f"boot test of {image} ({verdict.firmware}): {verdict.status}")
    failed = [f"{c.name}: {c.detail}" for c in verdict.checks if not c.passed]
    message = _data("\n".join(failed) if verdict.status == "checks-failed" else verdict.message)
    return f"::{level} title={title}::{message}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
