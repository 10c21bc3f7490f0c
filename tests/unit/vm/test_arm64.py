"""Machines of arm64: their command line, and the accelerator that runs them."""

import json
from pathlib import Path

import pytest
from particle_os import architecture
from particle_os.architecture import AMD64, ARM64
from particle_os.errors import InfrastructureError
from particle_os.vm import accel
from particle_os.vm.accel import TCG, Acceleration, Processors, processors
from particle_os.vm.argv import MIB, Disk, MachineSpec, Uefi, qemu_argv
from particle_os.vm.devices.hardware import Hardware

UEFI = Uefi(Path("/f/code.fd"), Path("/f/vars.fd"))


def argv_of(**options):
    wanted = {"accelerator": "tcg", "memory": 512 * MIB, "cpus": 2, "architecture": ARM64}
    return qemu_argv(MachineSpec(**{**wanted, **options}))


def values(argv, option):
    return [argv[i + 1] for i, word in enumerate(argv[:-1]) if word == option]


def test_the_machine_is_one_of_arm64():
    argv = argv_of(uefi=UEFI)
    assert argv[0] == "qemu-system-aarch64"
    assert values(argv, "-machine")[0].startswith("virt,gic-version=3,")
    assert values(argv, "-cpu") == ["max,pauth=off,sve=off,sme=off"]
    assert "ramfb" in values(argv, "-device")


def test_there_is_no_device_of_a_pc():
    argv = argv_of(
        uefi=Uefi(UEFI.code, UEFI.variables, secure=True),
        firmware_socket="firmware.sock",
        probe_socket="probe.sock",
        hardware=Hardware(tpm=True),
    )
    words = " ".join(argv)
    for device in ("vmgenid", "isa-", "VGA", "intel-iommu", "smm=", "tpm-crb", "q35"):
        assert device not in words
    assert "tpm-tis-device,tpmdev=tpm" in values(argv, "-device")
    # Older firmware puts its console on the last serial port of the machine.
    assert values(argv, "-serial") == ["chardev:console"]
    assert "pci-serial,chardev=probe" in values(argv, "-device")


def test_a_sata_disk_brings_its_controller():
    disk = Disk(Path("/x.raw"), "raw", "image")
    devices = values(argv_of(disks=(disk,), hardware=Hardware("ahci")), "-device")
    at = devices.index("ich9-ahci,id=ahci")
    assert json.loads(devices[at + 1])["bus"] == "ahci.0"


def test_two_architectures_never_share_a_saved_state():
    assert argv_of() != argv_of(architecture=AMD64)


@pytest.mark.parametrize(("machine", "works"), [("aarch64", True), ("x86_64", False)])
def test_kvm_runs_machines_of_its_own_architecture_only(monkeypatch, tmp_path, machine, works):
    monkeypatch.setattr(accel, "native", lambda: architecture.of_uname(machine))
    tried = []

    def try_guest(probe):
        tried.append(probe.architecture.name)
        return True, "a guest ran under it"

    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accel, "DEVICE", device)
    monkeypatch.setattr(accel, "_run_guest", try_guest)
    monkeypatch.setattr(accel.process, "identity", lambda program: program)
    notes = []
    where = {
        "kernel": tmp_path, "initrd": tmp_path, "memory_file": tmp_path / "kvm.json",
        "directory": tmp_path, "note": notes.append, "architecture": ARM64,
    }  # fmt: skip
    found = accel.choose("auto", **where)
    assert found.name == ("kvm" if works else "tcg")
    assert found.architecture is ARM64
    assert tried == (["arm64"] if works else [])
    if not works:
        assert notes == [
            "KVM of this host runs no machine of arm64: emulating with TCG, which is slower"
        ]
        with pytest.raises(InfrastructureError, match="runs no machine of arm64"):
            accel.choose("kvm", **where)
        with pytest.raises(InfrastructureError, match="runs no machine of arm64"):
            accel.check_device("kvm", ARM64)
        assert accel.hopeless(ARM64) == "KVM of this host runs no machine of arm64"


@pytest.mark.parametrize(
    ("found", "version", "message", "hint"),
    [
        (
            None,
            "",
            "'qemu-system-aarch64', which runs machines of arm64, is not inst",
            "system-arm",
        ),
        ("/x", "version 7.2.19 (Debian)", "QEMU 7.2 cannot run", "Install QEMU 10.0 or later"),
    ],
)
@pytest.mark.parametrize("own", [AMD64, ARM64])
def test_an_emulator_that_is_missing_or_too_old_is_told_before_anything_is_made(
    monkeypatch, asked_anew, found, version, message, hint, own
):
    """A host of arm64 needs a QEMU that runs such machines, too."""
    monkeypatch.setattr(accel, "native", lambda: own)
    monkeypatch.setattr(accel.shutil, "which", lambda program: found)
    monkeypatch.setattr(accel.process, "version", lambda program: f"QEMU emulator {version}")
    monkeypatch.setattr(accel.host_packages, "family", lambda: "debian")
    with pytest.raises(InfrastructureError, match=message) as caught:
        accel.check_emulator(ARM64)
    assert hint in caught.value.hint
    if found is not None:
        accel.check_emulator(AMD64)


def test_the_emulation_that_is_asked_for_is_that_of_the_architecture():
    assert accel.emulated(ARM64) == Acceleration("tcg", "requested", TCG.factor, ARM64)
    assert accel.emulated(AMD64) == TCG


@pytest.mark.parametrize(("count", "expected"), [(4, 2), (1, 1)])
def test_several_emulated_processors_of_arm64_need_no_x2apic(monkeypatch, count, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(count)))
    assert processors(accel.emulated(ARM64)) == Processors(expected, x2apic=False)
