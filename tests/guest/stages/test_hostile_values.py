"""Values that would do harm in a shell are refused, or stay exactly one argument."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from particle_agent.contract.decode import DecodeError, decode
from particle_agent.errors import StageError
from particle_agent.stages.accounts.groups import Groups
from particle_agent.stages.accounts.users import NO_HOME, Users
from particle_agent.stages.contents.files import Files
from particle_agent.stages.settings.hostname import Hostname
from particle_agent.stages.settings.keyboard import Keyboard
from particle_agent.stages.settings.locale import BUILT_IN, COMPILED, SOURCES, Locale
from particle_agent.stages.settings.network import Network
from particle_agent.stages.settings.services import Services
from particle_agent.stages.settings.timezone import Timezone
from particle_agent.stages.software.apt import Apt

PIECES = [" ", "'", '"', ";", "$(id)", "`id`", "\n", "\r", "\0", "-", "--", "-oX=y", "|", "&",
          ">", "../", "/", "*", "~", "\\", ":", ",", "=", "#", "é", "root", "a", "+"]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join) | st.text(
    min_size=1, max_size=20
)
PLAUSIBLE = ["libstdc++6", "g++:amd64", "curl=8.0-1~bpo", "_apt", "de_DE@euro", "Etc/GMT+1",
             "/bin/a b", "/srv/x.y", "$y$j9T$x./",
             "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f "
             "a b; $(id)"]  # fmt: skip
NEVER_ACCEPTED = [
    "a b", "a'b", 'a"b', "a;b", "$(id)", "`id`", "a\nb", "ab\n", "-rf", "--help", "a|b", "a&b",
    "a>b", "a\\b", "a*b", "a\0b", "..", "../../etc/passwd", "", "a,b",
]  # fmt: skip


def accepted(kind, value):
    try:
        return decode(kind, value)
    except DecodeError:
        return None


def one_user(**options):
    return {"users": [{"name": "admin", **options}]}


def one_timer(**options):
    return {"name": "report", "command": ["/bin/true"], "on-calendar": "daily", **options}


def one_interface(**options):
    return {"interfaces": [{"match": ["en*"], **options}]}


# The places that take free text: the stage, its options, and a harmless value.
PLACES = {
    "package": (Apt, lambda text: {"packages": [text]}, "curl"),
    "locale": (Locale, lambda text: {"default": text}, "eo_XX"),
    "zone": (Timezone, lambda text: {"zone": text}, "Europe/Berlin"),
    "user": (Users, lambda text: {"users": [{"name": text}]}, "someone"),
    "group": (Users, lambda text: one_user(groups=[text]), "sudo"),
    "new group": (Groups, lambda text: {"groups": [{"name": text}]}, "web"),
    "shell": (Users, lambda text: one_user(shell=text), "/bin/fish"),
    "home": (Users, lambda text: one_user(home=text), "/srv/home"),
    "password": (Users, lambda text: one_user(**{"password-hash": text}), "$6$salt$hash"),
    "hostname": (Hostname, lambda text: {"hostname": text}, "web1"),
    "model": (Keyboard, lambda text: {"layout": "de", "model": text}, "pc105"),
    "xkb option": (Keyboard, lambda text: {"layout": "de", "options": [text]}, "a:b"),
    "search domain": (Network, lambda text: one_interface(**{"search-domains": [text]}), "a.org"),
    "name server": (Network, lambda text: one_interface(dns=[text]), "192.0.2.1"),
    "unit": (Services, lambda text: {"enable": [text]}, "ssh.service"),
    "linger": (Services, lambda text: {"linger": [text]}, "root"),
    "timer's user": (Services, lambda text: {"timers": [one_timer(user=text)]}, "root"),
    "timer's name": (Services, lambda text: {"timers": [one_timer(name=text)]}, "report"),
    "drop-in": (
        Services,
        lambda text: {
            "drop-ins": [{"unit": "systemd-networkd", "name": text, "content": "[Unit]"}]
        },
        "recipe",
    ),
    "owner": (
        Files,
        lambda text: {"files": [{"path": "/x", "content": "", "owner": text}]},
        "root",
    ),
    "primary group": (Users, lambda text: one_user(group=text), "Debian-exim"),
    "path": (Files, lambda text: {"files": [{"path": text, "content": ""}]}, "/srv/x"),
    "mode": (Files, lambda text: {"files": [{"path": "/x", "content": "", "mode": text}]}, "0644"),
    "key": (
        Users,
        lambda text: one_user(**{"ssh-authorized-keys": [text]}),
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAEAABAgMEBQYHCAkKCwwNDg8=",
    ),
}
NEVER_ARGUMENTS = ("zone", "password", "key")


def arguments_of(place, text):
    """The arguments that may contain the value `text`."""
    if place == "home" and text == NO_HOME:
        return {text, "--no-create-home"}
    if place == "timer's name":
        return {f"{text}.timer"}
    if place != "locale":
        return {text}
    return {source_of(text), f"{COMPILED}/{text}", f"{COMPILED}/unfinished-{text}"}


def source_of(locale):
    language, *variant = locale.partition("@")
    return language.partition(".")[0] + "".join(variant)


def stage_with(place, text):
    """The stage with `text` in `place`; None when decoding refuses the text."""
    kind, options, _ = PLACES[place]
    return accepted(kind, options(text))


def prepared(target, text):
    """A target that has everything that `text` may name."""
    target.write("/usr/bin/apt-get", "")
    target.write("/usr/share/i18n/SUPPORTED", f"{text} UTF-8\n")
    if stage_with("locale", text):
        target.write(f"{SOURCES}/{source_of(text)}", "")
    target.when("localedef", lambda c: target.make_directory(c.argv[-1]))
    target.write("/bin/systemctl", "")
    target.write("/usr/lib/systemd/system/systemd-networkd.service", "")
    if stage_with("unit", text):
        target.write(f"/etc/systemd/system/{text}", "")
    if stage_with("zone", text):
        target.write(f"/usr/share/zoneinfo/{text}", "TZif")
    target.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    target.write("/etc/group", f"{text}:x:100:\n")
    if text.startswith("/") and not target.exists(text):
        target.write(text, "")

    def useradd(command):
        target.write("/etc/passwd", f"{command.argv[-1]}:x:1000:1000::/home/admin:/bin/sh\n")

    target.when("useradd", useradd)
    return target


# These users exist already and these locales are built in, so the stage runs fewer commands.
WITHOUT_COMMANDS = {"root", "admin", *BUILT_IN}


def commands_of(make_target, place, text):
    """The commands of the stage with `text`; None when the text is refused or names nothing."""
    stage = stage_with(place, text)
    if stage is None:
        return None
    target = prepared(make_target(), text)
    try:
        stage.run(target)
    except StageError:
        return None
    return [command.argv for command in target.commands]


@pytest.mark.parametrize("place", PLACES)
def test_an_accepted_value_is_one_argument_at_most(make_target, place):
    expected = commands_of(make_target, place, PLACES[place][2])
    assert expected is not None

    @settings(max_examples=60)
    @given(text=HOSTILE | st.sampled_from(PLAUSIBLE))
    def check(text):
        commands = commands_of(make_target, place, text)
        if commands is None or text in WITHOUT_COMMANDS:
            return
        assert len(commands) == len(expected)
        for argv, usual in zip(commands, expected, strict=True):
            assert len(argv) == len(usual)
            changed = [a for a, u in zip(argv, usual, strict=True) if a != u]
            assert set(changed) <= arguments_of(place, text)
            assert not (changed and place in NEVER_ARGUMENTS)

    check()


@pytest.mark.parametrize("text", NEVER_ACCEPTED)
def test_these_are_never_names(text):
    assert [place for place in PLACES if stage_with(place, text) is not None] == []


@given(text=HOSTILE)
def test_no_accepted_value_is_an_option_or_breaks_a_line(text):
    for place in PLACES:
        if stage_with(place, text) is not None:
            assert not text.startswith("-"), place
            assert not set(text) & set("\n\r\0"), place


def test_names_come_after_the_end_of_options(make_target):
    (argv,) = [a for a in commands_of(make_target, "package", "curl") if "install" in a]
    assert argv[-2:] == ("--", "curl")
    (argv,) = commands_of(make_target, "user", "someone")
    assert argv[-2:] == ("--", "someone")
