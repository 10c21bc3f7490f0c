"""The disk that boots a commit, and what is published beside it."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree import boot_menu
from particle_agent.ostree.remote import Remote
from particle_agent.ostree.repositories import publication
from particle_agent.ostree.repositories.commit_record import CommitRecord
from particle_agent.stages.output.ostree import Ostree
from particle_agent.stages.output.qemu import Qemu
from particle_agent.target import disks

from .commits import CHECKSUM, PARENT, REF, verbs


def test_the_disk_has_a_deployment_and_grub_beside_it(disk, debian):
    root = disk()
    assert (root / "boot/grub/grub.cfg").read_text() == boot_menu.menu()
    assert len((root / "boot/grub/grubenv").read_bytes()) == 1024
    assert (root / "boot/grub/i386-pc/normal.mod").read_text() == "module"
    assert debian.list("/boot") == [], "the files of the boot loader are not in the commit's tree"
    assert debian.only("mke2fs").argv[-2] == str(root)


def test_the_kernel_gets_the_words_of_the_recipe_one_by_one(disk, debian):
    debian.write("/etc/kernel/cmdline", "root=/dev/old quiet --karg=x mitigations=off\n")
    disk()
    (deploy,) = [c.argv for c in debian.commands if c.argv[:3] == ("ostree", "admin", "deploy")]
    option = "--karg-append="
    words = [word.removeprefix(option) for word in deploy if word.startswith(option)]
    uuid = debian.only("mke2fs").argv[debian.only("mke2fs").argv.index("-U") + 1]
    assert words[:4] == [f"root=UUID={uuid}", "rw", "console=tty0", "console=ttyS0,115200"]
    assert not any(word.startswith("--karg=") for word in deploy), "ostree keeps one console="
    # A kernel that panics restarts: otherwise no boot loader could count the boot.
    assert words[-4:] == ["quiet", "--karg=x", "mitigations=off", "panic=10"]
    assert deploy[-1] == REF, "without a server, the machine follows no branch of one"


def test_the_origin_of_the_deployment_is_the_branch_of_the_server(disk, debian):
    remote = Remote(url="https://u.example.org", name="updates", verify=False)
    disk(Ostree(ref=REF, remote=remote))
    (deploy,) = [c.argv for c in debian.commands if c.argv[:3] == ("ostree", "admin", "deploy")]
    assert deploy[-1] == f"updates:{REF}"
    pulls = [c.argv for c in debian.commands if c.argv[:2] == ("ostree", "pull-local")]
    assert [p for p in pulls if "--remote=updates" in p] == [p for p in pulls if "sysroot" in p[2]]


def test_fstab_of_the_deployment_names_the_other_file_systems_of_the_disk(disk, debian):
    root = disk()
    text = (root / f"ostree/deploy/debian/deploy/{CHECKSUM}.0/etc/fstab").read_text()
    assert [line.split()[1] for line in text.splitlines()] == ["/boot/efi"]
    assert debian.read("/usr/etc/fstab") == "", "the commit is for many disks"


@pytest.mark.parametrize(
    ("file_system", "commands"), [("ext4", ["mkswap", "debugfs"]), ("xfs", ["fallocate", "mkswap"])]
)
def test_the_swap_file_is_in_the_var_of_all_versions(disk, debian, file_system, commands):
    if file_system == "xfs":
        (debian.directory / "disk3").touch()
        (debian.directory / "mounted/ostree/deploy/debian/var").mkdir(parents=True)
    root = disk(swap="64M", file_system=file_system)
    text = (root / f"ostree/deploy/debian/deploy/{CHECKSUM}.0/etc/fstab").read_text()
    assert "/var/swapfile none swap defaults 0 0\n" in text
    path = "ostree/deploy/debian/var/swapfile"
    tree = root if file_system == "ext4" else debian.directory / "mounted"
    assert (tree / path).stat().st_mode & 0o777 == 0o600, "its content was memory"
    assert debian.only("mkswap").argv[-1] == str(tree / path)
    if file_system == "ext4":
        assert (tree / path).stat().st_size == 64 << 20
        assert f"fallocate /{path} 0 16383" in [w for c in debian.commands for w in c.argv]
    swap = [p for p in debian.programs() if p in ("mkswap", "fallocate", "debugfs")]
    assert swap[: len(commands)] == commands
    assert debian.read("/usr/etc/fstab") == "", "the commit is for many disks"


@pytest.mark.parametrize(
    ("table", "program", "file"),
    [
        ("gpt", "/usr/bin/systemd-repart", "repart.d/50-root.conf"),
        ("msdos", "/usr/bin/growpart", "systemd/system/particle-os-grow.service"),
    ],
)
def test_the_machine_grows_its_file_system_through_var(disk, debian, table, program, file):
    """/ and /sysroot of a deployment are read-only."""
    debian.write(program, "")
    root = disk(grow=True, partition_table=table)
    etc = root / f"ostree/deploy/debian/deploy/{CHECKSUM}.0/etc"
    assert (etc / file).is_file()
    unit = etc / "systemd/system/particle-os-grow-file-system.service"
    assert "ExecStart=/usr/lib/systemd/systemd-growfs /var\n" in unit.read_text()
    wanted = etc / "systemd/system/sysinit.target.wants/particle-os-grow-file-system.service"
    assert wanted.resolve() == unit
    assert not debian.exists(f"/usr/etc/{file}"), "the commit is for many disks"


@pytest.mark.parametrize(
    ("table", "package"), [("gpt", "systemd-repart"), ("msdos", "cloud-guest-utils")]
)
def test_what_grows_a_partition_must_be_in_the_commit(disk, debian, table, package):
    with pytest.raises(StageError, match=f"'{package}' is not installed"):
        disk(grow=True, partition_table=table)
    assert "ostree" not in debian.programs()


def test_the_deployment_is_immutable_before_the_journal_is_added(disk, debian):
    disk()
    programs = debian.programs()
    assert programs.index("chattr") < programs.index("mke2fs") < programs.index("debugfs")
    assert programs.index("debugfs") < programs.index("tune2fs")
    path = f"/ostree/deploy/debian/deploy/{CHECKSUM}.0"
    assert f"set_inode_field {path} flags 0x80010" in debian.only("debugfs").argv


def test_the_repository_is_published_as_an_archive(disk, debian):
    disk()
    assert debian.report.disks == ["output", "repository"]
    data = (debian.directory / "repository").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data[: debian.report.written[1]])) as archive:
        assert {(m.uid, m.gid, m.mtime, m.uname) for m in archive} == {(0, 0, 0, "")}


def test_the_test_of_an_update_gets_the_parent_s_disk_and_the_repository(disk, debian, monkeypatch):
    """The parent's disk is made before the branch has the new commit."""
    monkeypatch.setattr(disks, "is_attached", {"parent", "update"}.__contains__)
    Ostree(ref=REF, publish=()).run(debian)
    replace(CommitRecord.read(debian), parent=PARENT).write(debian)
    debian.commands.clear()
    Qemu(boot_loader="grub").run(debian)
    assert debian.report.disks == ["parent", "output", "update"]
    made = [c.argv for c in debian.commands if c.argv[0] == "mke2fs"]
    assert [argv[argv.index("-L") + 1] for argv in made] == ["root", "root", "update"]
    sources = [c.argv[-2] for c in debian.commands if c.argv[:2] == ("ostree", "pull-local")]
    names = [Path(source).name for source in sources]
    assert names == ["archive", "repository", "repository"]


