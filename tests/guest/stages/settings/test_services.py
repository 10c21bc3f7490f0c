import pytest
from particle_agent.contract.decode import DecodeError, decode
from particle_agent.contract.options import Faults
from particle_agent.errors import CommandFailed, StageError
from particle_agent.stages.settings.services import DropIn, Services, Timer
from particle_agent.system.units import units_of

LIB, ETC = "/usr/lib/systemd/system", "/etc/systemd/system"


@pytest.fixture
def debian(target):
    for path in ("/bin/systemctl", "/etc/init.d/old"):
        target.write(path, "")
    for name in ("ssh.service", "getty@.service", "apt-daily.timer", "nginx.service"):
        target.write(f"/usr/lib/systemd/system/{name}", "")
    target.write("/etc/passwd", "ann:x:1000:1000::/home/ann:/bin/sh\n")
    return target


def systemctl(target):
    """The changes that the stage makes, without its questions."""
    found = (c.argv for c in target.commands if c.argv[0] == "systemctl" and c.inside)
    return [argv[2:] for argv in found if "is-enabled" not in argv]


def test_a_units_first_directory_counts_and_other_files_are_no_units(debian):
    for name in ("ssh.service", "notes.txt"):
        debian.write(f"{ETC}/{name}", "")
    found = units_of(debian).files
    assert found["ssh.service"] == f"{ETC}/ssh.service"
    assert (found["nginx.service"], found.get("notes.txt")) == (f"{LIB}/nginx.service", None)


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
    assert systemctl(debian) == [
        ("unmask", "--", "ssh.service"),
        ("preset", "--", "ssh.service"),
    ]
    with pytest.raises(StageError, match=r"no unit ngnix\.service"):
        Services(drop_ins=(DropIn(unit="ngnix", content="[Unit]"),)).run(debian)


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
    timer = Timer(name="backup", command=("true",), on_calendar="*-02-31")
    with pytest.raises(StageError, match=r"'\*-02-31'"):
        Services(timers=(timer,)).run(debian)
    assert not debian.exists("/etc/systemd/system/backup.timer")


@pytest.mark.parametrize("program", ["-false", "+true", "@sh"])
def test_a_program_with_a_prefix_of_systemd_is_refused(program):
    with pytest.raises(ValueError, match="the program begins with"):
        Timer(name="a", command=(program,), on_calendar="daily")


def test_a_unit_that_another_one_enables_stays_disabled(debian):
    """systemd-networkd.service has Also=systemd-networkd-wait-online.service."""
    for name in ("networkd.service", "wait.service"):
        debian.write(f"{LIB}/{name}", "")

    def act(command):
        if command.argv[2] == "enable":
            for path in ("multi-user.target.wants/networkd", "online.target.wants/wait"):
                debian.symlink(f"{ETC}/{path}.service", f"{LIB}/{path.rpartition('/')[2]}.service")
            debian.symlink(f"{ETC}/waiting.service", f"{LIB}/wait.service")
            debian.symlink(f"{ETC}/getty.target.wants/getty@tty1.service", f"{LIB}/getty@.service")
            debian.symlink(f"{ETC}/getty.target.wants/getty@tty2.service", f"{LIB}/getty@.service")

    debian.when("systemctl", act)
    Services(
        enable=("networkd", "getty@tty1.service"),
        disable=("wait", "getty@tty2.service"),
    ).run(debian)
    assert debian.list(f"{ETC}/multi-user.target.wants") == ["networkd.service"]
    assert debian.list(f"{ETC}/online.target.wants") == []
    assert debian.list(f"{ETC}/getty.target.wants") == ["getty@tty1.service"]
    assert "waiting.service" not in debian.list(ETC)


def with_also(target):
    """Imitates `systemctl enable nginx`, which enables `ssh` too, by `Also=`."""

    def systemctl(command):
        if "enable" in command.argv:
            scope = "user" if "--global" in command.argv else "system"
            names = [*command.argv[command.argv.index("--") + 1 :], "ssh.service"]
            for name in names:
                target.symlink(f"/etc/systemd/{scope}/some.target.wants/{name}", f"{LIB}/{name}")

    target.when("systemctl", systemctl)
    return lambda scope="system": target.list(f"/etc/systemd/{scope}/some.target.wants")


def test_a_unit_stays_disabled_in_later_stages_unless_one_enables_it_by_name(debian):
    enabled = with_also(debian)
    Services(disable=("ssh",)).run(debian)
    Services(enable=("nginx",)).run(debian)
    assert enabled() == ["nginx.service"]
    Services(enable=("ssh",)).run(debian)
    Services(enable=("nginx",)).run(debian)
    assert enabled() == ["nginx.service", "ssh.service"]


