"""Each stage names the files that it replaces or removes, so that no recipe loses one silently."""

import re
from typing import get_args

import pytest
from particle_agent.disk import copied, extlinux
from particle_agent.stages import RecipeStage
from particle_agent.stages.accounts.groups import Group, Groups
from particle_agent.stages.accounts.users import User, Users
from particle_agent.stages.contents.cleanup import Cleanup
from particle_agent.stages.contents.files import Files
from particle_agent.stages.contents.run import Run
from particle_agent.stages.output.ostree import Ostree
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.hostname import Hostname
from particle_agent.stages.settings.keyboard import Keyboard
from particle_agent.stages.settings.locale import Locale
from particle_agent.stages.settings.network import Interface, Network
from particle_agent.stages.settings.services import DropIn, Services, Timer
from particle_agent.stages.settings.timezone import Timezone
from particle_agent.stages.software.apt import Apt, Pin
from particle_agent.stages.software.kernel import Kernel
from particle_agent.stages.software.sources import Repository, Sources

from .output.commits import GRUB_FILES, write_image
from .software.test_sources import KEY

# Files and run do what a recipe says. test_ostree.py has a test of the files of ostree.
OTHERS = {Files, Run, Ostree}
ENS3 = Interface(match=("ens3",))
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
REPOSITORY = {"name": "acme", "mirrors": ("http://m.example",), "suites": ("s",)}
SIGNED = ("/usr/lib/shim/shimx64.efi.signed", "/usr/lib/shim/mmx64.efi.signed",
          "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")  # fmt: skip
STAGES = [
    Apt(packages=("curl",), pins=(Pin(package="a", pin="version 1", priority=1),)),
    Cleanup(keep_languages=("de",), later=True),
    Cleanup(documentation=False, manual_pages=False),
    Groups(groups=(Group(name="a", members=("ann",)),)),
    Hostname(hostname="web1"),
    Kernel(command_line=("quiet",), modules=("loop",), compression="zstd", initramfs="list"),
    Keyboard(layout="de"),
    Locale(default="de_DE.UTF-8"),
    Network(interfaces=(ENS3,)),
    Network(interfaces=(ENS3,), resolved=True),
    Network(interfaces=(Interface(match=("ens3",), dns=("192.0.2.1",)),), resolved=False),
    Qemu(),
    Qemu(file_system="xfs", swap="1G", grow=True, first_boot=True),
    Qemu(swap="1G", partition_table="msdos", grow=True),
    Qemu(boot_loader="grub"),
    Qemu(boot_loader="systemd-boot"),
    Services(enable=("ssh",), linger=("ann",), drop_ins=(DropIn(unit="ssh", content="[Unit]"),),
             timers=(Timer(name="t", command=("true",), on_calendar="daily"),)),
    Sources(repositories=(Repository(**REPOSITORY, key=KEY),), replace=True),
    Sources(repositories=(Repository(**REPOSITORY),), components=("contrib",)),
    Timezone(zone="UTC"),
    Users(users=(User(name="ann", sudo="password", ssh_authorized_keys=(SSH_KEY,)),)),
]  # fmt: skip
# The files that a stage writes although a recipe may write them before, and the reason.
KEPT = {
    r"/run/.*": "it is in memory, and `files` writes nothing there",
    r"/etc/hosts": "only the line of the host name changes",
    r"/etc/kernel/cmdline": "the words of the file stay",
    r"/etc/initramfs-tools/conf\.d/recipe": "the settings of the file stay",
    r"/usr/share/initramfs-tools/modules\.d/recipe": "the modules of the file stay",
    r"/etc/apt/preferences\.d/recipe\.pref": "the pins of the file stay",
    r"/etc/apt/sources\.list(\.d/[a-z]+\.(list|sources))?": "only components are added",
    r"/usr/sbin/policy-rc\.d": "the stage `apt` leaves a file that is there; `qemu` names it",
    r"/etc/ssh/ssh_host_[a-z0-9]+_key": "`apt` leaves a key that is there; `qemu` names it",
    r"/var/lib/systemd/linger/ann": "the file is empty",
    r"/etc/hostname": "`qemu` writes it only into a system without one",
    r"(/boot)?/(vmlinuz|initrd\.img)": "the links still lead to the kernel of the recipe",
    r"/boot/(vmlinuz|initrd\.img|config)-6\.12": "the files move to the partition of /boot",
    r"/boot/grub/[a-z0-9_-]+/(.*\.mod|.*\.lst|boot\.img)": "GRUB's modules of the package",
    r"/etc/systemd/system/[a-z-]+\.target\.wants/particle-os-.*": "it follows a unit of ours",
    r"/var/cache/apt/archives/.*": "`qemu` names it",
    r"/var/lib/dpkg/status-old": "`qemu` names it",
}


