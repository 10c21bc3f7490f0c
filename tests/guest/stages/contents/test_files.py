import io
import os
import tarfile

import pytest
from particle_agent.errors import StageError
from particle_agent.stages.contents.files import Directory, File, Files, Link


@pytest.fixture
def debian(target):
    target.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n")
    target.write("/etc/group", "root:x:0:\nadm:x:4:\n")
    return target


def test_directories_files_and_links_are_made(debian):
    Files(
        directories=(Directory(path="/srv/www", mode="2750", owner="www-data", group="adm"),),
        files=(File(path="/srv/www/a/index.html", content="hello\n", mode="0640", group="adm"),),
        links=(Link(path="/srv/current", to="www"),),
    ).run(debian)
    assert debian.mode("/srv/www") == 0o2750
    assert debian.owner("/srv/www") == (33, 4)
    assert debian.read("/srv/www/a/index.html") == "hello\n"
    assert debian.mode("/srv/www/a/index.html") == 0o640
    assert debian.owner("/srv/www/a/index.html") == (0, 4)
    assert os.readlink(debian.root / "srv/current") == "www"


def test_a_file_that_was_there_is_replaced_and_a_link_is_not_followed(debian):
    debian.write("/etc/motd.real", "precious")
    debian.symlink("/etc/motd", "motd.real")
    Files(files=(File(path="/etc/motd", content="new"),)).run(debian)
    assert debian.read("/etc/motd") == "new"
    assert not debian.is_link("/etc/motd")
    assert debian.read("/etc/motd.real") == "precious"


def attach(target, data, kind):
    (target.directory / "file").write_bytes(data)
    return f"{kind}:file"


def test_a_file_of_the_host_is_copied(debian):
    source = attach(debian, b"\xff\x00", "sha256")
    Files(files=(File(path="/opt/tool", source=source, mode="0755", owner="www-data"),)).run(debian)
    assert (debian.root / "opt/tool").read_bytes() == b"\xff\x00"
    assert debian.mode("/opt/tool") == 0o755
    assert debian.owner("/opt/tool") == (33, 0)
    assert debian.mode("/opt") == 0o755


def tree(*members):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, kind, mode, text in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, mode
            data = b"" if kind != tarfile.REGTYPE else text.encode()
            member.size, member.linkname = len(data), "" if data else text
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def test_a_directory_of_the_host_is_copied_over_what_is_there(debian):
    debian.write("/srv/site/kept", "kept")
    debian.write("/srv/site/css/old.css", "old")
    data = tree(
        ("css", tarfile.DIRTYPE, 0o755, ""),
        ("css/new.css", tarfile.REGTYPE, 0o644, "new"),
        ("home", tarfile.SYMTYPE, 0o644, "css"),
        ("run.sh", tarfile.REGTYPE, 0o755, "#!"),
    )
    source = attach(debian, data, "tree")
    Files(files=(File(path="/srv/site", source=source, owner="www-data"),)).run(debian)
    assert debian.read("/srv/site/kept") == "kept"
    assert debian.list("/srv/site/css") == ["new.css", "old.css"]
    assert os.readlink(debian.root / "srv/site/home") == "css"
    assert (debian.mode("/srv/site/run.sh"), debian.mode("/srv/site/css/new.css")) == (0o755, 0o644)
    made = ("", "/css", "/css/new.css", "/run.sh")
    assert {debian.owner(f"/srv/site{name}") for name in made} == {(33, 0)}


def test_a_directory_of_the_host_leads_nowhere_else(debian):
    """The stage follows no link out of the image and replaces no directory."""
    debian.symlink("/srv/out", str(debian.directory))
    data = tree(("x", tarfile.REGTYPE, 0o644, "x"))
    Files(files=(File(path="/srv/out", source=attach(debian, data, "tree")),)).run(debian)
    assert not (debian.directory / "x").exists()
    debian.make_directory("/srv/taken/x")
    with pytest.raises(StageError, match="/srv/taken/x exists in the image and is a directory"):
        Files(files=(File(path="/srv/taken", source="tree:file"),)).run(debian)


def test_a_directory_of_the_host_has_modes_of_its_own(debian):
    source = attach(debian, tree(), "tree")
    with pytest.raises(StageError, match="keeps the modes of its files"):
        Files(files=(File(path="/srv/x", source=source, mode="0700"),)).run(debian)


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
    with pytest.raises(StageError, match="exists in the image"):
        stage.run(debian)
    assert debian.read("/srv/file") == "x"


@pytest.mark.parametrize("who", [{"owner": "nobody-here"}, {"group": "nobody-here"}])
def test_an_owner_that_the_image_lacks_is_reported(debian, who):
    with pytest.raises(StageError, match=r"there is no (user|group) nobody-here") as raised:
        Files(files=(File(path="/srv/x", content="", **who),)).run(debian)
    assert "users stage" in raised.value.hint
    assert not debian.exists("/srv/x")


def test_root_needs_no_passwd(target):
    Files(files=(File(path="/x", content=""),)).run(target)
    assert target.read("/x") == ""
