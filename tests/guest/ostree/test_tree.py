"""The form of a commit: every file of the image has its place, and none is lost."""

import os

import pytest
from particle_agent.errors import StageError
from particle_agent.ostree import tree

HOMES = {
    "/home/ann/notes": "/var/home/ann/notes",
    "/root/.profile": "/var/roothome/.profile",
    "/srv/www/index.html": "/var/srv/www/index.html",
    "/opt/vendor/bin/x": "/var/opt/vendor/bin/x",
    "/mnt/readme": "/var/mnt/readme",
    "/usr/local/bin/tool": "/var/usrlocal/bin/tool",
    "/var/lib/dpkg/status": "/usr/share/dpkg/database/status",
    "/etc/hostname": "/usr/etc/hostname",
}


@pytest.fixture
def debian(target):
    """A target with the directories of Debian, after its kernel has moved."""
    for path in HOMES:
        target.write(path, f"text of {path}")
    for path in ("/boot", "/dev", "/media/cdrom", "/proc", "/run", "/sys", "/tmp", "/var/opt"):
        target.make_directory(path)
    target.write("/etc/passwd", "daemon:x:1:1::/:\n")
    target.write("/etc/group", "daemon:x:1:\n")
    return target


def test_every_file_has_its_place(debian):
    tree.convert(debian)
    for path, there in HOMES.items():
        assert debian.read(there) == f"text of {path}"
    for path in ("/home/ann/notes", "/usr/local/bin/tool", "/root/.profile"):
        assert debian.read(path) == f"text of {path}", "a link leads to the old path"
    assert not debian.exists("/etc")
    assert debian.read("/usr/etc/fstab") == ""
    assert tree.is_commit(debian)


def test_the_links_are_relative_and_lead_to_var(debian):
    tree.convert(debian)
    links = {path: os.readlink(debian.path(path, follow=False)) for path in tree.MOVED}
    assert links == {
        "/home": "var/home",
        "/mnt": "var/mnt",
        "/opt": "var/opt",
        "/root": "var/roothome",
        "/srv": "var/srv",
        "/usr/local": "../var/usrlocal",
    }
    assert os.readlink(debian.path("/ostree", follow=False)) == "sysroot/ostree"
    assert os.readlink(debian.path("/media", follow=False)) == "run/media"


def test_an_empty_image_gets_all_directories(target):
    for path in ("/etc", "/usr", "/var"):
        target.make_directory(path)
    tree.convert(target)
    for path, mode in tree.EMPTY.items():
        if path != "/var":
            assert target.list(path) == []
            assert target.mode(path) == mode
    assert target.list("/var") == ["home", "lib", "mnt", "opt", "roothome", "srv", "usrlocal"]
    assert target.list(tree.DATABASE) == []


def test_links_in_the_directories_of_the_machine_still_lead_where_they_did(debian):
    """The directories are at other depths then."""
    debian.write("/usr/bin/env", "program")
    links = {
        "/usr/local/bin/up": "../../bin/env",
        "/usr/local/bin/same": "tool",
        "/usr/local/bin/around": "../../local/bin/tool",
        "/usr/local/share/deep/up": "../../../../etc/hostname",
        "/root/up": "../etc/hostname",
        "/opt/vendor/far": "../../../../../../usr/bin/env",
        "/opt/vendor/absolute": "/usr/bin/env",
        "/srv/www/home": "../../home/ann/notes",
        "/srv/up": "..",
        "/srv/nowhere": "../nowhere",
    }
    for path, to in links.items():
        debian.symlink(path, to)
    before = {path: debian.path(path).name for path in links}
    texts = {path: debian.read(path) for path in links if debian.is_file(path)}
    tree.convert(debian)
    # A deployment has /etc.
    debian.path("/usr/etc").rename(debian.path("/etc"))
    assert {path: debian.path(path).name for path in links} == before
    assert {path: debian.read(path) for path in texts} == texts
    assert os.readlink(debian.path("/usr/local/bin/same", follow=False)) == "tool"
    assert os.readlink(debian.path("/usr/local/bin/up", follow=False)) == "/usr/bin/env"


def test_mounts_of_the_base_are_lost_with_a_note(debian):
    debian.write("/etc/fstab", "# c\nLABEL=data /srv ext4 defaults 0 0\n")
    tree.convert(debian)
    (note,) = debian.report.notes
    assert "without the line 'LABEL=data /srv ext4 defaults 0 0'" in note
    assert debian.read("/usr/etc/fstab") == ""


