import pytest
from particle_agent.contract.options import Faults
from particle_agent.errors import CommandFailed, StageError
from particle_agent.stages.settings.services import DropIn, Services, Timer


@pytest.fixture
def debian(target):
    target.write("/bin/systemctl", "")
    for name in ("ssh.service", "getty@.service", "apt-daily.timer", "nginx.service"):
        target.write(f"/usr/lib/systemd/system/{name}", "")
    target.write("/etc/init.d/old", "")
    return target


def systemctl(target):
    return [c.argv[2:] for c in target.commands if c.argv[0] == "systemctl" and c.inside]


def test_units_are_enabled_disabled_and_masked(debian):
    Services(
        enable=("nginx.service", "getty@tty2.service", "old.service"),
        disable=("ssh.service",),
        mask=("apt-daily.timer",),
    ).run(debian)
    enabled = ("nginx.service", "getty@tty2.service", "old.service")
    assert systemctl(debian) == [
        ("disable", "--", "ssh.service"),
        ("mask", "--", "apt-daily.timer"),
        ("unmask", "--", *enabled),
        ("enable", "--", *enabled),
    ]


@pytest.mark.parametrize("verb", ["enable", "disable", "mask"])
def test_a_unit_that_does_not_exist_is_reported_before_anything_changes(debian, verb):
    options = {"enable": ("ssh.service",), verb: ("ngnix.service",)}
    with pytest.raises(StageError, match=r"no unit ngnix\.service") as raised:
        Services(**options).run(debian)
    assert "nginx.service" in raised.value.hint
    assert systemctl(debian) == []


def test_an_instance_needs_its_template(debian):
    with pytest.raises(StageError, match="no unit"):
        Services(enable=("ssh@one.service",)).run(debian)


def test_a_name_without_a_type_is_a_service_and_an_alias_stands_for_its_unit(debian):
    lib = "/usr/lib/systemd/system"
    debian.write(
        f"{lib}/ssh.service", "[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n"
    )
    debian.symlink(f"{lib}/autovt@.service", "getty@.service")
    debian.symlink("/etc/systemd/system/www.service", f"{lib}/nginx.service")
    debian.symlink("/etc/systemd/system/nginx.service", "/dev/null")
    Services(enable=("sshd", "www"), disable=("autovt@tty3.service",)).run(debian)
    assert systemctl(debian) == [
        ("disable", "--", "getty@tty3.service"),
        ("unmask", "--", "ssh.service", "nginx.service"),
        ("enable", "--", "ssh.service", "nginx.service"),
    ]


def test_a_unit_that_is_enabled_and_disabled_is_refused_whatever_its_spelling():
    with pytest.raises(Faults, match=r"nginx\.service: a unit cannot be enabled"):
        Services(enable=("nginx",), mask=("nginx.service",))
    with pytest.raises(Faults, match=r"a\.timer: a unit cannot"):
        Services(user_enable=("a.timer",), user_disable=("a.timer",))


def test_units_of_users_are_changed_for_all_of_them(debian):
    debian.write("/usr/lib/systemd/user/podman.socket", "")
    debian.write("/usr/lib/systemd/user/dirmngr.socket", "")
    Services(user_enable=("podman.socket",), user_mask=("dirmngr.socket",)).run(debian)
    assert [c.argv[2:] for c in debian.commands] == [
        ("--global", "mask", "--", "dirmngr.socket"),
        ("--global", "unmask", "--", "podman.socket"),
        ("--global", "enable", "--", "podman.socket"),
    ]
    with pytest.raises(StageError, match=r"no unit ssh\.service"):
        Services(user_enable=("ssh",)).run(debian)


def test_presets_lingering_and_drop_ins(debian):
    memory = DropIn(unit="nginx", name="memory", content="[Service]\nMemoryMax=1G\n")
    one = DropIn(unit="getty@tty1.service", content="[Service]\n")
    Services(preset=("ssh",), linger=("ann",), drop_ins=(memory, one)).run(debian)
    directory = "/etc/systemd/system"
    assert debian.read(f"{directory}/nginx.service.d/memory.conf") == memory.content
    assert debian.exists(f"{directory}/getty@tty1.service.d/recipe.conf")
    assert debian.exists("/var/lib/systemd/linger/ann")
    assert systemctl(debian) == [("preset", "--", "ssh.service")]
    with pytest.raises(StageError, match=r"no unit ngnix\.service"):
        Services(drop_ins=(DropIn(unit="ngnix", content="x"),)).run(debian)


def test_a_timer_is_two_units(debian):
    timer = Timer(
        name="backup",
        command=("/usr/bin/backup", "--to", 'a "b" $HOME 100%', "c\\d\ne"),
        on_calendar="Mon *-*-* 03:00",
        user="ann",
    )
    Services(timers=(timer,)).run(debian)
    service = debian.read("/etc/systemd/system/backup.service")
    line = r'ExecStart="/usr/bin/backup" "--to" "a \"b\" $$HOME 100%%" "c\\d\ne"'
    assert line in service.splitlines()
    assert "User=ann" in service
    assert "OnCalendar=Mon *-*-* 03:00" in debian.read("/etc/systemd/system/backup.timer")
    assert systemctl(debian)[-1] == ("enable", "--", "backup.timer")


def test_a_time_that_systemd_does_not_understand_is_reported(debian, monkeypatch):
    def refuse(argv, *, timeout=60.0):
        raise CommandFailed(argv, 1, ["Failed to parse"])

    monkeypatch.setattr(debian, "capture", refuse)
    timer = Timer(name="backup", command=("true",), on_calendar="dayly")
    with pytest.raises(StageError, match="'dayly'"):
        Services(timers=(timer,)).run(debian)
    assert not debian.exists("/etc/systemd/system/backup.timer")


@pytest.mark.parametrize("program", ["-false", "+true", "@sh"])
def test_a_program_with_a_prefix_of_systemd_is_refused(program):
    with pytest.raises(ValueError, match="the program begins with"):
        Timer(name="a", command=(program,), on_calendar="daily")


def test_an_image_without_systemd_is_reported(target):
    with pytest.raises(StageError, match="no systemctl") as raised:
        Services(enable=("ssh.service",)).run(target)
    assert "systemd-sysv" in raised.value.hint
