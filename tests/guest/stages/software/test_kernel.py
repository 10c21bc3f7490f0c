import pytest
from particle_agent.errors import StageError
from particle_agent.stages.software.kernel import Kernel
from particle_agent.system import kernels

CLOUD = "6.12-cloud-amd64"
OTHER = "6.12-amd64"
DEP = "kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz\n"
BUILT_IN = "kernel/drivers/block/loop.ko\n"


@pytest.fixture
def debian(target):
    """A target with initramfs-tools and the cloud kernel."""
    for program in ("/usr/sbin/update-initramfs", "/usr/bin/gzip", "/usr/bin/zstd"):
        target.write(program, "")
    target.write(f"/boot/vmlinuz-{CLOUD}", "")
    target.write(f"/boot/config-{CLOUD}", "CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n")
    target.write(f"/usr/lib/modules/{CLOUD}/modules.dep", DEP)
    target.write(f"/usr/lib/modules/{CLOUD}/modules.builtin", BUILT_IN)
    return target


def made(target):
    """Records the settings and the listed modules of each initramfs, by kernel version."""
    found = {}

    def make(command):
        settings = {}
        # mkinitramfs(8) reads these files in this order.
        for name in target.list("/etc/initramfs-tools/conf.d"):
            text = target.read(f"/etc/initramfs-tools/conf.d/{name}")
            settings |= dict(line.split("=", 1) for line in text.splitlines())
        modules = []
        for name in target.list("/usr/share/initramfs-tools/modules.d"):
            modules += target.read(f"/usr/share/initramfs-tools/modules.d/{name}").split()
        assert command.argv[:3] == ("update-initramfs", "-c", "-k")
        found[command.argv[3]] = (settings, modules)

    target.when("update-initramfs", make)
    return found


def test_a_command_line_makes_no_initramfs(debian):
    Kernel(command_line=("quiet", "audit=0")).run(debian)
    assert debian.read("/etc/kernel/cmdline") == "quiet audit=0\n"
    assert debian.commands == []


def test_words_are_added_to_those_that_are_there(debian):
    debian.write("/etc/kernel/cmdline", "root=UUID=1-2 ro quiet\n")
    Kernel(command_line=("audit=0", "quiet")).run(debian)
    assert kernels.command_line(debian) == ["quiet", "audit=0"]


@pytest.mark.parametrize("word", ["root=/dev/sda", "rootflags=x", "ro", "rw", "resume=UUID=1"])
def test_the_disk_is_not_chosen_here(word):
    with pytest.raises(ValueError, match=f"'{word}' is up to the stage"):
        Kernel(command_line=(word,))


def test_modules_are_loaded_at_boot(debian):
    Kernel(modules=("br-netfilter", "loop")).run(debian)
    assert debian.read("/etc/modules-load.d/kernel.conf") == "br-netfilter\nloop\n"


@pytest.mark.parametrize("option", ["modules", "initramfs_modules"])
def test_a_module_that_the_kernel_lacks_is_reported(debian, option):
    with pytest.raises(StageError, match="has no module br_netfilte") as raised:
        Kernel(**{option: ("br_netfilte",)}, command_line=("quiet",)).run(debian)
    assert raised.value.hint == "Did you mean br_netfilter?"
    assert not debian.exists("/etc/kernel/cmdline")


def test_a_generic_initramfs_for_the_cloud_kernel(debian):
    found = made(debian)
    Kernel(initramfs="generic").run(debian)
    settings, modules = found[CLOUD]
    assert settings["MODULES"] == "most"
    assert (settings["COMPRESS"], settings["COMPRESSLEVEL"]) == ("gzip", "1")
    assert modules == []


def test_a_list_for_any_kernel_stays_one(debian):
    debian.write(f"/boot/vmlinuz-{OTHER}", "")
    found = made(debian)
    Kernel(initramfs="list", initramfs_modules=("br_netfilter",), compression="zstd").run(debian)
    for version in (CLOUD, OTHER):
        settings, modules = found[version]
        assert settings == {"MODULES": "list", "COMPRESS": "zstd"}
        assert {"br_netfilter", "virtio_blk", "ext4"} <= set(modules)
    # The running system keeps the settings.
    assert kernels.takes_list(debian, OTHER)
    assert "virtio_blk" in debian.read(kernels.MODULES)
    assert debian.list("/etc/initramfs-tools/conf.d") == ["recipe"]


def test_a_later_stage_changes_what_it_names_only(debian):
    found = made(debian)
    Kernel(initramfs="list", initramfs_modules=("br_netfilter",)).run(debian)
    Kernel(initramfs="generic", compression="gzip").run(debian)
    settings, modules = found[CLOUD]
    assert settings == {"MODULES": "most", "COMPRESS": "gzip"}
    assert modules == ["br_netfilter"]


def test_before_the_kernel_is_there_nothing_runs_and_all_is_kept(target):
    Kernel(
        modules=("loop",), initramfs="generic", initramfs_modules=("xfs",), compression="xz"
    ).run(target)
    assert target.commands == []
    assert kernels.settings(target) == {"MODULES": "most", "COMPRESS": "xz"}


def test_what_was_asked_for_before_holds_for_the_first_initramfs(debian):
    debian.remove(f"/boot/vmlinuz-{CLOUD}")
    Kernel(initramfs="generic", initramfs_modules=("loop",), compression="zstd").run(debian)
    debian.write(f"/boot/vmlinuz-{CLOUD}", "")
    found = made(debian)
    kernels.make_initramfs(debian, CLOUD)
    assert found[CLOUD] == ({"MODULES": "most", "COMPRESS": "zstd"}, ["loop"])


@pytest.mark.parametrize("options", [{"modules": ("xfs",)}, {"initramfs_modules": ("xfs",)}])
def test_modules_asked_for_before_are_checked_when_the_kernel_comes(debian, options):
    debian.remove(f"/boot/vmlinuz-{CLOUD}")
    Kernel(**options).run(debian)
    with pytest.raises(StageError, match="no module xfs"):
        kernels.make_initramfs(debian, CLOUD)


def test_a_missing_compressor_is_named_with_its_package(debian):
    with pytest.raises(StageError, match="'xz' is not in the image") as raised:
        Kernel(compression="xz").run(debian)
    assert "'xz-utils'" in raised.value.hint


def test_what_the_kernel_cannot_read_is_refused(debian):
    debian.write(f"/boot/config-{CLOUD}", "CONFIG_RD_GZIP=y\n# CONFIG_RD_ZSTD is not set\n")
    with pytest.raises(StageError, match="cannot read an initramfs compressed by zstd"):
        Kernel(compression="zstd").run(debian)


def test_an_image_without_initramfs_tools_is_reported(debian):
    debian.remove("/usr/sbin/update-initramfs")
    with pytest.raises(StageError, match="no initramfs-tools") as raised:
        Kernel(initramfs="generic").run(debian)
    assert "'initramfs-tools'" in raised.value.hint
    assert not debian.exists(kernels.SETTINGS)
