"""The verification of OSTree's deployments: entries, menu, kernels, origins, room for updates."""

import re
from types import SimpleNamespace

import pytest
from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.ostree.reading import systems
from particle_agent.verification import deployments
from particle_agent.verification.volumes import FoundVolume

from .deployed import HAVE_OSTREE, REF, ROOT_UUID, Disk, make, places

pytestmark = pytest.mark.skipif(not HAVE_OSTREE, reason="no ostree")
ENTRY = "/boot/loader/entries/{}"
OTHER_UUID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def updated(tmp_path_factory):
    """A root with two versions; the newer one is the default."""
    return make(tmp_path_factory.mktemp("updated"), versions=("1", "2"))


@pytest.fixture
def disk(made, tmp_path):
    return Disk(made, tmp_path)


def change(place, old, new):
    text = place.read_text()
    assert old in text
    place.write_text(text.replace(old, new))


def test_a_good_disk_has_no_findings(disk):
    assert "x=a\\(b\\)" in disk.menu.read_text(), "the menu escapes what GRUB would take for script"
    assert disk.found() == []


def test_a_good_disk_with_two_versions_has_no_findings(updated, tmp_path):
    disk = Disk(updated, tmp_path)
    assert len(places(disk.root)) == 2
    assert disk.found() == []


def test_a_good_disk_of_a_machine_without_a_server_has_no_findings(tmp_path):
    made = make(tmp_path, remote=None)
    disk = Disk(made, tmp_path)
    assert "refspec=debian/13/amd64/edge" in disk.origin.read_text()
    assert disk.found() == []


@pytest.mark.parametrize("lost", ["kernel", "initramfs", "both", "empty"])
def test_a_kernel_or_initramfs_of_an_entry_that_is_missing(disk, lost):
    initramfs = next(disk.kernel.parent.glob("initramfs*"))
    if lost == "empty":
        disk.write(disk.kernel, "")
    for place in {"kernel": [disk.kernel], "initramfs": [initramfs],
                  "both": [disk.kernel, initramfs], "empty": []}[lost]:  # fmt: skip
        place.unlink()
    found = disk.found()
    assert {code for code, _, _ in found} == {"boot-menu-file-missing"}
    assert len(found) == (2 if lost == "both" else 1)
    assert found[0][1] == ENTRY.format(disk.entry.name)


@pytest.mark.parametrize("text", ["KERNEL", "kerne"])
def test_a_kernel_that_is_not_that_of_the_deployment(disk, text):
    disk.write(disk.kernel, text)
    ((code, place, message),) = disk.found()
    assert (code, place) == ("deployment-kernel-differs", ENTRY.format(disk.entry.name))
    assert "differs from /usr/lib/modules/6.12/vmlinuz of its deployment" in message


def test_an_initramfs_that_is_not_that_of_the_deployment(disk):
    disk.write(next(disk.kernel.parent.glob("initramfs*")), "other")
    assert disk.codes() == ["deployment-kernel-differs"]


def test_an_entry_whose_root_file_system_is_not_on_the_disk(disk):
    change(disk.entry, ROOT_UUID, OTHER_UUID)
    found = [(code, place) for code, place, _ in disk.found()]
    # The menu still names the right one.
    assert found == [
        ("boot-menu-differs", "/boot/loader/grub.cfg"),
        ("root-missing", ENTRY.format(disk.entry.name)),
    ]


def test_an_entry_whose_root_file_system_has_no_deployment(disk, tmp_path):
    """The UUID is that of another file system of the disk."""
    other = tmp_path / "other"
    other.mkdir()
    second = FoundVolume(
        number=1, kind="ext4", uuid=OTHER_UUID, label="", entry=None, tree=Tree(other)
    )
    change(disk.entry, ROOT_UUID, OTHER_UUID)
    change(disk.menu, ROOT_UUID, OTHER_UUID)
    reported = []
    deployments.check([second, disk.volume()], Findings(reported.append))
    assert [finding.code for finding in reported] == ["deployment-missing"]
    assert "has no deployment /ostree/boot.1/debian/" in reported[0].message


