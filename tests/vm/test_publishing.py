"""A built image goes to a registry, comes back on another machine, and boots there."""

from __future__ import annotations

import json
import shutil

import pytest

from ..registry import debian_registry
from .conftest import Account, example, leftovers


@pytest.mark.weekly
@pytest.mark.parametrize("way", ["containerdisk", "artifact"])
def test_a_pushed_image_boots_after_it_was_pulled(account: Account, way: str) -> None:
    """The ordinary user needs no right but that to write to the registry."""
    assert shutil.which("docker-registry"), "see tests/README.md"
    output, pulled = account.make_directory("built"), account.make_directory("pulled")
    recipe = example(account, "minimal-test")
    done = account.run("build", recipe, "--output", output)
    assert done.status == 0, done.stderr
    with debian_registry(account.make_directory("registry")) as host:
        place = f"docker://{host}/team/minimal:1"
        done = account.run("push", "minimal-test", place, "--output", output, "--as", way)
        assert done.status == 0, done.stderr
        done = account.run("pull", place, "--output", pulled, "--json")
        assert done.status == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "passed"
    done = account.run("boot-test", found["path"])
    assert done.status == 0, done.stderr
    assert leftovers(account, pulled) == []
