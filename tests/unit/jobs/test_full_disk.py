"""A guest's error on a full disk of the host is the host's."""

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
