"""Verdicts as annotations of a GitHub workflow, and protection against commands of guests.

The runner takes lines of both outputs as "workflow commands":
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands. It looks for
`::` after blanks, and for the older `##[` anywhere in a line (actions/runner,
src/Runner.Common/ActionCommand.cs).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import ParticleError, command_value


class Workflow:
    """The GitHub workflow that reads the lines that `write` prints; it may not exist.

    While commands are stopped, the runner obeys no line until a random token, which no guest knows.
    """

    def __init__(self, write: Callable[[str], None], environment: Mapping[str, str]) -> None:
        self._write = write
        self._exists = reads_us(environment)
        self._token: str | None = None

    def stop(self) -> None:
        """Stops commands before the first text of a guest."""
        if self._exists and self._token is None:
            self._token = secrets.token_hex(16)
            self._write(f"::stop-commands::{self._token}")

    def resume(self) -> None:
        """Lets the workflow obey commands again."""
        if self._token is not None:
            self._write(f"::{self._token}::")
            self._token = None

    def command(self, commands: Sequence[str]) -> None:
        """Prints commands of ours, which the workflow obeys."""
        if not self._exists:
            return
        stopped = self._token is not None
        self.resume()
        for command in commands:
            self._write(command)
        if stopped:
            self.stop()


def unlike_commands(text: str) -> str:
    """JSON of the same content in which no runner finds a command."""
    return text.replace("##", "#\\u0023")


def reads_us(environment: Mapping[str, str]) -> bool:
    """Whether a GitHub workflow reads what this process prints."""
    return environment.get("GITHUB_ACTIONS") == "true"


def workflow_commands(image: str, verdicts: Sequence[Verdict]) -> list[str]:
    """One line for each boot: a notice if it passed, else a warning or an error with the reason."""
    return [_line(image, verdict) for verdict in verdicts]


def failed_build(image: str, error: ParticleError) -> str:
    """An annotation for a build that failed before its boot test."""
    title = command_value(f"build of {image}: {error.build_status}", ":,")
    message = f"{error.brief}\n{error.where}" if error.where else error.brief
    return f"::error title={title}::{command_value(message)}"


def _line(image: str, verdict: Verdict) -> str:
    level = "notice" if verdict.passed else "warning" if verdict.accepted else "error"
    title = f"boot test of {image} ({verdict.machine}): {verdict.status}"
    failed = [f"{c.name}: {c.detail}" for c in verdict.checks if not c.passed]
    message = "\n".join(failed) if verdict.status == "checks-failed" else verdict.message
    return f"::{level} title={command_value(title, ':,')}::{command_value(message)}"
