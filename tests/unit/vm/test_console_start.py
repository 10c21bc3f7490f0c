"""The program on a console is confined, sees no variables of the user, and dies with this process.

The program itself is not started.
"""

import signal

import pytest
from particle_os.system.confinement import Confinement, environment
from particle_os.system.gate import Gate
from particle_os.vm import console
from particle_os.vm.console import Console, ConsoleLog


class Started(Exception):
    pass


def test_a_program_on_a_console_is_a_child_of_ours(tmp_path, monkeypatch):
    given = []

    def spawn(program, arguments, **options):
        given.append((program, arguments, options))
        raise Started

    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setattr(console, "child_of_ours", lambda *asked: asked)
    monkeypatch.setattr(console.pexpect, "spawn", spawn)
    within, log = Confinement(reads=(tmp_path,)), ConsoleLog(tmp_path / "log", Gate())
    with pytest.raises(Started):
        Console(["qemu", "-x"], directory=tmp_path, transcript=log, within=within)
    ((program, arguments, options),) = given
    assert (program, arguments, options["cwd"]) == ("qemu", ["-x"], str(tmp_path))
    assert options["preexec_fn"] == (signal.SIGKILL, within, "qemu")
    assert options["env"] == environment({})
    assert "TOKEN" not in options["env"]
    assert not options["ignore_sighup"]
