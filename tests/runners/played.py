"""Stands for particle-os in a job: the program itself, whose VMs and boots are played.

`install` makes a directory as `python3 -m venv` and pip would make it. The environment variable
PLAYED says how the build ends: a key of `ENDS`, "wait" for one that waits until a signal ends it,
or "deaf" for one that no signal but SIGKILL ends. The latter two make the file STARTED. Two ends,
with a comma between them, are those of leaky.yml and of other.yml, a recipe that is there then.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]
LAUNCHER = """\
#!{python}
import sys
sys.path.insert(0, {top!r})
from tests.runners.played import main
sys.exit(main())
"""
PIP = '#!/bin/sh\nprintf "%s\\n" "$@" >"$(dirname "$0")/pip.arguments"\n'
# A stand-in for Python that makes no virtual environment, but puts the stand-ins in its place.
PYTHON = """\
#!/bin/sh
if [ "$1 $2" != "-m venv" ]; then exec "{python}" "$@"; fi
mkdir -p "$3"
cp -R "{venv}/." "$3"
"""
SETPRIV = """\
#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def install(directory: Path) -> Path:
    """Makes a directory of commands; its python3 makes a venv with the played program.

    Commands that change the system do nothing, and no command changes the user.
    """
    venv, commands = directory / "venv-to-be", directory / "commands"
    (venv / "bin").mkdir(parents=True)
    commands.mkdir()
    launcher = LAUNCHER.format(python=sys.executable, top=str(TOP))
    write_program(venv / "bin/particle-os", launcher)
    write_program(venv / "bin/pip", PIP)
    write_program(venv / "bin/python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    write_program(commands / "python3", PYTHON.format(venv=venv, python=sys.executable))
    # Root would build as another user; the scripts ask id(1) who they are.
    write_program(commands / "id", "#!/bin/sh\necho 1000\n")
    # The runner is a machine of amd64.
    write_program(commands / "dpkg", "#!/bin/sh\necho amd64\n")
    for name in ("apt-get", "chown", "useradd"):
        write_program(commands / name, f'#!/bin/sh\necho {name} "$@"\n')
    write_program(
        commands / "getent", f"#!/bin/sh\necho builder:x:1000:1000::{directory}:/bin/sh\n"
    )
    write_program(commands / "setpriv", SETPRIV)
    return commands


def environment(directory: Path, ends: str) -> dict[str, str]:
    """The environment of a job that `install` has prepared in a directory."""
    return {
        "PATH": f"{directory / 'commands'}:{os.environ['PATH']}", "HOME": str(directory),
        "LANG": "C.UTF-8", "TOKEN": "the secret of a stage", "PLAYED": ends,
        "STARTED": str(directory / "started"),
    }  # fmt: skip


def main() -> int:
    import pytest
    from particle_os.__main__ import main
    from particle_os.fleet import order

    from ..unit.played_build import World, set_up

    if sys.argv[1] == "build":
        world = World(Path.cwd(), "text", ["a line"], b"on the console\r\n", "detail")
        first, _, other = os.environ["PLAYED"].partition(", ")
        ends = other if Path(sys.argv[2]).name == "other.yml" else first
        world.ends = "good" if ends in ("wait", "deaf") else ends
        if ends in ("wait", "deaf"):
            world.disturb = lambda: _wait(deaf=ends == "deaf")  # type: ignore[method-assign]
        patch = pytest.MonkeyPatch()
        set_up(world, patch)
        if other:
            text = Path("leaky.yml").read_text()
            Path("other.yml").write_text(text.replace("name: leaky", "name: other"))
            # The build of each image is played, too.
            patch.setattr(order, "PROGRAM", (sys.argv[0],))
        # The recipe of a played build has a secret.
        sys.argv += ["--no-cache", "--allow-env", "TOKEN"]
    return int(main() or 0)


def _wait(*, deaf: bool) -> None:
    if deaf:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    Path(os.environ["STARTED"]).touch()
    while True:
        signal.pause()
