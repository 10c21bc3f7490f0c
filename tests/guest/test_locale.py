import os

import pytest
from particle_agent.errors import StageError
from particle_agent.stages.locale import Locale

SUPPORTED = "en_US.UTF-8 UTF-8\nde_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\nde_AT.UTF-8 UTF-8\n"


@pytest.fixture
def debian(target):
    target.write("/usr/share/i18n/SUPPORTED", SUPPORTED)
    return target


def test_the_default_and_the_further_ones_are_generated_once(debian):
    Locale(default="en_US.UTF-8", generate=("de_DE", "en_US.UTF-8")).run(debian)
    assert debian.read("/etc/locale.gen") == "en_US.UTF-8 UTF-8\nde_DE ISO-8859-1\n"
    assert debian.only("locale-gen").inside
    assert debian.read("/etc/locale.conf") == "LANG=en_US.UTF-8\n"


def test_old_programs_find_the_same_setting(debian):
    debian.write("/etc/default/locale", "LANG=C\n")
    Locale(default="en_US.UTF-8").run(debian)
    assert debian.read("/etc/default/locale") == "LANG=en_US.UTF-8\n"
    assert os.readlink(debian.root / "etc/default/locale") == "../locale.conf"


@pytest.mark.parametrize("name", ["C", "C.UTF-8"])
def test_built_in_locales_need_no_package(target, name):
    Locale(default=name).run(target)
    assert target.commands == []
    assert target.read("/etc/locale.conf") == f"LANG={name}\n"


def test_a_missing_package_is_named(target):
    with pytest.raises(StageError, match="'locales' is not installed"):
        Locale(default="en_US.UTF-8").run(target)
    assert not target.exists("/etc/locale.gen")


def test_an_unknown_locale_is_told_with_its_neighbours(debian):
    with pytest.raises(StageError, match=r"there is no locale de_CH\.UTF-8") as told:
        Locale(default="de_CH.UTF-8").run(debian)
    assert "de_AT.UTF-8" in told.value.hint
    assert debian.commands == []
