"""A planted orphan: the positive control of what looks for processes that were left."""

import os
import subprocess
import sys
from collections.abc import Mapping

_CODE = """\
import os, time
if os.fork():
    os._exit(0)
os.setsid()
print(os.getpid(), flush=True)
time.sleep(600) # orphan
"""


def planted_orphan(variables: Mapping[str, str] | None = None) -> int:
    """Start a process in a session of its own, whose parent has ended, and return its number."""
    command = [sys.executable, "-c", _CODE]
    environment = {**os.environ, **(variables or {})}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    with parent.stdout as output:
        number = int(output.readline())
    assert parent.wait() == 0
    return number