def test_the_modes_of_the_directories_are_kept(debian):
    debian.path("/root").chmod(0o700)
    debian.path("/usr/local").chmod(0o2775)
    tree.convert(debian)
    assert debian.mode("/var/roothome") == 0o700
    assert debian.mode("/var/usrlocal") == 0o2775


@pytest.mark.parametrize("path", ["/etc", "/usr", "/var"])
def test_a_link_in_place_of_a_main_directory_is_refused(debian, path):
    """The files behind it would be lost, or would not be where OSTree looks for them."""
    debian.path(path).rename(debian.path("/elsewhere"))
    debian.symlink(path, "elsewhere")
    with pytest.raises(StageError, match=f"{path} of the image is no directory"):
        tree.convert(debian)
    assert debian.list("/elsewhere")


@pytest.mark.parametrize("path", list(tree.MOVED))
@pytest.mark.parametrize("to", ["/data/moved", "../../../../../data/moved", "/nowhere", "/etc"])
def test_a_link_in_place_of_a_directory_of_the_machine_stays(debian, path, to):
    debian.write("/data/moved/file", "kept")
    debian.remove(path)
    debian.symlink(path, to)
    tree.convert(debian)
    assert os.readlink(debian.path(path, follow=False)) == to
    assert debian.read("/data/moved/file") == "kept"


