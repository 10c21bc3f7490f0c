"""Compares the assumptions about Debian's packages with the current packages.

When a test fails, compare the packages with the assumptions in docs/shortcuts.md, then run
`make debian-facts`.
"""

import pytest
from particle_agent.contract import debian
from particle_agent.shortcuts.known_scripts import SCRIPTS

from tests import debian_facts
from tests.debian import SUITES, Suite

INDEX = [
    {"Package": "locales", "Depends": "libc-bin (>= 2.41), debconf | debconf-2.0"},
    {"Package": "server", "Pre-Depends": "dpkg", "Depends": "other, locales (>= 2) | locales-all"},
    {"Package": "whole", "Depends": "server:any"},
    {"Package": "locales-all", "Provides": "locales (= 2.41)"},
    {"Package": "alone", "Recommends": "locales"},
]


def test_a_package_brings_everything_that_it_depends_on():
    assert debian_facts.bringers(INDEX, ["locales"]) == {"locales", "server", "whole"}
    assert debian_facts.bringers(INDEX, ["locales-all"]) >= {"locales-all", "server", "whole"}
    assert debian_facts.bringers(INDEX, ["alone"]) == {"alone"}


def test_a_package_that_brings_another_only_in_another_suite_is_an_exception():
    alone = {**INDEX[-1], "Depends": "locales"}
    indexes = {"bookworm": INDEX[:2], "trixie": INDEX, "forky": [*INDEX[1:-1], alone]}
    found = debian_facts.facts(indexes)
    assert found["BRINGS"]["locales"] == {"server", "whole", "alone"}
    # `whole` and `alone` do not exist in bookworm. The dependencies in forky still change.
    assert found["EXCEPTIONS"] == {"trixie: package locales": {"alone"}}


@pytest.fixture(scope="module", params=SUITES)
def suite(request, tmp_path_factory):
    """A current suite, fetched from a mirror."""
    return Suite(request.param, tmp_path_factory.mktemp(request.param) / "apt")


@pytest.mark.weekly
def test_the_stand_ins_know_the_scripts_of_today(suite):
    found = debian_facts.scripts(suite)
    assert found.keys() == SCRIPTS.keys()
    for kind, digests in found.items():
        assert digests or kind == "linux", (
            f"{suite.name}: no package has a script of the kind {kind}"
        )
        assert digests <= set(SCRIPTS[kind]), f"{suite.name}: a script of the kind {kind} is new"


@pytest.mark.weekly
def test_the_packages_of_today_bring_what_is_written_down(suite):
    found = debian_facts.facts({suite.name: list(suite.paragraphs())})
    for goal, packages in found["BRINGS"].items():
        assert packages <= set(debian.BRINGS[goal]), f"{suite.name}: more packages bring {goal}"
        exceptions = debian.EXCEPTIONS.get(f"{suite.name}: package {goal}", ())
        assert packages.isdisjoint(exceptions), f"{suite.name}: an exception brings {goal}"
    for what, packages in found["WITHOUT"].items():
        assert packages >= set(debian.WITHOUT[what]), (
            f"{suite.name}: some packages bring {what} now"
        )
