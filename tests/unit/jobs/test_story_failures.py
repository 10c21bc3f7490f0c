"""A build that fails leaves its evidence, says why, and publishes nothing."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from particle_agent.contract.inspection import Inspection
from particle_os.boot import session
from particle_os.errors import (
    InfrastructureError,
    NotPublished,
    StageFailed,
    UsageError,
    VmError,
)
from particle_os.jobs import build
from particle_os.jobs.delivery import prepare_output
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan
from particle_os.report.progress import Progress
from particle_os.system import publication
from particle_os.vm import firmware as firmwares

from .story import CONTENT, Agent, built, left


def test_a_failed_stage_leaves_its_evidence_and_no_image(world):
    built(world)
    before = (world.out / "server.result.json").read_text()
    world.fails = "timezone"
    with pytest.raises(StageFailed) as raised:
        built(world)
    assert raised.value.where.startswith("stage 1 (timezone)")
    assert raised.value.log == world.out / "server.failed/server.log"
    result = json.loads((world.out / "server.failed/server.result.json").read_text())
    assert result["status"] == "failed"
    assert [stage["status"] for stage in result["stages"]] == ["failed", "not-run"]
    assert result["stages"][0]["network"]["names"] == ["example.org"]
    assert result["stages"][0]["seconds"] >= 0
    page = (world.out / "server.failed/server.report.html").read_text()
    assert "it failed" in page
    # The played build keeps no checkpoint, so there is no shell in the failed stage.
    assert "--failed" not in page
    for ending in ("log", "result.json"):
        assert f'href="./server.{ending}"' in page
        assert (world.out / f"server.failed/server.{ending}").exists()
    # The images of the earlier build are untouched.
    assert (world.out / "server.result.json").read_text() == before


@pytest.mark.parametrize(
    ("fails", "kept"), [("timezone", True), ("end of qemu", False), ("verification", False)]
)
def test_the_disk_of_a_failed_stage_is_kept_if_wanted(world, fails, kept):
    world.fails = fails
    with suppress(StageFailed, VmError):
        built(world, keep_on_failure=True)
    assert (world.out / "server.failed/scratch.qcow2").exists() is kept


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("end of qemu", "the agent said 'done' before every stage was"),
        ("output of qemu", "the last stage wrote nothing to the output disk"),
    ],
)
def test_an_agent_that_leaves_out_the_disk_fails_the_build(world, fails, message):
    world.fails = fails
    with pytest.raises(VmError, match=message):
        built(world)
    result = json.loads((world.out / "server.failed/server.result.json").read_text())
    assert (result["status"], result["artifacts"]) == ("infrastructure", [])


def test_a_build_that_fails_before_its_stages_leaves_only_its_log(world):
    world.fails = "preparation"
    with pytest.raises(InfrastructureError) as raised:
        built(world)
    assert raised.value.log.exists()
    assert left(world.out / "server.failed") == {"server.log"}


def test_a_host_that_fails_in_the_boot_test_fails_the_build(world, monkeypatch):
    def boot(request, directory):
        raise InfrastructureError("QEMU is gone")

    monkeypatch.setattr(session, "boot", boot)
    with pytest.raises(InfrastructureError, match="QEMU is gone"):
        built(world, boot_test=True)
    result = json.loads((world.out / "server.failed/server.result.json").read_text())
    assert result["status"] == "infrastructure"
    (verdict,) = result["boot"]
    assert (verdict["status"], verdict["message"]) == ("infrastructure", "QEMU is gone")
    assert left(world.out) == {"server.failed"}


def test_a_disk_with_errors_is_kept_and_not_published(world):
    world.fails = "verification"
    result = built(world)
    assert result.status == "defective"
    assert [finding.code for finding in result.verification.findings] == ["fstab-type-wrong"]
    assert "findings in the disk: 1" in (world.out / "server.failed/server.log").read_text()
    assert "server.raw" in left(world.out / "server.failed")
    assert left(world.out) == {"server.failed"}


def test_a_missing_firmware_ends_the_build_before_its_preparation(world, monkeypatch):
    def refuse(firmware, architecture):
        raise UsageError(f"{firmware} is not installed")

    monkeypatch.setattr(firmwares, "check", refuse)
    world.fails = "preparation"
    plan = make_plan(world.path / "server.yml", BuildOptions(output_directory=world.out))
    with pytest.raises(UsageError, match="bios is not installed"):
        build.build(plan, Progress([]))


def prepared(world):
    """Prepares the output directory as `build` does; returns the notes."""
    notes = []
    world.out.mkdir(exist_ok=True)
    options = BuildOptions(output_directory=world.out, cache=False, boot_test=False)
    prepare_output(make_plan(world.path / "server.yml", options), notes.append)
    return notes


@pytest.mark.parametrize("name", ["server.raw", "server.result.json", "SHA256SUMS"])
def test_a_directory_with_the_name_of_a_file_is_refused_before_the_build(world, name):
    (world.out / name).mkdir(parents=True)
    with pytest.raises(UsageError, match=f"{name} is a directory") as failure:
        prepared(world)
    assert "--output" in failure.value.hint


@pytest.mark.parametrize("name", ["server.failed", "server.evidence"])
def test_a_file_with_the_name_of_a_directory_is_refused_before_the_build(world, name):
    world.out.mkdir()
    (world.out / name).write_text("precious")
    with pytest.raises(UsageError, match=f"{name} is a file"):
        prepared(world)


def test_a_publication_that_was_interrupted_is_finished_before_the_build(world, monkeypatch):
    built(world)
    with monkeypatch.context() as patched:
        patched.setattr(publication, "_finish", lambda *arguments: False)
        built(world)
    (world.out / "server.raw").unlink()
    assert prepared(world) == [f"finished an interrupted publication in {world.out}"]
    assert (world.out / "server.raw").read_bytes() == CONTENT
    assert prepared(world) == []


def test_images_that_cannot_be_published_are_kept(world, monkeypatch):
    world.out.mkdir()
    # The directory appears while the build runs.
    monkeypatch.setattr(Agent, "found", lambda *arguments: (world.out / "server.log").mkdir() or
                        Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=None)
                        )  # fmt: skip
    with pytest.raises(NotPublished, match=r"server\.log is a directory") as failure:
        built(world)
    assert str(world.out / "server.failed") in failure.value.hint
    assert (world.out / "server.failed/server.raw").read_bytes() == CONTENT


@pytest.mark.parametrize("plant", [Path.write_text, Path.symlink_to])
def test_a_file_in_the_place_of_the_evidence_does_not_hide_the_error(world, plant):
    world.out.mkdir()
    plant(world.out / "server.failed", "elsewhere")
    world.fails = "timezone"
    with pytest.raises(StageFailed) as failure:
        built(world)
    assert failure.value.log.name == "server.log"
    assert failure.value.log.exists()
    assert not (world.out / "server.failed").is_dir()


def test_an_output_directory_that_vanishes_is_named(world, monkeypatch):
    run = Agent.run

    def run_without_output(*arguments, **options):
        shutil.rmtree(world.out)
        run(*arguments, **options)

    monkeypatch.setattr(Agent, "run", run_without_output)
    with pytest.raises(InfrastructureError, match="was removed while the build ran") as failure:
        built(world)
    assert str(world.out) in failure.value.brief
    assert failure.value.tail
