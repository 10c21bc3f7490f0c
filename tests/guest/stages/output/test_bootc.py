"""The disk that the image's own bootc fills. A stand-in notes how it is called."""

import json
import tarfile
from pathlib import Path

import pytest
from particle_agent.contract.options import Faults
from particle_agent.disk import modules
from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree.container import installer
from particle_agent.ostree.container.install_options import BootcInstall
from particle_agent.stages.output.qemu import Qemu

NAME = "registry.example.org/edge:1"
PLACE = "/run/particle-os/bootc"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPm0lHXj1Xl5F4mKJ3tqB5Ff8vJ0nQFGmGqQhU8i1dZa me"


def stage(*, loader="grub", qemu=None, **options):
    bootc = BootcInstall(target_imgref=NAME, **options)
    return Qemu(boot_loader=loader, installer="bootc", bootc=bootc, **(qemu or {}))


@pytest.fixture
def image(target, monkeypatch):
    """A system in the form of a container image of bootc, with a stand-in for bootc."""
    target.loaded = []
    monkeypatch.setattr(modules, "load", target.loaded.append)
    for directory in ("boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "var/tmp"):
        target.make_directory(f"/{directory}")
    target.write("/etc/machine-id", "0123\n")
    target.write("/usr/lib/modules/6.12/vmlinuz", "kernel")
    target.write("/tmp/left", "the stage empties it")
    target.write("/usr/bin/bootc", "#!/bin/sh\n", mode=0o755)
    target.seen = {}

    def called(command):
        (source,) = [c.argv for c in target.commands if c.argv[:2] == ("mount", "--bind")][:1]
        with tarfile.open(Path(source[2]) / installer.IMAGE) as archive:
            names = archive.getnames()
            manifest = json.loads(archive.extractfile(names[-2]).read())
        target.seen["layers"] = len(manifest["layers"])
        target.seen["devices"] = sorted(target.list("/dev"))
        target.seen["keys"] = target.exists(f"{PLACE}/authorized_keys") and target.read(
            f"{PLACE}/authorized_keys"
        )
        target.seen["machine-id"] = target.read("/etc/machine-id")
        target.seen["tmp"] = target.list("/tmp")

    target.when("/usr/bin/bootc", called)
    return target


def words(target):
    return target.only("/usr/bin/bootc").argv


def test_bootc_is_called_in_the_image_with_the_image_as_its_source(image):
    stage().run(image)
    assert words(image) == (
        "/usr/bin/bootc",
        "install",
        "to-filesystem",
        f"--source-imgref=oci-archive:{PLACE}/source/image.oci.tar",
        "--skip-fetch-check",
        "--target-transport=registry",
        f"--target-imgref={NAME}",
        "--bootloader=grub",
        "--bound-images=skip",
        "--generic-image",
        f"{PLACE}/root",
    )
    assert image.only("/usr/bin/bootc").inside
    assert image.seen["layers"] == 1
    assert image.seen["machine-id"] == "", "an image for many machines has no identity"
    assert image.seen["tmp"] == []


def test_each_option_reaches_bootc(image):
    stage(
        loader="systemd-boot",
        target_transport="oci",
        kargs=("quiet", "console=ttyS0"),
        karg_deletes=("rhgb",),
        stateroot="edge",
        root_mount_spec="LABEL=root",
        boot_mount_spec="",
        root_ssh_authorized_keys=(KEY,),
        generic_image=False,
        composefs_backend=True,
        allow_missing_verity=True,
        bound_images="stored",
        bootupd_skip_boot_uuid=True,
        enforce_container_sigpolicy=True,
    ).run(image)
    assert words(image)[5:-1] == (
        "--target-transport=oci",
        f"--target-imgref={NAME}",
        "--bootloader=systemd",
        "--bound-images=stored",
        "--karg=quiet",
        "--karg=console=ttyS0",
        "--karg-delete=rhgb",
        "--stateroot=edge",
        "--root-mount-spec=LABEL=root",
        "--boot-mount-spec=",
        "--composefs-backend",
        "--allow-missing-verity",
        "--bootupd-skip-boot-uuid",
        "--enforce-container-sigpolicy",
        f"--root-ssh-authorized-keys={PLACE}/authorized_keys",
    )
    assert image.seen["keys"] == f"{KEY}\n"


def test_the_file_systems_are_made_and_mounted_before_and_the_disk_finished_after(image):
    stage().run(image)
    programs = image.programs()
    made = [programs.index(each) for each in ("sfdisk", "mkfs.vfat", "mke2fs", "tune2fs")]
    assert made == sorted(made)
    assert made[-1] < programs.index("/usr/bin/bootc") < programs.index("sync")
    mounts = [c.argv for c in image.commands if c.argv[0] == "mount" and c.inside]
    assert [argv[-1] for argv in mounts] == [
        f"{PLACE}/source",
        f"{PLACE}/root",
        f"{PLACE}/root/boot/efi",
    ]
    assert [argv[2] for argv in mounts[1:]] == ["ext4", "vfat"]
    assert {"ext4", "vfat"} <= set(image.loaded), "the VM's kernel has few of its modules at first"
    assert image.report.disks == ["output"]
    assert image.seen["devices"] == ["disk", "disk1", "disk2", "disk3"]


def test_another_root_file_system_is_made_by_the_image_s_own_tools(image):
    with pytest.raises(StageError, match="the package 'xfsprogs' is not installed"):
        stage(qemu={"file_system": "xfs"}).run(image)
    image.write("/usr/sbin/mkfs.xfs", "program")
    image.when("sfdisk", lambda command: (image.directory / "disk3").touch())
    stage(qemu={"file_system": "xfs"}).run(image)
    assert image.only("mkfs.xfs").inside
    mounts = [c.argv for c in image.commands if c.argv[0] == "mount" and c.inside]
    assert mounts[1][2] == "xfs"
    assert "package xfsprogs" in {need.what for need in stage(qemu={"file_system": "xfs"}).needs()}


def test_nothing_of_it_stays_in_the_image_or_beside_it(image):
    stage(root_ssh_authorized_keys=(KEY,)).run(image)
    assert image.list("/dev") == []
    assert not image.exists(PLACE)
    beside = {path.name for path in image.root.parent.iterdir()}
    assert not {"bootc", "empty"} & beside


def test_the_status_of_bootc_decides(image):
    def fails(command):
        raise CommandFailed(command.argv, 1, tail=("error: no bootupd",))

    image.when("/usr/bin/bootc", fails)
    with pytest.raises(CommandFailed):
        stage().run(image)
    assert image.report.written == []
    assert image.list("/dev") == []
    assert not image.exists(PLACE)


def test_the_stage_says_that_it_is_experimental(image):
    stage().run(image)
    assert any("experimental" in note for note in image.report.notes)


def test_an_image_without_bootc_is_an_error_before_anything_is_made(image):
    image.remove("/usr/bin/bootc")
    with pytest.raises(StageError, match="the image has no /usr/bin/bootc"):
        stage().run(image)
    assert image.report.needed == []
    (need,) = [need for need in stage().needs() if need.what == "program bootc"]
    assert need.files == ("/usr/bin/bootc",)


@pytest.mark.parametrize(
    ("options", "place", "why"),
    [
        ({"loader": "extlinux"}, "boot-loader", "bootc installs no extlinux"),
        ({"qemu": {"size": "minimal"}}, "size", "only bootc knows"),
        ({"qemu": {"swap": "1G"}}, "swap", "leaves it to the image"),
        ({"qemu": {"first_boot": True}}, "first-boot", "leaves it to the image"),
        ({"qemu": {"grow": True}}, "grow", "leaves it to the image"),
        (
            {"loader": "systemd-boot", "qemu": {"unified_kernel_image": True}},
            "unified-kernel-image",
            "leaves it to the image",
        ),
        ({"allow_missing_verity": True}, "allow-missing-verity", "only composefs"),
        ({"root_ssh_authorized_keys": ("ssh-rsa x",)}, "root-ssh-authorized-keys", ""),
    ],
)
def test_what_cannot_be_is_refused(options, place, why):
    with pytest.raises(Faults) as raised:
        stage(**options)
    places = {found[0]: message for found, message in raised.value.found}
    assert place in places
    assert why in places[place]


def test_the_options_and_the_installer_belong_together():
    bootc = BootcInstall(target_imgref=NAME)
    with pytest.raises(Faults, match="those of 'installer: bootc'"):
        Qemu(bootc=bootc)
    with pytest.raises(Faults, match="target-imgref: IMAGE"):
        Qemu(boot_loader="grub", installer="bootc")


def test_the_packages_of_a_boot_loader_are_not_needed():
    names = {need.what for need in stage().needs()}
    assert not any("grub" in name for name in names)
    assert "program bootc" in names
