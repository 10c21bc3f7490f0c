"""The lints of a commit: each fault has its code, its place and its remedy; all come at once."""

import os
import re
import socket
from pathlib import Path

import pytest
from particle_agent.agent.failure import failure
from particle_agent.errors import StageError
from particle_agent.ostree import account_rules
from particle_agent.ostree.image import lints
from particle_agent.ostree.image.lints import LINTS, Flaw

KERNEL = "6.12"


@pytest.fixture
def debian(target):
    """A target without faults."""
    for directory in (
        "boot", "dev", "home", "media/cdrom", "mnt", "opt", "proc", "root", "run", "srv", "sys",
        "tmp", "usr/lib/modules/6.12", "usr/local/bin", "var/lib/dpkg/info",
    ):  # fmt: skip
        target.make_directory(f"/{directory}")
    for name in ("vmlinuz", "initrd.img", "config", "System.map"):
        target.write(f"/boot/{name}-{KERNEL}", name)
    target.symlink("/vmlinuz", f"boot/vmlinuz-{KERNEL}")
    target.write("/boot/grub/grub.cfg", "")
    target.write("/etc/ssh/ssh_host_rsa_key", "the stage removes it")
    target.write("/usr/bin/tool", "program")
    target.symlink("/usr/bin/other", "tool")
    return target


def found(target):
    return list(lints.files(target, target.root, KERNEL))


def owns(target, *paths):
    """Makes files, and the package that owns them."""
    for path in paths:
        target.write(path, "")
    target.write("/var/lib/dpkg/info/vendor.list", "/.\n/usr\n" + "\n".join(paths) + "\n")


