"""The TPM of a machine is a confined swtpm behind a socket, in a directory of any length."""

import socket
from contextlib import contextmanager

from particle_os.vm.argv import MIB, MachineSpec, qemu_argv
from particle_os.vm.devices import tpm
from particle_os.vm.devices.hardware import TPM_SOCKET, Hardware


def test_swtpm_reaches_only_its_state_and_parses_no_name_of_ours(tmp_path, monkeypatch):
    seen = []

    @contextmanager
    def started(argv, *, within, stdin, directory):
        server = socket.socket(fileno=stdin)
        seen.append(
            (argv, within, directory, server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        )
        server.detach()
        yield

    monkeypatch.setattr(tpm, "check", lambda: None)
    monkeypatch.setattr(tpm.process, "started", started)
    machine = tmp_path / ("a,b=" + "x" * 120)
    machine.mkdir()
    with tpm.running_tpm(machine):
        assert (machine / TPM_SOCKET).is_socket()
    ((argv, within, directory, listens),) = seen
    assert (within.reads, within.writes, within.tcp) == ((), (machine / "tpm",), "none")
    assert directory == machine / "tpm"
    assert listens == 1
    assert "a,b" not in " ".join(argv)


def test_only_a_machine_that_wants_a_tpm_has_one():
    for wanted in (True, False):
        spec = MachineSpec("tcg", 64 * MIB, 1, hardware=Hardware(tpm=wanted))
        assert ("tpm-crb,tpmdev=tpm" in qemu_argv(spec)) == wanted
