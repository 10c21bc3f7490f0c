import os

import pytest
from particle_agent.contract.options import Faults
from particle_agent.errors import StageError
from particle_agent.stages.software.sources import Sources

LIST = """\
# deb http://mirror.example.org/debian trixie main
deb http://mirror.example.org/debian trixie main # words
deb-src [arch=amd64 trusted=no] http://mirror.example.org/debian trixie main contrib
deb http://mirror.example.org/other stable other
"""
PARTS = """\
Types: deb
URIs: http://mirror.example.org/debian
Suites: trixie trixie-updates
Components: main contrib

Types: deb
URIs: http://mirror.example.org/other
Suites: x
Components: other
"""


def test_components_are_added_wherever_main_is(target):
    target.write("/etc/apt/sources.list", LIST)
    target.write("/etc/apt/sources.list.d/debian.sources", PARTS)
    target.write("/etc/apt/sources.list.d/debian.bak", PARTS)
    for _ in range(2):
        Sources(components=("contrib", "non-free-firmware")).run(target)
        lines = target.read("/etc/apt/sources.list").splitlines()
        assert lines[0] == LIST.splitlines()[0]
        assert lines[1].startswith(
            "deb http://mirror.example.org/debian trixie main contrib non-free-firmware"
        )
        assert lines[2].endswith("trixie main contrib non-free-firmware")
        assert lines[3] == LIST.splitlines()[3]
        parts = target.read("/etc/apt/sources.list.d/debian.sources")
        assert "Components: main contrib non-free-firmware\n" in parts
        assert "Components: other\n" in parts
        assert target.read("/etc/apt/sources.list.d/debian.bak") == PARTS


def test_what_apt_ignores_is_no_source(target):
    target.write("/etc/apt/sources.list", LIST)
    target.make_directory("/etc/apt/sources.list.d/x.list")
    os.mkfifo(target.path("/etc/apt/sources.list.d/y.sources"))
    Sources(components=("contrib",)).run(target)
    assert "main contrib" in target.read("/etc/apt/sources.list")


def test_an_image_without_debians_sources_is_reported(target):
    target.make_directory("/etc/apt")
    with pytest.raises(StageError, match="no package source"):
        Sources(components=("contrib",)).run(target)


def test_components_for_removed_sources_are_refused():
    with pytest.raises(Faults, match="'replace' removes"):
        Sources(components=("contrib",), replace=True)
