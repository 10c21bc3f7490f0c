"""Jenkins' step `sh` (plugins durable-task and workflow-durable-task-step).

The script is a file that `sh -xe` runs in the workspace. A job that is aborted: each process whose
environment has the cookie of the step gets SIGTERM; what is left gets SIGKILL
(hudson.util.ProcessTree).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

CONTAINER = Path(__file__).with_name("container.py")
COOKIE = "durable-0123456789abcdef"


def scripts(pipeline: str) -> list[str]:
    """The scripts of the steps `sh` of a pipeline: one-line strings in single quotes."""
    return re.findall(r"^\s*sh '([^'\n]*)'$", pipeline, re.MULTILINE)


def start(script: str, workspace: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Starts a step in a workspace."""
    file = workspace.with_name(f"{workspace.name}@tmp.sh")
    file.write_text(script)
    variables = {
        **environment, "BUILD_ID": "1", "BUILD_NUMBER": "1", "CI": "true",
        "JENKINS_NODE_COOKIE": COOKIE, "JENKINS_URL": "https://jenkins.example.org/",
        "WORKSPACE": str(workspace),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(CONTAINER), "sh", "-xe", str(file)], cwd=workspace, env=variables,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def processes() -> list[int]:
    """The processes of the step."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"JENKINS_NODE_COOKIE={COOKIE}".encode() in place.read_bytes().split(b"\0"):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def signal_all(number: int) -> None:
    """Sends a signal to each process of the step."""
    for pid in processes():
        os.kill(pid, number)