def test_an_entry_that_names_a_deployment_that_is_gone(disk):
    link = next((disk.root / "ostree").glob("boot.1.1/debian/*/0"))
    link.unlink()
    found = [code for code, _, _ in disk.found()]
    assert found == ["deployment-missing", "deployment-not-in-menu"]


def test_a_deployment_that_is_gone_with_its_files(updated, tmp_path):
    disk = Disk(updated, tmp_path)
    places(disk.root)[0].rename(tmp_path / "gone")
    assert disk.codes() == ["deployment-missing"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"root=UUID={ROOT_UUID}", f"root=UUID={OTHER_UUID}"),
        (" rw ", " ro "),
        ("x=a\\(b\\)", "x=a"),
        ("vmlinuz-6.12", "vmlinuz-6.11"),
        ("initramfs-6.12.img", "initramfs-6.11.img"),
        ("boot.1/debian", "boot.0/debian"),
    ],
)
def test_a_menu_that_differs_from_the_entry(disk, old, new):
    change(disk.menu, old, new)
    ((code, place, message),) = disk.found()
    assert (code, place) == ("boot-menu-differs", "/boot/loader/grub.cfg")
    assert message == f"its entry 1 differs from {ENTRY.format(disk.entry.name)}"


def test_a_menu_that_lacks_an_entry(updated, tmp_path):
    disk = Disk(updated, tmp_path)
    first, *_ = re.findall(r"menuentry .*?\n}\n", disk.menu.read_text(), re.DOTALL)
    disk.menu.write_text(first)
    ((code, _, message),) = disk.found()
    assert code == "boot-menu-differs"
    assert message.startswith("it lacks /boot/loader/entries/ostree-1")


def test_a_menu_in_another_order_starts_another_version(updated, tmp_path):
    disk = Disk(updated, tmp_path)
    one, other = re.findall(r"menuentry .*?\n}\n", disk.menu.read_text(), re.DOTALL)
    disk.menu.write_text(other + one)
    assert disk.codes() == ["boot-menu-differs"] * 2


def test_a_menu_with_an_entry_whose_file_is_gone(updated, tmp_path):
    disk = Disk(updated, tmp_path)
    min((disk.root / "boot/loader/entries").iterdir()).unlink()
    found = disk.found()
    assert [code for code, _, _ in found] == ["boot-menu-differs", "deployment-not-in-menu"]
    assert found[0][2] == "no file is there for its entry 2"


def test_the_tenth_version_is_newer_than_the_ninth(updated, tmp_path):
    disk = Disk(updated, tmp_path)
    entries = disk.root / "boot/loader/entries"
    for found, new in zip(sorted(entries.iterdir()), ("9", "10"), strict=True):
        found.rename(entries / f"ostree-{new}.conf")
    assert disk.found() == []


def test_entries_that_are_all_gone(disk):
    disk.entry.unlink()
    assert disk.codes() == ["boot-menu-differs", "deployment-not-in-menu"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "deployment-origin-missing"),
        ("[origin]\nrefspec=\n", "deployment-origin-missing"),
        ("[origin]\n", "deployment-origin-missing"),
        ("[origin]\nrefspec=other:debian/13\n", "deployment-remote-missing"),
        ("[origin]\nrefspec=debian/13\n", None),
        ("[origin]\ncontainer-image-reference=ostree-unverified-registry:example.org/x\n", None),
    ],
)
def test_the_origin_of_a_deployment(disk, text, code):
    disk.origin.write_text(text)
    assert disk.codes() == ([code] if code else [])


def test_a_deployment_without_an_origin(disk):
    disk.origin.unlink()
    ((code, place, _),) = disk.found()
    assert (code, place) == (
        "deployment-origin-missing",
        f"/ostree/deploy/debian/deploy/{disk.deployment.name}.origin",
    )


def test_a_server_that_the_machine_has_removed(disk):
    (disk.deployment / "etc/ostree/remotes.d/origin.conf").unlink()
    ((code, _, message),) = disk.found()
    assert code == "deployment-remote-missing"
    assert message.endswith("has the server 'origin'")


def test_a_server_in_the_configuration_of_the_repository(disk):
    (disk.deployment / "etc/ostree/remotes.d/origin.conf").unlink()
    with (disk.root / "ostree/repo/config").open("a") as file:
        file.write('\n[remote "origin"]\nurl=https://u.example.org\n')
    assert disk.found() == []


