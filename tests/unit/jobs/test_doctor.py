import shutil

import pytest
from particle_os.jobs import doctor


@pytest.mark.parametrize(("name", "status"), [("skopeo", "warning"), ("zstd", "missing")])
def test_a_missing_program_is_reported_with_its_package(monkeypatch, name, status):
    which = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda program: None if program == name else which(program)
    )
    (found,) = [finding for finding in doctor.examine() if finding.what == name]
    assert found.status == status
    assert found.advice == f"sudo apt install {name}"


def test_an_installed_program_is_reported_with_its_version():
    (found,) = [finding for finding in doctor.examine() if finding.what == "skopeo"]
    assert found.status == "ok"
    assert "version" in found.detail
