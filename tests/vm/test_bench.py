"""`particle-os bench`, run by the ordinary user."""

from __future__ import annotations

import pytest

from .conftest import Account, leftovers, user_qemus


@pytest.mark.weekly
def test_the_figures_of_this_machine(account: Account) -> None:
    before = set(account.cache.iterdir())
    outcome = account.run("bench", "--json", "--progress", "plain")
    assert outcome.status == 0, outcome.stderr
    found = outcome.json()
    assert found["processors"] >= 1 and found["processor"]
    names = [figures["accelerator"] for figures in found["figures"]]
    assert names in (["tcg"], ["kvm", "tcg"])
    assert set(found["missing"]) == {"kvm"} - {*names}
    for figures in found["figures"]:
        first, cold = figures["first_build"], figures["cold_build"]
        assert first["download_bytes"] > 50_000_000 > cold["download_bytes"]
        # The first build makes the helper and the base; the last one runs two stages.
        made = figures["helper_seconds"] + figures["base_seconds"]
        assert figures["helper_seconds"] > 0 and first["seconds"] > made
        assert figures["boot_test_seconds"] > 0
        assert 0 < figures["changed_stage"]["seconds"] < cold["seconds"] < first["seconds"]
    # It has used no entry of the user's cache, and left none.
    assert set(account.cache.iterdir()) - before <= {account.cache / "work"}
    assert leftovers(account) == [] and user_qemus(account) == []
