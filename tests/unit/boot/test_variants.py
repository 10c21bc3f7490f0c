"""The machines of a boot test: every combination once, each with a name of its own."""

import pytest
from particle_os.boot.machines import extras
from particle_os.boot.machines.variants import USUAL, variants
from particle_os.errors import InfrastructureError
from particle_os.recipe.boot_options import USUAL_DEVICES, Devices, StaticAddress
from particle_os.vm import firmware as firmwares
from particle_os.vm.devices.hardware import Hardware
from particle_os.vm.devices.seed import no_cloud


def test_without_a_wish_there_is_one_usual_machine():
    assert variants(["bios"], USUAL_DEVICES) == (USUAL,)


def test_every_combination_is_a_machine_with_a_name_of_its_own(monkeypatch):
    monkeypatch.setattr(firmwares, "check", lambda name, architecture: None)
    devices = Devices(
        disk=("virtio", "nvme"), network_card=("virtio", "e1000e"), memory=("512M", "2G"),
        processors=(1, 4),
    )  # fmt: skip
    found = variants(["bios", "uefi"], devices)
    assert len({variant.name for variant in found}) == len(found) == 32
    assert found[0].name == "bios-512M-1cpu"
    assert found[-1].name == "uefi-nvme-e1000e-2G-4cpu"
    assert (found[-1].hardware, found[-1].memory, found[-1].processors) == (
        Hardware("nvme", "e1000e"), 2 << 30, 4,
    )  # fmt: skip


def test_a_single_size_gives_no_name():
    (found,) = variants(["bios"], Devices(memory=("2G",), processors=(1,)))
    assert (found.name, found.memory, found.processors) == ("bios", 2 << 30, 1)


def test_a_machine_has_the_static_address():
    address = StaticAddress(address="192.0.2.10/24", gateway="192.0.2.1")
    (found,) = variants(["bios"], USUAL_DEVICES, address)
    assert found.addresses.modes() == [
        "net=192.0.2.0/24", "host=192.0.2.1", "dns=192.0.2.2", "dhcpstart=192.0.2.10",
    ]  # fmt: skip


def test_user_data_is_a_second_disk_of_every_machine(tmp_path):
    (found,) = variants(["bios"], USUAL_DEVICES, user_data="#cloud-config\n")
    (disk,) = found.more_disks(tmp_path)
    assert (disk.format, disk.read_only) == ("raw", True)
    assert disk.path.read_bytes() == no_cloud(b"#cloud-config\n")
    assert USUAL.more_disks(tmp_path) == ()


def test_a_tpm_without_swtpm_is_refused_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("particle_os.vm.devices.tpm.PROGRAM", "swtpm-that-is-not-there")
    with pytest.raises(InfrastructureError, match="TPM") as caught:
        variants(["bios"], Devices(tpm=True))
    assert "apt install swtpm" in caught.value.hint


def test_the_image_of_another_disk_stands_alone(tmp_path, monkeypatch, soon):
    monkeypatch.setattr(extras, "make_overlay", lambda *given: None)
    more = extras.Extras(disks=((tmp_path / "a.img", "qcow2"),), user_data=b"#cloud-config\n")
    disk, seed = more.make_disks(tmp_path, soon)
    assert (disk.backing, disk.image.path, disk.serial) == ((), tmp_path / "a.img", "disk1")
    assert seed.read_only
