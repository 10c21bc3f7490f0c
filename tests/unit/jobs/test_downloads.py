"""The files that stages name by URL: fetched as the user would, and never too much for the VM."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_agent.contract.values import Download
from particle_os.errors import InfrastructureError, UsageError
from particle_os.jobs.execution import downloads

from ...waiting import plenty

ONE, OTHER = (Download(url=f"http://example.org/{d}", sha256=d * 64) for d in "12")
MEMORY = 4000


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The calls of `fetch`, which gives each download 300 bytes."""
    calls = []

    def fetch(download, **options):
        calls.append(options)
        place = tmp_path / download.sha256
        place.write_bytes(bytes(300))
        return place

    monkeypatch.setattr(downloads, "fetch", fetch)
    monkeypatch.setattr(downloads, "cache_directory", lambda: tmp_path)
    return calls


def fetch_all(*wanted, attached=0, on_disks=()):
    plan = SimpleNamespace(
        memory=MEMORY,
        loaded=SimpleNamespace(attached_bytes=attached),
        input_disks=on_disks,
        options=SimpleNamespace(scratch=40_000),
    )
    progress = SimpleNamespace(phase=lambda name: nullcontext(), line=print)
    work = SimpleNamespace(path=Path("/work"))
    job = SimpleNamespace(plan=plan, progress=progress, work=work, note=print)
    downloads.fetch_all(wanted, job, plenty())


def test_the_proxies_of_the_environment_are_used_also_beside_a_proxy_for_packages(
    asked, monkeypatch
):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    given = {"http_proxy": "http://p:1", "HTTPS_PROXY": "http://p:2", "no_proxy": "x"}
    for name, url in given.items():
        monkeypatch.setenv(name, url)
    fetch_all(ONE)
    assert asked[0]["proxies"] == given


def test_downloads_and_attached_files_share_a_quarter_of_the_memory(asked):
    fetch_all(ONE, OTHER, attached=400)
    assert [options["limit"] for options in asked] == [600, 300]
    # The cache may have a file that was fetched for a VM with more memory.
    with pytest.raises(UsageError, match="have 1001 bytes; they may fill a quarter") as raised:
        fetch_all(ONE, OTHER, attached=401)
    assert "--memory" in raised.value.hint


def test_a_file_on_a_disk_takes_no_memory(asked):
    fetch_all(ONE, OTHER, attached=700, on_disks=[ONE.reference])
    assert [options["limit"] for options in asked] == [10_000, 300]


def test_a_download_that_vanishes_is_told_with_its_url(asked, tmp_path):
    (tmp_path / "downloads" / ONE.sha256).mkdir(parents=True)
    for download in (ONE, OTHER):
        with pytest.raises(InfrastructureError, match=f"{download.url} cannot be read"):
            downloads.push([download], SimpleNamespace(), plenty())
