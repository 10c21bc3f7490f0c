"""The packages that the depot chooses: keys, pins, upgrades, removals, releases."""

import pytest
from particle_agent.stages.software.apt import Apt
from particle_os.errors import InfrastructureError, StageFailed

from ...archive import served
from .archives import INSTALLED, SIGNED, answer, ask, chosen, content, names

pytestmark = pytest.mark.slow


def test_a_key_within_the_source_is_believed(depot, signed):
    answer(depot, ask(signed, Apt(packages=("zz-tool",))))
    assert chosen(depot) == names("zz-tool_2.0", "zz-library_1.0")


@pytest.mark.parametrize(
    ("stage", "installed", "plain"),
    [
        (Apt(packages=("zz-tool",)), "", True),
        (Apt(packages=("zz-tool",)), INSTALLED.format("zz-library", "1.0"), True),
        (Apt(packages=("zz-tool",)), INSTALLED.format("zz-tool", "1.0"), False),
        (Apt(packages=("zz-tool",), autoremove=True), "", False),
        (Apt(packages=("zz-tool",), remove=("zz-x",)), INSTALLED.format("zz-x", "1.0"), False),
    ],
)
def test_new_packages_alone_may_be_unpacked_without_dpkg(depot, signed, stage, installed, plain):
    answer(depot, ask(signed, stage, installed=installed))
    assert ("loose/zz-tool_2.0_all.deb.json" in content(depot.disk)) == plain


def test_another_key_is_not_believed(depot, signed, tmp_path):
    with served(tmp_path / "other/archive", *SIGNED) as other:
        with pytest.raises((StageFailed, InfrastructureError), match="the image has no key"):
            answer(depot, ask(signed, Apt(packages=("zz-tool",)), key=other.key))


def test_pins_decide(depot, signed):
    pin = "Package: zz-tool\nPin: version 1.*\nPin-Priority: 1001\n"
    answer(depot, ask(signed, Apt(packages=("zz-tool",)), preferences=[pin]))
    assert "archives/zz-tool_1.0_all.deb" in chosen(depot)


def test_an_upgrade_brings_newer_versions_of_what_is_there(depot, signed):
    installed = INSTALLED.format("zz-tool", "1.0") + INSTALLED.format("zz-library", "1.0")
    answer(depot, ask(signed, Apt(upgrade=True), installed=installed))
    assert chosen(depot) == names("zz-tool_2.0")


def test_a_removal_is_taken_into_account(depot, signed):
    """`remove` may name a missing package, which apt itself would refuse."""
    installed = INSTALLED.format("zz-tool", "1.0") + INSTALLED.format("zz-library", "1.0")
    stage = Apt(upgrade=True, remove=("zz-tool", "zz-nonesuch"))
    answer(depot, ask(signed, stage, installed=installed))
    assert chosen(depot) == []


def test_a_release_that_does_not_exist_is_reported(depot, signed):
    with pytest.raises((StageFailed, InfrastructureError), match="nonesuch"):
        answer(depot, ask(signed, Apt(packages=("zz-tool",), target_release="nonesuch")))
    answer(depot, ask(signed, Apt(packages=("zz-tool",), target_release="test")))
    assert len(chosen(depot)) == 2
