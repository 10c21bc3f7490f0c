"""GitLab's runner with the docker executor (gitlab-org/gitlab-runner, shells/bash.go).

`before_script` and `script` are one script in bash, and `after_script` is another one. Each begins
with the variables of the job, and its commands are the argument of `eval`, with a pipe as standard
input. A job that is cancelled: each process of the container gets SIGTERM, the youngest first.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).parents[2]
CONTAINER = Path(__file__).with_name("container.py")
COMPONENT = (TOP / "templates/build.yml").read_text()
INPUT = re.compile(r"\$\[\[ inputs\.([a-z-]+) \]\]")


def filled(given: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs of the component, and its jobs as GitLab makes them of the inputs `given`."""
    inputs = next(yaml.safe_load_all(COMPONENT))["spec"]["inputs"]
    unknown = set(given) - set(inputs)
    assert not unknown, unknown

    def value(found: re.Match[str]) -> str:
        return str(given[found[1]] if found[1] in given else inputs[found[1]]["default"])

    return inputs, yaml.safe_load(INPUT.sub(value, COMPONENT.partition("\n---\n")[2]))


@dataclass
class Runner:
    """A container with a clone of the project."""

    project: Path
    environment: Mapping[str, str]
    confined: Sequence[str] = (sys.executable, str(CONTAINER))

    def script(self, variables: Mapping[str, str], commands: Sequence[str]) -> str:
        """The script that the runner makes."""
        exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        lines = "\n".join([*exports, f"cd {shlex.quote(str(self.project))}", *commands])
        return (
            "if set -o | grep pipefail >/dev/null; then set -o pipefail; fi; set -o errexit\n"
            f"set +o noclobber\n: | eval {shlex.quote(lines)}\nexit 0\n"
        )

    def start(self, job: Mapping[str, Any], parts: Sequence[str]) -> subprocess.Popen[str]:
        """Starts parts of a job, such as before_script and script; bash reads them from a pipe."""
        variables = {"CI": "true", "CI_PROJECT_DIR": str(self.project), "GITLAB_CI": "true"}
        variables |= {k: self._expanded(v, variables) for k, v in job["variables"].items()}
        # A variable of the pipeline has precedence over one of the job.
        variables |= {k: v for k, v in self.environment.items() if k in job["variables"]}
        commands = [command for part in parts for command in job[part]]
        process = subprocess.Popen(
            [*self.confined, "bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=dict(self.environment), text=True,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(self.script(variables, commands))
        process.stdin.close()
        process.stdin = None
        return process

    def _expanded(self, text: str, variables: Mapping[str, str]) -> str:
        return re.sub(r"\$([A-Z_]+)", lambda found: variables.get(found[1], ""), text)


def ending(session: int) -> list[int]:
    """The processes of a session, the youngest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found, reverse=True)
