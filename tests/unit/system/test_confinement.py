"""Each child opens its own files and no others; the detector is first shown to detect."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.system import confinement, process
from particle_os.system.confinement import GIB, Confinement, environment, landlock_abi

from ...waiting import plenty

# Prints "opened" or the name of the error, for each argument.
OPEN = 'for f; do (read -r line <"$f") 2>/dev/null && echo opened || echo refused; done'
WRITE = 'for f; do (echo text >"$f") 2>/dev/null && echo written || echo refused; done'


@pytest.fixture
def secret(tmp_path):
    """A file such as the user's home has."""
    path = tmp_path / "home" / "secret"
    path.parent.mkdir()
    path.write_text("line\n")
    return path


def output(script, *arguments, **how):
    lines = []
    argv = ["sh", "-c", script, "sh", *map(str, arguments)]
    process.run(argv, deadline=plenty(), what="a test", log=lines.append, **how)
    return lines


def test_the_kernel_of_the_tests_has_landlock():
    landlock_abi.cache_clear()
    assert landlock_abi() >= confinement.LEAST_ABI


def test_the_same_program_without_a_confinement_opens_the_file(secret):
    argv = ["sh", "-c", OPEN, "sh", str(secret)]
    assert subprocess.run(argv, capture_output=True, text=True).stdout == "opened\n"


def test_a_program_opens_no_file_of_the_user(secret):
    assert output(OPEN, secret, "/etc/passwd", "/proc/self/status") == [
        "refused", "opened", "opened",
    ]  # fmt: skip


def test_a_program_opens_the_files_that_it_is_given(secret, tmp_path):
    other = tmp_path / "other"
    other.write_text("line\n")
    within = Confinement(reads=(secret, tmp_path / "missing"))
    assert output(OPEN, secret, other, within=within) == ["opened", "refused"]
    assert output(WRITE, secret, within=within) == ["refused"]


def test_a_link_does_not_lead_out(secret, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "link").symlink_to(secret)
    assert output(OPEN, own / "link", within=Confinement(writes=(own,))) == ["refused"]


def test_a_program_writes_only_where_it_may(secret, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    within = Confinement(writes=(own,))
    places = (own / "new", tmp_path / "new", secret, "/dev/null")
    assert output(WRITE, *places, within=within) == ["written", "refused", "refused", "written"]
    assert secret.read_text() == "line\n"


def test_a_program_moves_files_between_its_directories(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "file").touch()
    within = Confinement(writes=(tmp_path / "one", tmp_path / "two"))
    output('mv -n "$1"/one/file "$1"/two/file', tmp_path, within=within)
    assert (tmp_path / "two" / "file").exists()


def test_a_program_runs_nothing_that_it_has_written(tmp_path):
    script = 'printf "#!/bin/sh\\necho ran\\n" >"$1"; chmod +x "$1"; "$1" 2>/dev/null || echo no'
    assert output(script, tmp_path / "it", within=Confinement(writes=(tmp_path,))) == ["no"]


def test_a_program_outside_of_the_system_runs(tmp_path):
    program = tmp_path / "bin" / "program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    lines = []
    deadline = plenty()
    process.run([program], deadline=deadline, what="a test", log=lines.append)
    assert lines == ["ran"]


CONNECT = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5).close()
    print("connected")
except PermissionError:
    print("refused")
"""
LISTEN = """
import socket, sys
try:
    socket.create_server(("127.0.0.1", int(sys.argv[1]))).close()
    print("listened")
except PermissionError:
    print("refused")