def test_what_was_enabled_between_two_stages_stays_enabled(debian):
    enabled = with_also(debian)
    Services(disable=("ssh",)).run(debian)
    debian.symlink("/etc/systemd/system/some.target.wants/ssh.service", f"{LIB}/ssh.service")
    Services(enable=("nginx",)).run(debian)
    assert enabled() == ["nginx.service", "ssh.service"]


def test_units_of_users_stay_disabled_too(debian):
    enabled = with_also(debian)
    for name in ("nginx", "ssh"):
        debian.write(f"/usr/lib/systemd/user/{name}.service", "")
    Services(user_disable=("ssh",)).run(debian)
    Services(user_enable=("nginx",)).run(debian)
    assert enabled("user") == ["nginx.service"]
    Services(enable=("nginx",)).run(debian)
    assert enabled() == ["nginx.service", "ssh.service"]


def test_a_unit_that_is_not_what_the_recipe_says_is_an_error(debian):
    debian.captured["systemctl"] = "enabled\nenabled\n"
    with pytest.raises(StageError, match=r"nginx\.service is enabled, though .* in 'disable'"):
        Services(enable=("ssh",), disable=("nginx",)).run(debian)
    debian.captured["systemctl"] = "masked\ndisabled\n"
    with pytest.raises(StageError, match=r"ssh\.service is masked, though .* in 'enable'"):
        Services(enable=("ssh",), disable=("nginx",)).run(debian)
    debian.captured["systemctl"] = "static\ndisabled\n"
    Services(enable=("ssh",), disable=("nginx",)).run(debian)


def test_a_preset_may_leave_every_unit_disabled(debian, monkeypatch):
    asked = []

    def fail(argv, *, timeout=60.0):
        asked.append(argv)
        raise CommandFailed(argv, 1, [])

    monkeypatch.setattr(debian, "capture", fail)
    Services(preset=("ssh",), disable=("nginx",)).run(debian)
    assert [argv[1] for argv in asked] == ["is-enabled"]


def test_only_the_alias_of_a_package_is_masked_for_itself(debian):
    for name in ("reboot.target", "ctrl-alt-del.target"):
        debian.write(f"{LIB}/{name}", "[Install]\nAlias=ctrl-alt-del.target\n")
    debian.symlink(f"{LIB}/ctrl-alt-del.target", "reboot.target")
    debian.symlink(f"{LIB}/autovt@.service", "getty@.service")
    debian.symlink(f"{ETC}/sshd.service", f"{LIB}/ssh.service")
    Services(mask=("ctrl-alt-del.target", "autovt@tty2.service", "sshd")).run(debian)
    names = ("ctrl-alt-del.target", "autovt@tty2.service", "ssh.service")
    assert systemctl(debian) == [("mask", "--", *names)]


@pytest.mark.parametrize(
    "options",
    [
        {"timers": (Timer(name="backup", command=("x",), on_calendar="daily"),),
         "disable": ("backup.timer",)},
        {"preset": ("ssh",), "mask": ("ssh.service",)},
        {"preset": ("ssh.service",), "disable": ("ssh",)},
    ],
)  # fmt: skip
def test_a_timer_or_preset_of_a_disabled_unit_is_refused(options):
    with pytest.raises(Faults, match="cannot be enabled and also"):
        Services(**options)


@pytest.mark.parametrize("verb", ["disable", "mask"])
def test_two_names_of_one_unit_that_contradict_are_an_error_before_anything_changes(debian, verb):
    debian.symlink(f"{ETC}/sshd.service", f"{LIB}/ssh.service")
    with pytest.raises(StageError, match=r"ssh\.service: the stage enables"):
        Services(enable=("ssh",), **{verb: ("sshd",)}).run(debian)
    assert systemctl(debian) == []


@pytest.mark.parametrize(
    ("unit", "content", "message"),
    [
        ("nginx", "MemoryMax=1G", r"'\[Service\]' or '\[Unit\]' before 'MemoryMax=1G'"),
        ("a.timer", "# a comment\n\nOnCalendar=daily\n[Timer]\n", r"'\[Timer\]' .* 'OnCalendar"),
        ("nginx", "; nothing\n", r"before ''"),
    ],
)
def test_a_drop_in_begins_with_a_section(unit, content, message):
    with pytest.raises(Faults, match=message):
        DropIn(unit=unit, content=content)


def test_a_comment_may_stand_before_the_section_of_a_drop_in():
    content = "# a comment\n; another\n\n [Service]\nNice=1\n"
    assert DropIn(unit="nginx", content=content).content == content


