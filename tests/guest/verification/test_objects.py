"""The verification of OSTree's objects, and of the files of deployments."""

import os
import shutil
import subprocess

import pytest
from particle_agent.disk import reading
from particle_agent.disk.reading import Tree
from particle_agent.verification import file_systems, objects

from .deployed import HAVE_OSTREE, Disk, make, places

pytestmark = pytest.mark.skipif(not HAVE_OSTREE, reason="no ostree")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def disk(made, tmp_path):
    return Disk(made, tmp_path)


def test_a_good_disk_has_no_findings(disk):
    assert disk.objects() == []


def test_a_good_disk_with_two_versions_has_no_findings(tmp_path):
    made = make(tmp_path, versions=("1", "2"))
    assert len(places(made)) == 2
    assert objects.check(Tree(made)) == []


def test_a_changed_object_is_named_by_its_file(disk):
    """It is the same inode as the file of the deployment."""
    (disk.deployment / "usr/bin/su").write_text("PROGRAM")
    assert disk.objects() == [("ostree-repository-broken", "/usr/bin/su")]


def test_an_object_with_other_rights_is_damaged(disk):
    (disk.deployment / "usr/bin/su").chmod(0o4755)
    assert disk.objects() == [("ostree-repository-broken", "/usr/bin/su")]


def test_many_damaged_objects_are_counted(disk):
    for place in (disk.root / "ostree/repo/objects").glob("*/*.file"):
        if place.is_file() and not place.is_symlink() and place.stat().st_size:
            place.write_text("damaged")
    ((code, message),) = disk.objects()
    assert code == "ostree-repository-broken"
    assert message.endswith(", and 3 more")


@pytest.mark.parametrize("kind", ["file", "dirtree", "dirmeta", "commit"])
def test_a_missing_object(disk, kind):
    found = sorted((disk.root / "ostree/repo/objects").glob(f"*/*.{kind}"))
    found[0].unlink()
    ((code, message),) = disk.objects()
    assert code == "ostree-repository-broken"
    assert message


def test_a_repository_whose_commit_and_branches_are_gone(disk):
    """`ostree fsck` finds nothing wrong then."""
    for place in (disk.root / "ostree/repo/objects").glob("*/*.commit"):
        place.unlink()
    for place in (disk.root / "ostree/repo/refs").iterdir():
        shutil.rmtree(place)
        place.mkdir()
    ((code, message),) = disk.objects()
    path = f"/ostree/deploy/debian/deploy/{disk.deployment.name}"
    assert (code, message) == ("ostree-repository-broken", f"it lacks the commit of {path}")


def test_a_configuration_that_is_no_configuration(disk):
    disk.write(disk.root / "ostree/repo/config", "junk\n")
    ((code, message),) = disk.objects()
    assert code == "ostree-repository-broken"
    assert "junk" in message


@pytest.mark.parametrize("lost", ["ostree/repo", "ostree/repo/objects"])
@pytest.mark.parametrize("link", [False, True])
def test_a_repository_that_is_missing_or_a_link(disk, tmp_path, lost, link):
    (disk.root / lost).rename(tmp_path / "moved")
    if link:
        (disk.root / lost).symlink_to(tmp_path / "moved")
    assert [code for code, _ in disk.objects()] == ["ostree-repository-broken"]


def replace(disk):
    disk.write(disk.deployment / "usr/bin/su", "program!")


def remove(disk):
    (disk.deployment / "usr/bin/su").unlink()


def redirect(disk):
    (disk.deployment / "usr/bin/init").unlink()
    (disk.deployment / "usr/bin/init").symlink_to("/etc/evil")


def fill(disk):
    (disk.deployment / "usr/bin/empty").write_text("no more")


def add(disk):
    (disk.deployment / "usr/bin/new").write_text("new")


def add_directory(disk):
    (disk.deployment / "usr/new").mkdir()


def swap_kind(disk):
    remove(disk)
    (disk.deployment / "usr/bin/su").symlink_to("init")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (replace, "/usr/bin/su is missing or another one"),
        (remove, "/usr/bin/su is missing or another one"),
        (redirect, "/usr/bin/init is missing or another one"),
        (fill, "/usr/bin/empty is missing or another one"),
        (add, "/usr/bin/new is not part of it"),
        (add_directory, "/usr/new is not part of it"),
        (swap_kind, "/usr/bin/su is missing or another one"),
    ],
)
def test_a_deployment_that_differs_from_its_commit(disk, change, what):
    change(disk)
    path = f"/ostree/deploy/debian/deploy/{disk.deployment.name}"
    assert disk.objects() == [("deployment-changed", f"{path}: {what}")]


