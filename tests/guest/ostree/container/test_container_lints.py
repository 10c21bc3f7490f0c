"""Each lint of `bootc container lint`, on the tree of the image that was written."""

import re
from pathlib import Path

import pytest
from particle_agent.errors import StageError
from particle_agent.ostree.container import archive, lints
from particle_agent.ostree.container.layer import LayerMember
from particle_agent.ostree.image.lints import LINTS
from particle_agent.unpack import lowest

from .conftest import CHECKSUM, PREPARE_ROOT, REF

DOCUMENT = Path(__file__).parents[4] / "docs/ostree.md"
RULES = "usr/share/doc/bootc/baseimage/base"


def link(target, path, to):
    target.remove(path)
    target.symlink(path, to)


# A fault of the tree for each lint, and the places that the lint finds then.
FAULTS = [
    ("api-base-directories", lambda t: t.remove("/sys"), ["/sys"]),
    ("api-base-directories", lambda t: link(t, "/var", "usr"), ["/var"]),
    ("baseimage-composefs", lambda t: t.write(f"/{PREPARE_ROOT}", ""), [f"/{PREPARE_ROOT}"]),
    ("baseimage-composefs", lambda t: t.remove(f"/{PREPARE_ROOT}"), [f"/{PREPARE_ROOT}"]),
    ("baseimage-composefs", lambda t: t.write(f"/{PREPARE_ROOT}", "x"), [f"/{PREPARE_ROOT}"]),
    ("baseimage-root", lambda t: t.remove("/sysroot"), ["/sysroot"]),
    ("baseimage-root", lambda t: t.remove("/ostree"), ["/ostree"]),
    ("baseimage-root", lambda t: link(t, "/ostree", "/sysroot/ostree"), ["/ostree"]),
    (
        "bootc-kargs",
        lambda t: t.write("/usr/lib/bootc/kargs.d/a.toml", "kargs = 1"),
        ["/usr/lib/bootc/kargs.d/a.toml: kargs is no list of strings"],
    ),
    ("buildah-injected", lambda t: t.write("/usr/etc/hostname", ""), ["/etc/hostname"]),
    ("buildah-injected", lambda t: t.write("/usr/etc/resolv.conf", ""), ["/etc/resolv.conf"]),
    (
        "kernel",
        lambda t: t.write("/usr/lib/modules/6.13/vmlinuz", "x"),
        ["/usr/lib/modules/6.12/vmlinuz", "/usr/lib/modules/6.13/vmlinuz"],
    ),
    ("kernel", lambda t: t.remove("/usr/lib/modules"), ["/usr/lib/modules/*/vmlinuz"]),
    ("nonempty-boot", lambda t: t.write("/boot/grub/grub.cfg", ""), None),
    ("nonempty-boot", lambda t: t.remove("/boot"), ["/boot"]),
    ("nonempty-run-tmp", lambda t: t.write("/run/lock", ""), ["/run/lock"]),
    ("nonempty-run-tmp", lambda t: t.write("/tmp/a", ""), ["/tmp/a"]),
    ("sysusers", lambda t: t.write("/usr/etc/passwd", "root:\nedge:\n"), ["user edge"]),
    ("sysusers", lambda t: t.write("/usr/etc/group", "root:\nedge:\n"), ["group edge"]),
    ("utf8", lambda t: t.symlink("/usr/a", "\udcff"), ["usr/a"]),
    ("utf8", lambda t: t.write("/usr/a\udcff", ""), ["usr/a\udcff"]),
    ("var-tmpfiles", lambda t: t.write("/var/lib/a", ""), ["/var/lib", "/var/lib/a"]),
]


def seen(image, tmp_path):
    """The members of the written layer, with their content."""
    found = image()
    root = tmp_path / "unpacked"
    root.mkdir()
    (tmp_path / "layer").write_bytes(found.layer)
    with (tmp_path / "layer").open("rb") as stream:
        lowest.apply(stream, root)
    tree = lints.SeenTree()
    for name, header in found.members.items():
        tree.take(LayerMember(header, root / name))
    return tree


@pytest.fixture
def written(commit, image, tmp_path, monkeypatch):
    """A function that writes an image, and returns what the lints find in its layer."""
    monkeypatch.setattr(lints, "report", lambda target, places: None)

    def written(change=lambda target: None):
        change(commit)
        return lints.found(seen(image, tmp_path))

    return written


def test_a_good_image_has_no_finding(written):
    assert written() == {}


@pytest.mark.parametrize(("name", "change", "places"), FAULTS)
def test_each_lint_finds_its_fault_in_the_written_image(written, name, change, places):
    found = written(change)
    assert name in found
    assert places is None or found[name] == places


def test_a_log_and_a_directory_in_place_of_the_link_are_found(written):
    def change(target):
        target.write("/var/log/a.log", "x")
        target.write("/var/log/empty", "")
        target.make_directory("/var/run")

    found = written(change)
    assert found["var-log"] == ["/var/log/a.log"]
    assert found["var-run"] == ["/var/run"]


def test_a_second_etc_is_found(commit):
    """The layer has none, whatever the tree has."""
    tree = lints.SeenTree()
    (member,) = [m for m in archive.layer.members(commit.root, None) if m.name == "etc"]
    member.header.name = "usr/etc"
    tree.take(member)
    assert lints.found(tree)["etc-usretc"] == ["/usr/etc"]


def test_rules_and_accounts_are_read_from_the_image(written):
    def change(target):
        target.make_directory("/var/lib/a")
        target.write("/usr/lib/tmpfiles.d/a.conf", 'd /var/lib\nd "/var/lib/a" 0755\n# x\n')
        target.write("/usr/etc/passwd", "root:\nedge:\n")
        target.write("/usr/lib/sysusers.d/b.conf", "u! edge -\n")

    assert written(change) == {}


def test_the_root_of_a_base_image_has_the_same_rules(written):
    def change(target):
        target.make_directory(f"/{RULES}/sysroot")
        target.symlink(f"/{RULES}/ostree", "sysroot")

    found = written(change)
    assert found["baseimage-root"] == [f"/{RULES}/ostree"]
    assert found["baseimage-composefs"] == [f"/{RULES}/{PREPARE_ROOT}"]


def test_a_transient_root_is_a_composefs_to_bootc(written):
    assert written(lambda t: t.write(f"/{PREPARE_ROOT}", "[root]\ntransient=true\n")) == {}


def test_what_bootc_refuses_is_an_error_and_what_it_warns_of_a_note(commit):
    commit.remove("/sysroot")
    commit.write(f"/{PREPARE_ROOT}", "")
    with pytest.raises(StageError, match="would refuse the image: baseimage-root: /sysroot"):
        archive.write(commit, REF, CHECKSUM, None)
    assert commit.report.written == []
    (note,) = commit.report.notes
    assert note.startswith("'bootc container lint' warns of baseimage-composefs: /usr/lib/ostree")


def test_every_lint_of_bootc_has_a_test_and_a_row_in_the_documentation():
    tested = {name for name, _, _ in FAULTS} | {"var-log", "var-run", "etc-usretc"}
    assert tested == set(lints.BOOTC)
    rows = dict(
        re.findall(r"^\| `([a-z0-9-]+)` \| \w+ \| (.*) \| .* \|$", DOCUMENT.read_text(), re.M)
    )
    for name, lint in lints.BOOTC.items():
        assert set(lint.before) <= LINTS.keys()
        codes = set(re.findall(r"`([a-z0-9-]+)`", rows[name]))
        assert codes == set(lint.before), f"{name}: the table of docs/ostree.md has {codes}"