def test_no_drop_in_replaces_another_one(debian):
    first = DropIn(unit="nginx", content="[Service]\nNice=1\n")
    other = DropIn(unit="nginx.service", content="[Service]\nNice=2\n")
    with pytest.raises(Faults, match="drop-in"):
        Services(drop_ins=(first, other))
    debian.symlink(f"{ETC}/www.service", f"{LIB}/nginx.service")
    with pytest.raises(StageError, match=r"there is a drop-in recipe\.conf"):
        alias = DropIn(unit="www", content="[Service]\nNice=2\n")
        Services(drop_ins=(first, alias)).run(debian)
    Services(drop_ins=(first,)).run(debian)
    Services(drop_ins=(first,)).run(debian)
    with pytest.raises(StageError, match=r"there is a drop-in recipe\.conf"):
        Services(drop_ins=(other,)).run(debian)
    assert debian.read(f"{ETC}/nginx.service.d/recipe.conf") == first.content


@pytest.mark.parametrize("there", [f"{LIB}/certbot.timer", f"{LIB}/certbot.service"])
def test_no_timer_replaces_a_unit(debian, there):
    debian.write(there, "of a package")
    timer = Timer(name="certbot", command=("/usr/bin/certbot",), on_calendar="daily")
    with pytest.raises(StageError, match=r"timer certbot: the image has a unit certbot\."):
        Services(timers=(timer,)).run(debian)
    assert not debian.exists(ETC)


def test_the_same_timer_can_be_written_again(debian):
    timer = Timer(name="backup", command=("/usr/bin/backup",), on_calendar="daily")
    for _ in range(2):
        Services(timers=(timer,), enable=("backup.timer",)).run(debian)
    assert debian.exists(f"{ETC}/backup.timer")


def test_the_files_of_timers_and_drop_ins_belong_to_the_stage():
    timer = Timer(name="backup", command=("true",), on_calendar="daily")
    stage = Services(timers=(timer,), drop_ins=(DropIn(unit="ssh", content="[Unit]"),))
    assert [path for path, _ in stage.rewrites()] == [
        f"{ETC}/backup.service", f"{ETC}/backup.timer", f"{ETC}/ssh.service.d/recipe.conf"
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["user-.slice", "system.slice", "srv.mount", "dev-sda1.swap"])
def test_a_drop_in_for_a_unit_that_needs_no_file(debian, unit):
    Services(drop_ins=(DropIn(unit=unit, content="[Unit]"),)).run(debian)
    assert debian.read(f"{ETC}/{unit}.d/recipe.conf") == "[Unit]"


@pytest.mark.parametrize(
    ("option", "directory"),
    [
        ("enable", "/usr/local/lib/systemd/system"),
        ("user_enable", "/usr/local/lib/systemd/user"),
        ("user_enable", "/usr/share/systemd/user"),
        ("user_enable", "/usr/local/share/systemd/user"),
    ],
)
def test_units_are_found_wherever_systemd_looks(debian, option, directory):
    debian.write(f"{directory}/own.service", "")
    Services(**{option: ("own",)}).run(debian)
    assert debian.commands[-1].argv[-1] == "own.service"


def test_a_service_with_a_dot_in_its_name_needs_no_type(debian):
    stage = decode(Services, {"enable": ["php8.2-fpm", "dbus-org.freedesktop.login1"]})
    for name in stage.enable:
        debian.write(f"{LIB}/{name}.service", "")
    stage.run(debian)
    names = ("php8.2-fpm.service", "dbus-org.freedesktop.login1.service")
    assert systemctl(debian)[-1] == ("enable", "--", *names)
    with pytest.raises(DecodeError):
        decode(Services, {"enable": ["ssh."]})


@pytest.mark.parametrize(
    "stage",
    [
        Services(linger=("bob",)),
        Services(timers=(Timer(name="a", command=("true",), on_calendar="daily", user="bob"),)),
    ],
)
def test_a_user_that_the_image_lacks_is_reported(debian, stage):
    with pytest.raises(StageError, match="there is no user bob in the image"):
        stage.run(debian)
    assert not debian.exists("/var/lib/systemd/linger")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("backup.sh --all", "the name of one program"),
        ("cd", "a word of shells"),
        ("bin/backup", "no absolute path"),
        ("A=b", "begin with 'env'"),
    ],
)
def test_a_command_that_systemd_cannot_run_is_refused(program, message):
    with pytest.raises(Faults, match=message) as raised:
        Timer(name="a", command=(program, "x"), on_calendar="daily")
    assert raised.value.found[0][0] == ("command", 0)


def test_an_image_without_systemd_is_reported(target):
    with pytest.raises(StageError, match="no systemctl") as raised:
        Services(enable=("ssh.service",)).run(target)
    assert "systemd-sysv" in raised.value.hint


def test_a_file_in_the_place_of_a_mask_is_reported(debian):
    debian.write(f"{ETC}/own.service", "")
    with pytest.raises(StageError, match=r"own\.service cannot be masked.*/etc/systemd/system"):
        Services(mask=("own",)).run(debian)
    assert systemctl(debian) == []
