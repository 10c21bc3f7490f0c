import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from particle_os.vm.argv import (
    CONTROL,
    MIB,
    OUTSIDE,
    RECEIVED,
    SENT,
    DirectBoot,
    Disk,
    EmptyDisk,
    Forward,
    MachineSpec,
    Uefi,
    qemu_argv,
)
from particle_os.vm.machine import OVERHEAD, confinement


def argv_of(**options):
    return qemu_argv(
        MachineSpec(**{"accelerator": "tcg", "memory": 512 * MIB, "cpus": 2, **options})
    )


def values(argv, option):
    return [argv[i + 1] for i, word in enumerate(argv[:-1]) if word == option]


def parsed(value):
    """Splits an option's value as QEMU does: at single commas; a doubled comma is a comma."""
    parts = value.replace(",,", "\0").split(",")
    return dict(p.replace("\0", ",").partition("=")[::2] for p in parts)


EVERYTHING = {
    "disks": (
        Disk(Path("/cache/root.squashfs"), "raw", "root", read_only=True),
        Disk(Path("/work/scratch.qcow2"), "qcow2", "scratch"),
        Disk(Path("/out/x.raw"), "raw", "output"),
    ),
    "network": "two-cards",
    "credentials": {"name": b"value"},
    "probe_socket": "probe.sock",
    "firmware_socket": "firmware.sock",
}


def objects(argv, option, driver=""):
    found = [json.loads(v) for v in values(argv, option) if v.startswith("{")]
    return [o for o in found if o["driver"].startswith(driver)]


def test_disks_are_opened_as_what_they_are_whatever_they_contain():
    disks = objects(argv_of(**EVERYTHING), "-blockdev")
    assert [d["driver"] for d in disks] == ["raw", "qcow2", "raw"]
    assert [d["read-only"] for d in disks] == [True, False, False]
    assert [d["file"]["driver"] for d in disks] == ["file"] * 3
    assert not {"-drive", "-hda"} & set(argv_of(**EVERYTHING))


def test_the_guest_finds_its_disks_by_serial():
    argv = argv_of(**EVERYTHING)
    devices = objects(argv, "-device", "virtio-blk")
    assert [d["serial"] for d in devices] == ["root", "scratch", "output"]
    assert [d["drive"] for d in devices] == [b["node-name"] for b in objects(argv, "-blockdev")]


def test_an_empty_disk_is_the_same_device_as_another_one():
    disks = EVERYTHING["disks"]
    empty = argv_of(**{**EVERYTHING, "disks": tuple(EmptyDisk(disk.serial) for disk in disks)})
    devices = objects(argv_of(**EVERYTHING), "-device", "virtio-blk")
    assert objects(empty, "-device", "virtio-blk") == devices
    assert [d["driver"] for d in objects(empty, "-blockdev")] == ["null-co"] * len(disks)


