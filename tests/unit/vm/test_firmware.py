import json
import os

import pytest
from particle_os.architecture import AMD64, ARM64
from particle_os.errors import InfrastructureError, UsageError
from particle_os.vm import firmware

SECURE = ["acpi-s3", "enrolled-keys", "requires-smm", "secure-boot"]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A host without firmware: the directories of descriptors in their order, which are empty."""
    system = (tmp_path / "etc", tmp_path / "share")
    for directory in system:
        directory.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(firmware, "SYSTEM", system)
    monkeypatch.setattr(firmware, "ROOT", tmp_path)
    return system


@pytest.fixture
def installed(tmp_path):
    """Debian's files, without descriptors."""
    place = tmp_path / AMD64.vm.firmware_directory[1:]
    place.mkdir(parents=True)
    for names in AMD64.vm.firmware_files.values():
        for name in names:
            (place / name).write_text(name)
    return place


def describe(directory, name, features=(), present=True, **changes):
    """Writes a descriptor and, if `present`, the files that it names."""
    files = [directory / f"{name}.{part}.fd" for part in ("code", "vars")]
    if present:
        for file in files:
            file.write_text(f"{name} in {directory.name}")
    code, variables = ({"filename": str(file), "format": "raw"} for file in files)
    found = {
        "description": name,
        "interface-types": ["uefi"],
        "mapping": {"device": "flash", "executable": code, "nvram-template": variables},
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": features,
        "tags": [],
    }
    (directory / f"{name}.json").write_text(json.dumps(found | changes))
    return files[0]


def test_bios_is_qemus_own(tmp_path):
    assert firmware.prepare("bios", tmp_path) is None
    firmware.check("bios")


def test_descriptors_come_before_the_usual_paths(places, installed):
    code = describe(places[1], "60-x64", ["acpi-s3", "verbose-dynamic"])
    secure = describe(places[1], "40-enrolled", SECURE)
    assert firmware.find("uefi").code == code
    assert firmware.find("uefi-secure").code == secure


def test_without_descriptors_the_usual_paths_are_used(installed):
    assert firmware.find("uefi").code == installed / "OVMF_CODE_4M.fd"
    assert firmware.find("uefi-secure").variables == installed / "OVMF_VARS_4M.ms.fd"


def test_the_first_name_that_fits_wins(places):
    describe(places[1], "50-secure-without-keys", ["requires-smm", "secure-boot"])
    describe(places[1], "70-later")
    first = describe(places[1], "60-first")
    assert firmware.find("uefi").code == first
    assert firmware.find("uefi-secure") is None


def test_the_administrators_descriptor_hides_that_of_its_name(places, tmp_path):
    describe(places[1], "60-x64")
    ours = describe(places[0], "60-x64")
    assert firmware.find("uefi").code == ours
    own = tmp_path / "config/qemu/firmware"
    own.mkdir(parents=True)
    mine = describe(own, "60-x64")
    assert firmware.find("uefi").code == mine


@pytest.mark.parametrize("mask", ["empty", "null", "fifo"])
def test_a_descriptor_can_be_masked(places, mask):
    describe(places[1], "60-x64")
    masking = places[0] / "60-x64.json"
    {"empty": masking.touch, "null": lambda: masking.symlink_to("/dev/null"),
     "fifo": lambda: os.mkfifo(masking)}[mask]()  # fmt: skip
    assert firmware.find("uefi") is None


QCOW2 = {"filename": "/f.qcow2", "format": "qcow2"}


@pytest.mark.parametrize(
    "changes",
    [
        {"interface-types": ["bios"]},
        {"targets": [{"architecture": "aarch64", "machines": ["virt-*"]}]},
        {"targets": [{"architecture": "x86_64", "machines": ["microvm"]}]},
        {"mapping": {"device": "memory", "filename": "/f"}},
        {"mapping": {"device": "flash", "mode": "stateless", "executable": QCOW2}},
        {"mapping": {"device": "flash", "executable": QCOW2, "nvram-template": QCOW2}},
        {"features": ["host-uefi-vars"]},
        {"features": "acpi-s3"},
        {"targets": None},
        {"mapping": []},
    ],
)
def test_firmware_that_the_machines_cannot_use_is_passed_over(places, changes):
    describe(places[1], "50-other", **changes)
    good = describe(places[1], "60-x64")
    assert firmware.find("uefi").code == good


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * (1 << 20) + b"{}"]
)
def test_what_is_no_descriptor_is_passed_over(places, data):
    (places[1] / "10-broken.json").write_bytes(data)
    assert firmware.find("uefi") is None
    good = describe(places[1], "60-x64")
    assert firmware.find("uefi").code == good


def test_a_descriptor_of_files_that_are_gone_is_passed_over(places, installed):
    describe(places[1], "10-gone", present=False)
    assert firmware.find("uefi").code.parent == installed


@pytest.mark.parametrize("name", AMD64.vm.firmware_files)
def test_each_machine_has_variables_of_its_own(tmp_path, installed, name):
    uefi = firmware.prepare(name, tmp_path)
    assert uefi.secure == (name == "uefi-secure")
    assert uefi.code.parent == installed
    assert uefi.variables.parent == tmp_path
    uefi.variables.write_text("changed")
    assert "changed" not in [p.read_text() for p in installed.iterdir()]


def test_missing_firmware_is_reported_with_its_package(installed, monkeypatch):
    (installed / "OVMF_VARS_4M.ms.fd").unlink()
    monkeypatch.setattr(firmware.host_packages, "family", lambda: "fedora")
    firmware.check("uefi")
    with pytest.raises(InfrastructureError, match="uefi-secure is not installed") as caught:
        firmware.check("uefi-secure")
    assert caught.value.hint == "Install the firmware: sudo dnf install edk2-ovmf."


def arm64_targets():
    return [{"architecture": "aarch64", "machines": ["virt-*"]}]


def test_each_architecture_gets_the_firmware_of_its_machines(places):
    ours = describe(places[1], "60-x64")
    others = describe(places[1], "50-aarch64", targets=arm64_targets())
    assert firmware.find("uefi").code == ours
    assert firmware.find("uefi", ARM64).code == others


def test_secure_boot_of_arm64_needs_no_flash_memory_that_is_kept_from_the_system(places):
    features = ["enrolled-keys", "secure-boot"]
    secure = describe(places[1], "40-secure", features, targets=arm64_targets())
    assert firmware.find("uefi-secure", ARM64).code == secure
    assert firmware.find("uefi", ARM64) is None


def test_a_firmware_that_no_machine_of_the_architecture_has_is_refused(tmp_path):
    with pytest.raises(UsageError, match="machines of arm64 have no bios") as caught:
        firmware.check("bios", ARM64)
    assert caught.value.hint == "They have uefi and uefi-secure."


def test_missing_firmware_of_another_architecture_is_reported_with_its_own_package(monkeypatch):
    monkeypatch.setattr(firmware.host_packages, "family", lambda: "debian")
    with pytest.raises(InfrastructureError, match="uefi for arm64 is not installed") as caught:
        firmware.check("uefi", ARM64)
    assert caught.value.hint == "Install the firmware: sudo apt install qemu-efi-aarch64."
