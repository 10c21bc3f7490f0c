"""The systems of a file system: one at its root, the tree of a commit, and deployments."""

import os

import pytest
from particle_agent.disk.reading import Tree
from particle_agent.ostree.reading import DEPLOYMENTS_LIMIT, DeployedTree, systems


def write(place, text="x"):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


def deployment(root, name, stateroot="debian"):
    """A deployment whose files have its name as their text."""
    made = root / f"ostree/deploy/{stateroot}/deploy/{name}"
    for path in ("etc/hostname", "usr/etc/hostname", "usr/share/dpkg/database/status"):
        write(made / path, name)
    (made / "var").mkdir()
    (made / "boot").mkdir()
    return made


@pytest.fixture
def disk(tmp_path):
    """The physical root of a disk with two deployments."""
    root = tmp_path / "disk"
    write(root / "boot/grub/grub.cfg", "menu")
    write(root / "ostree/deploy/debian/var/lib/machine", "state")
    for name in ("a" * 64 + ".0", "b" * 64 + ".1"):
        deployment(root, name)
        write(root / f"ostree/deploy/debian/deploy/{name}.origin", "[origin]\n")
    return root


def test_the_deployments_of_a_disk_are_its_systems(disk):
    found = list(systems(Tree(disk), "ext4"))
    assert [tree.root.name for tree in found] == ["a" * 64 + ".0", "b" * 64 + ".1"]
    for tree in found:
        assert tree.read("/etc/hostname") == tree.root.name
        assert tree.read("/var/lib/dpkg/status") == tree.root.name
        assert tree.names("/var/lib/dpkg") == ["status"]
        assert tree.read("/boot/grub/grub.cfg") == "menu"
        assert tree.names("/boot") == ["grub"]


def test_var_is_that_of_the_machine(disk):
    """All deployments of a stateroot share it."""
    for tree in systems(Tree(disk), "ext4"):
        assert tree.read("/var/lib/machine") == "state"
        assert tree.names("/var") == ["lib"]


def test_a_system_at_the_root_is_the_only_one(disk):
    for path in ("usr/bin/x", "etc/hostname"):
        write(disk / path)
    (found,) = systems(Tree(disk), "ext4")
    assert found.root == disk
    assert found.read("/boot/grub/grub.cfg") == "menu"


def test_the_tree_of_a_commit_has_its_configuration_in_usr(tmp_path):
    made = deployment(tmp_path, "commit")
    (made / "etc/hostname").unlink()
    (made / "etc").rmdir()
    (tree,) = systems(Tree(made), "ext4")
    assert tree.read("/etc/hostname") == "commit"
    assert tree.read("/var/lib/dpkg/status") == "commit"
    assert tree.names("/etcetera") == []


@pytest.mark.parametrize("path", ["/etcetera/x", "/bootstrap", "/variable", "/var/lib/dpkg-new"])
def test_a_path_that_only_begins_alike_is_its_own(disk, path):
    first = next(systems(Tree(disk), "ext4"))
    write(first.root / path.lstrip("/"), "own")
    assert first.read(path) == "own" or path.startswith("/var/")


def test_no_link_leads_out_of_a_deployment_or_of_the_disk(disk, tmp_path):
    secret = write(tmp_path / "secret", "secret")
    first = next(systems(Tree(disk), "ext4"))
    write(disk / "physical", "physical")
    for name, to in (
        ("etc/absolute", str(secret)),
        ("etc/relative", f"../../../../../../../../../..{secret}"),
        ("etc/up", "../../../../../../physical"),
        ("etc/loop", "loop"),
    ):
        (first.root / name).symlink_to(to)
        assert first.read(f"/{name}") == "", name
    (disk / "boot/out").symlink_to(f"../../../../../..{secret}")
    (disk / "ostree/deploy/debian/var/out").symlink_to(f"../../../../../../..{secret}")
    assert first.read("/boot/out") == first.read("/var/out") == ""
    assert first.read("/etc/../../../../../../physical") == ""
    assert first.read("/etc/nul\0byte") == ""


@pytest.mark.parametrize("level", ["ostree", "ostree/deploy", "ostree/deploy/debian"])
@pytest.mark.parametrize("to", ["outside", "loop", "file"])
def test_a_disk_whose_directories_are_links_shows_nothing_of_the_vm(tmp_path, level, to):
    outside = tmp_path / "outside"
    deployment(outside, "stolen")
    root = tmp_path / "disk"
    (root / level).parent.mkdir(parents=True)
    if to == "file":
        write(root / level)
    else:
        target = {"outside": f"{outside}/{level}", "loop": f"/{level}"}[to]
        (root / level).symlink_to(target)
    assert list(systems(Tree(root), "ext4")) == []


def test_a_deployment_that_is_a_link_is_none(disk, tmp_path):
    outside = deployment(tmp_path / "outside", "stolen")
    place = disk / "ostree/deploy/debian/deploy"
    (place / "0-out").symlink_to(outside)
    (place / "0-loop").symlink_to("0-loop")
    (place / "0-again").symlink_to("a" * 64 + ".0")
    os.mkfifo(place / "0-fifo")
    assert [tree.root.name[:2] for tree in systems(Tree(disk), "ext4")] == ["aa", "bb"]


def test_a_disk_with_thousands_of_deployments_is_read_in_part(disk, monkeypatch):
    for stateroot in range(50):
        (disk / f"ostree/deploy/s{stateroot}/deploy").mkdir(parents=True)
        for number in range(40):
            (disk / f"ostree/deploy/s{stateroot}/deploy/{number}").mkdir()
    asked = []
    names = Tree.names
    monkeypatch.setattr(
        Tree, "names", lambda tree, directory: asked.append(directory) or names(tree, directory)
    )
    assert len(list(systems(Tree(disk), "ext4"))) == DEPLOYMENTS_LIMIT
    assert len(asked) < 10, "the rest is not even listed"


def test_an_empty_deployment_is_a_system_without_files(disk):
    (disk / "ostree/deploy/debian/deploy/0").mkdir()
    tree = next(systems(Tree(disk), "ext4"))
    assert isinstance(tree, DeployedTree)
    assert tree.read("/etc/hostname") == ""
    assert tree.names("/") == []


def test_a_directory_without_anything_has_no_systems(tmp_path):
    assert list(systems(Tree(tmp_path), "ext4")) == []
    assert list(systems(Tree(tmp_path / "missing"), "ext4")) == []
