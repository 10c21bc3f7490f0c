"""The campaign of faults against a farm notices what is lost."""

import pytest

from ....farm_faults import __main__ as campaign
from ....farm_faults.__main__ import FAULTS, NAMES, WANTED, attempt, drawn, losses
from ....waiting import HANG_SECONDS

# A dozen of the faults of seed 1, with each kind among them.
NUMBERS = (1, 2, 3, 7, 8, 10, 12, 13, 18, 22, 28, 32)
ONCE = [[what, name, "1"] for name in NAMES for what in ("began", "ended")]
BEGAN = ["began", "a", "2"]


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_build_of_each_image_is_no_loss(fault):
    assert losses(fault, WANTED, ONCE) == []


@pytest.mark.parametrize(
    ("fault", "ends", "noted", "loss"),
    [
        ("kill_build", {"a": "killed"}, ONCE, "ends"),
        ("kill_build", {"a": "failed"}, ONCE, "ends"),
        ("kill_two", {"a": "failed"}, ONCE, "ends"),
        ("kill_two", {"a": "killed", "b": "killed"}, ONCE, "ends"),
        ("kill_client", {"d": "cancelled"}, ONCE, "ends"),
        ("kill_worker", {}, [BEGAN, *ONCE, ["ended", "a", "2"]], "built twice: a"),
        ("stop_scheduler", {}, [*ONCE, BEGAN, ["ended", "a", "2"]], "built twice: a"),
        ("kill_build", {}, [*ONCE, BEGAN, ["began", "b", "3"]], "7 attempts, and not 6"),
        ("kill_worker", {}, ONCE[2:], "never built: a"),
    ],
)
def test_what_is_lost_is_told(fault, ends, noted, loss):
    assert loss in " ".join(losses(fault, WANTED | ends, noted))


def test_a_build_that_was_killed_may_begin_again():
    assert losses("kill_build", WANTED, [*ONCE, BEGAN]) == []


def test_a_build_may_be_built_again_after_the_loss_of_its_answer():
    assert losses("kill_keeper", WANTED, [*ONCE, BEGAN, ["ended", "a", "2"]]) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_after_a_fault_no_image_is_lost_and_no_process_is_left(number, tmp_path, monkeypatch):
    # A busy machine takes longer to end what it ends: test_farm.py limits that time.
    monkeypatch.setattr(campaign, "ORPHAN_SECONDS", HANG_SECONDS / 10)
    outcome = attempt(tmp_path, "1", number)
    assert outcome.losses == []


def test_the_dozen_has_each_fault():
    assert {drawn("1", number)[0] for number in NUMBERS} == {*FAULTS}
