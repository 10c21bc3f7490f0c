import hashlib
import itertools
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from particle_agent.stages.accounts.users import User, Users
from particle_agent.stages.contents.files import File, Files
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.locale import Locale
from particle_agent.stages.settings.timezone import Timezone
from particle_agent.stages.software.apt import Apt
from particle_os.jobs import cache, checkpoints
from particle_os.jobs.checkpoints import DISK, META, Checkpoints, intact, intact_prefix, keys, read
from particle_os.system.workspace import workspace

from ...waiting import Clock

HOUR = 3600.0
NAMES = st.sampled_from(["curl", "vim", "ssh", "git"])
STAGES = st.one_of(
    st.builds(
        Apt,
        packages=st.lists(NAMES, min_size=1, max_size=3).map(tuple),
        update=st.booleans(),
        recommends=st.booleans(),
    ),
    st.builds(Timezone, zone=st.sampled_from(["Europe/Berlin", "UTC"])),
    st.builds(Locale, default=st.sampled_from(["C.UTF-8", "de_DE.UTF-8"])),
    st.builds(
        lambda name, shell: Users(users=(User(name=name, shell=shell),)),
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["/bin/sh", "/bin/bash"]),
    ),
)
ROOTS = st.lists(st.sampled_from(["sha256:a", "sha256:b", "agent", 1, 2]), min_size=1, max_size=4)


@given(ROOTS, st.lists(STAGES, max_size=5), ROOTS, st.lists(STAGES, max_size=5))
def test_equal_keys_mean_equal_work(root, stages, other_root, other_stages):
    """Two prefixes have the same key exactly when their roots and stages are equal."""
    first, second = keys(root, "x", stages), keys(other_root, "y", other_stages)
    for one in range(len(first)):
        for two in range(len(second)):
            same = root == other_root and stages[:one] == other_stages[:two]
            assert (first[one] == second[two]) == same


def test_the_recipes_name_counts_from_the_stage_that_uses_it():
    stages = [Timezone(zone="UTC"), Qemu(), Timezone(zone="UTC")]
    one, two = keys(["a"], "one", stages), keys(["a"], "two", stages)
    assert [x == y for x, y in zip(one, two, strict=True)] == [True, True, False, False]


def test_the_order_of_patterns_counts():
    """A later pattern outweighs an earlier one, so another order makes other files."""
    patterns = [("/srv/*", "0600"), ("/srv/a", "0644")]
    one, two = (
        Files(files=(File(path="/srv", source="tree", modes=dict(order)),))
        for order in (patterns, patterns[::-1])
    )
    assert keys(["a"], "x", [one]) != keys(["a"], "x", [two])


@pytest.fixture
def store(tmp_path):
    """Opens the checkpoints as a build does."""
    (tmp_path / "work").mkdir()
    return lambda: Checkpoints(tmp_path / "checkpoints")


@pytest.fixture
def keep(tmp_path, store):
    """Keeps a chain of checkpoints as a build does; their content includes their names."""
    numbers = itertools.count()

    def keep(*names, network=(), below=(), label="x"):
        chain = list(below)
        with store() as opened:
            for name in names:
                number = next(numbers)
                disk = tmp_path / "work" / f"{name}-{number}.qcow2"
                disk.write_text(f"content of {name} {number}")
                kept = opened.keep(
                    name,
                    disk,
                    below=chain[-1] if chain else None,
                    label=label,
                    network=name in network,
                    work=tmp_path / "work",
                )
                chain.append(kept)
        return chain

    return keep


