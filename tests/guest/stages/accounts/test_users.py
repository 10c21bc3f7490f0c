import pytest
from particle_agent.contract.options import Faults
from particle_agent.contract.values import SshPublicKey
from particle_agent.errors import StageError
from particle_agent.stages.accounts.users import SubordinateIds, User, Users

from .account import KEY, make


def test_a_plain_account(debian):
    make(debian, name="admin")
    command = debian.only("useradd")
    assert command.inside
    assert command.argv[-2:] == ("--", "admin")
    assert "--create-home" in command.argv
    assert "--user-group" in command.argv
    assert command.argv[command.argv.index("--shell") + 1] == "/bin/bash"


def test_every_option_reaches_useradd(debian):
    make(debian, name="admin", uid=2000, groups=("sudo", "adm"), shell="/usr/bin/fish", home="/srv")
    text = " ".join(debian.only("useradd").argv)
    for part in ("--uid 2000", "--groups sudo,adm", "--shell /usr/bin/fish", "--home-dir /srv"):
        assert part in text


def test_a_group_of_the_same_name_becomes_the_private_one(debian):
    make(debian, name="staff")
    argv = debian.only("useradd").argv
    assert argv[argv.index("--gid") + 1] == "staff"
    assert "--user-group" not in argv


def commands(target, *programs):
    return [" ".join(c.argv) for c in target.commands if c.argv[0] in programs]


def test_primary_group_skeleton_ranges_and_expiry(debian):
    debian.write("/srv/skeleton/.bashrc", "")
    ids = SubordinateIds(first=200000)
    make(
        debian, name="admin", group="staff", skeleton="/srv/skeleton", subordinate_ids=ids,
        expires="2030-12-31",
    )  # fmt: skip
    (useradd,) = commands(debian, "useradd")
    assert "--gid staff" in useradd
    assert "--user-group" not in useradd
    assert "--skel /srv/skeleton" in useradd
    assert commands(debian, "usermod") == [
        "usermod --expiredate 2030-12-31 -- admin",
        "usermod --add-subuids 200000-265535 --add-subgids 200000-265535 -- admin",
    ]


def test_the_ids_for_containers_are_those_of_the_recipe_alone(debian):
    ids = SubordinateIds(first=200000)
    make(debian, name="admin", subordinate_ids=ids)
    (useradd,) = commands(debian, "useradd")
    assert "--key SUB_UID_COUNT=0 --key SUB_GID_COUNT=0" in useradd
    assert debian.read("/etc/subuid") == debian.read("/etc/subgid") == ""
    for path in ("/etc/subuid", "/etc/subgid"):
        debian.write(path, "old:100000:65536\nadmin:200000:65536\n\nwrong:x:y\n")
    debian.commands.clear()
    make(debian, name="admin", subordinate_ids=ids)
    assert debian.commands == []


@pytest.mark.parametrize("path", ["/etc/subuid", "/etc/subgid"])
def test_subordinate_ids_of_another_user_are_refused(debian, path):
    debian.write(path, "old:200000:65536\n")
    with pytest.raises(StageError, match=f"the subordinate ID 265535 belongs to old in {path}"):
        make(debian, name="admin", subordinate_ids=SubordinateIds(first=265535))
    assert debian.commands == []
    make(debian, name="admin", subordinate_ids=SubordinateIds(first=265536))


def test_subordinate_ids_that_cannot_be_are_refused_beforehand():
    with pytest.raises(Faults, match="4294967294 is the largest"):
        SubordinateIds(first=4294967294, count=2)
    SubordinateIds(first=4294967294, count=1)
    ranges = (SubordinateIds(first=200000), None, SubordinateIds(first=100000, count=500000),
              SubordinateIds(first=600000))  # fmt: skip
    users = tuple(User(name=f"u{i}", subordinate_ids=ids) for i, ids in enumerate(ranges))
    with pytest.raises(Faults, match="user u0: another user") as raised:
        Users(users=users)
    assert [place for place, _ in raised.value.found] == [("users", 0, "subordinate-ids")]