def make_socket(place):
    with socket.socket(socket.AF_UNIX) as made:
        # The name of a socket has at most 107 bytes.
        here = os.open(place.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/{place.name}")
        os.close(here)


def test_an_image_of_debian_has_no_findings(debian):
    owns(debian, "/usr/bin/vendor", "/boot/memtest86+x64.bin", "/etc/vendor.conf")
    for path in ("/dev/left", "/run/left", "/tmp/left", "/var/tmp/left", "/proc/x", "/sys/x"):
        debian.write(path, "the stage removes it, as from each image")
    assert found(debian) == []


def test_the_stage_cleans_what_no_image_contains(debian):
    """Special files, too: a commit never has them."""
    for path in ("/dev", "/run", "/tmp", "/var/tmp", "/boot/grub"):
        debian.make_directory(path)
        os.mkfifo(debian.path(f"{path}/pipe"))
        (debian.path(path) / os.fsdecode(b"\xff")).touch()
    assert found(debian) == []


def test_a_second_kernel_is_found_in_both_places(debian):
    debian.write("/boot/vmlinuz-6.1", "")
    debian.write("/usr/lib/modules/6.9/vmlinuz", "")
    debian.write(f"/usr/lib/modules/{KERNEL}/vmlinuz", "the kernel of an image of bootc")
    assert found(debian) == [
        Flaw("kernel-several", "/boot/vmlinuz-6.1"),
        Flaw("kernel-several", "/usr/lib/modules/6.9/vmlinuz"),
    ]


@pytest.mark.parametrize("content", ["file", "nothing", "link"])
def test_two_directories_for_the_configuration_are_a_fault(debian, content):
    if content == "link":
        debian.symlink("/usr/etc", "/nowhere")
    else:
        debian.make_directory("/usr/etc")
    if content == "file":
        debian.write("/usr/etc/x", "")
    assert found(debian) == [Flaw("usr-etc", "/usr/etc")]


def test_content_that_a_link_would_replace_is_a_fault(debian):
    """Empty directories of Debian's installer are none."""
    debian.write("/media/data/films/one", "")
    debian.symlink("/media/data/link", "films")
    debian.write("/ostree/repo/config", "")
    assert {flaw.place for flaw in found(debian)} == {
        "/media/data/films/one",
        "/media/data/link",
        "/ostree/repo/config",
    }
    assert {flaw.code for flaw in found(debian)} == {"content-dropped"}


def test_the_links_of_a_commit_are_no_faults(debian):
    debian.remove("/media")
    debian.symlink("/media", "run/media")
    debian.symlink("/ostree", "sysroot/ostree")
    assert found(debian) == []


@pytest.mark.parametrize("make", [os.mkfifo, make_socket])
@pytest.mark.parametrize("path", ["/var/lib/queue/pipe", "/etc/pipe", "/usr/lib/x/y/pipe", "/p"])
def test_what_ostree_cannot_store_is_a_fault(debian, make, path):
    debian.make_directory(path.rpartition("/")[0] or "/")
    make(debian.path(path))
    assert found(debian) == [Flaw("special-file", path)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
@pytest.mark.parametrize("mode", [0o020600, 0o060600])
def test_devices_are_faults(debian, mode):
    try:
        os.mknod(debian.path("/etc/null"), mode, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this machine lets no one make devices")
    assert found(debian) == [Flaw("special-file", "/etc/null")]


@pytest.mark.parametrize("kind", ["file", "directory", "link", "text"])
@pytest.mark.parametrize("directory", ["/etc", "/usr/lib", "/var", "/opt"])
def test_names_that_are_not_utf_8_are_faults(debian, kind, directory):
    debian.make_directory(directory)
    name = os.fsdecode(b"latin\xe4")
    place = debian.path(directory) / name
    if kind == "text":
        debian.symlink(f"{directory}/link", name)
    elif kind == "link":
        place.symlink_to("x")
    elif kind == "directory":
        place.mkdir()
    else:
        place.touch()
    (flaw,) = found(debian)
    assert flaw.code == "name-not-utf-8"
    with pytest.raises(StageError) as raised:
        lints.report(debian, [flaw])
    raised.value.message.encode()


@pytest.mark.parametrize("name", ["a\nd injected 0777 0 0 -", "tab\t", "bell\x07", "\x7f"])
def test_control_characters_are_faults_where_rules_have_the_names(debian, name):
    debian.path(f"/etc/{name}").touch()
    assert found(debian) == []
    for directory in ("/var", "/home", "/usr/local"):
        debian.path(f"{directory}/{name}").mkdir()
    assert {flaw.code for flaw in found(debian)} == {"name-control"}
    assert len(found(debian)) == 3
    with pytest.raises(StageError) as raised:
        lints.report(debian, found(debian))
    assert name not in raised.value.message
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    "path",
    [
        "/etc/dropbear/dropbear_ed25519_host_key",
        "/etc/dropbear/initramfs/dropbear_rsa_host_key",
        "/usr/share/keys/ssh_host_ecdsa_key",
        "/root/ssh_host_rsa_key",
    ],
)
def test_a_host_key_that_the_stage_does_not_remove_is_a_fault(debian, path):
    debian.write(path, "secret")
    debian.write(f"{path}.pub", "public")
    debian.make_directory("/usr/share/doc/ssh_host_x_key")
    assert found(debian) == [Flaw("ssh-host-key", path)]


def test_files_of_boot_that_are_left_out_are_noted(debian):
    owns(debian, "/boot/memtest86+x64.bin")
    debian.write("/boot/config.txt", "of the recipe")
    debian.write("/boot/overlays/x", "")
    assert found(debian) == [
        Flaw("boot-content", "/boot/config.txt"),
        Flaw("boot-content", "/boot/overlays"),
    ]


def test_files_of_packages_that_no_update_reaches_are_noted(debian):
    paths = ("/opt/vendor/bin/x", "/usr/local/bin/tool", "/srv/www/index.html")
    owns(debian, *paths)
    debian.write("/opt/recipe/file", "a stage wrote it")
    debian.make_directory("/opt/vendor/empty")
    listed = debian.read("/var/lib/dpkg/info/vendor.list")
    debian.write("/var/lib/dpkg/info/vendor.list", f"{listed}/opt/vendor/empty\n/opt/gone\n")
    assert found(debian) == [Flaw("package-outside-usr", path) for path in sorted(paths)]


def test_files_of_packages_in_directories_of_the_running_system_are_noted(debian):
    owns(debian, "/run/vendor/socket.conf", "/tmp/vendor")
    assert {flaw.code for flaw in found(debian)} == {"volatile-content"}


def test_accounts_without_a_rule_are_noted(debian):
    debian.write(
        "/etc/passwd",
        "daemon:x:1:1::/:\ntoor:x:1:1::/:\nbad.name:x:200:200::/:\nann:x:1000:1000::/home/ann:\n",
    )
    debian.write("/etc/group", "daemon:x:1:\nbad.name:x:200:\nann:x:1000:\n")
    assert list(account_rules.flaws(debian, "sysusers")) == [
        Flaw("account-without-rule", "user toor"),
        Flaw("account-without-rule", "user bad.name"),
        Flaw("account-without-rule", "group bad.name"),
    ]


def test_accounts_that_only_etc_has_are_noted_when_etc_alone_brings_them(debian):
    debian.write(
        "/etc/passwd",
        "daemon:x:1:1::/:\n_apt:x:42:65534::/:\nown:x:998:998::/:\npkg:x:997:997::/:\n"
        "nobody:x:65534:65534::/:\nann:x:1000:1000::/home/ann:\n",
    )
    debian.write("/etc/group", "daemon:x:1:\nown:x:998:\npkg:x:997:\nmade:x:996:\n")
    debian.write("/usr/lib/sysusers.d/pkg.conf", "# u own\nu!  pkg - - / -\ng\n")
    debian.write("/etc/sysusers.d/recipe.conf", "g made -\n")
    assert list(account_rules.flaws(debian, "merge")) == [
        Flaw("account-without-rule", "user own"),
        Flaw("account-without-rule", "group own"),
    ]


def test_content_of_var_that_no_rule_makes_is_found(debian):
    """Debian's own state is none, and a rule is for the place that the file has in a commit."""
    for path in (
        "/var/.updated", "/var/cache/debconf/config.dat", "/var/lib/dpkg/status",
        "/var/lib/systemd/catalog/database", "/root/.bashrc", "/var/tmp/left",
        "/var/www/index.html", "/var/lib/ruled", "/root/.ssh/authorized_keys", "/opt/vendor/x",
        "/srv/ruled",
    ):  # fmt: skip
        debian.write(path, "")
    debian.make_directory("/var/lib/empty")
    debian.symlink("/var/lib/link", "/srv")
    flaws = lints.of_machine(debian.root, {"/var/lib/ruled", "/var/srv/ruled"})
    assert {flaw.place for flaw in flaws} == {
        "/var/www/index.html",
        "/var/lib/link",
        "/root/.ssh/authorized_keys",
        "/opt/vendor/x",
    }


def test_the_places_of_an_image_of_bootc_are_looked_at_once(debian):
    """Its directories of the machine are links into /var."""
    debian.remove("/opt")
    debian.write("/var/opt/vendor/x", "")
    debian.symlink("/opt", "var/opt")
    flaws = list(lints.of_machine(debian.root, ()))
    assert flaws == [Flaw("var-content", "/var/opt/vendor/x")]


def test_one_fatal_finding_is_the_error_itself(debian):
    with pytest.raises(StageError) as raised:
        lints.report(debian, [Flaw("usr-etc", "/usr/etc")])
    assert raised.value.message == "usr-etc: the image has both /etc and /usr/etc: /usr/etc"
    assert raised.value.hint == "Remove /usr/etc: the stage 'ostree' makes it from /etc."


def test_all_findings_come_at_once_and_fit_in_the_answer_of_the_agent(debian):
    """The error lists every fatal code; the others are notes."""
    with pytest.raises(StageError) as raised:
        lints.report(debian, [Flaw(code, f"/{n}") for n in range(7) for code in LINTS])
    fatal = [code for code, lint in LINTS.items() if lint.fatal]
    assert [line.split(":")[0] for line in raised.value.tail] == fatal
    assert all("/0, /1, /2, /3, /4 and 2 more" in line for line in raised.value.tail)
    assert [note.split(":")[0] for note in debian.report.notes] == [
        code for code, lint in LINTS.items() if not lint.fatal
    ]
    told = "".join(failure(raised.value).tail)
    assert all(f"{code}: " in told for code in fatal)


def test_notes_alone_are_no_error(debian):
    lints.report(debian, [Flaw("boot-content", "/boot/config.txt")])
    assert debian.report.notes[0].startswith("boot-content: ")


def test_the_page_lists_every_code_with_its_weight():
    page = (Path(__file__).parents[4] / "docs/ostree.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (error|note) \|", page, re.MULTILINE))
    assert rows == {code: "error" if lint.fatal else "note" for code, lint in LINTS.items()}
