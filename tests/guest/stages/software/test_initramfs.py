"""Each initramfs is made once, after all that it holds."""

import time

import pytest
from particle_agent.errors import CommandFailed
from particle_agent.stages.software.apt import Apt

from .apt_calls import STAND_INS, ask_for, on_install, real

pytestmark = pytest.mark.usefixtures("known")


def test_the_initramfs_of_a_kernel_that_goes_is_removed_at_once(debian):
    def install():
        real(debian, "update-initramfs", f'echo "$*" >{debian.root}/real/asked')
        ask_for(debian, "update-initramfs", "-d", "-k", "6.12-amd64")

    debian.write("/boot/vmlinuz-6.13-amd64", "")
    on_install(debian, install)
    Apt(remove=("linux-image-6.12-amd64",), packages=("curl",)).run(debian)
    assert debian.read("/real/asked") == "-d -k 6.12-amd64\n"
    assert "update-initramfs" not in debian.programs()


def test_the_plain_way_has_no_stand_ins_and_the_same_initramfs(debian):
    def install():
        seen.extend(debian.list(STAND_INS))
        debian.write("/boot/vmlinuz-6.12-cloud-amd64", "")
        debian.write("/boot/initrd.img-6.12-cloud-amd64", "as Debian makes it")

    seen = []
    debian.plain = True
    debian.ahead = lambda: seen.append("ahead")
    on_install(debian, install)
    debian.when(
        "update-initramfs",
        lambda c: seen.append(debian.read("/etc/initramfs-tools/conf.d/particle-os")),
    )
    Apt(packages=("linux-image-cloud-amd64",)).run(debian)
    assert seen == ["COMPRESS=gzip\nCOMPRESSLEVEL=1\nMODULES=list\n"]
    (install,) = [c.argv for c in debian.commands if "install" in c.argv]
    assert not any(option.startswith("-oDPkg::Path=") for option in install)


def test_the_initramfs_is_made_once_for_each_kernel(debian):
    def install():
        debian.write("/boot/vmlinuz-6.12-cloud-amd64", "")
        debian.write("/boot/vmlinuz-6.12-amd64", "")
        for _ in range(3):
            ask_for(debian, "update-initramfs")

    settings, hooks = {}, {}

    def update_initramfs(command):
        settings[command.argv[-1]] = debian.read("/etc/initramfs-tools/conf.d/particle-os")
        place = "/usr/share/initramfs-tools/hooks"
        modes = {name: debian.mode(f"{place}/{name}") for name in debian.list(place)}
        hooks[command.argv[-1]] = modes

    on_install(debian, install)
    debian.when("update-initramfs", update_initramfs)
    Apt(packages=("linux-image-amd64",)).run(debian)
    made = [c.argv for c in debian.commands if c.argv[0] == "update-initramfs"]
    assert made == [
        ("update-initramfs", "-c", "-k", "6.12-amd64"),
        ("update-initramfs", "-c", "-k", "6.12-cloud-amd64"),
    ]
    assert "MODULES=list" in settings["6.12-cloud-amd64"]
    assert "MODULES=list" not in settings["6.12-amd64"]
    assert hooks == {"6.12-amd64": {}, "6.12-cloud-amd64": {"zz-particle-os": 0o755}}
    assert debian.list("/etc/initramfs-tools/conf.d") == []
    assert debian.list("/usr/share/initramfs-tools/hooks") == []
    assert debian.list("/run") == []


def test_dpkg_finds_the_stand_ins_first(debian):
    Apt(packages=("curl",)).run(debian)
    (install,) = [c.argv for c in debian.commands if "install" in c.argv]
    (path,) = [option for option in install if option.startswith("-oDPkg::Path=")]
    assert path.removeprefix("-oDPkg::Path=").split(":")[0] == STAND_INS
    assert path.endswith(":/usr/sbin:/usr/bin:/sbin:/bin")


def test_the_hardware_database_is_there_before_an_initramfs_that_holds_it(debian):
    def install():
        debian.write("/boot/vmlinuz-6.12-amd64", "")
        ask_for(debian, "update-initramfs")
        ask_for(debian, "systemd-hwdb", "--usr", "update")

    on_install(debian, install)
    made = []
    debian.when("systemd-hwdb", lambda c: (time.sleep(0.2), made.append("database")))
    debian.when("update-initramfs", lambda c: made.append("initramfs"))
    Apt(packages=("linux-image-amd64",)).run(debian)
    assert made == ["database", "initramfs"]


def test_a_hardware_database_that_fails_is_reported(debian):
    def fail(command):
        raise CommandFailed(command.argv, 1, ["no room"])

    on_install(debian, lambda: ask_for(debian, "systemd-hwdb", "--usr", "update"))
    debian.when("systemd-hwdb", fail)
    with pytest.raises(CommandFailed, match="systemd-hwdb"):
        Apt(packages=("udev",)).run(debian)


def test_no_initramfs_is_made_when_nothing_asks_for_it(debian):
    debian.write("/boot/vmlinuz-6.12-amd64", "")
    Apt(packages=("curl",)).run(debian)
    assert "update-initramfs" not in debian.programs()