def test_a_number_for_the_group_of_an_existing_user_makes_it_the_primary_one(debian):
    debian.write("/etc/group", "users:x:100:\n")
    make(debian, name="old", gid=4001)
    assert commands(debian, "groupadd", "usermod") == [
        "groupadd --gid 4001 -- old", "usermod --gid old -- old"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "homes"),
    [
        ({"name": "admin"}, ["/home/admin"]),
        ({"name": "admin", "home": "/srv/a"}, ["/srv/a"]),
        ({"name": "root"}, ["/root"]),
        ({"name": "web", "system": True}, []),
    ],
)
def test_the_keys_file_belongs_to_the_stage_wherever_the_home_is(options, homes):
    stage = Users(users=(User(**options, ssh_authorized_keys=(KEY,)),))
    assert [path for path, _ in stage.rewrites()] == [f"{h}/.ssh/authorized_keys" for h in homes]


@pytest.mark.parametrize("uid", ["9" * 5000, "99999999999", "4294967295", "\u0661", "-1", ""])
@pytest.mark.parametrize(
    "line", ["old:x:{}:1000::/home/old:", "old:x:1000:{}::/home/old:", "old:x:1:"]
)
def test_an_account_without_valid_ids_is_reported(debian, uid, line):
    debian.write("/etc/passwd", line.format(uid) + "\n")
    with pytest.raises(StageError, match=r"the entry of old .* has no valid ID|without a home"):
        make(debian, name="old", ssh_authorized_keys=(KEY,))


def test_a_file_of_very_many_accounts_is_not_read(debian):
    debian.write("/etc/passwd", "a:x:1:1::/:\n" * 100000)
    with pytest.raises(StageError, match="/etc/passwd of the image has more than 65536 lines"):
        make(debian, name="admin")


def test_the_private_group_gets_the_wanted_number(debian):
    make(debian, name="admin", gid=4000)
    assert commands(debian, "groupadd", "groupmod") == ["groupadd --gid 4000 -- admin"]
    assert "--gid admin" in commands(debian, "useradd")[0]
    make(debian, name="old", gid=4001)
    assert commands(debian, "groupmod") == ["groupmod --gid 4001 -- old"]
    with pytest.raises(StageError, match="the gid 50 belongs to staff"):
        make(debian, name="other", gid=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "staff", "gid": 4000}, "'gid' is for a new group"),
        ({"lock": True, "expires": "2030-01-01"}, "a locked account"),
        ({"expires": "2030-02-31"}, "there is no day 2030-02-31"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(Faults, match=message):
        User(name="admin", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"group": "missing"}, "no group missing"), ({"skeleton": "/missing"}, "no directory")],
)
def test_what_the_image_lacks_for_a_user_is_reported(debian, options, message):
    with pytest.raises(StageError, match=message):
        make(debian, name="admin", **options)
    assert commands(debian, "useradd") == []


def test_a_key_can_have_options(debian):
    line = f'restrict,command="/usr/bin/backup \\"a b\\"",from="192.0.2.0/24" {KEY}'
    make(debian, name="admin", ssh_authorized_keys=(line,))
    assert debian.read("/home/admin/.ssh/authorized_keys") == f"{line}\n"
    accepted = SshPublicKey.__metadata__[0].accepts
    assert accepted(line)
    assert accepted(KEY)
    for wrong in (f'command="x {KEY}', f"command=x y {KEY}", f"rest\nrict {KEY}", f"a, {KEY}"):
        assert not accepted(wrong)


def test_an_account_that_exists_is_changed(debian):
    make(debian, name="old", groups=("sudo",), shell="/usr/bin/fish", home="/srv/old")
    text = " ".join(debian.only("usermod").argv)
    for part in ("--append", "--groups sudo", "--shell /usr/bin/fish", "--home /srv/old"):
        assert part in text
    assert text.endswith("-- old")
    assert "useradd" not in debian.programs()


def test_nothing_is_run_for_an_account_that_stays_as_it_is(debian):
    make(debian, name="root")
    assert debian.commands == []