"""


def python(code, *arguments, **how):
    """Runs `code` in the interpreter of the system."""
    return output('exec /usr/bin/python3 -c "$@"', code, *arguments, **how)


@pytest.mark.parametrize(
    ("network", "connects"), [("any", True), ("ephemeral", False), ("none", False)]
)
def test_a_program_connects_only_if_it_may(network, connects):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answer = python(CONNECT, port, within=Confinement(tcp=network))
    assert answer == ["connected" if connects else "refused"]


@pytest.mark.parametrize(
    ("network", "listens"), [("any", True), ("ephemeral", True), ("none", False)]
)
def test_a_program_listens_only_if_it_may(network, listens):
    answer = python(LISTEN, 0, within=Confinement(tcp=network))
    assert answer == ["listened" if listens else "refused"]


def test_a_program_signals_no_other(tmp_path):
    script = 'kill -0 "$1" 2>/dev/null && echo signalled || echo refused; kill -0 $$ && echo own'
    wanted = "refused" if landlock_abi() >= confinement.SCOPE_ABI else "signalled"
    assert output(script, os.getpid()) == [wanted, "own"]


def test_a_program_reads_no_variables_of_its_parent():
    # The controller's environment holds the secrets of `env:`.
    assert output(f"cat /proc/{os.getpid()}/environ >/dev/null 2>&1 || echo refused") == ["refused"]


def test_a_program_gets_path_and_what_it_is_given(monkeypatch):
    monkeypatch.setenv("TOKEN", "canary")
    lines = output("env | sort", env={"GIVEN": "this"})
    assert {line.split("=")[0] for line in lines} <= {
        "GIVEN",
        "LC_ALL",
        "PATH",
        "PWD",
        "_",
        "SHLVL",
    }
    assert "GIVEN=this" in lines
    assert "canary" not in str(environment({}))


def test_a_program_leaves_no_core_and_has_a_limit_of_memory():
    assert output("ulimit -c") == ["0"]
    limit = GIB + confinement.ARENAS * (os.cpu_count() or 1)
    lines = output("ulimit -v", within=Confinement(memory=GIB))
    assert lines == [str(limit // 1024)]


def test_a_lower_limit_of_the_user_stays(tmp_path):
    code = (
        "import resource; from particle_os.system.confinement import _limit as f;"
        "resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); f(resource.RLIMIT_AS, 2**40);"
        "print(resource.getrlimit(resource.RLIMIT_AS)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 2**33


def test_a_program_that_cannot_be_confined_does_not_run(monkeypatch, tmp_path):
    monkeypatch.setattr(confinement, "RESTRICT_SELF", 9999)
    mark = tmp_path / "ran"
    with pytest.raises(Exception, match="status 126") as caught:
        output('echo ran >"$1"', mark, within=Confinement(writes=(tmp_path,)))
    assert "cannot be confined" in str(caught.value.tail)
    assert not mark.exists()


def test_a_kernel_without_landlock_only_limits_resources(monkeypatch, secret):
    monkeypatch.setattr(confinement, "landlock_abi", lambda: 0)
    assert output(OPEN, secret) == ["opened"]
    assert output("ulimit -c") == ["0"]


@pytest.mark.parametrize("abi", range(2, landlock_abi() + 1))
def test_each_version_of_landlock_is_spoken(monkeypatch, secret, abi):
    """The kernel also speaks the older versions."""
    monkeypatch.setattr(confinement, "landlock_abi", lambda: abi)
    assert output(OPEN, secret, "/etc/passwd") == ["refused", "opened"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = python(CONNECT, server.getsockname()[1])
    assert answer == ["connected" if abi < confinement.NETWORK_ABI else "refused"]


def test_the_resolver_is_found_behind_its_link():
    paths = [path for path, _ in confinement._rules(Confinement(), "sh")]
    assert str(Path("/etc/resolv.conf").resolve()) in paths


def test_a_place_that_is_closed_to_the_user_is_left_out(monkeypatch, secret, tmp_path):
    opened = os.open

    def refuse(path, *arguments):
        if str(path) == "/closed":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    within = Confinement(reads=(Path("/closed"), secret / "below-a-file", secret))
    assert output(OPEN, secret, within=within) == ["opened"]


def test_a_program_of_root_loses_the_rights_over_the_kernel_and_other_programs(monkeypatch):
    calls = []
    libc = SimpleNamespace(prctl=lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(confinement, "_libc", lambda: libc)
    monkeypatch.setattr(confinement, "landlock_abi", lambda: 0)
    monkeypatch.setattr(confinement.resource, "setrlimit", lambda kind, limits: None)
    Confinement().entry("/bin/true")()
    # The numbers of linux/prctl.h and linux/capability.h.
    drop = 24
    rights = {
        "SYS_MODULE": 16,
        "SYS_RAWIO": 17,
        "SYS_PTRACE": 19,
        "SYS_ADMIN": 21,
        "SYS_BOOT": 22,
        "PERFMON": 38,
        "BPF": 39,
    }
    assert calls == [(drop, right, 0, 0, 0) for right in rights.values()]
