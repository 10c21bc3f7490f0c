"""The verdict on each broken image names the defect."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Account, sha256
from .mutations import MUTATIONS

# Quick mutations of each kind, and one of each later phase; `make mutations` runs all of them,
# also under UEFI.
QUICK = [
    name for name, mutation in MUTATIONS.items() if mutation.early and mutation.base == "extlinux"
]
QUICK += ["init-missing", "emergency", "crash-looping-unit"]


@pytest.mark.parametrize("name", QUICK)
def test_a_broken_image_is_told_apart(account: Account, copy: Path, name: str) -> None:
    mutation = MUTATIONS[name]
    mutation.change(copy)
    before = sha256(copy)
    arguments: list[str | Path] = ["boot-test", copy, "--json", "--firmware", mutation.firmware]
    if mutation.timeout is not None:
        arguments += ["--timeout", str(mutation.timeout)]
    outcome = account.run(*arguments)
    verdict = outcome.json()
    assert verdict["status"] == mutation.status, outcome.stdout
    assert mutation.says in verdict["message"]
    assert outcome.status == 4
    assert sha256(copy) == before
    if name == "crash-looping-unit":
        assert "it went wrong" in verdict["facts"]["journal:loop.service"]
