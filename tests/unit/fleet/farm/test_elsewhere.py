"""A build on another machine: what an earlier attempt has left helps, or does no harm."""

import pytest
from particle_os.fleet.build_process import Ended
from particle_os.fleet.farm import parcel
from particle_os.fleet.farm.assignment import Assignment
from particle_os.fleet.farm.member import elsewhere
from particle_os.fleet.farm.member.settings import WorkerSettings
from particle_os.fleet.farm.names import SETTINGS

from .test_returned import pair

SPOILT = Ended(5, 1.0, error={"error": "no space left"})


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """Runs an attempt of one build, on a worker with the shared cache of all; returns its code."""
    secret, public = pair(tmp_path, "results")
    url = f"file://{tmp_path}/shared"
    settings = WorkerSettings((url,), (str(public),), url, str(secret))
    monkeypatch.setenv(SETTINGS, settings.encode())
    monkeypatch.setattr(elsewhere, "_end_with_input", lambda: None)
    given = Assignment("x", "ab" * 32, parcel=parcel.pack([]), recipe="r.yml")
    ran = []

    def start(ended):
        def run(argv, *, lines, variables):
            ran.append(ended)
            return ended

        answer = elsewhere.build(given, run, lambda message: None)
        return answer["code"], len(ran)

    return start


@pytest.mark.parametrize("code", [5, 137, 143])
def test_a_second_attempt_builds_when_the_first_machine_was_to_blame(attempt, code):
    assert attempt(Ended(code, 1.0)) == (code, 1)
    assert attempt(Ended(0, 1.0, b"{}")) == (0, 2)
    assert attempt(SPOILT) == (0, 2), "the good result stays"


@pytest.mark.parametrize("code", [0, 2, 3, 4])
def test_a_second_attempt_takes_the_result_that_no_machine_would_change(attempt, code):
    assert attempt(Ended(code, 1.0)) == (code, 1)
    assert attempt(Ended(0, 1.0)) == (code, 1)
