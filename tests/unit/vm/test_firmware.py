import pytest
from particle_os.errors import InfrastructureError
from particle_os.vm import firmware


@pytest.fixture
def installed(tmp_path):
    place = tmp_path / "OVMF"
    place.mkdir()
    for names in firmware.FILES.values():
        for name in names:
            (place / name).write_text(name)
    return place


def test_bios_is_qemus_own(tmp_path):
    assert firmware.prepare("bios", tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize("name", firmware.FILES)
def test_each_machine_has_variables_of_its_own(tmp_path, installed, name):
    uefi = firmware.prepare(name, tmp_path, installed)
    assert uefi.secure == (name == "uefi-secure")
    assert uefi.code.parent == installed
    assert uefi.variables.parent == tmp_path
    uefi.variables.write_text("changed")
    assert "changed" not in [p.read_text() for p in installed.iterdir()]


def test_what_is_not_installed_is_told_with_its_package(tmp_path, installed):
    (installed / "OVMF_VARS_4M.ms.fd").unlink()
    firmware.check("uefi", installed)
    with pytest.raises(InfrastructureError, match="uefi-secure is not installed") as caught:
        firmware.check("uefi-secure", installed)
    assert "ovmf" in caught.value.hint
