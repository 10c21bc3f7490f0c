from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.apt.proxy import NO_PROXY
from particle_os.errors import (
    InfrastructureError,
)
from particle_os.jobs import build, single_stage
from particle_os.jobs.execution import helper_vms
from particle_os.jobs.execution.preparation import Prepared
from particle_os.sandbox import helper
from particle_os.sandbox.helper import Helper
from particle_os.vm.accel import TCG

from ...waiting import plenty
from ..base.test_lookup import AMD64, tar
from ..sharing.conftest import pair  # noqa: F401 - fixture
from .machines import HELPER, Machine
from .story import RECIPE, Vms


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A directory with a recipe and its base; `fails` names the step that fails."""
    (tmp_path / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
    (tmp_path / "server.yml").write_text(RECIPE)
    (tmp_path / "root").touch()
    monkeypatch.setattr(helper_vms.process, "version", lambda program: "QEMU 10")
    found = SimpleNamespace(fails="", out=tmp_path / "out", path=tmp_path, checkpoints=())

    def prepare(job):
        if found.fails == "preparation":
            raise InfrastructureError("there is no helper")
        made = Helper("key", Path("kernel"), Path("initrd"), tmp_path / "root")
        monkeypatch.setattr(Vms, "fails", found.fails)
        base = SimpleNamespace(
            reference="tar:base.tar", digest="sha256:0", identity="sha256:0", is_commit=False,
            signature=None, size=lambda: 10, is_here=lambda: True,
            push=lambda agent, deadline, listen: None, drop_damaged=lambda: None,
        )  # fmt: skip
        keys = job.plan.keys(base, made)
        vms = Vms(job, made, TCG, plenty())
        return Prepared(NO_PROXY, vms, base, keys, found.checkpoints)

    monkeypatch.setattr(build, "prepare", prepare)
    monkeypatch.setattr(single_stage, "prepare", prepare)
    return found


@pytest.fixture
def machine(tmp_path, pair, monkeypatch):  # noqa: F811
    secret, public = pair()
    monkeypatch.setattr(helper, "key_of", lambda template: HELPER)
    monkeypatch.setattr(helper.process, "identity", lambda program: program)
    url = f"file://{tmp_path}/shared"
    return lambda name, **more: Machine(tmp_path / name, url, secret, public, monkeypatch, **more)
