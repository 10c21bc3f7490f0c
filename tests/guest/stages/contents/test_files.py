import io
import os
import tarfile

import pytest
from particle_agent.contract.decode import DecodeError, decode
from particle_agent.contract.needs import Need
from particle_agent.errors import StageError
from particle_agent.stages.contents.files import Directory, File, Files, Link
from particle_agent.stages.contents.placing import Patterns


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
    debian.write("/etc/motd.real", "precious", mode=0o600)
    debian.symlink("/etc/motd", "motd.real")
    Files(files=(File(path="/etc/motd", content="new"),)).run(debian)
    assert debian.read("/etc/motd") == "new"
    assert not debian.is_link("/etc/motd")
    assert debian.mode("/etc/motd") == 0o644
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
        ("js", tarfile.DIRTYPE, 0o755, ""),
        ("run.sh", tarfile.REGTYPE, 0o755, "#!"),
    )
    source = attach(debian, data, "tree")
    Files(files=(File(path="/srv/site", source=source, owner="www-data"),)).run(debian)
    assert debian.read("/srv/site/kept") == "kept"
    assert debian.list("/srv/site/css") == ["new.css", "old.css"]
    assert os.readlink(debian.root / "srv/site/home") == "css"
    assert (debian.mode("/srv/site/run.sh"), debian.mode("/srv/site/css/new.css")) == (0o755, 0o644)
    made = ("new.css", "run.sh", "js", "home")
    assert {debian.owners[name] for name in made} == {(33, 0)}
    assert not {"site", "css"} & debian.owners.keys()


def test_a_directory_of_the_host_leads_nowhere_else(debian):
    """The stage follows no link out of the image and replaces no directory."""
    debian.symlink("/srv/out", str(debian.directory))
    data = tree(("x", tarfile.REGTYPE, 0o644, "x"))
    Files(files=(File(path="/srv/out", source=attach(debian, data, "tree")),)).run(debian)
    assert not (debian.directory / "x").exists()
    debian.make_directory("/srv/taken/x")
    with pytest.raises(StageError, match="/srv/taken/x exists in the image and is a directory"):
        Files(files=(File(path="/srv/taken", source="tree:file"),)).run(debian)


@pytest.fixture
def lived_in(debian):
    """A system with a user, and with directories that have owners and modes of their own."""
    users = debian.read("/etc/passwd") + "ann:x:1000:1001::/home/ann:/bin/bash\n"
    debian.write("/etc/passwd", users)
    for path, mode in MODES.items():
        debian.make_directory(path, mode=mode)
    debian.forget_owners()
    return debian


MODES = {"/root": 0o700, "/home/ann": 0o700, "/var/tmp": 0o1777, "/var/mail": 0o2775}


def test_a_tree_over_the_root_directory_changes_no_directory_that_was_there(lived_in):
    data = tree(
        (".", tarfile.DIRTYPE, 0o700, ""),
        *((path[1:], tarfile.DIRTYPE, 0o755, "") for path in MODES),
        ("etc", tarfile.DIRTYPE, 0o777, ""),
        ("etc/secret", tarfile.REGTYPE, 0o600, "x"),
        ("root/tool", tarfile.REGTYPE, 0o4755, "x"),
        ("var/mail/sender", tarfile.REGTYPE, 0o2755, "x"),
        ("opt/new", tarfile.DIRTYPE, 0o2750, ""),
        ("home/ann/.config/app", tarfile.REGTYPE, 0o640, "x"),
    )
    before = {path: lived_in.mode(path) for path in ("/", "/etc", *MODES)}
    source = attach(lived_in, data, "tree")
    Files(files=(File(path="/", source=source),)).run(lived_in)
    assert {path: lived_in.mode(path) for path in before} == before
    modes = {"/etc/secret": 0o600, "/root/tool": 0o4755, "/opt/new": 0o2750}
    modes["/var/mail/sender"] = 0o2755
    assert {path: lived_in.mode(path) for path in modes} == modes
    hers = {"app": (1000, 1001), ".config": (1000, 1001)}
    ours = ("secret", "tool", "sender", "opt", "new")
    assert lived_in.owners == {**hers, **dict.fromkeys(ours, (0, 0))}


def test_an_existing_directory_gets_only_what_the_recipe_names(lived_in):
    before = {path: lived_in.mode(path) for path in MODES}
    Files(directories=tuple(Directory(path=path) for path in MODES)).run(lived_in)
    assert {path: lived_in.mode(path) for path in MODES} == before
    assert lived_in.owners == {}
    Files(directories=(Directory(path="/var/mail", group="adm"),)).run(lived_in)
    assert lived_in.owners == {"mail": (-1, 4)}
    assert lived_in.mode("/var/mail") == 0o2775