@pytest.fixture
def debian(target, tmp_path, monkeypatch):
    """A system in which every stage finds what it needs, with a file in each way of a stage."""
    code = tmp_path / "mbr.bin"
    code.write_bytes(b"boot code" + bytes(400))
    for table in extlinux.MBR_CODE:
        monkeypatch.setitem(extlinux.MBR_CODE, table, code)
    for path in (
        "/usr/bin/apt-get", "/usr/bin/zstd", "/usr/bin/gzip", "/usr/sbin/update-initramfs",
        "/bin/systemctl", "/usr/bin/sudo", "/usr/sbin/sshd", "/usr/bin/systemd-repart",
        "/usr/bin/growpart", "/usr/sbin/mkfs.xfs", "/usr/bin/bootctl", "/bin/bash",
        "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
        "/boot/vmlinuz-6.12", "/boot/initrd.img-6.12", "/usr/share/i18n/locales/de_DE",
        *(f"/usr/lib/systemd/system/{name}.service"
          for name in ("ssh", "systemd-networkd", "systemd-resolved")),
        "/usr/share/doc/acme/README", "/usr/share/man/man1/a.1", "/usr/share/info/a",
        "/usr/share/lintian/a", "/usr/share/locale/fr/LC_MESSAGES/a.mo", "/root/.cache/seed",
        "/var/cache/man/index", "/var/cache/fontconfig/x", "/var/log/apt/history.log",
        "/var/cache/debconf/config.dat-old", "/var/lib/dpkg/status-old", "/etc/ssh/ssh_host_x",
        "/var/lib/apt/lists/x", "/etc/machine-id", *SIGNED,
    ):  # fmt: skip
        target.write(path, "")
    for name in ("vmlinuz", "initrd.img"):
        target.symlink(f"/{name}", f"boot/{name}-6.12")
    for path, text in GRUB_FILES.items():
        target.write(path, text)
    target.write("/boot/config-6.12", "CONFIG_RD_ZSTD=y\n")
    target.write("/etc/passwd", "ann:x:1000:1000::/home/ann:/bin/sh\n")
    target.write("/etc/group", "ann:x:1000:\n")
    target.write("/usr/share/i18n/SUPPORTED", "de_DE.UTF-8 UTF-8\n")
    target.write("/etc/apt/sources.list.d/old.list", "deb http://m.example s main\n")
    status = "Package: curl\nStatus: install ok installed\nVersion: 1\n"
    target.write("/var/lib/dpkg/status", status)
    target.captured["systemctl"] = "a.service disabled enabled\n"
    target.report.refusal = "the host has no apt"
    monkeypatch.setattr(copied.modules, "load", lambda kind: None)
    monkeypatch.setattr(copied, "copy_data", lambda file, device: None)
    target.when("grub-mkimage", lambda command: write_image(target, command))
    target.when("localedef", lambda command: compiled(target, command))
    return target


def compiled(target, command):
    if "--no-archive" in command.argv:
        target.write(f"{command.argv[-1]}/LC_CTYPE", "")


def changes_of(stage, target, monkeypatch):
    """The paths that a stage writes, links or removes, also those that are not there."""
    before, changed = files_of(target), set()
    for name in ("write_from", "symlink", "remove"):
        usual = getattr(target, name)

        def recorded(*given, name=name, usual=usual, **options):
            changed.add(given[1 if name == "write_from" else 0])
            return usual(*given, **options)

        monkeypatch.setattr(target, name, recorded)
    stage.run(target)
    return changed | (before - files_of(target))


def files_of(target):
    found = (place for place in target.root.rglob("*") if place.is_symlink() or place.is_file())
    return {f"/{place.relative_to(target.root)}" for place in found}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.type)
def test_a_stage_names_each_file_that_it_replaces_or_removes(debian, monkeypatch, stage):
    changed = changes_of(stage, debian, monkeypatch)
    assert changed or stage.type == "groups"
    before = (Apt(packages=("systemd-resolved",)),)
    unnamed = {path for path in changed if stage.replaces(path, before) is None}
    assert {path for path in unnamed if not any(re.fullmatch(kept, path) for kept in KEPT)} == set()


def test_every_stage_of_recipes_is_among_them():
    assert {type(stage) for stage in STAGES} | OTHERS == set(get_args(RecipeStage))
