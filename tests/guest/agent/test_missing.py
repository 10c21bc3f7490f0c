"""The agent reports the unmet needs on a base from elsewhere before the first stage."""

import pytest
from particle_agent.agent.failure import FailedStage, failure
from particle_agent.agent.missing import check_needs, missing
from particle_agent.contract import wire
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.disk import boot
from particle_agent.stages.accounts.groups import Group, Groups
from particle_agent.stages.accounts.users import User, Users
from particle_agent.stages.contents.cleanup import Cleanup
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.hostname import Hostname
from particle_agent.stages.settings.keyboard import Keyboard
from particle_agent.stages.settings.locale import Locale
from particle_agent.stages.settings.network import Interface, Network
from particle_agent.stages.settings.services import Services
from particle_agent.stages.settings.timezone import Timezone
from particle_agent.stages.software.apt import Apt
from particle_agent.stages.software.kernel import Kernel

QEMU = Qemu(formats=("raw",))


CONFIGURE = (
    QEMU,
    Cleanup(),
    Hostname(hostname="box"),
    Kernel(modules=("loop",)),
    Keyboard(layout="de"),
    Locale(default="de_DE.UTF-8"),
    Network(interfaces=(Interface(match=("*",)),)),
    Services(enable=("ssh.service",)),
    Timezone(zone="UTC"),
)


def lacks(target, *stages):
    return [(index, need.what) for index, need in missing(stages, target)]


@pytest.fixture
def base(target):
    """A system like a container image of Debian, in which /bin is a link."""
    target.make_directory("/usr/bin")
    target.symlink("/bin", "usr/bin")
    target.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    target.write("/etc/group", "root:x:0:\nsudo:x:27:\n")
    return target


def test_the_compression_of_the_initramfs_may_come_with_a_later_stage(base):
    stage = Kernel(compression="zstd")
    assert lacks(base, stage) == [(0, "package zstd")]
    assert lacks(base, stage, Apt(packages=("zstd",))) == []
    assert lacks(base, Kernel(compression="gzip")) == []
    base.write("/usr/bin/zstd", "")
    assert lacks(base, stage) == []


def test_what_the_base_has_is_not_missing(base):
    for path in (
        "/boot/vmlinuz-6.12.1-own", "/usr/share/i18n/SUPPORTED", "/usr/share/zoneinfo/UTC",
        "/usr/bin/systemctl", "/usr/bin/sudo", "/sbin/init",
    ):  # fmt: skip
        base.write(path, "")
    user = User(name="a", groups=("root", "sudo"), sudo="password")
    stages = (
        Locale(default="de_DE.UTF-8"), Timezone(zone="Europe/Berlin"), Users(users=(user,)),
        Services(mask=("a.timer",)), Groups(groups=(Group(name="b", members=("root",)),)), QEMU,
    )  # fmt: skip
    assert lacks(base, *stages) == []


def test_what_it_lacks_is_reported_once_for_each_stage(base):
    locale = Locale(default="de_DE.UTF-8", generate=("fr_FR.UTF-8",))
    users = Users(users=(User(name="a", groups=("docker",), sudo="password"),))
    members = Groups(groups=(Group(name="b", members=("a", "deploy")),))
    assert lacks(base, locale, users, members, QEMU) == [
        (0, "package locales"), (1, "group docker"), (1, "package sudo"), (2, "user deploy"),
        (3, "package linux-image"), (3, "package init"),
    ]  # fmt: skip


@pytest.mark.parametrize("stage", CONFIGURE, ids=lambda stage: stage.type)
def test_a_stage_that_only_configures_brings_nothing(stage):
    """So the need is reported before the first stage runs."""
    assert not stage.may_bring(boot.kernel_need(AMD64))


def test_what_an_earlier_stage_may_bring_is_left_to_the_stage(base):
    apt = Apt(packages=("locales", "linux-image-amd64", "systemd-sysv"))
    assert lacks(base, apt, Locale(default="de_DE.UTF-8"), QEMU) == []
    assert lacks(base, Locale(default="de_DE.UTF-8"), apt) == [(0, "package locales")]


def test_what_packages_of_an_unknown_base_bring_is_not_known(base):
    apt = Apt(packages=("linux-image-amd64",))
    assert lacks(base, apt, Locale(default="de_DE.UTF-8"), QEMU) == []
    assert lacks(base, Apt(remove=("curl",)), Locale(default="de_DE.UTF-8"))


def test_no_file_of_the_vm_is_taken_for_one_of_the_system(base, tmp_path):
    (tmp_path / "vmlinuz-1").touch()
    base.symlink("/boot", str(tmp_path))
    assert lacks(base, QEMU) == [(0, "package linux-image"), (0, "package init")]


def test_the_build_ends_at_the_first_of_them_and_names_the_others(base):
    sent = []

    class Channel:
        send = sent.append

    stages = [Timezone(zone="UTC"), Locale(default="de_DE.UTF-8"), QEMU]
    with pytest.raises(FailedStage) as raised:
        check_needs(stages, base, Channel())
    assert sent == [wire.StageStart(index=1)]
    event = failure(raised.value)
    assert (event.kind, event.index) == ("stage", 1)
    assert "locale de_DE.UTF-8 needs the package 'locales'" in event.message
    assert event.hint == "Add 'locales' to the packages of an apt stage before it."
    assert [line.partition(":")[0] for line in event.tail] == ["qemu", "qemu"]