def test_what_is_new_in_a_home_directory_belongs_to_its_user(lived_in):
    stage = Files(
        directories=(Directory(path="/home/ann/a/b"),),
        files=(
            File(path="/home/ann/c/d", content="x", mode="0600"),
            File(path="/home/ann/e", content="x", owner="root", group="root"),
            File(path="/home/annex", content="x"),
        ),
        links=(Link(path="/home/ann/f/g", to="x"),),
    )
    stage.run(lived_in)
    hers = {name for name, owner in lived_in.owners.items() if owner == (1000, 1001)}
    assert hers == {"a", "b", "c", "d", "f", "g"}


def test_patterns_decide_about_modes_and_owners_of_a_tree(lived_in):
    lived_in.make_directory("/srv", mode=0o755)
    data = tree(
        ("srv", tarfile.DIRTYPE, 0o755, ""),
        ("srv/www/a/index.html", tarfile.REGTYPE, 0o644, "x"),
        ("srv/www/run.cgi", tarfile.REGTYPE, 0o644, "x"),
        ("etc/sudoers.d/wheel", tarfile.REGTYPE, 0o664, "x"),
    )
    file = File(
        path="/",
        source=attach(lived_in, data, "tree"),
        modes={
            "/srv/www/**": "0640",
            "/**/*.cgi": "0750",
            "/etc/sudoers.d/*": "0440",
            "/srv": "700",
        },
        owners={"/srv/**": "www-data", "/srv/www/*": ":adm", "/srv": "www-data:adm"},
    )
    lived_in.forget_owners()
    Files(files=(file,)).run(lived_in)
    modes = {"/srv/www/a/index.html": 0o640, "/srv/www/run.cgi": 0o750, "/srv": 0o700}
    modes["/etc/sudoers.d/wheel"] = 0o440
    assert {path: lived_in.mode(path) for path in modes} == modes
    assert lived_in.owners["index.html"] == (33, 0)
    assert lived_in.owners["run.cgi"] == (0, 4)
    assert lived_in.owners["srv"] == (33, 4)
    assert lived_in.report.notes == []


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/srv/**/x", "/srv/x", True),
        ("/srv/**/x", "/srv/a/b/x", True),
        ("/srv/**/x", "/srvx", False),
        ("/srv/**", "/srv/a/b", True),
        ("/srv/**", "/srv", False),
        ("/**", "/", False),
        ("/**/**/*.c", "/a.c", True),
        ("/srv/*", "/srv/a/b", False),
        ("/srv/a?c*", "/srv/abcd", True),
        ("/srv/[a]", "/srv/a", False),
        ("/a/**/b/**/c", "/a/b/x/b/y/c", True),
        ("/a/**/b/**/c", "/a/b/x/b/y", False),
        ("/**/**" * 200 + "/x", "/a" * 2000, False),
        ("/" + "*a" * 100 + "*b", "/" + "a" * 255, False),
    ],
)
@pytest.mark.timeout(60)
def test_patterns_match_names_and_directories(pattern, path, matches):
    assert Patterns({pattern: "x"}).get(path) == ("x" if matches else None)


def test_two_stars_stand_between_slashes():
    source = {"path": "/", "source": "tree:file"}
    for pattern in ("/srv/www**/x", "/***", "/a/**b", "/a//b", "/a/", "x"):
        with pytest.raises(DecodeError):
            decode(Files, {"files": [{**source, "modes": {pattern: "0644"}}]})
    for pattern in ("/**", "/*", "/*a*b?*", "/**/x", "/srv/**", "/é"):
        decode(Files, {"files": [{**source, "modes": {pattern: "0644"}}]})


def test_a_file_that_is_replaced_keeps_owner_and_mode(debian):
    for name in ("passwd", "copied", "ruled"):
        debian.write(f"/etc/exim/{name}", "x", mode=0o640)
    place = debian.path("/etc/exim/passwd")
    if os.getuid() == 0:
        for each in place.parent.iterdir():
            os.chown(each, 0, 104)
    before = (place.stat().st_uid, place.stat().st_gid)
    source = attach(debian, b"x", "mode-755")
    Files(
        files=(
            File(path="/etc/exim/passwd", content="new"),
            File(path="/etc/exim/copied", source=source),
            File(path="/etc/exim/ruled", content="new", mode="0600", group="adm"),
        )
    ).run(debian)
    assert {name: debian.mode(f"/etc/exim/{name}") for name in debian.list("/etc/exim")} == {
        "passwd": 0o640, "copied": 0o755, "ruled": 0o600
    }  # fmt: skip
    assert debian.owner("/etc/exim/passwd") == debian.owner("/etc/exim/copied") == before
    assert debian.owner("/etc/exim/ruled") == (before[0], 4)


