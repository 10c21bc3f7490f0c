"""The root shell in the target."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from particle_agent.agent import shell
from particle_agent.contract import wire


@pytest.fixture
def started(monkeypatch):
    """The commands that the shell starts in the target, each with its configuration of apt."""
    commands = []

    class Target:
        def __init__(self, root, channel, *, hostname):
            self.written = {}

        def exists(self, path):
            return True

        def network(self):
            return nullcontext()

        def write(self, path, text):
            self.written[path] = text

        def start(self, argv, *, env):
            commands.append((tuple(argv[2:]), self.written.get(env.get("APT_CONFIG"))))
            return SimpleNamespace(wait=lambda: 7)

        def end_programs(self):
            commands.append("end")

    monkeypatch.setattr(shell, "Target", Target)
    monkeypatch.setattr(shell, "mount_scratch", lambda: None)
    monkeypatch.setattr(shell, "mounted_for_chroot", nullcontext)
    return commands


def test_a_shell_starts_without_indexes(started):
    assert shell.run_shell(wire.ShellOptions()) == 7
    assert started == [(("/bin/bash", "-l"), None), "end"]


def test_apt_fetches_its_indexes_on_request_through_the_proxy(started):
    proxy = wire.AptProxy(url="http://10.0.2.2:3142", https="direct", caches=False)
    shell.run_shell(wire.ShellOptions(apt_proxy=proxy, apt_indexes=True))
    (update, through), (program, _), _ = started
    assert update == ("apt-get", "update", "-q")
    assert "10.0.2.2:3142" in through
    # A source that fails does not keep the shell from starting.
    assert program == ("/bin/bash", "-l")
