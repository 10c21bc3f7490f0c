"""A dozen faults of the campaign (tests/campaign), always the same ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..campaign.campaign import attempt, make_reference
from ..campaign.controls import undetected
from ..campaign.processes import adopting
from ..campaign.trial import Reference
from .conftest import Account

SEED, FAULTS = "suite", 12


@pytest.fixture(scope="module")
def reference(account: Account, tiny_base: Path) -> Iterator[Reference]:
    with adopting():
        yield make_reference(account, tiny_base, account.make_directory("faults"))


def test_planted_losses_are_found(account: Account, reference: Reference) -> None:
    assert undetected(account, reference, account.directory / "faults/control") == []


@pytest.mark.parametrize("number", range(1, FAULTS + 1))
def test_nothing_is_lost(account: Account, reference: Reference, number: int) -> None:
    outcome = attempt(account, reference, account.directory / "faults/trial", SEED, number)
    assert not outcome.losses, str(outcome)
