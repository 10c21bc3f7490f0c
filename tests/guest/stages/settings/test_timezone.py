import os

import pytest
from particle_agent.errors import StageError
from particle_agent.stages.settings.timezone import Timezone

ZONES = "/usr/share/zoneinfo"


@pytest.fixture
def debian(target):
    target.write(f"{ZONES}/tzdata.zi", "# version 2025b\nZ Europe/Berlin 0\nZ Asia/Tokyo 9\n")
    target.write(f"{ZONES}/Europe/Berlin", "TZif")
    return target


def test_the_zone_is_set_for_new_and_old_programs(debian):
    debian.symlink("/etc/localtime", f"{ZONES}/Etc/UTC")
    Timezone(zone="Europe/Berlin").run(debian)
    assert os.readlink(debian.root / "etc/localtime") == f"{ZONES}/Europe/Berlin"
    assert debian.read("/etc/timezone") == "Europe/Berlin\n"


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC"])
def test_utc_needs_no_package(target, zone):
    Timezone(zone=zone).run(target)
    assert target.read("/etc/timezone") == f"{zone}\n"


def test_a_missing_package_is_named(target):
    with pytest.raises(StageError, match="'tzdata' is not installed") as raised:
        Timezone(zone="Europe/Berlin").run(target)
    assert "'tzdata'" in raised.value.hint


def test_a_typing_error_is_reported_with_the_nearest_zone(debian):
    with pytest.raises(StageError, match="there is no time zone Europe/Berln") as raised:
        Timezone(zone="Europe/Berln").run(debian)
    assert "Europe/Berlin" in raised.value.hint
    assert not debian.exists("/etc/timezone")


def test_for_an_abbreviation_no_other_one_is_offered(debian):
    debian.write(f"{ZONES}/tzdata.zi", "Z Europe/Berlin 0\nZ EST -5\n")
    with pytest.raises(StageError, match="there is no time zone CEST") as raised:
        Timezone(zone="CEST").run(debian)
    assert raised.value.hint.startswith("Time zones are named after places, such as Europe/Berlin.")