def test_a_pattern_that_matches_nothing_is_a_mistake(lived_in):
    data = tree(("a/b", tarfile.REGTYPE, 0o644, "x"))
    for pattern in ("/a/*.sh", "/*b", "/a/b/**"):
        file = File(path="/", source=attach(lived_in, data, "tree"), modes={pattern: "0755"})
        with pytest.raises(StageError, match=r"the pattern .* matches nothing"):
            Files(files=(file,)).run(lived_in)


def test_a_note_names_copied_files_that_others_can_write(lived_in):
    data = tree(*((name, tarfile.REGTYPE, 0o664, "x") for name in ("a", "b", "c")))
    Files(files=(File(path="/", source=attach(lived_in, data, "tree")),)).run(lived_in)
    (note,) = lived_in.report.notes
    assert "users other than the owner can write 3 files, such as /a" in note


def test_a_copied_file_keeps_the_mode_that_its_reference_tells(lived_in):
    source = attach(lived_in, b"x", "mode-4755")
    Files(files=(File(path="/opt/tool", source=source),)).run(lived_in)
    assert lived_in.mode("/opt/tool") == 0o4755
    Files(files=(File(path="/opt/tool", source=source, mode="0600"),)).run(lived_in)
    assert lived_in.mode("/opt/tool") == 0o600


def test_options_that_do_not_fit_the_kind_of_the_source_are_told():
    stage = Files(
        files=(
            File(path="/a", source="tree:file", mode="0700"),
            File(path="/b", source="mode-644:file", modes={"/*": "0700"}),
            File(path="/c", content="", owners={"/*": "root"}),
        )
    )
    assert [place for place, _ in stage.attached_faults()] == [
        ("files", 0, "mode"), ("files", 1, "modes"), ("files", 2, "owners")
    ]  # fmt: skip


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


@pytest.mark.parametrize("text", ["9" * 5000, "1" + "0" * 20, "4294967295", ""])
def test_an_owner_without_a_valid_id_is_reported(debian, text):
    debian.write("/etc/group", f"adm:x:{text}:\n")
    debian.write("/etc/passwd", f"ann:x:1000:{text}::/home/ann:/bin/sh\n")
    with pytest.raises(StageError, match=r"the entry of adm .* has no valid ID"):
        Files(files=(File(path="/srv/x", content="", group="adm"),)).run(debian)
    Files(files=(File(path="/home/ann/x", content=""),)).run(debian)
    assert debian.owner("/home/ann/x") == (0, 0)


def test_root_needs_no_passwd(target):
    Files(files=(File(path="/x", content=""),)).run(target)
    assert target.read("/x") == ""


def test_a_stage_names_the_files_that_it_writes():
    stage = Files(
        files=(File(path="/sbin/init", content="x"),), links=(Link(path="/init", to="sbin/init"),)
    )
    found = [
        stage.names(Need(what="init", message="", hint="", files=(path, "/etc/init")))
        for path in ("/sbin/init", "/init", "/bin/init")
    ]
    assert found == [True, True, False]


def test_a_link_in_a_home_directory_gives_its_user_no_other_file(debian):
    debian.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    debian.write("/etc/shadow", "x")
    debian.make_directory("/home/ann")
    debian.symlink("/home/ann/x", "/etc/shadow")
    debian.forget_owners()
    Files(links=(Link(path="/home/ann/x", to="y"),)).run(debian)
    assert debian.owners == {"x": (1000, 1000)}
    assert os.readlink(debian.root / "home/ann/x") == "y"


def test_a_file_replaces_a_link_to_a_directory(debian):
    debian.make_directory("/srv/www")
    for name in ("file", "link"):
        debian.symlink(f"/srv/{name}", "www")
    Files(
        files=(File(path="/srv/file", content="new"),), links=(Link(path="/srv/link", to="file"),)
    ).run(debian)
    assert debian.read("/srv/link") == "new"
    assert debian.list("/srv/www") == []