def test_links_never_lead_a_move_out_of_the_image(debian, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    for path in (*tree.MOVED, *tree.LINKS, *tree.EMPTY, "/etc/fstab", "/var/lib/dpkg"):
        # The link to the outside begins with /tmp.
        if path not in ("/var", "/tmp"):
            debian.remove(path)
            debian.symlink(path, f"../../../../../../../..{outside}")
    tree.convert(debian)
    assert [each.name for each in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"
    assert debian.read("/usr/etc/fstab") == ""
    assert not debian.is_link("/usr/etc/fstab")


def test_an_image_that_has_the_links_already_stays_as_it_is(target):
    """As bootc's images: their files are in /var, and links lead there."""
    for path in ("/etc", "/usr", "/var"):
        target.make_directory(path)
    for path, name in tree.MOVED.items():
        target.write(f"/var/{name}/file", path)
        target.symlink(path, f"/var/{name}")
    target.write(f"{tree.DATABASE}/status", "packages")
    target.symlink("/var/lib/dpkg", tree.DATABASE)
    tree.convert(target)
    for path, name in tree.MOVED.items():
        assert target.read(f"{path}/file") == target.read(f"/var/{name}/file") == path
    assert target.read(f"{tree.DATABASE}/status") == "packages"


def test_a_database_behind_a_link_is_moved(debian):
    debian.make_directory("/usr/lib")
    debian.path("/var/lib/dpkg").rename(debian.path("/usr/lib/sysimage-dpkg"))
    debian.symlink("/var/lib/dpkg", "/usr/lib/sysimage-dpkg")
    tree.convert(debian)
    assert debian.read(f"{tree.DATABASE}/status") == "text of /var/lib/dpkg/status"


@pytest.mark.parametrize("to", ["/", "/usr", "/usr/share/dpkg"])
def test_a_database_that_would_move_into_itself_is_refused(debian, to):
    debian.remove("/var/lib/dpkg")
    debian.make_directory("/usr/share/dpkg")
    debian.symlink("/var/lib/dpkg", to)
    with pytest.raises(StageError, match="/var/lib/dpkg cannot become"):
        tree.convert(debian)


def test_what_var_has_already_is_kept(debian):
    """The hierarchy of Linux has /var/opt for the changing files of packages in /opt."""
    debian.write("/var/opt/vendor.db", "data")
    tree.convert(debian)
    assert debian.read("/var/opt/vendor.db") == "data"
    assert debian.read("/opt/vendor/bin/x") == "text of /opt/vendor/bin/x"


def test_a_name_in_both_directories_is_an_error_and_nothing_is_lost(debian):
    debian.write("/var/opt/vendor/data", "data")
    with pytest.raises(StageError, match="/opt becomes /var/opt, and both have 'vendor'"):
        tree.convert(debian)
    assert debian.read("/var/opt/vendor/data") == "data"
    assert debian.read("/opt/vendor/bin/x") == "text of /opt/vendor/bin/x"


def test_a_link_in_var_that_leads_back_is_replaced_by_the_files(debian):
    debian.symlink("/var/home", "../home")
    tree.convert(debian)
    assert debian.read("/home/ann/notes") == "text of /home/ann/notes"
    assert not debian.is_link("/var/home")


@pytest.mark.parametrize("to", ["/data", "/nowhere", "loop"])
def test_a_link_in_var_that_leads_elsewhere_is_an_error(debian, to):
    debian.make_directory("/data")
    debian.symlink("/var/home", "/var/home" if to == "loop" else to)
    with pytest.raises(StageError, match="too many levels" if to == "loop" else "cannot become"):
        tree.convert(debian)
    assert debian.read("/home/ann/notes") == "text of /home/ann/notes"


def test_a_file_in_place_of_a_directory_gives_way(debian):
    debian.remove("/srv")
    debian.write("/srv", "no directory")
    debian.remove("/tmp")
    debian.write("/tmp", "no directory")
    tree.convert(debian)
    assert debian.list("/srv") == []
    assert debian.path("/srv").is_dir()
    assert debian.mode("/tmp") == 0o1777


def test_the_kernel_moves_and_boot_is_empty(target):
    for version in ("6.1", "6.12"):
        for name in ("vmlinuz", "initrd.img", "config", "System.map"):
            target.write(f"/boot/{name}-{version}", f"{name} {version}")
    target.write("/boot/grub/grub.cfg", "")
    for name in ("vmlinuz", "initrd.img"):
        target.symlink(f"/{name}", f"boot/{name}-6.12")
        target.symlink(f"/{name}.old", f"boot/{name}-6.1")
    tree.move_kernel(target, "6.12")
    assert target.read("/usr/lib/modules/6.12/vmlinuz") == "vmlinuz 6.12"
    assert target.read("/usr/lib/modules/6.12/initramfs.img") == "initrd.img 6.12"
    assert target.list("/boot") == []
    assert target.list("/") == ["boot", "usr"]
    assert target.list("/usr/lib/modules") == ["6.12"], "OSTree takes one kernel"


@pytest.mark.parametrize("gone", ["vmlinuz", "initrd.img"])
@pytest.mark.parametrize("how", ["missing", "fifo", "directory"])
def test_a_kernel_without_its_parts_is_an_error_before_boot_is_emptied(target, gone, how):
    for name in ("vmlinuz", "initrd.img"):
        target.write(f"/boot/{name}-6.12", name)
    target.remove(f"/boot/{gone}-6.12")
    if how == "fifo":
        os.mkfifo(target.path(f"/boot/{gone}-6.12"))
    elif how == "directory":
        target.make_directory(f"/boot/{gone}-6.12")
    with pytest.raises(StageError, match=f"/boot/{gone}-6.12 of the image"):
        tree.move_kernel(target, "6.12")
    assert target.list("/boot")


def test_systemd_mounts_a_file_system_on_tmp(debian):
    debian.write("/usr/share/systemd/tmp.mount", "[Mount]\nWhat=tmpfs\n")
    tree.convert(debian)
    wanted = "/usr/lib/systemd/system/local-fs.target.wants/tmp.mount"
    assert debian.read(wanted) == "[Mount]\nWhat=tmpfs\n"


def test_the_links_of_a_bootc_image_lead_to_the_same_directories(target):
    """They may be absolute, and their directories may be missing."""
    for path in ("/etc", "/usr", "/var/lib", "/boot", "/sysroot"):
        target.make_directory(path)
    for path, to in {
        "/home": "/var/home",
        "/root": "var/roothome",
        "/srv": "/var/srv",
        "/ostree": "sysroot/ostree",
        "/var/lib/dpkg": "../../usr/share/dpkg/database",
    }.items():
        target.symlink(path, to)
    target.write("/var/srv/www/index.html", "page")
    target.write("/usr/share/dpkg/database/status", "")
    tree.convert(target)
    links = {path: os.readlink(target.path(path, follow=False)) for path in tree.MOVED}
    assert (links["/home"], links["/root"], links["/srv"]) == (
        "var/home",
        "var/roothome",
        "var/srv",
    )
    assert target.path("/var/home").is_dir()
    assert target.mode("/var/roothome") == 0o700
    assert target.read("/srv/www/index.html") == "page"
    assert target.exists("/usr/share/dpkg/database/status")
    assert not target.path("/var/lib/dpkg", follow=False).is_symlink()
    assert os.readlink(target.path("/ostree", follow=False)) == "sysroot/ostree"


def test_a_link_to_another_directory_stays(target):
    for path in ("/etc", "/usr", "/var/data"):
        target.make_directory(path)
    target.symlink("/srv", "/var/data")
    tree.convert(target)
    assert os.readlink(target.path("/srv", follow=False)) == "/var/data"


def test_the_repository_in_an_image_is_no_part_of_the_commit(target):
    target.write("/sysroot/ostree/repo/config", "")
    tree.empty(target)
    assert target.list("/sysroot") == []