def test_ssh_keys_belong_to_the_user(debian):
    make(debian, name="admin", ssh_authorized_keys=(KEY,))
    assert debian.read("/home/admin/.ssh/authorized_keys") == f"{KEY}\n"
    assert debian.mode("/home/admin/.ssh") == 0o700
    assert debian.mode("/home/admin/.ssh/authorized_keys") == 0o600
    for path in ("/home/admin/.ssh", "/home/admin/.ssh/authorized_keys"):
        assert debian.owner(path) == (1001, 1002)


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        ("password", "admin ALL=(ALL:ALL) ALL\n"),
        ("no-password", "admin ALL=(ALL:ALL) NOPASSWD:ALL\n"),
    ],
)
def test_sudo(debian, wish, line):
    make(debian, name="admin", sudo=wish)
    assert debian.read("/etc/sudoers.d/admin") == line
    assert debian.mode("/etc/sudoers.d/admin") == 0o440


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"groups": ("docker",)}, "no group docker", "groups stage"),
        ({"shell": "/usr/bin/zsh"}, "no shell /usr/bin/zsh", "Install its package"),
        ({"uid": 1000}, "the uid 1000 belongs to old", ""),
    ],
)
def test_what_the_image_lacks_is_reported_before_anything_runs(debian, options, message, hint):
    with pytest.raises(StageError, match=message) as raised:
        make(debian, name="admin", **options)
    assert hint in (raised.value.hint or "")
    assert debian.commands == []


def test_sudo_must_be_installed(debian):
    debian.remove("/usr/bin/sudo")
    with pytest.raises(StageError, match="'sudo' is not installed") as raised:
        make(debian, name="admin", sudo="password")
    assert "Add 'sudo'" in raised.value.hint


def test_an_account_keeps_its_own_uid(debian):
    make(debian, name="old", uid=1000)
    assert "usermod" in debian.programs()


def test_the_account_of_a_service(debian):
    make(debian, name="backup", system=True)
    argv = debian.only("useradd").argv
    assert "--system" in argv
    assert "--no-create-home" in argv
    assert argv[argv.index("--home-dir") + 1] == "/nonexistent"
    assert argv[argv.index("--shell") + 1] == "/usr/sbin/nologin"


def test_a_service_may_have_home_and_shell(debian):
    make(debian, name="git", system=True, home="/srv/git", shell="/bin/bash")
    argv = debian.only("useradd").argv
    assert {"--system", "--create-home", "/srv/git", "/bin/bash"} <= set(argv)


def test_a_service_may_have_groups(debian):
    make(debian, name="backup", system=True, group="staff", groups=("adm", "sudo"))
    argv = debian.only("useradd").argv
    assert "--system" in argv
    assert argv[argv.index("--gid") + 1] == "staff"
    assert argv[argv.index("--groups") + 1] == "adm,sudo"
    make(debian, name="old", system=True, groups=("adm",))
    argv = debian.only("usermod").argv
    assert argv[argv.index("--groups") + 1] == "adm"
    assert "--append" in argv


def test_the_comment_is_one_argument_whatever_it_begins_with(debian):
    make(debian, name="admin", comment="-R Ada, Countess")
    argv = debian.only("useradd").argv
    assert argv[argv.index("--comment") + 1] == "-R Ada, Countess"
    make(debian, name="old", comment="")
    argv = debian.only("usermod").argv
    assert argv[argv.index("--comment") + 1] == ""


def test_keys_need_a_home_directory(debian):
    with pytest.raises(StageError, match="cannot have SSH keys") as raised:
        make(debian, name="backup", system=True, ssh_authorized_keys=(KEY,))
    assert "a 'home'" in raised.value.hint
    assert debian.commands == []
    make(debian, name="backup", system=True, home="/srv/b", ssh_authorized_keys=(KEY,))
    assert debian.exists("/srv/b/.ssh/authorized_keys")


KEY_FILE = f'# of the team\n\n{KEY}\nrestrict,command="ls -l" ssh-rsa AAAAB3NzaC1yc2E= other\n'


def test_inline_keys_with_options_are_written_as_those_of_a_file(debian):
    lines = (KEY, f'restrict,command="ls -l" {KEY}', f'from="192.0.2.0/24" {KEY}')
    (debian.directory / "0123").write_text("\n".join(("# of the team", "", *lines)))
    make(debian, name="inline", ssh_authorized_keys=lines)
    make(debian, name="filed", ssh_authorized_keys_file="sha256:0123")
    inline = debian.read("/home/inline/.ssh/authorized_keys")
    assert inline == debian.read("/home/filed/.ssh/authorized_keys")
    assert inline.splitlines() == [*lines]


def test_keys_from_a_file_come_after_those_of_the_recipe(debian):
    (debian.directory / "0123").write_text(KEY_FILE)
    first = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
    make(
        debian,
        name="admin",
        ssh_authorized_keys=(first,),
        ssh_authorized_keys_file="sha256:0123",
    )
    lines = debian.read("/home/admin/.ssh/authorized_keys").splitlines()
    assert lines == [first, KEY, KEY_FILE.splitlines()[-1]]
