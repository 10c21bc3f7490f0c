"""Faults while the cache keeps something: its name then has the old content, the new one, or none.

Each system call of the keepers fails in turn, or is the last of the process.
"""

import hashlib
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.base import suite
from particle_os.errors import InfrastructureError
from particle_os.jobs import checkpoints
from particle_os.jobs.checkpoints import DISK, Checkpoints, Meta
from particle_os.sandbox import helper
from particle_os.shortcuts import saved_memory
from particle_os.system.checksum import file_sha256

from ... import faults
from ...waiting import plenty

pytestmark = pytest.mark.slow

EXPECTED = (OSError, InfrastructureError)
OLD, NEW = "the old content", "the new content"


class Keeper:
    """Keeps a text in a cache below `top`."""

    def __init__(self, top):
        self.top = top
        self.work = SimpleNamespace(path=top / "work")

    def reset(self):
        """Empties the cache and keeps OLD; the next `keep` keeps NEW."""
        for path in self.top.iterdir():
            shutil.rmtree(path)
        self.text = OLD
        self.work.path.mkdir()
        self.keep()
        shutil.rmtree(self.work.path)
        self.work.path.mkdir()
        self.text = NEW


class CheckpointKeeper(Keeper):
    def keep(self):
        with Checkpoints(self.top / "checkpoints") as store:
            staging = self.work.path / "staging"
            staging.mkdir()
            (staging / DISK).write_text(self.text)
            store._write(staging, "key", None, Meta("id", None, "label", False))

    def found(self):
        kept = checkpoints.read(self.top / "checkpoints/key")
        if kept is None:
            return None
        assert checkpoints.intact(kept)
        return kept.disk.read_text()


class BaseKeeper(Keeper):
    def keep(self):
        (self.top / "bases").mkdir(exist_ok=True)
        (self.work.path / "base.tar.zst").write_text(self.text)
        suite._keep(self.work.path / "base.tar.zst", self.top / "bases/key")

    def found(self):
        digest, tarball = (self.top / f"bases/key.{end}" for end in ("sha256", "tar.zst"))
        if not digest.exists():
            return None
        assert digest.read_text() == f"sha256:{file_sha256(tarball)}\n"
        return tarball.read_text()


class HelperKeeper(Keeper):
    """A helper replaces one that is damaged: no helper is the old state."""

    def keep(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(helper, "key_of", lambda template: "key")
            patch.setattr(helper, "_make", self.make)
            helper.ensure(
                SimpleNamespace(name="small"),
                cache=self.top,
                work=self.work,
                log=lambda line: None,
                note=lambda line: None,
            )
        if self.text == OLD:
            (self.top / "helpers/key/kernel").write_text("damaged")

    def make(self, template, made, *more):
        for name in helper.FILES:
            (made / name).write_text(self.text)
        sums = helper._sums(made)
        (made / helper.SUMS).write_text("".join(f"{sums[n]}  {n}\n" for n in sums))

    def found(self):
        place = self.top / "helpers/key"
        if not place.is_dir():
            return None
        texts = {(place / name).read_text() for name in helper.FILES}
        if texts == {"damaged", OLD}:
            assert not helper.intact(place)
            return OLD
        assert helper.intact(place) and (place / helper.SUMS).exists()
        return texts.pop()


class StateKeeper(Keeper):
    def keep(self):
        @contextmanager
        def running(*arguments, **options):
            save = SimpleNamespace(save=lambda state, deadline: Path(f"/proc/self/fd/{state}")
                                   .write_text(self.text))  # fmt: skip
            yield SimpleNamespace(monitor=save)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(saved_memory, "running", running)
            saved_memory.save(
                None,
                self.top / "warm/key.state",
                boot=lambda machine: None,
                directory=self.work.path,
                transcript=None,
                deadline=plenty(),
            )

    def found(self):
        state = self.top / "warm/key.state"
        if not state.exists():
            return None
        assert saved_memory.intact(state)
        return state.read_bytes()[: -hashlib.sha256().digest_size].decode()


class TornBaseKeeper(BaseKeeper):
    """A keeper that is wrong: it copies the tarball to its place."""

    def keep(self):
        super().keep()
        copy = shutil.copyfile(self.top / "bases/key.tar.zst", self.work.path / "copy")
        shutil.copyfile(copy, self.top / "bases/key.tar.zst")


@pytest.fixture
def top():
    # In memory, if possible: the tests sync hundreds of files.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


def campaign(keeper, fault):
    """Lets each system call fail, or be the last; returns all that was found afterwards."""
    found = set()

    def prepare():
        keeper.reset()
        return keeper.keep

    for outcome in faults.each(prepare, fault, EXPECTED):
        found.add(keeper.found())
        assert outcome.end != "returned" or outcome.call or keeper.found() == NEW
    return found


@pytest.mark.parametrize("fault", ["kill", "ENOSPC", pytest.param("EIO", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [CheckpointKeeper, BaseKeeper, HelperKeeper, StateKeeper])
def test_after_a_fault_the_cache_has_the_old_entry_or_the_new_one_or_none(top, kind, fault):
    found = campaign(kind(top), fault)
    assert {OLD, NEW} <= found <= {OLD, NEW, None}


def test_a_torn_entry_is_noticed(top):
    with pytest.raises(AssertionError):
        campaign(TornBaseKeeper(top), "kill")


def test_all_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    """A kill loses nothing that is written; a power failure loses what is not synced."""
    synced = []
    monkeypatch.setattr(suite.publication, "_sync", synced.append)
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda *pair: (synced.append("rename"), rename(*pair)))
    made = tmp_path / "made"
    (made / "inner").mkdir(parents=True)
    (made / "inner/file").touch()
    suite.publication.keep(made, tmp_path / "place")
    assert set(synced[:3]) == {made, made / "inner", made / "inner/file"}
    assert synced[3:] == ["rename", tmp_path]