def test_without_a_publication_there_is_only_the_disk(disk, debian):
    disk(Ostree(ref=REF, publish=()))
    assert debian.report.disks == ["output"]
    assert "summary" not in verbs(debian)


def test_a_deployment_that_ostree_did_not_make_is_an_error(disk, debian):
    debian.ostree.deploy = lambda command: None
    with pytest.raises(StageError, match=f"did not deploy the commit {CHECKSUM}"):
        disk()
    assert debian.report.written == []


@pytest.mark.parametrize("verb", ["deploy", "pull-local", "os-init"])
def test_a_failure_of_ostree_ends_the_stage_without_a_disk(disk, debian, verb):
    debian.ostree.failing = verb
    with pytest.raises(CommandFailed):
        disk()
    assert debian.report.disks == []


def test_a_failure_of_the_publication_ends_the_stage(disk, debian):
    debian.ostree.failing = "summary"
    with pytest.raises(CommandFailed):
        disk()
    assert debian.report.disks == ["output"]


def test_a_failure_of_the_collection_ends_the_stage_beside_the_disk(disk, debian, monkeypatch):
    """The disk is written meanwhile, and the host publishes nothing of a failed stage."""

    def fail(target, record):
        raise CommandFailed(["ostree"], 1, ["no space left"])

    monkeypatch.setattr(publication, "collect", fail)
    with pytest.raises(CommandFailed, match="'ostree' ended with status 1"):
        disk()
    assert debian.report.disks == ["output"]


def test_the_commands_outside_of_the_image_have_no_path_from_it(disk, debian):
    """A base decides about names in the image, and about no word of a command in the VM."""
    debian.write("/var/lib/--help", "")
    debian.write("/boot/--root=x", "")
    debian.write("/etc/--x", "")
    disk()
    outside = [word for c in debian.commands if not c.inside for word in c.argv]
    assert not any("--help" in word or "--x" in word or "--root=x" in word for word in outside)


def test_words_for_the_kernel_that_grub_would_take_for_script_are_refused(disk, debian):
    debian.write("/etc/kernel/cmdline", "quiet a=$(id)\n")
    with pytest.raises(StageError, match="cannot be written to GRUB's menu"):
        disk()
    assert "ostree" not in debian.programs()