@pytest.mark.parametrize(("free", "code"), [(1 << 10, "update-room-missing"), (1 << 20, None)])
def test_the_room_for_a_second_version(disk, monkeypatch, free, code):
    """Three percent of the file system stay free: OSTree uses no more."""
    state = SimpleNamespace(f_blocks=1000, f_bavail=30 + free // 1024, f_frsize=1024)
    monkeypatch.setattr(deployments.os, "statvfs", lambda place: state)
    assert disk.codes() == ([code] if code else [])


def test_a_separate_file_system_for_boot(disk, tmp_path):
    """The paths of the entries are relative to it."""
    boot = tmp_path / "boot"
    (disk.root / "boot").rename(boot)
    (disk.root / "boot").mkdir()
    for place in (next((boot / "loader/entries").iterdir()), boot / "loader/grub.cfg"):
        place.write_text(place.read_text().replace("/boot/ostree", "/ostree"))
    first = FoundVolume(
        number=1, kind="ext4", uuid=OTHER_UUID, label="", entry=None, tree=Tree(boot)
    )
    reported = []
    deployments.check([first, disk.volume()], Findings(reported.append))
    assert reported == []
    next(boot.glob("ostree/*/vmlinuz-*")).unlink()
    deployments.check([first, disk.volume()], Findings(reported.append))
    assert [finding.code for finding in reported] == ["boot-menu-file-missing"]


def test_the_entries_of_other_systems_are_not_compared(disk):
    entries = disk.root / "boot/loader/entries"
    (entries / "memtest.conf").write_text("title memtest\nlinux /memtest\noptions x\n")
    assert disk.found() == []


def test_a_disk_without_deployments_has_no_findings(tmp_path):
    (tmp_path / "boot/loader/entries").mkdir(parents=True)
    (tmp_path / "boot/loader/grub.cfg").write_text("menuentry x {\n linux /vmlinuz ro\n}\n")
    tree = Tree(tmp_path)
    volume = FoundVolume(number=1, kind="ext4", uuid="", label="", entry=None, tree=tree)
    reported = []
    deployments.check([volume], Findings(reported.append))
    assert reported == []


def test_links_of_a_hostile_disk_lead_nowhere(disk, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("kernel")
    kernel = disk.kernel
    kernel.unlink()
    kernel.symlink_to(secret)
    (disk.deployment / "usr/lib/modules/6.12/vmlinuz").unlink()
    (disk.deployment / "usr/lib/modules/6.12/vmlinuz").symlink_to("loop")
    (disk.deployment / "usr/lib/modules/6.12/loop").symlink_to("vmlinuz")
    disk.origin.unlink()
    disk.origin.symlink_to(secret)
    assert disk.codes() == ["boot-menu-file-missing", "deployment-origin-missing"]


def test_the_versions_of_a_disk_are_described_the_default_first(updated, tmp_path):
    disk = Disk(updated, tmp_path)
    tree = Tree(disk.root)
    found = list(deployments.described(tree, list(systems(tree, "ext4"))))
    assert [(one.version, one.origin, one.default) for one, _ in found] == [
        ("2", f"origin:{REF}", True),
        ("1", f"origin:{REF}", False),
    ]
    for one, system in found:
        assert system.read("/usr/share/version") == one.version
        assert one.path == f"/ostree/deploy/debian/deploy/{one.checksum}.0"
        assert system.root == disk.root / one.path.lstrip("/")


def test_a_damaged_disk_has_versions_without_a_name(disk):
    for place in (disk.root / "ostree/repo/objects").glob("*/*.commit"):
        place.unlink()
    disk.origin.unlink()
    disk.entry.unlink()
    tree = Tree(disk.root)
    ((found, _),) = deployments.described(tree, list(systems(tree, "ext4")))
    assert (found.version, found.origin, found.default) == (None, None, False)


def test_a_system_that_is_no_deployment_is_none(tmp_path):
    for name in ("usr", "etc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    tree = Tree(tmp_path)
    assert list(deployments.described(tree, list(systems(tree, "ext4")))) == []