def test_a_checkpoint_is_complete_when_it_is_synced(keep, monkeypatch):
    sizes, plain = [], os.fsync

    def fsync(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(META):
            sizes.append(os.fstat(descriptor).st_size)
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    keep("a")
    assert sizes and all(sizes)


def found(store, *names, max_age=HOUR):
    with store() as opened:
        return [c.key for c in opened.longest(names, max_age=max_age)]


def test_the_longest_known_prefix_is_found(store, keep):
    keep("a", "b", "c")
    assert found(store, "a", "b", "c", "d") == ["a", "b", "c"]
    assert found(store, "a", "x", "c") == ["a"]
    assert found(store, "x", "b") == []


def test_a_gap_ends_the_prefix(store, keep, tmp_path):
    keep("a", "b", "c")
    (tmp_path / "checkpoints/b").rename(tmp_path / "elsewhere")
    assert found(store, "a", "b", "c") == ["a"]


@pytest.mark.parametrize("what", [DISK, META])
@pytest.mark.parametrize("damage", ["cut", "gone", "touched"])
def test_a_damaged_checkpoint_is_not_used(store, keep, tmp_path, what, damage):
    keep("a", "b")
    place = tmp_path / "checkpoints/b" / what
    if damage == "cut":
        place.write_bytes(place.read_bytes()[:10])
    elif damage == "gone":
        place.unlink()
    elif what == DISK:
        os.utime(place, ns=(1, 1))
    else:
        place.write_text("{}")
    assert found(store, "a", "b") == ["a"]


def flip(disk):
    """Changes one bit of a file, and keeps its time."""
    status = disk.stat()
    content = bytearray(disk.read_bytes())
    content[0] ^= 1
    disk.write_bytes(content)
    os.utime(disk, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_change_with_the_old_time_is_found_by_verification(keep, tmp_path):
    keep("a")
    place = tmp_path / "checkpoints/a"
    flip(place / DISK)
    assert not intact(read(place))
    assert [e.name for e in cache.damaged(tmp_path)] == ["a"]


def test_a_changed_bit_is_noticed_at_use(store, keep, tmp_path):
    keep("a", "b", "c")
    with store() as mine:
        assert intact_prefix(mine.longest(["a", "b", "c"], max_age=HOUR)) == 3
    flip(tmp_path / "checkpoints/b" / DISK)
    with store() as mine:
        assert intact_prefix(mine.longest(["a", "b", "c"], max_age=HOUR)) == 1
    assert found(store, "a", "b", "c") == ["a"]
    keep("a", "b", "c")
    assert found(store, "a", "b", "c") == ["a", "b", "c"]


def test_a_damaged_checkpoint_is_replaced_while_it_is_locked(store, keep, tmp_path):
    keep("a")
    flip(tmp_path / "checkpoints/a" / DISK)
    with store() as mine:
        assert intact_prefix(mine.longest(["a"], max_age=HOUR)) == 0
        keep("a")
    with store() as mine:
        assert intact_prefix(mine.longest(["a"], max_age=HOUR)) == 1


def test_data_from_the_network_is_reused_for_a_while(store, keep):
    keep("a", "b", "c", network=("b", "c"))
    assert found(store, "a", "b", "c") == ["a", "b", "c"]
    assert found(store, "a", "b", "c", max_age=0) == ["a"]


def test_a_build_replaces_the_checkpoints_that_are_too_old_for_it(store, tmp_path, keep):
    (old,) = keep("a", network=("a",))
    disk = tmp_path / "work/new.qcow2"
    disk.write_text("new")
    with store() as opened:
        assert opened.longest(["a"], max_age=0) == []
        opened.keep("a", disk, below=None, label="x", network=True, work=tmp_path / "work")
    assert read(tmp_path / "checkpoints/a").meta.id != old.meta.id


def test_old_checkpoints_above_a_refreshed_one_are_not_used(store, keep):
    """The keys above a refreshed stage stay equal, but their disks are overlays of old content."""
    below = keep("a", "b", "c")[:1]
    keep("b", below=below)
    assert found(store, "a", "b", "c") == ["a", "b"]


def test_a_checkpoint_whose_parent_was_replaced_is_not_kept(store, keep):
    theirs = keep("a")
    keep("a")
    keep("b", below=theirs)
    assert found(store, "a", "b") == ["a"]


def test_checkpoints_in_use_are_neither_evicted_nor_replaced(store, keep, tmp_path):
    keep("a", "b")
    with store() as opened:
        chain = opened.longest(["a", "b"], max_age=HOUR)
        content = chain[1].disk.read_bytes()
        keep("b", below=chain[:1])
        assert not checkpoints.evict(tmp_path / "checkpoints/b", into=tmp_path / "out")
        assert chain[1].disk.read_bytes() == content
    assert checkpoints.evict(tmp_path / "checkpoints/b", into=tmp_path / "out")
    assert found(store, "a", "b") == ["a"]


def test_a_crash_during_a_write_leaves_no_checkpoint(store, keep, tmp_path, monkeypatch):
    keep("a")

    def crash(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "sealed", crash)
        keep("b", below=[read(tmp_path / "checkpoints/a")])
    assert found(store, "a", "b") == ["a"]


def test_the_frozen_disk_stays_for_the_running_build(keep, tmp_path):
    (kept,) = keep("a")
    assert kept.disk.exists()
    assert kept.disk.samefile(tmp_path / "checkpoints/a" / DISK)


def sizes(tmp_path):
    return {entry.name: entry for entry in cache.entries(tmp_path)}


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("particle_os.system.workspace.cache_directory", lambda: tmp_path)


@pytest.mark.usefixtures("own_cache")
def test_the_least_recently_used_entry_is_removed_first(keep, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(cache, "time", clock)
    keep("a", "b", "c")
    for age, name in enumerate(["b", "c", "a"], start=1):
        then = clock.now - age * HOUR
        os.utime(tmp_path / "checkpoints" / name, (then, then))
    total = sum(entry.size for entry in cache.entries(tmp_path))
    removed = cache.prune(tmp_path, limit=total - 1)
    assert [entry.name for entry in removed] == ["a"]
    removed = cache.prune(tmp_path, limit=total, max_age=1.5 * HOUR)
    assert [entry.name for entry in removed] == ["c"]
    assert list(sizes(tmp_path)) == ["b"]
    assert cache.prune(tmp_path, limit=0)[0].name == "b"


@pytest.mark.usefixtures("own_cache")
def test_pruning_during_a_build_removes_unused_checkpoints_only(keep, store, tmp_path):
    keep("a", "b")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "0.deb").write_text("x")
    with workspace(), store() as opened:
        opened.longest(["a"], max_age=HOUR)
        removed = cache.prune(tmp_path, limit=0)
        assert [entry.name for entry in removed] == ["b"]
    assert {e.name for e in cache.prune(tmp_path, limit=0)} == {"a", "0"}


@pytest.mark.usefixtures("own_cache")
def test_a_link_in_the_place_of_an_entry_is_removed_and_not_followed(keep, tmp_path):
    keep("a")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "checkpoints/a").rename(elsewhere)
    (tmp_path / "checkpoints/a").symlink_to(elsewhere)
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers/b").symlink_to(elsewhere)
    assert {entry.name for entry in cache.prune(tmp_path, limit=0)} == {"a", "b"}
    assert cache.entries(tmp_path) == []
    assert (elsewhere / META).exists()


def test_a_description_of_many_levels_is_no_checkpoint(store, keep, tmp_path):
    keep("a")
    (tmp_path / "checkpoints/a" / META).write_text("[" * 60_000)
    assert found(store, "a") == []
    assert cache.entries(tmp_path)


def test_no_changed_bit_of_the_description_is_used(store, keep, tmp_path):
    keep("a")
    place = tmp_path / "checkpoints/a" / META
    text, whole = place.read_bytes(), read(place.parent)
    assert whole is not None
    assert cache.damaged(tmp_path) == []
    for number, bit in itertools.product(range(len(text)), range(8)):
        changed = bytearray(text)
        changed[number] ^= 1 << bit
        place.write_bytes(changed)
        # The last digit of a number may make no difference to it.
        assert read(place.parent) in (None, whole), bytes(changed)
    place.write_bytes(text.replace(b'"created": 1', b'"created": 9'))
    assert read(place.parent) is None
    assert [entry.name for entry in cache.damaged(tmp_path)] == ["a"]


@pytest.mark.parametrize(
    ("ago", "usable"), [(0, True), (50, True), (101, False), (-100, True), (-100_000, False)]
)
def test_a_time_in_the_future_is_not_recent(monkeypatch, ago, usable):
    clock = Clock()
    monkeypatch.setattr(checkpoints, "time", clock)
    assert checkpoints.is_recent(clock.now - ago, 100) == usable


@pytest.mark.parametrize("created", ["NaN", "1e999", '"yesterday"', "null"])
def test_a_checkpoint_without_a_usable_time_is_not_used(store, keep, tmp_path, created):
    keep("a")
    place = tmp_path / "checkpoints/a" / META
    text = place.read_text()
    number = re.search(r'"created": ([0-9.]+)', text)[1]
    place.write_text(text.replace(number, created))
    assert found(store, "a") == []


@pytest.mark.parametrize("plant", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_no_checkpoint(store, keep, tmp_path, plant):
    keep("a")
    (tmp_path / "checkpoints/a" / META).unlink()
    plant(tmp_path / "checkpoints/a" / META)
    assert found(store, "a") == []
    assert cache.entries(tmp_path)


def test_a_damaged_base_of_the_cache_is_found_by_verification(tmp_path):
    bases = tmp_path / "bases"
    bases.mkdir()
    (bases / "trixie.tar.zst").write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    (bases / "trixie.sha256").write_text(f"sha256:{digest}\n")
    assert cache.damaged(tmp_path) == []
    (bases / "trixie.tar.zst").write_bytes(b"Content")
    assert [(entry.kind, entry.name) for entry in cache.damaged(tmp_path)] == [("base", "trixie")]


def test_a_checkpoint_is_private_and_its_description_reaches_the_disk(
    store, keep, tmp_path, monkeypatch
):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    keep("a")
    for path in (tmp_path / "checkpoints", tmp_path / "checkpoints/a"):
        assert path.stat().st_mode & 0o077 == 0
    assert META in synced
