"""The campaign of faults against a farm notices what is lost."""

import pytest

from ....farm_faults.__main__ import FAULTS, NAMES, WANTED, losses

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
        ("kill_worker", {}, [*ONCE, BEGAN, ["ended", "a", "2"]], "built twice: a"),
        ("stop_scheduler", {}, [*ONCE, BEGAN, ["ended", "a", "2"]], "built twice: a"),
        ("kill_build", {}, [*ONCE, BEGAN, ["began", "b", "3"]], "7 attempts, and not 6"),
        ("kill_worker", {}, ONCE[2:], "never built: a"),
    ],
)
def test_what_is_lost_is_told(fault, ends, noted, loss):
    assert loss in " ".join(losses(fault, WANTED | ends, noted))


def test_a_build_that_was_killed_may_begin_again():
    assert losses("kill_build", WANTED, [*ONCE, BEGAN]) == []
