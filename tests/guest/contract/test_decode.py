import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from particle_agent.contract.decode import DecodeError, decode, decode_any, encode
from particle_agent.stages import ALL_STAGES
from particle_agent.stages.accounts.groups import Group, Groups
from particle_agent.stages.accounts.users import User, Users
from particle_agent.stages.contents.cleanup import Cleanup
from particle_agent.stages.contents.files import Directory, File, Files, Link
from particle_agent.stages.contents.run import Run
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.hostname import Hostname
from particle_agent.stages.settings.keyboard import Keyboard
from particle_agent.stages.settings.locale import Locale
from particle_agent.stages.settings.network import Interface, Network
from particle_agent.stages.settings.services import Services
from particle_agent.stages.settings.timezone import Timezone
from particle_agent.stages.software.apt import Answer, Apt, Pin
from particle_agent.stages.software.kernel import Kernel
from particle_agent.stages.software.sources import Repository, Sources

STAGES = [
    Apt(packages=("curl", "g++"), recommends=True),
    Apt(
        debs=("sha256:0",),
        target_release="trixie-backports",
        remove=("vim",),
        hold=("curl",),
        pins=(Pin(package="linux-*", pin="release a=x", priority=-1),),
        debconf=(Answer(package="a1", question="a/b", type="string", value="c d"),),
    ),
    Sources(
        repositories=(
            Repository(name="a", mirrors=("http://m.example/{date}",), suites=("s",)),
            Repository(name="b", mirrors=("http://m.example",), suites=("./",), key_file="x"),
        ),
        snapshot="20260101T000000Z",
    ),
    Locale(default="en_US.UTF-8", generate=("de_DE",)),
    Timezone(zone="Europe/Berlin"),
    Keyboard(layout="us,ru", variant=",phonetic", options=("grp:alt_shift_toggle",)),
    Users(users=(User(name="a", uid=5, groups=("sudo",), password_hash="*"), User(name="b"))),
    Network(interfaces=(Interface(match=("en*",), addresses=("192.0.2.2/24",), dhcp="no"),)),
    Kernel(command_line=("quiet",), modules=("loop",), initramfs="list", compression="xz"),
    Cleanup(keep_languages=("de", "pt_BR"), later=True),
    Hostname(hostname="web1"),
    Users(users=(User(name="a", system=True, comment="A B", password="locked", lock=False),)),
    Groups(groups=(Group(name="web", gid=300, members=("root",), system=True), Group(name="b"))),
    Files(
        directories=(Directory(path="/srv", mode="0750", group="adm"),),
        files=(File(path="/etc/motd", content="a\nb"),),
        links=(Link(path="/x", to="../y"),),
    ),
    Services(enable=("ssh.service",), mask=("a.timer",)),
    Run(command=("sh", "-c", "true\n"), timeout=5),
    Run(script="true\n", environment={"A": "b c", "_x": ""}, in_="helper"),
    Qemu(formats=("raw", "qcow2"), size="4G"),
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.type)
def test_a_stage_comes_back_as_it_went(stage):
    assert decode_any(ALL_STAGES, encode(stage)) == stage


def test_keys_are_spelled_as_in_recipes():
    assert "password-hash" in encode(User(name="a"))


@pytest.mark.parametrize(
    ("kind", "value", "where"),
    [
        (Apt, {"pakages": []}, "unknown key 'pakages'"),
        (Apt, {"packages": ["ok", "NOT OK"]}, r"value\.packages\[1\]"),
        (Apt, {"packages": "curl"}, r"value\.packages: expected a list"),
        (Apt, {"update": "yes"}, r"value\.update: expected bool"),
        (Apt, {"update": 1}, r"value\.update"),
        (Locale, {}, "default"),
        (Timezone, {"zone": None}, r"value\.zone"),
        (Users, {"users": [{"name": "a", "uid": -1}]}, r"value\.users\[0\]\.uid"),
        (Users, {"users": [{"name": "a", "uid": True}]}, r"value\.users\[0\]\.uid"),
        (Users, {"users": [{"nam": "a"}]}, r"value\.users\[0\]: unknown key 'nam'"),
        (Users, {"users": [["name", "a"]]}, r"value\.users\[0\]: expected an object"),
        (Run, {}, "give one of 'command', 'script' and 'script-file'"),
        (Run, {"script": "", "in": "target"}, r"value\.script"),
        (Run, {"script": "x", "in": "host"}, r"value\.in"),
        (Run, {"script": "x", "environment": {"A B": "c"}}, r"value\.environment: not accepted"),
        (Run, {"script": "x", "environment": {"A": 1}}, r"value\.environment\.A: expected str"),
        (Run, {"script": "x", "environment": ["A"]}, r"value\.environment: expected an object"),
        (Qemu, {"formats": []}, r"value\.formats"),
        (Qemu, {"formats": ["iso"]}, r"value\.formats\[0\]"),
        (Qemu, {"size": "4G; id"}, r"value\.size"),
        (Qemu, {"type": "apt"}, r"value\.type"),
        (Qemu, [], "expected an object"),
    ],
)
def test_what_is_wrong_is_named(kind, value, where):
    with pytest.raises(DecodeError, match=where):
        decode(kind, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(value=JSON, kind=st.sampled_from([stage.type for stage in ALL_STAGES]))
def test_no_json_does_anything_but_decode_or_be_refused(value, kind):
    if isinstance(value, dict):
        value["type"] = kind
    try:
        found = decode_any(ALL_STAGES, value)
    except DecodeError as refused:
        found = refused
    assert isinstance(found, (*ALL_STAGES, DecodeError))


@dataclass(frozen=True)
class Timed:
    seconds: float
    count: int = 0


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_a_number_that_no_result_can_hold_is_refused(number):
    with pytest.raises(DecodeError, match="finite"):
        decode(Timed, json.loads(f'{{"seconds": {number}}}'))
    assert decode(Timed, {"seconds": 1}).seconds == 1.0


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63), 10**400])
def test_an_integer_that_others_cannot_read_is_refused(number):
    with pytest.raises(DecodeError, match="too large"):
        decode(Timed, {"seconds": 1, "count": number})
