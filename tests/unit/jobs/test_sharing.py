"""A build takes what a shared cache has, and gives what a good build has made."""

import hashlib
import os
from types import SimpleNamespace

import pytest
from particle_os.jobs import checkpoints
from particle_os.jobs.checkpoints import Checkpoints
from particle_os.jobs.execution import sharing
from particle_os.jobs.execution.sharing import SharedPackages
from particle_os.sandbox import helper

from .machines import HELPER, HOUR, KEYS, give, take


def test_another_machine_begins_where_the_first_one_ended(machine):
    one, other = machine("one"), machine("other")
    one.build()
    give(one)
    take(other)
    assert one.notes == other.notes == []
    assert other.found() == [f"disk {number} of one" for number in range(3)]
    assert other.parts() == ["kernel of one", "the base of one"]
    assert helper.intact(other.place / "helpers" / HELPER)
    ages = [
        (place / "helpers" / HELPER / "root.squashfs").stat().st_mtime_ns
        for place in (one.place, other.place)
    ]
    assert ages[0] == ages[1], "the keys of checkpoints depend on it"
    assert list((other.place / "work").glob("shared-*")) == []


def test_own_checkpoints_of_another_build_give_way_to_a_longer_chain(machine):
    """A checkpoint only fits over the one that it was made over."""
    one, other = machine("one"), machine("other")
    one.build()
    give(one)
    other.build()
    with Checkpoints(other.place / "checkpoints") as kept:
        checkpoints.evict(other.place / "checkpoints" / KEYS[2], into=other.place / "gone")
        assert kept.stored(KEYS[1]) is not None
    take(other)
    assert other.found() == [f"disk {number} of one" for number in range(3)]


def test_as_many_own_checkpoints_are_left_alone(machine):
    one, other = machine("one"), machine("other")
    one.build()
    give(one)
    other.build()
    take(other)
    assert other.found() == [f"disk {number} of other" for number in range(3)]
    assert [phase for phase in other.phases if "stage" in phase] == []


def test_a_checkpoint_that_a_build_uses_is_not_replaced(machine):
    one, other = machine("one"), machine("other")
    one.build()
    give(one)
    other.build()
    checkpoints.evict(other.place / "checkpoints" / KEYS[2], into=other.place / "gone")
    with Checkpoints(other.place / "checkpoints") as used:
        used.longest(KEYS[:1], max_age=HOUR)
        take(other)
    assert other.found() == [f"disk {number} of other" for number in range(2)]


CONFIDENTIAL = pytest.mark.parametrize("kind", ["secrets", "hidden"])


@CONFIDENTIAL
def test_what_depends_on_something_confidential_is_not_given(machine, kind):
    one, other = machine("one", **{kind: (1,)}), machine("other")
    one.build()
    give(one)
    take(other)
    assert other.found() == ["disk 0 of one", "disk 1 of one"]


def later(monkeypatch, seconds):
    """Moves the clock that decides about the age of entries."""
    now = checkpoints.time.time() + seconds
    for module in (checkpoints, sharing):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now))


def test_data_from_the_network_gets_old(machine, monkeypatch):
    one, other = machine("one", network=(1, 2)), machine("other")
    one.build()
    give(one)
    later(monkeypatch, 2 * HOUR)
    take(other)
    assert other.found() == ["disk 0 of one"]
    assert [phase for phase in other.phases if "stage" in phase] == [
        "take stage 0 from the shared cache"
    ], "what is too old is not fetched"
    (note,) = other.notes
    assert f"the checkpoint {KEYS[1][:12]} of file:" in note
    assert note.endswith("is not used: it is 2 hours old, and may be 1")


