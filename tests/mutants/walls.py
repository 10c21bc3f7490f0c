"""Runs programs so that they reach no file, process or network outside of their directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

INSIDE = Path(__file__).with_name("inside.py")
CHECK_SECONDS = 60


@dataclass(frozen=True)
class Ended:
    """The exit status of a program (None: it was ended after its time), and its output."""

    status: int | None
    output: str


# A function of a directory with the copy `tree`, arguments of Python, variables, and seconds.
Runner = Callable[[Path, list[str], Mapping[str, str], float], Ended]


def confined(place: Path, argv: list[str], env: Mapping[str, str], seconds: float) -> Ended:
    """Runs Python in `place`/tree, in namespaces and under Landlock."""
    for name in ("tmp", "home"):
        (place / name).mkdir(exist_ok=True)
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    new = ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    own = [sys.executable, str(INSIDE), str(place)]
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *new, *own, *argv],
        cwd=place / "tree",
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(place / "tmp"),
            "HOME": str(place / "home"),
            "LC_ALL": "C.UTF-8",
            **env,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)  # The kernel then ends all processes inside.
        return Ended(None, process.communicate()[0])
    return Ended(process.returncode, output)


ESCAPES = """
import os, pathlib, socket, sys
def escapes(attempt):
    try:
        attempt()
    except (OSError, ProcessLookupError):
        return False
    return True
print(escapes(lambda: pathlib.Path({outside!r}).write_text("x")),
      escapes(lambda: pathlib.Path({outside!r}).parent.rmdir()),
      escapes(lambda: os.kill({pid}, 0)),
      escapes(lambda: socket.create_connection(("192.0.2.1", 9), 1)))
"""


def check_walls(work: Path, run: Runner) -> None:
    """Ends the program unless a mutant is kept from other files, processes and networks."""
    place, outside = work / "walls", work / "outside" / "file"
    outside.parent.mkdir()
    (place / "tree").mkdir(parents=True)
    code = ESCAPES.format(outside=str(outside), pid=os.getpid())
    said = run(place, ["-c", code], {}, CHECK_SECONDS).output
    if said.split() != ["False"] * 4:
        sys.exit(f"mutants cannot be confined here: {said}")
