"""Runs code in a child process with little memory and processor time, which are no clock."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from .waiting import HANG_SECONDS

# The limits for a hostile input. RLIMIT_CPU counts whole seconds of the processor.
MEMORY_BYTES = 200 << 20
PROCESSOR_SECONDS = 5
CHILD = """\
import resource, sys
from particle_os.errors import ParticleError
{setup}
used = resource.getrusage(resource.RUSAGE_SELF)
most = int(used.ru_utime + used.ru_stime) + 1 + {seconds}
resource.setrlimit(resource.RLIMIT_CPU, (most, most))
resource.setrlimit(resource.RLIMIT_DATA, ({memory}, {memory}))
try:
{action}
except ParticleError as error:
    print(type(error).__name__, error, getattr(error, "problems", ""), sep=": ")
"""


class Exhausted(AssertionError):
    """The code took more than it may, or failed in another way than by an error for the user."""


def limited(setup: str, action: str, *arguments: object) -> str:
    """Returns the output of `action`, or the error for the user that it raises.

    `setup` holds imports, which cost nothing; `arguments` become sys.argv[1:].
    """
    code = CHILD.format(
        setup=textwrap.dedent(setup),
        action=textwrap.indent(textwrap.dedent(action), "    "),
        seconds=PROCESSOR_SECONDS,
        memory=MEMORY_BYTES,
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    if done.returncode != 0:
        raise Exhausted(f"status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