@pytest.mark.parametrize(("days", "used"), [(29, True), (31, False)])
def test_a_shared_helper_and_base_get_old(machine, monkeypatch, days, used):
    """One who can write can put back an older entry, whose signature is right."""
    one, other = machine("one"), machine("other")
    one.build()
    give(one)
    later(monkeypatch, days * 24 * HOUR)
    with other.sharing() as shared:
        shared.take_helper()
        shared.take_base()
    assert (other.place / "helpers" / HELPER).exists() == used
    assert any(other.place.glob("bases/*.tar.zst")) == used
    assert len(other.phases) == (2 if used else 0), "what is too old is not fetched"
    assert ["it is 744 hours old, and may be 720" in note for note in other.notes] == [True] * (
        0 if used else 2
    )


def test_an_older_base_is_as_old_as_its_making(machine, monkeypatch):
    """A writer that gives it again makes it no newer."""
    one, other = machine("one"), machine("other")
    one.build()
    later(monkeypatch, 31 * 24 * HOUR)
    give(one)
    take(other)
    assert not (other.place / "bases").exists()
    assert len(other.notes) == 2


def test_a_checkpoint_over_another_one_ends_the_chain_with_a_note(machine):
    """Such as an older one that was put back beside newer ones."""
    one, two, other = machine("one"), machine("two"), machine("other")
    for writer in (one, two):
        writer.build()
    give(two)
    with one.sharing() as shared:
        shared._give_checkpoints(KEYS[:2])
    take(other)
    assert other.found() == ["disk 0 of one"]
    assert [phase for phase in other.phases if "stage" in phase] == [
        "take stage 0 from the shared cache"
    ]
    (note,) = other.notes
    assert "is not used: it is made over another checkpoint" in note


def test_the_second_giver_sends_nothing_that_is_there(machine, tmp_path):
    one = machine("one")
    one.build()
    give(one)
    before = {path: path.stat().st_ino for path in (tmp_path / "shared").rglob("*")}
    give(one)
    assert {path: path.stat().st_ino for path in (tmp_path / "shared").rglob("*")} == before


def test_helper_and_base_are_those_of_the_checkpoints(machine):
    """The keys of checkpoints cover the content of helper and base, whose own keys do not."""
    one, two, other = machine("one"), machine("two"), machine("other")
    for writer in (one, two):
        writer.build()
        give(writer)
    take(other)
    assert other.parts() == ["kernel of two", "the base of two"]
    assert other.found() == [f"disk {number} of two" for number in range(3)]


def test_what_another_content_replaces_is_not_renewed(machine, tmp_path):
    """Otherwise a rule that removes old files would keep the blobs of an old base."""
    one, two = machine("one"), machine("two")
    for writer in (one, two):
        writer.build()
    give(one)
    old = [path for path in (tmp_path / "shared/blobs").rglob("*") if path.is_file()]
    for path in old:
        os.utime(path, (0, 0))
    give(two)
    assert {path.stat().st_mtime for path in old} == {0}


def test_a_base_that_is_rebuilt_is_not_taken(machine):
    one, other = machine("one"), machine("other")
    one.build()
    give(one)
    take(other, rebuild=True)
    assert not (other.place / "bases").exists()
    assert (other.place / "helpers").exists()


def test_a_damaged_checkpoint_ends_the_chain_with_a_note(machine, tmp_path):
    one, other = machine("one"), machine("other")
    one.build()
    give(one)
    entry = tmp_path / "shared/entries/checkpoint" / f"{KEYS[1]}.json"
    entry.write_text("{}")
    take(other)
    assert other.found() == ["disk 0 of one"]
    (note,) = [note for note in other.notes if "checkpoint" in note]
    assert "no signed entry" in note


def test_an_entry_that_says_other_than_its_files_is_not_used(machine):
    """The files come with facts of their own, which must be the signed ones."""
    one, other = machine("one"), machine("other")
    one.build()
    meta = one.place / "checkpoints" / KEYS[1] / "meta.json"
    give(one)
    with one.sharing() as shared:
        found = shared.job.checkpoints.stored(KEYS[1])
        kept = shared.cache.has_kept("checkpoint", KEYS[1], found.meta.id)
        meta.write_text(meta.read_text().replace(found.meta.id, "0" * 32))
        files = {"disk.qcow2": found.disk, "meta.json": meta}
        shared.cache.keep(kept.model_copy(update={"files": ()}), files)
    take(other)
    assert other.found() == ["disk 0 of one"]
    assert any("is not what its entry says" in note for note in other.notes)


