"""A file for a stage on a disk of its own: whole, unchanged, and not too large."""

import hashlib
from types import SimpleNamespace

import pytest
from particle_agent.contract.values import Download
from particle_agent.contract.wire import INPUT_DISK
from particle_agent.stages.output.ostree import Ostree
from particle_os.errors import InfrastructureError, UsageError
from particle_os.jobs.execution import input_disk
from particle_os.recipe.files.attachments import Attachment

DATA = b"repository" * 100
REFERENCE = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job with a stage that reads the file `parent.tar`, and a stage after it."""
    path = tmp_path / "parent.tar"
    path.write_bytes(DATA)
    stages = [Ostree(ref="edge", parent=REFERENCE), SimpleNamespace(input_disk=None)]
    plan = SimpleNamespace(
        stages=stages,
        loaded=SimpleNamespace(attachments=((Attachment(REFERENCE, path, len(DATA)),), ())),
        options=SimpleNamespace(scratch=4 * len(DATA)),
    )
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(input_disk, "cache_directory", lambda: tmp_path / "cache")
    return SimpleNamespace(plan=plan, work=SimpleNamespace(path=tmp_path / "work"), file=path)


def test_the_disk_is_a_copy_in_whole_sectors(job):
    found = input_disk.make(job, 0, None)
    assert list(found) == [INPUT_DISK]
    assert found[INPUT_DISK].read_bytes() == DATA.ljust(1024, b"\0")
    job.file.write_bytes(b"other")
    assert found[INPUT_DISK].read_bytes().startswith(DATA)


def test_a_later_stage_gets_no_disk(job):
    assert input_disk.make(job, 1, None) == {}


def test_a_file_that_has_changed_is_refused(job):
    job.file.write_bytes(DATA[::-1])
    with pytest.raises(InfrastructureError, match="has changed since the recipe was read"):
        input_disk.make(job, 0, None)


def test_a_file_that_is_gone_is_an_error_of_the_host(job):
    job.file.unlink()
    with pytest.raises(InfrastructureError, match="cannot be read"):
        input_disk.make(job, 0, None)


def test_a_file_that_grows_is_refused(job):
    job.file.write_bytes(DATA + b"1")
    with pytest.raises(InfrastructureError, match="has changed since the recipe was read"):
        input_disk.make(job, 0, None)


def download_of(job, tmp_path):
    digest = REFERENCE.partition(":")[2]
    download = Download(url="https://example.org/edge.ostree.tar", sha256=digest)
    job.plan.stages = (Ostree(ref="edge", parent_download=download),)
    job.plan.loaded.attachments = ((), ())
    place = tmp_path / "cache/downloads" / digest
    place.parent.mkdir(parents=True)
    return place


def test_a_file_that_is_too_large_is_refused(job, tmp_path):
    download_of(job, tmp_path).write_bytes(DATA + b"1")
    with pytest.raises(UsageError, match="a quarter of the scratch disk") as raised:
        input_disk.make(job, 0, None)
    assert "--scratch-size" in raised.value.hint


def test_a_download_comes_through_no_link(job, tmp_path):
    download_of(job, tmp_path).symlink_to(job.file)
    with pytest.raises(InfrastructureError, match="a symbolic link"):
        input_disk.make(job, 0, None)


def test_a_download_comes_from_the_cache(job, tmp_path):
    download_of(job, tmp_path).write_bytes(DATA)
    assert input_disk.make(job, 0, None)[INPUT_DISK].read_bytes().startswith(DATA)
