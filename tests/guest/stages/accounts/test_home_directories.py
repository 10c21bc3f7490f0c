import tarfile

import pytest
from particle_agent.stages.contents.files import Directory, File, Files

from .account import make


def test_a_new_user_gets_the_home_directory_that_an_earlier_stage_has_made(debian, monkeypatch):
    debian.write("/home/admin/.config/app", "x")
    debian.symlink("/home/admin/link", "/etc/passwd")
    debian.write("/home/admin/.profile", "mine")
    debian.write("/etc/skel/.profile", "theirs")
    debian.write("/etc/skel/.bashrc", "theirs")
    debian.forget_owners()
    make(debian, name="admin")
    taken = {name for name, owner in debian.owners.items() if owner == (1001, 1002)}
    assert taken == {"admin", ".config", "app", "link", ".profile", ".bashrc"}
    assert debian.mode("/home/admin") == 0o700
    assert debian.read("/home/admin/.profile") == "mine"
    assert debian.read("/home/admin/.bashrc") == "theirs"


def test_the_skeleton_leads_nowhere_out_of_a_home_directory(debian, tmp_path):
    outside = tmp_path / "outside"
    (outside / "etc").mkdir(parents=True)
    (debian.root / "home/admin").mkdir(parents=True)
    (debian.root / "home/admin/.config").symlink_to(outside)
    debian.write("/etc/skel/.config/etc/cron.d/evil", "x")
    debian.write("/etc/skel/.local/deep/file", "x")
    make(debian, name="admin")
    assert [path.name for path in outside.rglob("*")] == ["etc"]
    assert debian.read("/home/admin/.local/deep/file") == "x"


@pytest.mark.parametrize("link", ["home/admin", "home"])
@pytest.mark.parametrize("to", ["/", "/proc"])
def test_a_home_directory_behind_a_link_is_left_alone(debian, monkeypatch, link, to):
    """The agent mounts file systems of the VM in the target."""
    debian.write("/etc/skel/.bashrc", "x")
    debian.make_directory("/proc/admin")
    debian.make_directory("/admin")
    (debian.root / link).parent.mkdir(exist_ok=True)
    (debian.root / link).symlink_to(to)
    monkeypatch.setattr(debian, "holds", lambda place: debian.root / "proc" not in place.parents)
    debian.forget_owners()
    make(debian, name="admin")
    assert set(debian.owners) <= ({"passwd"} if to == "/proc" else {"passwd", "admin", ".bashrc"})
    assert debian.list("/proc") == ["admin"]
    assert debian.list("/proc/admin") == []


def test_a_skeleton_that_holds_the_home_directory_is_copied_once(debian):
    debian.write("/home/admin/mine", "x")
    debian.symlink("/etc/skel", "/")
    make(debian, name="admin")
    assert debian.exists("/home/admin/usr/bin/fish")
    assert debian.list("/home/admin/home") == []


def test_a_new_home_directory_gets_only_the_users_own_skeleton(debian):
    debian.write("/srv/skeleton/.profile", "own")
    debian.write("/etc/skel/.bashrc", "theirs")
    debian.when("useradd", with_home(debian))
    make(debian, name="one", skeleton="/srv/skeleton")
    assert debian.list("/home/one") == []
    debian.make_directory("/home/two")
    make(debian, name="two", skeleton="/srv/skeleton")
    assert debian.list("/home/two") == [".profile"]


def with_home(target):
    """Imitates useradd with a home directory."""

    def useradd(command):
        name = command.argv[-1]
        line = f"{name}:x:1001:1002::/home/{name}:/bin/bash\n"
        target.write("/etc/passwd", target.read("/etc/passwd") + line)
        target.make_directory(f"/home/{name}")

    return useradd


@pytest.mark.parametrize(("mode", "after"), [(0o755, 0o700), (0o711, 0o711), (0o2750, 0o2750)])
def test_a_home_directory_keeps_a_mode_that_someone_chose(debian, mode, after):
    debian.make_directory("/home/web", mode=mode)
    make(debian, name="web")
    assert debian.mode("/home/web") == after
    (note,) = debian.report.notes
    assert note.startswith("/home/web was there before the user web")
    assert ("0700" in note) == (mode == 0o755)


def test_a_home_directory_keeps_what_the_recipe_chose(debian):
    home = Directory(path="/home/web", mode="0755", owner="root")
    secret = File(path="/home/web/policy", content="x", owner="root", group="root")
    Files(directories=(home,), files=(secret, File(path="/home/web/page", content="x"))).run(debian)
    make(debian, name="web")
    assert debian.mode("/home/web") == 0o755
    assert debian.owner("/home/web") == (0, 0)
    assert debian.owner("/home/web/policy") == (0, 0)
    assert debian.owner("/home/web/page") == (1001, 1002)
    assert debian.report.notes == []


def test_a_home_directory_gets_what_the_recipe_left_open(debian):
    Files(directories=(Directory(path="/home/web", mode="0755"),)).run(debian)
    make(debian, name="web")
    assert (debian.mode("/home/web"), debian.owner("/home/web")) == (0o755, (1001, 1002))
    Files(directories=(Directory(path="/home/ann", owner="root"),)).run(debian)
    make(debian, name="ann")
    assert (debian.mode("/home/ann"), debian.owner("/home/ann")) == (0o755, (0, 0))


def test_a_copied_home_directory_keeps_what_patterns_of_the_recipe_chose(debian):
    with tarfile.open(debian.directory / "tree", "w") as archive:
        for name in (".", "web"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
    modes, owners = {"/home/web": "0755"}, {"/home/web": "root:root"}
    copied = File(path="/home", source="tree:tree", modes=modes, owners=owners)
    Files(files=(copied,)).run(debian)
    make(debian, name="web")
    assert (debian.mode("/home/web"), debian.owner("/home/web")) == (0o755, (0, 0))


@pytest.mark.parametrize("options", [{"home": "/srv"}, {"home": "/srv/www"}])
def test_a_home_directory_elsewhere_keeps_its_owners(debian, options):
    debian.write("/srv/www/index.html", "x")
    debian.forget_owners()
    make(debian, name="admin", **options)
    assert debian.owners == {"passwd": (0, 0)}
