"""A dozen faults of the campaign (tests/campaign), always at the same moments."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..campaign.campaign import attempt, make_reference
from ..campaign.controls import undetected
from ..campaign.processes import adopting
from ..campaign.table import FAULTS
from ..campaign.trial import Reference
from .conftest import Account

SEED = "make test"
NAMES = (
    "controller SIGKILL",
    "controller SIGTERM",
    "controller SIGINT to its group",
    "controller SIGSTOP, then SIGKILL",
    "QEMU SIGKILL",
    "QEMU SIGSTOP for a while",
    "agent SIGKILL",
    "controller EIO",
    "mirror garbage",
    "output vanished",
    "mirror cut",
    "cache damaged",
)


@pytest.fixture(scope="module")
def reference(account: Account, tiny_base: Path) -> Iterator[Reference]:
    with adopting():
        yield make_reference(account, tiny_base, account.make_directory("faults"))


def test_planted_losses_are_found(account: Account, reference: Reference) -> None:
    assert undetected(account, reference, account.directory / "faults/control") == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost(account: Account, reference: Reference, name: str) -> None:
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    place, number = account.directory / "faults/trial", 1 + NAMES.index(name)
    outcome = attempt(account, reference, place, SEED, number, fault)
    assert not outcome.losses, str(outcome)
