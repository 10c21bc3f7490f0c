"""A host without room for the build: before the build, and when a guest's disk is full."""

from types import SimpleNamespace

import pytest
from particle_os.errors import NotEnoughSpace, StageFailed, VmError
from particle_os.jobs.execution import run


@pytest.fixture
def blame(tmp_path, monkeypatch):
    """Blames the full disk, when the work directory and the staging directory have `free` bytes."""

    def blame(error, free):
        places = {tmp_path / name: size for name, size in free.items()}
        for place in places:
            place.mkdir()
        monkeypatch.setattr(run, "free_bytes", lambda place: places[place])
        execution = SimpleNamespace(
            job=SimpleNamespace(
                work=SimpleNamespace(path=tmp_path / "work"), staging=tmp_path / "staging"
            ),
            base=SimpleNamespace(size=lambda: 1000),
        )
        return run.Execution._blame_full_disk(execution, error)

    return blame


def test_the_fullest_place_is_named_with_its_bytes_and_without_the_guests_traceback(blame):
    error = VmError("the agent failed: OSError", where="recipe.yml:3", tail=["Traceback", "more"])
    with pytest.raises(NotEnoughSpace, match=r"/staging: 7 bytes are free") as raised:
        blame(error, {"work": run.RESERVE_BYTES + 1, "staging": 7})
    assert f"about {run.SCRATCH_ESTIMATE + 1000} bytes" in raised.value.hint
    assert (raised.value.where, raised.value.tail) == ("recipe.yml:3", (error.brief,))


@pytest.mark.parametrize("free", [{"work": 1 << 40, "staging": 1 << 40}, {"work": 1 << 40}, {}])
def test_a_disk_with_room_and_a_directory_that_has_vanished_are_not_full(blame, free):
    assert blame(StageFailed("it failed"), free) is None


@pytest.mark.parametrize(
    ("done", "layers", "needed"),
    [
        (0, (), run.UNPACKED * 1000 + run.SCRATCH_ESTIMATE),
        (1, ("base",), run.SCRATCH_ESTIMATE),
        (2, ("base",), 0),
    ],
    ids=["everything", "a stage after the base", "only the output disk"],
)
def test_the_scratch_disk_needs_room_for_what_is_still_to_do(
    tmp_path, monkeypatch, done, layers, needed
):
    asked = []
    monkeypatch.setattr(run, "need_room", lambda *arguments: asked.append(arguments))
    execution = SimpleNamespace(
        chain=SimpleNamespace(layers=layers),
        stages=SimpleNamespace(done=done),
        plan=SimpleNamespace(stages=("apt", "run", "qemu")),
        job=SimpleNamespace(work=SimpleNamespace(path=tmp_path)),
        unpacked_bytes=run.UNPACKED * 1000,
    )
    run.Execution.check_room(execution)
    assert asked == [(tmp_path, needed, "the scratch disk")]
