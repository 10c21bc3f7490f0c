"""A second machine builds with what the first one has given to a shared cache."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from .conftest import Account, example, leftovers


@pytest.mark.weekly
def test_a_second_machine_begins_where_the_first_one_has_ended(account: Account) -> None:
    """Its cache is empty: helper, base and checkpoints are the shared ones."""
    secret, public = (account.directory / name for name in ("cache.key", "cache.pub"))
    argv = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", secret]
    subprocess.run(argv, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", secret, "-pubout", "-out", public], check=True)
    for path in (secret, public):
        os.chown(path, account.uid, account.gid)
    recipe, shared = example(account, "minimal-test"), account.make_directory("shared-cache")
    output = account.make_directory("giving")
    words = ("--cache-to", f"file://{shared}", "--cache-sign", secret)
    given = _build(account, recipe, output, *words)
    other = _with_empty_cache(account)
    output = account.make_directory("taking")
    words = ("--cache-from", f"file://{shared}", "--cache-keys", public)
    taken = _build(other, recipe, output, *words)
    assert "making the helper VM" not in taken
    assert "making the base image" not in taken
    for stage in ("apt", "locale", "timezone", "users"):
        assert f"{stage}: cached" in taken
    assert "give to the shared cache" in given
    assert leftovers(other, output) == []


def _build(account: Account, recipe: Path, output: Path, *words: str | Path) -> str:
    """Builds and boots the image; returns the progress."""
    outcome = account.run("build", recipe, "--output", output, "--progress", "plain", *words)
    assert outcome.status == 0, outcome.stderr
    assert "is not used" not in outcome.stderr
    return outcome.stderr


def _with_empty_cache(account: Account) -> Account:
    place = account.make_directory("empty-cache")
    return replace(account, environment={**account.environment, "XDG_CACHE_HOME": str(place)})
