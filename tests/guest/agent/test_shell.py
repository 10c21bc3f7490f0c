"""The root shell in the target."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_agent.agent import shell
from particle_agent.contract import wire


@pytest.fixture
def started(monkeypatch):
    """The commands that the shell starts in the target, each with its configuration of apt."""
    commands, files = [], {"/bin/bash"}

    class Target:
        def __init__(self, root, channel, *, hostname):
            self.written = {}

        def exists(self, path):
            return path in files

        def path(self, path):
            return Path(f"/target{path}")

        def mounted_inside(self, what, where, option):
            commands.append((str(what), where, option))
            return nullcontext()

        def network(self):
            return nullcontext()

        def write(self, path, text):
            self.written[path] = text

        def start(self, argv, *, env):
            commands.append((tuple(argv[2:]), self.written.get(env.get("APT_CONFIG"))))
            variables.append(env)
            return SimpleNamespace(wait=lambda: 7)

        def end_programs(self):
            commands.append("end")

    variables = []
    commands_of = SimpleNamespace(commands=commands, files=files, variables=variables)
    monkeypatch.setattr(shell, "Target", Target)
    monkeypatch.setattr(shell, "mount_scratch", lambda: None)
    monkeypatch.setattr(shell, "mounted_for_chroot", nullcontext)
    return commands_of


def test_a_shell_starts_without_indexes(started):
    assert shell.run_shell(wire.ShellOptions()) == 7
    assert started.commands == [(("/bin/bash", "-l"), None), "end"]
    assert "DPKG_ADMINDIR" not in started.variables[0]


def test_a_shell_in_a_commit_has_its_etc_and_its_database_of_packages(started):
    started.files.update({"/usr/etc", "/sysroot"})
    shell.run_shell(wire.ShellOptions())
    assert started.commands[0] == ("/target/usr/etc", "/etc", "--bind")
    assert started.variables[0]["DPKG_ADMINDIR"] == "/usr/share/dpkg/database"


def test_apt_fetches_its_indexes_on_request_through_the_proxy(started):
    proxy = wire.AptProxy(url="http://10.0.2.2:3142", https="direct", caches=False)
    shell.run_shell(wire.ShellOptions(apt_proxy=proxy, apt_indexes=True))
    (update, through), (program, _), _ = started.commands
    assert update == ("apt-get", "update", "-q")
    assert "10.0.2.2:3142" in through
    # A source that fails does not keep the shell from starting.
    assert program == ("/bin/bash", "-l")
