"""A system that is an OSTree commit: its disk boots, and its repository is published."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from .conftest import Account, example, leftovers, sha256

REF = "debian/13/amd64/edge"


@pytest.fixture(scope="module")
def edge(account: Account) -> tuple[Path, dict[str, Any]]:
    """The directory and the result of recipes/edge.yml, built and booted under BIOS and UEFI."""
    output = account.make_directory("edge")
    arguments = ("--output", output, "--json", "--progress", "plain")
    outcome = account.run("build", example(account, "edge"), *arguments)
    assert outcome.status == 0, outcome.stderr
    assert leftovers(account, output) == []
    return output, outcome.json()


def test_the_disk_boots_read_only_from_bios_and_from_uefi(
    edge: tuple[Path, dict[str, Any]],
) -> None:
    """The checks of the recipe look at the mounts, the version and the counted boot."""
    boots = edge[1]["boot"]
    assert [(boot["firmware"], boot["status"]) for boot in boots] == [
        ("bios", "passed"),
        ("uefi", "passed"),
    ]
    assert all(len(boot["checks"]) == 5 for boot in boots)
    assert edge[1]["verification"]["findings"] == []


def test_the_repository_is_published_with_its_sum(edge: tuple[Path, dict[str, Any]]) -> None:
    output, result = edge
    archive = output / "edge.ostree.tar"
    sums = dict(
        line.split("  ")[::-1] for line in (output / "SHA256SUMS").read_text().split("\n")[:-1]
    )
    assert set(sums) == {"edge.qcow2", "edge.ostree.tar"}
    assert sums["edge.ostree.tar"] == sha256(archive)
    assert {image["format"] for image in result["artifacts"]} == {"qcow2", "ostree-repository"}
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        ref = tar.extractfile(f"./refs/heads/{REF}")
        assert ref is not None
        commit = ref.read().decode().strip()
    assert f"./objects/{commit[:2]}/{commit[2:]}.commit" in names
    assert "./summary" in names


def test_the_inspection_shows_the_system_of_the_deployment(
    account: Account, edge: tuple[Path, dict[str, Any]]
) -> None:
    outcome = account.run("inspect", edge[0] / "edge.qcow2", "--json")
    assert outcome.status == 0, outcome.stderr
    system = outcome.json()["system"]
    assert system["hostname"] == "edge"
    assert "ostree-boot" in {package["name"] for package in system["packages"]}
    assert system["kernels"]
