import shutil

import pytest
from particle_os.jobs import doctor


@pytest.mark.parametrize(("name", "status"), [("skopeo", "warning"), ("zstd", "missing")])
def test_a_missing_program_is_reported_with_its_package(monkeypatch, name, status):
    which = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda program, **how: None if program == name else which(program, **how)
    )
    (found,) = [finding for finding in doctor.examine() if finding.what == name]
    assert found.status == status
    assert found.advice == f"sudo apt install {name}"


def test_an_installed_program_is_reported_with_its_version():
    (found,) = [finding for finding in doctor.examine() if finding.what == "skopeo"]
    assert found.status == "ok"
    assert "version" in found.detail


@pytest.mark.parametrize(("abi", "status"), [(0, "warning"), (6, "ok")])
def test_a_kernel_without_landlock_is_reported(monkeypatch, abi, status):
    monkeypatch.setattr(doctor, "landlock_abi", lambda: abi)
    (found,) = [finding for finding in doctor.examine() if finding.what == "Landlock"]
    assert found.status == status
