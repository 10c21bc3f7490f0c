"""A base as `docker export` and other tools leave it."""

import pytest
from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.unpack import runtime_files
from particle_agent.verification import leftovers

EMPTY = {"etc/hostname": "", "etc/hosts": "", "etc/resolv.conf": ""}


@pytest.fixture
def base(tmp_path):
    """A root file system; `files` maps names to contents."""

    def make(**files):
        for name in ("etc", "run", "usr/bin", "usr/sbin", "usr/lib"):
            (tmp_path / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib"):
            (tmp_path / name).symlink_to(f"usr/{name}")
        for name, content in files.items():
            (tmp_path / name).write_text(content)
        return tmp_path

    return make


def test_the_marks_of_a_container_and_its_empty_files_are_removed(base):
    files = {".dockerenv": "", "etc/hostname": "", "etc/hosts": "", "etc/resolv.conf": ""}
    root = base(**files, **{"run/.containerenv": "engine=podman"})
    assert list(runtime_files.notes(root)) == [
        "files of a container runtime are removed from the base: /.dockerenv, /run/.containerenv, "
        "/etc/hostname, /etc/hosts, /etc/resolv.conf"
    ]
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_files_with_content_and_links_stay(base):
    root = base(**{"etc/hostname": "x\n", "etc/hosts": "127.0.0.1 localhost\n"})
    (root / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    (root / ".dockerenv").mkdir()
    assert list(runtime_files.notes(root)) == []
    assert (root / "etc/hosts").exists()
    assert (root / "etc/resolv.conf").is_symlink()


def test_a_link_does_not_lead_out_of_the_base(base, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".containerenv").touch()
    root = base()
    (root / "run").rmdir()
    (root / "run").symlink_to(outside)
    assert list(runtime_files.notes(root)) == []
    assert (outside / ".containerenv").exists()


def test_a_link_to_usr_that_a_layer_has_replaced_is_noted(base):
    root = base()
    (root / "lib").unlink()
    (root / "lib").mkdir()
    (note,) = runtime_files.notes(root)
    assert note.startswith("/lib: a directory in the base has replaced the link to /usr")
    for name in ("bin", "sbin"):
        (root / name).unlink()
        (root / name).mkdir()
    assert list(runtime_files.notes(root)) == []


def found_in(root):
    reported = []
    leftovers.check(Tree(root), [], Findings(reported.append))
    assert {finding.code for finding in reported} <= {"container-file"}
    return [finding.place for finding in reported]


@pytest.mark.parametrize("mark", [".dockerenv", ".dockerinit", "run/.containerenv"])
def test_the_verification_finds_what_the_unpacking_removes(base, mark):
    root = base(**{mark: "", **EMPTY})
    found = found_in(root)
    assert found == [f"/{mark}", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
    (note,) = runtime_files.notes(root)
    assert note.endswith(", ".join(found))
    assert found_in(root) == []


def test_the_verification_accepts_empty_files_without_a_mark(base):
    assert found_in(base(**EMPTY)) == []


def test_the_verification_accepts_files_with_content_and_links_beside_a_mark(base):
    root = base(**{".dockerenv": "", "etc/hostname": "x\n"})
    (root / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    (root / "run/resolv.conf").write_text("")
    assert found_in(root) == ["/.dockerenv"]
