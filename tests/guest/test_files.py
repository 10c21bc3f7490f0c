import os

import pytest
from particle_agent.errors import StageError
from particle_agent.stages.files import Directory, File, Files, Link


@pytest.fixture
def debian(target):
    target.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n")
    target.write("/etc/group", "root:x:0:\nadm:x:4:\n")
    return target


def test_directories_files_and_links_are_made(debian):
    Files(
        directories=(Directory(path="/srv/www", mode="2750", owner="www-data", group="adm"),),
        files=(File(path="/srv/www/a/index.html", content="hello\n", mode="0640"),),
        links=(Link(path="/srv/current", to="www"),),
    ).run(debian)
    assert debian.mode("/srv/www") == 0o2750
    assert debian.owners["www"] == (33, 4)
    assert debian.read("/srv/www/a/index.html") == "hello\n"
    assert debian.mode("/srv/www/a/index.html") == 0o640
    assert os.readlink(debian.root / "srv/current") == "www"


def test_a_file_that_was_there_is_replaced_and_a_link_is_not_followed(debian):
    debian.write("/etc/motd.real", "precious")
    debian.symlink("/etc/motd", "motd.real")
    Files(files=(File(path="/etc/motd", content="new"),)).run(debian)
    assert debian.read("/etc/motd") == "new"
    assert not debian.is_link("/etc/motd")
    assert debian.read("/etc/motd.real") == "precious"


def test_a_directory_that_was_there_keeps_its_content(debian):
    debian.write("/srv/kept", "x")
    Files(directories=(Directory(path="/srv", mode="0700"),)).run(debian)
    assert debian.read("/srv/kept") == "x"
    assert debian.mode("/srv") == 0o700


@pytest.mark.parametrize(
    "stage",
    [
        Files(files=(File(path="/srv", content=""),)),
        Files(links=(Link(path="/srv", to="x"),)),
        Files(directories=(Directory(path="/srv/file"),)),
    ],
)
def test_a_directory_and_a_file_never_replace_each_other(debian, stage):
    debian.write("/srv/file", "x")
    with pytest.raises(StageError, match="already"):
        stage.run(debian)
    assert debian.read("/srv/file") == "x"


@pytest.mark.parametrize("who", [{"owner": "nobody-here"}, {"group": "nobody-here"}])
def test_an_owner_that_the_image_lacks_is_told(debian, who):
    with pytest.raises(StageError, match=r"there is no (user|group) nobody-here"):
        Files(files=(File(path="/srv/x", content="", **who),)).run(debian)
    assert not debian.exists("/srv/x")


def test_root_needs_no_passwd(target):
    Files(files=(File(path="/x", content=""),)).run(target)
    assert target.read("/x") == ""
