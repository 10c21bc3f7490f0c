import os

import pytest
from particle_agent.contract.options import Faults
from particle_agent.errors import StageError
from particle_agent.stages.software.sources import Repository, Sources

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
OWN = Repository(name="own", mirrors=("http://mirror.example.org/",), suites=("x",))


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


@pytest.mark.parametrize("repositories", [(), (OWN,)])
def test_components_for_removed_sources_are_refused(repositories):
    with pytest.raises(Faults, match="'replace' removes"):
        Sources(components=("contrib",), replace=True, repositories=repositories)


FOREIGN = """\
deb http://mirror.example.org/debian trixie main
deb https://deb.example.com/node nodistro main
deb [arch=amd64 signed-by=/etc/apt/keyrings/m.asc] https://m.example.com/11/debian trixie main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://own.example.org/x y main
"""


def test_other_repositories_get_no_components(target):
    target.write("/etc/apt/sources.list", FOREIGN)
    Sources(components=("contrib",)).run(target)
    lines = target.read("/etc/apt/sources.list").splitlines()
    assert [line.split()[-1] for line in lines] == ["contrib", "main", "main", "contrib"]
    assert target.report.notes == []


def test_a_note_tells_of_each_source_that_may_be_foreign(target):
    target.write("/etc/apt/sources.list", FOREIGN.split("\n")[1])
    Sources(components=("contrib",)).run(target)
    assert target.read("/etc/apt/sources.list").endswith("nodistro main contrib")
    (note,) = target.report.notes
    assert "https://deb.example.com/node gets contrib" in note


FOLDED = """\
Types: deb
URIs: http://mirror.example.org/debian
Suites: trixie
Components:
 main
# of the firmware
 non-free-firmware
# the end
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: http://mirror.example.org/debian
Suites: sid
Components: main
"""


def test_a_field_may_have_several_lines(target):
    target.write("/etc/apt/sources.list.d/debian.sources", FOLDED)
    for _ in range(2):
        Sources(components=("non-free-firmware", "contrib")).run(target)
        assert target.read("/etc/apt/sources.list.d/debian.sources") == FOLDED.replace(
            " non-free-firmware\n", " non-free-firmware contrib\n"
        )


def test_a_file_of_sources_keeps_its_owner_and_mode(target):
    target.write("/etc/apt/sources.list", LIST, mode=0o600)
    place = target.root / "etc/apt/sources.list"
    if os.getuid() == 0:
        os.chown(place, 0, 4)
    owner = (place.stat().st_uid, place.stat().st_gid)
    target.forget_owners()
    Sources(components=("contrib",)).run(target)
    assert target.mode("/etc/apt/sources.list") == 0o600
    assert target.owner("/etc/apt/sources.list") == owner
