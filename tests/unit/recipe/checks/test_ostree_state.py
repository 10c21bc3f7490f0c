"""The script of the check `ostree`, run by sh on a directory with the files of a machine."""

import subprocess

import pytest
from particle_os.recipe.checks.ostree import STATE

# The file in / is //.particle-os.
TOUCH = """\
#!/bin/sh
place=${1%/.particle-os}
case " $WRITABLE " in *" $place "*) ;; *) exit 1 ;; esac
"""
WRITABLE = ["/etc", "/var"]


@pytest.fixture
def state(tmp_path):
    """A function that runs the script on a machine with these files; returns what it says."""
    touch = tmp_path / "programs/touch"
    touch.parent.mkdir()
    touch.write_text(TOUCH)
    touch.chmod(0o755)
    script = STATE
    for path in ("/etc/machine-id", "/usr/sbin/sshd", "/etc/ssh/"):
        assert path in script
        script = script.replace(path, f"{tmp_path}{path}")

    def state(writable, files):
        for name in files:
            place = tmp_path / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("x" if name != "etc/machine-id" or files[name] else "")
            place.chmod(0o755)
        environment = {"PATH": f"{touch.parent}:/usr/bin:/bin", "WRITABLE": " ".join(writable)}
        done = subprocess.run(
            ["sh", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    return state


GOOD = {"etc/machine-id": True, "usr/sbin/sshd": True, "etc/ssh/ssh_host_ed25519_key": True}


def test_a_good_machine_has_no_fault(state):
    assert state(WRITABLE, GOOD) == []


@pytest.mark.parametrize("place", ["/", "/usr", "/sysroot"])
def test_a_place_that_must_be_read_only(state, place):
    assert state([*WRITABLE, place], GOOD) == [f"{place} is writable"]


@pytest.mark.parametrize("place", WRITABLE)
def test_a_place_that_must_be_writable(state, place):
    assert state([other for other in WRITABLE if other != place], GOOD) == [f"{place} is read-only"]


@pytest.mark.parametrize("files", [{}, {"etc/machine-id": False}])
def test_a_machine_without_an_id(state, files):
    assert state(WRITABLE, files) == ["there is no machine ID"]


def test_a_server_without_keys(state):
    files = {"etc/machine-id": True, "usr/sbin/sshd": True}
    assert state(WRITABLE, files) == ["there are no SSH host keys"]


def test_a_machine_without_a_server_needs_no_keys(state):
    assert state(WRITABLE, {"etc/machine-id": True}) == []
