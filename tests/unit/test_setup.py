"""Tests the messages of host/setup.sh when a dependency of `make check` is missing."""

import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
SH = shutil.which("sh")
# A stand-in for Python that fails when its program (the argument of -c) contains a word.
PYTHON = '#!/bin/sh\ncase "$2" in *{}*) exit 1 ;; esac\n'


def setup(top, verb, **environment):
    return subprocess.run(
        [SH, top / "host/setup.sh", verb],
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