def test_a_shared_cache_that_cannot_be_written_to_costs_a_note(machine, tmp_path):
    one = machine("one")
    one.build()
    (tmp_path / "shared").write_text("a file")
    give(one)
    assert len(one.notes) == 1 and "does not get all" in one.notes[0]


def test_a_build_that_only_reads_gives_nothing(machine, tmp_path):
    one = machine("one")
    one.build()
    give(one, writes=False)
    assert not (tmp_path / "shared").exists()


def test_a_build_without_the_cache_gives_nothing(machine, tmp_path):
    """The checkpoints in the cache are of other builds than the one that has passed."""
    one = machine("one")
    one.build()
    with one.sharing() as shared:
        shared.job.plan.options.cache = False
        shared.give(KEYS)
    assert not (tmp_path / "shared").exists()


def test_a_build_that_only_writes_takes_nothing(machine):
    one, other = machine("one"), machine("other")
    one.build()
    give(one)
    take(other, reads=False)
    assert other.found() == []
    assert other.phases == []


DEB = b"!<arch>\nthe package"
SUM = hashlib.sha256(DEB).hexdigest()


def with_package(machine, content=DEB):
    place = machine.place / "packages" / f"{SUM}.deb"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(content)


def give_package(machine, running=1, content=DEB, **options):
    """A build that uses a package in the stage with the index `running`, and passes."""
    machine.build()
    with_package(machine, content)
    with machine.sharing(**options) as shared:
        SharedPackages(shared, lambda: running).used(SUM, "library_1.0_all.deb")
        shared.give(KEYS)


def take_package(machine, **options):
    """The package from the shared cache; None without it."""
    place = machine.place / "work/package.deb"
    with machine.sharing(**options) as shared:
        return place.read_bytes() if SharedPackages(shared, int).take(SUM, place) else None


def test_another_machine_gets_the_packages_of_a_build(machine):
    one, other = machine("one"), machine("other")
    assert take_package(other) is None
    give_package(one)
    assert take_package(other) == DEB
    assert one.notes == other.notes == []
    assert list((other.place / "work").glob("shared-*")) == []


@CONFIDENTIAL
@pytest.mark.parametrize(("running", "expected"), [(0, DEB), (1, None), (2, None)])
def test_a_package_that_a_secret_may_have_opened_is_not_given(machine, running, expected, kind):
    """From the first stage with a secret on, an archive may be a private one."""
    one = machine("one", **{kind: (1,)})
    give_package(one, running)
    assert take_package(machine("other")) == expected


def test_a_damaged_package_is_not_given(machine):
    one = machine("one")
    give_package(one, content=DEB + b"x")
    assert take_package(machine("other")) is None
    assert one.notes == []


def test_a_build_without_the_cache_takes_no_package(machine):
    one, other = machine("one"), machine("other")
    give_package(one)
    with other.sharing() as shared:
        shared.job.plan.options.cache = False
        assert not SharedPackages(shared, int).take(SUM, other.place / "x")


def test_a_package_that_no_trusted_key_has_signed_costs_a_note(machine, tmp_path):
    one, other = machine("one"), machine("other")
    give_package(one)
    entry = tmp_path / "shared/entries/package" / f"{SUM}.json"
    entry.write_text("{}")
    assert take_package(other) is None
    assert "no signed entry" in other.notes[0]


def test_a_package_is_stored_as_it_is(machine, tmp_path):
    """It is compressed already, so nothing has to unpack it."""
    one = machine("one")
    give_package(one)
    blobs = [path.name for path in (tmp_path / "shared/blobs").rglob("*") if path.is_file()]
    assert SUM in blobs