def test_a_directory_that_has_become_a_link_shows_nothing_of_the_vm(disk, tmp_path):
    outside = tmp_path / "outside"
    (disk.deployment / "usr/share").rename(outside)
    (disk.deployment / "usr/share").symlink_to(outside)
    ((code, message),) = disk.objects()
    assert code == "deployment-changed"
    assert message.endswith(": /usr/share is no directory")


def test_files_of_the_machine_may_differ(disk):
    (disk.deployment / "etc/new").write_text("new")
    (disk.root / "ostree/deploy/debian/var/new").write_text("new")
    assert disk.objects() == []


def test_copies_in_place_of_links_are_the_same_files(disk, tmp_path):
    """A program that copies disks may break hard links."""
    copied = tmp_path / "copied"
    argv = ["cp", "-a", "--no-preserve=links", disk.root, copied]
    subprocess.run(argv, check=True)
    assert objects.check(Tree(copied)) == []
    (place,) = places(copied)
    (place / "usr/bin/su").write_text("PROGRAM")
    assert [code for code, _ in objects.check(Tree(copied))] == ["deployment-changed"]


@pytest.mark.parametrize(
    ("status", "message"),
    [(124, "ostree took longer than 600 s"), (127, "there is no program ostree")],
)
def test_a_check_without_an_end_is_a_warning(disk, monkeypatch, status, message):
    run = reading.output

    def output(argv, **limits):
        return (status, "") if argv[1] == "fsck" else run(argv, **limits)

    monkeypatch.setattr(reading, "output", output)
    assert disk.objects() == [("ostree-repository-not-checked", message)]


def test_a_version_with_too_many_files_is_not_compared(disk, monkeypatch):
    """The list is cut."""
    monkeypatch.setattr(objects, "LIST_LIMIT", 500)
    replace(disk)
    ((code, message),) = disk.objects()
    assert code == "ostree-repository-not-checked"
    assert message.endswith("it has too many files to compare them")


def test_a_comparison_without_an_end_is_a_warning(disk, monkeypatch):
    replace(disk)
    monkeypatch.setattr(objects, "CHECK_SECONDS", -1.0)
    monkeypatch.setattr(reading, "output", patient(reading.output))
    ((code, message),) = disk.objects()
    assert code == "ostree-repository-not-checked"
    assert message.endswith("the comparison took longer than -1 s")


def patient(run):
    """The function `reading.output`, for any number of seconds."""
    return lambda argv, *, seconds, limit: run(argv, seconds=abs(seconds) * 60, limit=limit)


def test_a_pipe_in_place_of_an_object_does_not_hold_up_the_check(disk, monkeypatch):
    kept = disk.object_of("usr/bin/su")
    kept.unlink()
    os.mkfifo(kept)
    monkeypatch.setattr(objects, "CHECK_SECONDS", 1.0)
    found = {code for code, _ in disk.objects()}
    assert {"ostree-repository-broken", "ostree-repository-not-checked"} & found


def test_the_objects_of_a_fresh_disk_are_not_read_again(disk, monkeypatch):
    """Its deployments are compared all the same."""
    programs = []
    run = reading.output

    def output(argv, **limits):
        programs.append(argv[1])
        return run(argv, **limits)

    monkeypatch.setattr(reading, "output", output)
    monkeypatch.setattr(file_systems, "_check", lambda node, kind: [])
    replace(disk)
    found = file_systems.check(disk.root / "node", "ext4", Tree(disk.root), fresh=True)
    assert [code for code, _ in found] == ["deployment-changed"]
    assert programs == ["ls"]


@pytest.mark.parametrize("first", [[], [("file-system-broken", "x")]])
def test_the_objects_of_a_damaged_file_system_are_not_checked(disk, monkeypatch, first):
    monkeypatch.setattr(file_systems, "_check", lambda node, kind: first)
    (disk.deployment / "usr/bin/su").write_text("PROGRAM")
    found = file_systems.check(disk.root / "node", "ext4", Tree(disk.root))
    assert found == (first or [("ostree-repository-broken", "/usr/bin/su")])


def test_a_system_without_deployments_has_no_objects(tmp_path):
    (tmp_path / "usr").mkdir()
    (tmp_path / "etc").mkdir()
    assert objects.check(Tree(tmp_path)) == []
