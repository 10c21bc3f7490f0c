import subprocess

import pytest
from particle_os.system import process

from .command_line import MINIMAL


@pytest.fixture(autouse=True)
def _signals(signals_restored):
    """The commands take over the signal handlers."""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "test.yml"
    path.write_text(MINIMAL)
    return path


@pytest.fixture
def bad_recipe(tmp_path):
    path = tmp_path / "bad.yml"
    path.write_text("nam: x\nstages: []\n")
    return path


@pytest.fixture
def nothing_starts(monkeypatch):
    """Starting any program is an error; the tools are taken to be installed."""
    monkeypatch.setattr(process, "identity", lambda program: f"{program} 1.0")

    def refuse(*arguments, **options):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr("pexpect.spawn", refuse)
