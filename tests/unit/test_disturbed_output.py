"""Others change the output directory while a build runs: status and advice stay right."""

import shutil

import pytest

from .played_build import ENDS, World, run, set_up

pytestmark = pytest.mark.slow


def removed(output):
    shutil.rmtree(output)


def moved(output):
    output.rename(output.with_name("moved"))


def a_file(output):
    shutil.rmtree(output)
    output.touch()


def without_staging(output):
    for path in output.glob(".particle-os-*"):
        shutil.rmtree(path)


def failed_is_a_file(output):
    (output / "leaky.failed").touch()


def failed_is_a_link(output):
    (output / "leaky.failed").symlink_to(output.parent)


def raw_is_a_directory(output):
    (output / "leaky.raw").mkdir()


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Runs a build that ends in a way, and touches its output directory meanwhile."""
    world = World(tmp_path, "text", ["a line"], b"on the console\r\n", "detail")
    set_up(world, monkeypatch)
    monkeypatch.setenv("TOKEN", "the secret of a stage")

    def build(ends, touch):
        world.ends = ends
        world.disturb = lambda: touch(world.out)
        result = run(world, "--progress", "plain")
        assert "[Errno" not in result.output
        return result

    return build


@pytest.mark.parametrize("touch", [removed, moved, a_file, without_staging])
@pytest.mark.parametrize("ends", ["good", "vm died", "defective", "not booted"])
def test_a_directory_that_vanishes_is_named_with_advice(build, ends, touch):
    result = build(ends, touch)
    assert result.exit_code == 5
    assert "was removed while the build ran" in result.stderr
    assert "leave the output directory as it is" in result.stderr
    assert ("| the VM died: QEMU ended" in result.stderr) is (ends == "vm died")


@pytest.mark.parametrize("touch", [removed, moved, a_file, without_staging])
def test_a_failed_stage_stays_the_failure_when_the_directory_vanishes(build, touch):
    result = build("stage failed", touch)
    assert result.exit_code == 3
    assert "error: failed: text" in result.stderr
    assert "note: the logs cannot be kept" in result.stderr


@pytest.mark.parametrize("touch", [failed_is_a_file, failed_is_a_link])
@pytest.mark.parametrize("ends", ["stage failed", "vm died", "defective", "not booted"])
def test_a_file_in_the_place_of_the_evidence_changes_no_status(build, tmp_path, ends, touch):
    result = build(ends, touch)
    assert result.exit_code == ENDS[ends]
    (kept,) = tmp_path.glob("out/leaky.failed-*")
    assert (kept / "leaky.log").exists()
    assert str(kept) in result.stderr


@pytest.mark.parametrize("touch", [failed_is_a_file, failed_is_a_link, raw_is_a_directory])
def test_what_is_in_the_way_of_the_images_is_named_and_they_are_kept(build, tmp_path, touch):
    result = build("good", touch)
    assert result.exit_code == 5
    assert "Move it away. The images are in" in result.stderr
    (image,) = tmp_path.glob("out/leaky.failed*/leaky.raw")
    assert str(image.parent) in result.stderr
