"""`--network none`: no stage has a network, and no result with one passes for one without."""

from types import SimpleNamespace

import pytest
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_plan
from particle_os.sandbox.helper import Helper

from ..base.test_lookup import AMD64, tar

RECIPE = """\
name: server
base-image: tar:base.tar
stages:
  - {type: timezone, zone: UTC}
  - {type: apt, packages: [nano]}
  - {type: run, command: ["true"]}
  - {type: apt, packages: [curl], network: none}
  - {type: apt, packages: [curl], network: [deb.example.org]}
  - {type: run, command: ["true"], network: [deb.example.org, "*.example.net:8443"]}
  - {type: qemu}
"""


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
    (tmp_path / "root").touch()
    (tmp_path / "server.yml").write_text(RECIPE)
    return lambda network: make_plan(tmp_path / "server.yml", BuildOptions(network=network))


def test_no_stage_has_a_network_and_the_host_fetches_packages(plan):
    stages = plan("none").stages
    words = [None, "packages", "none", "none", "packages", "none", None]
    assert [stage.network for stage in stages] == words
    assert not any(stage.reaches_network for stage in stages)
    # The packages come from the network, so this result grows old.
    assert [stage.asks_network for stage in stages if stage.asks_network] == [True, True]
    assert any(stage.reaches_network for stage in plan(None).stages)


def test_a_stage_with_hosts_has_a_result_of_its_own(plan, tmp_path):
    base = SimpleNamespace(identity="sha256:0")
    made = Helper("key", tmp_path, tmp_path, tmp_path / "root")
    before = plan(None)
    assert [stage.hosts for stage in before.stages][-3:-1] == [
        ("deb.example.org",),
        ("deb.example.org", "*.example.net:8443"),
    ]
    keys = before.keys(base, made)
    path = tmp_path / "server.yml"
    path.write_text(path.read_text().replace("*.example.net:8443", "*.example.net:8444"))
    changed = plan(None).keys(base, made)
    assert keys[:6] == changed[:6]
    assert keys[6] != changed[6]


def test_no_result_with_a_network_passes_for_one_without(plan, tmp_path):
    base = SimpleNamespace(identity="sha256:0")
    made = Helper("key", tmp_path, tmp_path, tmp_path / "root")
    free, cut = (plan(network).keys(base, made) for network in (None, "none"))
    # The base and the first stage reach no network in either build.
    assert free[:2] == cut[:2]
    assert set(free[2:]).isdisjoint(cut[2:])
    assert plan(None).build_key(base, made) != plan("none").build_key(base, made)