@given(name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_any_file_name_reaches_qemu_unchanged(name):
    assume(name not in (".", ".."))
    disk = Disk(Path("/dir,a=b") / name, "raw", "x")
    (found,) = objects(argv_of(disks=(disk,)), "-blockdev")
    assert found["file"]["filename"] == f"/dir,a=b/{name}"


def test_a_machine_whose_firmware_is_heard_waits_for_its_hearer():
    assert "-S" in argv_of(**EVERYTHING)
    assert "-S" not in argv_of(**{**EVERYTHING, "firmware_socket": None})


def test_credentials_come_from_files_below_the_directory_of_the_machine():
    found = values(argv_of(credentials={"a": b"1", "b,c": b"2"}), "-smbios")
    assert found == ["file=credential-0.smbios", "file=credential-1.smbios"]


def test_the_network_listens_on_loopback_only():
    (control, _) = values(argv_of(**EVERYTHING), "-netdev")
    assert parsed(control)["hostfwd"] == "tcp:127.0.0.1:0-:22"


def test_an_isolated_machine_reaches_nothing_and_nothing_reaches_it():
    (netdev,) = values(argv_of(network="isolated"), "-netdev")
    assert parsed(netdev)["restrict"] == "on"
    assert "hostfwd" not in netdev


def test_an_isolated_machine_may_be_reached_by_ssh():
    (netdev,) = values(argv_of(network="isolated-ssh"), "-netdev")
    assert parsed(netdev)["restrict"] == "on"
    assert parsed(netdev)["hostfwd"] == "tcp:127.0.0.1:0-:22"


def test_the_card_that_the_host_reaches_leads_nowhere_and_the_other_one_takes_no_connection():
    control, outside = values(argv_of(network="two-cards"), "-netdev")
    assert parsed(control)["restrict"] == "on"
    assert "restrict" not in outside
    assert "hostfwd" not in outside
    # The guest names its cards in the order of the devices (guest/init.sh).
    devices = [parsed(v) for v in values(argv_of(network="two-cards"), "-device")]
    cards = [device["netdev"] for device in devices if "netdev" in device]
    assert cards == [parsed(control)["id"], parsed(outside)["id"]] == [CONTROL, OUTSIDE]


def test_qemu_dumps_only_what_goes_through_the_card_that_leads_outside():
    dumps = [v for v in values(argv_of(network="two-cards"), "-object") if "filter-dump" in v]
    assert [parsed(v)["netdev"] for v in dumps] == [OUTSIDE, OUTSIDE]
    # The network receives ("rx") what the guest sends.
    assert {parsed(v)["queue"]: parsed(v)["file"] for v in dumps} == {"rx": SENT, "tx": RECEIVED}
    assert "filter-dump" not in str(argv_of(network="isolated-ssh"))


def test_a_machine_restarts_only_if_it_may():
    assert "-no-reboot" in argv_of()
    assert "-no-reboot" not in argv_of(reboots=True)


def test_no_network_is_none():
    assert values(argv_of(), "-netdev") == []


def test_every_socket_is_a_unix_socket_with_a_short_relative_name():
    sockets = [v for v in values(argv_of(**EVERYTHING), "-chardev") if v.startswith("socket")]
    assert len(sockets) == 3
    for socket in map(parsed, sockets):
        assert "/" not in socket["path"]
        assert not {"host", "port"} & set(socket)
    assert not {"-vnc", "-monitor", "-qmp", "-gdb", "-s", "-spice"} & set(argv_of(**EVERYTHING))


def test_nothing_of_the_users_qemu_setup_is_read_and_no_program_is_started():
    argv = argv_of()
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    sandbox = values(argv, "-sandbox")[0]
    assert sandbox.startswith("on,")
    assert "spawn=deny" in sandbox
    assert "elevateprivileges=deny" in sandbox


def test_a_kernel_is_given_directly_or_the_firmware_boots_the_disk():
    direct = DirectBoot(Path("/k"), Path("/i"), "console=ttyS0 a,b")
    argv = argv_of(direct_boot=direct)
    assert (values(argv, "-kernel"), values(argv, "-initrd")) == (["/k"], ["/i"])
    assert values(argv, "-append") == ["console=ttyS0 a,b"]
    assert "-kernel" not in argv_of()


@pytest.mark.parametrize(("name", "word"), [("kvm", "kvm"), ("tcg", "tcg,thread=multi")])
def test_the_accelerator_is_the_one_chosen_and_no_other(name, word):
    assert values(argv_of(accelerator=name), "-accel") == [word]


def test_memory_and_processors():
    argv = argv_of(memory=1536 * MIB, cpus=3)
    assert (values(argv, "-m"), values(argv, "-smp")) == (["1536M"], ["3"])
    assert "intel-iommu" not in " ".join(argv)


def test_interrupts_are_remapped_before_any_other_device_is_there():
    (first, *_) = values(argv_of(x2apic=True), "-device")
    assert first.startswith("intel-iommu,intremap=on,eim=on")


def test_uefi_has_its_program_read_only_and_variables_of_its_own():
    argv = argv_of(uefi=Uefi(Path("/usr/share/x,y/code.fd"), Path("vars.fd")))
    code, variables = objects(argv, "-blockdev")
    assert (code["file"]["filename"], code["read-only"]) == ("/usr/share/x,y/code.fd", True)
    assert (variables["file"]["filename"], variables["read-only"]) == ("vars.fd", False)
    flash = parsed(values(argv, "-machine")[1])
    assert flash == {"pflash0": code["node-name"], "pflash1": variables["node-name"]}
    assert "-global" not in argv


def test_with_secure_boot_only_the_firmware_writes_the_variables():
    argv = argv_of(uefi=Uefi(Path("c"), Path("v"), secure=True))
    assert "smm=on" in values(argv, "-machine")
    assert values(argv, "-global") == ["driver=cfi.pflash01,property=secure,value=on"]


def test_without_uefi_there_is_no_flash():
    assert "pflash" not in " ".join(argv_of())


@pytest.mark.parametrize(
    ("options", "tcp"),
    [
        ({}, "none"),
        ({"network": "isolated"}, "none"),
        ({"network": "isolated-ssh"}, "ephemeral"),
        ({"forwards": (Forward(80),)}, "ephemeral"),
        ({"network": "two-cards"}, "any"),
    ],
)
def test_a_machine_gets_the_connections_that_its_network_needs(tmp_path, options, tcp):
    within = confinement(MachineSpec("tcg", 512 * MIB, 2, **options), tmp_path)
    assert (within.tcp, within.memory) == (tcp, 512 * MIB + OVERHEAD)
    assert within.writes == (tmp_path,)
    kvm = confinement(MachineSpec("kvm", 512 * MIB, 2, **EVERYTHING), tmp_path)
    assert {Path("/dev/kvm"), Path("/out/x.raw")} <= {*kvm.writes}
    assert Path("/cache/root.squashfs") in kvm.reads
    assert Path("/cache/root.squashfs") not in kvm.writes
