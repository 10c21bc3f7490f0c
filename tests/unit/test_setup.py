"""Tests the messages of host/setup.sh when a dependency of `make check` is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
SH = shutil.which("sh")
# A stand-in for Python that fails when its program (the argument of -c) contains a word.
PYTHON = '#!/bin/sh\ncase "$2" in *{}*) exit 1 ;; esac\n'


# A stand-in for Python that makes a virtual environment whose pip has no network.
OFFLINE = """\
#!/bin/sh
[ "$1" = -m ] || exit 0
mkdir -p .venv/bin
cat >.venv/bin/pip <<END
#!/bin/sh
echo "WARNING: Retrying" >&2
echo "ERROR: No matching distribution found" >&2
exit 1
END
chmod +x .venv/bin/pip
"""


def setup(top, verb, prefix=(), **environment):
    return subprocess.run(
        [*prefix, SH, top / "host/setup.sh", verb],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def fresh(tmp_path):
    """A tree with the files of a fresh clone that host/setup.sh reads."""
    (tmp_path / "host").mkdir()
    shutil.copy(TOP / "host/setup.sh", tmp_path / "host/setup.sh")
    shutil.copy(TOP / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_missing_programs_are_named_by_their_packages():
    done = setup(TOP, "programs", PATH="/nonexistent")
    assert done.returncode == 2
    command = done.stderr.splitlines()[-1]
    assert command.startswith("sudo apt install ")
    assert {"qemu-utils", "skopeo", "squashfs-tools-ng", "zstd"} <= set(command.split())


def test_programs_that_are_there_are_not_named(tmp_path):
    for name in ("skopeo", "zstd"):
        (tmp_path / name).touch(0o755)
    named = setup(TOP, "programs", PATH=str(tmp_path)).stderr.split()
    assert "qemu-utils" in named
    assert not {"skopeo", "zstd"} & set(named)


def test_a_missing_python_is_reported(fresh):
    done = setup(fresh, "venv", PYTHON="/nonexistent/python3")
    assert done.returncode == 2
    assert "there is no /nonexistent/python3" in done.stderr
    assert not (fresh / ".venv").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [("version_info", "is older than 3.11"), ("ensurepip", "sudo apt install python3-venv")],
)
def test_a_python_that_cannot_make_virtual_environments_is_reported(fresh, word, message):
    python = fresh / "python"
    python.write_text(PYTHON.format(word))
    python.chmod(0o755)
    done = setup(fresh, "venv", PYTHON=str(python))
    assert done.returncode == 2
    assert message in done.stderr
    assert not (fresh / ".venv").exists()


@pytest.mark.parametrize("place", [".", ".venv"])
def test_a_clone_that_cannot_be_written_is_reported(fresh, place):
    (fresh / place).mkdir(exist_ok=True)
    (fresh / place).chmod(0o555)
    # Without its capabilities, root has only the rights of an owner.
    prefix = ["setpriv", "--bounding-set=-all"] if os.getuid() == 0 else []
    done = setup(fresh, "venv", prefix)
    (fresh / place).chmod(0o755)
    assert done.returncode == 2
    assert f"you may not write to {(fresh / place).resolve()}." in done.stderr
    assert f"git clone {fresh}" in done.stderr
    assert "Errno" not in done.stderr
    assert not (fresh / ".venv/bin").exists()


def test_a_pip_without_a_network_is_reported(fresh):
    python = fresh / "python"
    python.write_text(OFFLINE)
    python.chmod(0o755)
    done = setup(fresh, "venv", PYTHON=str(python))
    assert done.returncode == 2
    assert "ERROR: No matching distribution found\nsetup: pip cannot install" in done.stderr
    assert "https_proxy" in done.stderr
    assert "PIP_FIND_LINKS" in done.stderr
    assert "Retrying" not in done.stderr
    assert "Retrying" in (fresh / ".venv/pip.log").read_text()
    assert not (fresh / ".venv/.installed").exists()
