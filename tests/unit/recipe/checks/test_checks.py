import re
from pathlib import Path
from typing import get_args

import pytest
from particle_os.boot import probe
from particle_os.boot.observation.verdict import BootStatus
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.recipe.checks.base import Reply
from particle_os.recipe.checks.contents import CommandCheck, FileCheck, PackageCheck, UserCheck
from particle_os.recipe.checks.kinds import KINDS
from particle_os.recipe.checks.network import HttpCheck, PortCheck
from particle_os.recipe.checks.ostree import ExpectedVersion, OstreeCheck
from particle_os.recipe.checks.system import (
    BootTimeCheck,
    KernelArgumentCheck,
    LocaleCheck,
    MemoryCheck,
    MountCheck,
    TimezoneCheck,
    UnitCheck,
)
from particle_os.recipe.model import BootTest

LISTEN = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1\n"
CONNECTED = LISTEN.replace("00000000:0000 0A", "0202000A:D3B2 01")
PASSWD = "admin:x:1000:1000:Admin:/home/admin:/bin/bash\n"
BERLIN = "/usr/share/zoneinfo/Europe/Berlin"
MOUNTS = "/dev/vda1 / ext4 rw,relatime 0 0\ntmpfs /run tmpfs rw,nosuid 0 0\n"


@pytest.mark.parametrize(
    ("check", "outputs", "detail"),
    [
        (CommandCheck(command=("x",), exit=2), [(1, "")], "it ended with 1, not 2: no output"),
        (FileCheck(file="/x", mode="0600"), ["644 root root"], "its mode is 644, not 0600"),
        (FileCheck(file="/x", owner="a"), ["644 root root"], "its owner is root, not a"),
        (PackageCheck(package="x", version="2"), ["installed 1"], "its version is 1, not 2"),
        (
            UserCheck(user="admin", shell="/bin/zsh"),
            [PASSWD, ""],
            "its shell is /bin/bash, not /bin/zsh",
        ),
        (MountCheck(mount="/", type="xfs"), [MOUNTS], "it is ext4 with rw,relatime, not xfs"),
        (
            MountCheck(mount="/", options=("ro",)),
            [MOUNTS],
            "it is ext4 with rw,relatime, without ro",
        ),
        (KernelArgumentCheck(kernel_argument="ro"), ["rw quiet"], "not among: rw quiet"),
        (BootTimeCheck(systemd_analyze=3), ["4500000"], "4.5 s, more than 3 s"),
    ],
)
def test_a_failure_says_what_is_there_and_what_was_wanted(check, outputs, detail):
    replies = [Reply(0, o) if isinstance(o, str) else Reply(*o) for o in outputs]
    assert check.judge(replies).detail == detail


@pytest.mark.parametrize(
    ("check", "outputs", "holds"),
    [
        (UnitCheck(unit="a.service"), ["active\n"], True),
        (UnitCheck(unit="a.service"), [(3, "inactive")], False),
        (UnitCheck(unit="a.service"), [(3, "activating")], False),
        (UnitCheck(unit="a.service"), [(-1, "")], False),
        (CommandCheck(command=("x",)), ["whatever"], True),
        (CommandCheck(command=("x",)), [(1, "")], False),
        (CommandCheck(command=("x",), exit=1), [(1, "")], True),
        (CommandCheck(command=("x",), exit=1), [(-1, "")], False),
        (CommandCheck(command=("x",), contains="b.d"), ["a b.d e"], True),
        (CommandCheck(command=("x",), contains="b.d"), ["a bcd e"], False),
        (CommandCheck(command=("x",), matches="b.d"), ["a bcd e"], True),
        (CommandCheck(command=("x",), matches="^o.t$"), ["out\n"], True),
        (CommandCheck(command=("x",), matches="^b"), ["a b"], False),
        (CommandCheck(command=("x",), matches="(?m)^b"), ["a\nb"], True),
        (CommandCheck(command=("x",), matches=r"^a\nb$"), ["a\nb"], True),
        (FileCheck(file="/x"), ["644 root root"], True),
        (FileCheck(file="/x"), [(1, "stat: cannot stat")], False),
        (FileCheck(file="/x", exists=False), [(1, "stat: cannot stat")], True),
        (FileCheck(file="/x", exists=False), ["644 root root"], False),
        (FileCheck(file="/x", mode="0644"), ["644 root root"], True),
        (FileCheck(file="/x", mode="2775"), ["775 root root"], False),
        (FileCheck(file="/x", owner="root"), ["644 admin root"], False),
        (FileCheck(file="/x", group="adm"), ["644 root adm"], True),
        (FileCheck(file="/x", contains="b"), ["644 root root", "abc"], True),
        (FileCheck(file="/x", contains="b"), ["644 root root", "xyz"], False),
        (FileCheck(file="/x", contains="b"), ["644 root root", (1, "b: Permission")], False),
        (PackageCheck(package="a"), ["installed 1.2-3"], True),
        (PackageCheck(package="a", version="1.2-3"), ["installed 1.2-3"], True),
        (PackageCheck(package="a", version="1.2"), ["installed 1.2-3"], False),
        (PackageCheck(package="a"), ["config-files 1.2-3"], False),
        (PackageCheck(package="a"), [(1, "no packages found")], False),
        (UserCheck(user="admin"), [PASSWD, "admin adm\n"], True),
        (UserCheck(user="admin", groups=("adm",)), [PASSWD, "admin adm\n"], True),
        (UserCheck(user="admin", groups=("sudo",)), [PASSWD, "admin adm\n"], False),
        (UserCheck(user="admin", shell="/bin/sh"), [PASSWD, "admin"], False),
        (UserCheck(user="admin"), [(2, ""), (1, "no such user")], False),
        (PortCheck(port=22), [LISTEN, ""], True),
        (PortCheck(port=22), ["", LISTEN.replace("00000000:0016", "0" * 32 + ":0016")], True),
        (PortCheck(port=23), [LISTEN, ""], False),
        (PortCheck(port=22), [CONNECTED, ""], False),
        (PortCheck(port=22, protocol="udp"), [LISTEN.replace(" 0A ", " 07 "), ""], True),
        (MountCheck(mount="/"), [MOUNTS], True),
        (MountCheck(mount="/", type="ext4", options=("rw",)), [MOUNTS], True),
        (MountCheck(mount="/", type="xfs"), [MOUNTS], False),
        (MountCheck(mount="/", options=("ro",)), [MOUNTS], False),
        (MountCheck(mount="/srv"), [MOUNTS], False),
        (MountCheck(mount="/a b\\c"), [MOUNTS.replace("/run", r"/a\040b\134c")], True),
        (MountCheck(mount="/a:\u2028"), [MOUNTS.replace("/run", "/a:\u2028")], True),
        (KernelArgumentCheck(kernel_argument="quiet"), ["root=x quiet\n"], True),
        (KernelArgumentCheck(kernel_argument="quiet"), ["root=x notquiet\n"], False),
        (TimezoneCheck(timezone="Europe/Berlin"), [f"f {BERLIN}", ""], True),
        (TimezoneCheck(timezone="Europe/Berlin"), [f"f ..{BERLIN}", ""], True),
        (TimezoneCheck(timezone="Europe/Berlin"), [f"N {BERLIN}", (2, "")], False),
        (TimezoneCheck(timezone="Asia/Tokyo"), [f"f {BERLIN}", ""], False),
        (TimezoneCheck(timezone="Europe/Berlin"), ["f ", ""], True),
        (TimezoneCheck(timezone="Europe/Berlin"), ["f ", (1, "differ")], False),
        (TimezoneCheck(timezone="Europe/Berlin"), ["f /etc/my-zone", (1, "differ")], False),
        (TimezoneCheck(timezone="Europe/Berlin"), ["", (2, "no such file")], False),
        (TimezoneCheck(timezone="UTC"), ["f /usr/share/zoneinfo/Etc/UTC", ""], True),
        (TimezoneCheck(timezone="UTC"), ["N /usr/share/zoneinfo/Etc/UTC", (2, "")], True),
        (TimezoneCheck(timezone="UTC"), ["f ", (1, "differ")], False),
        (TimezoneCheck(timezone="UTC"), ["f ", (2, "no such file")], False),
        (TimezoneCheck(timezone="UTC"), ["f /etc/my-zone", (1, "differ")], False),
        (TimezoneCheck(timezone="Etc/UTC"), ["", (2, "no such file")], True),
        (TimezoneCheck(timezone="Etc/UTC"), [(127, "no find"), (127, "")], False),
        (LocaleCheck(locale="de_DE.UTF-8"), ["LANG=de_DE.UTF-8\n", "C\nde_DE.utf8\n"], True),
        (LocaleCheck(locale="de_DE.UTF-8"), ['LANG="de_DE.UTF-8"\n', "C\n"], False),
        (LocaleCheck(locale="de_DE.UTF-8"), ["LANG=C.UTF-8\n", "C\nde_DE.utf8\n"], False),
        (BootTimeCheck(systemd_analyze=30), ["29500000\n"], True),
        (BootTimeCheck(systemd_analyze=30), ["30500000\n"], False),
        (BootTimeCheck(systemd_analyze=30), ["0\n"], False),
        (BootTimeCheck(systemd_analyze=30), ["9" * 5000], False),
    ],
)  # fmt: skip
def test_replies_are_judged(check, outputs, holds):
    replies = [Reply(0, each) if isinstance(each, str) else Reply(*each) for each in outputs]
    assert len(replies) == len(check.asks()) or replies[0].status != 0
    replies += [Reply(-1, "")] * (len(check.asks()) - len(replies))
    assert check.judge(replies).holds is holds


def test_a_finding_says_what_was_found():
    assert (
        "'b' is not in: xyz"
        in CommandCheck(command=("x",), contains="b").judge([Reply(0, "xyz")]).detail
    )


STATUS = (
    f"  debian {'b' * 64}.0 (pending)\n    Version: 3\n    origin refspec: origin:other\n"
    f"* debian {'a' * 64}.0\n    Version: 2\n    origin refspec: origin:debian/edge\n"
    '      Good signature from "Edge <edge@example.org>"\n'
    f"  debian {'c' * 64}.0 (rollback)\n    Version: 1\n    origin refspec: origin:debian/edge\n"
)


@pytest.mark.parametrize(
    ("expected", "status", "state", "detail"),
    [
        ({}, STATUS, "", f"2, commit {'a' * 64}"),
        ({"ref": "debian/edge", "version": "2", "signed": True}, STATUS, "",
         f"2, commit {'a' * 64}"),
        ({"ref": "debian/desk"}, STATUS, "", "the machine follows debian/edge"),
        ({"version": "1"}, STATUS, "", "the version is 2"),
        ({"commit": "b" * 64}, STATUS, "", f"the commit is {'a' * 64}, not {'b' * 64}"),
        ({"signed": True}, STATUS.replace("Good", "Bad"), "", "the commit has no good signature"),
        # The signature of another version is no signature of this one.
        ({"signed": True}, STATUS.replace("      Good", "  debian x.0\n      Good"), "",
         "the commit has no good signature"),
        ({}, STATUS, "/usr is writable\nthere is no machine ID\n",
         "/usr is writable; there is no machine ID"),
        ({}, STATUS.replace("*", " "), "", "no version of OSTree runs: "),
        ({}, "", "", "no version of OSTree runs: "),
        ({"ref": "x"}, f"* debian {'a' * 64}.0\n", "", "the machine follows nothing"),
    ],
)  # fmt: skip
def test_the_version_of_an_ostree_system_is_judged(expected, status, state, detail):
    check = OstreeCheck(ostree=ExpectedVersion(**expected))
    found = check.judge([Reply(0, status), Reply(0, state)])
    assert found.detail.startswith(detail)
    assert found.holds is (detail == f"2, commit {'a' * 64}")


@pytest.mark.parametrize(
    ("given", "commit"),
    [({}, "b"), ({"booted": False}, None), ({"commit": "c" * 64}, "c"), ({"booted": True}, "b")],
)
def test_in_a_build_its_commit_must_run(given, commit):
    check = OstreeCheck(ostree=ExpectedVersion(**given))
    test = BootTest(checks=(check, UnitCheck(unit="ssh.service")))
    (found, unit) = test.checks_of_build("b" * 64)
    assert found.ostree.commit == (commit and commit * 64)
    assert unit == UnitCheck(unit="ssh.service")
    assert test.checks_of_build(None) == test.checks


def test_a_state_that_cannot_be_examined_is_no_good_state():
    check = OstreeCheck(ostree=ExpectedVersion())
    assert not check.judge([Reply(0, STATUS), Reply(None, "")]).holds


@pytest.mark.parametrize("status", [124, 137])
def test_a_status_of_its_own_is_no_lateness(status):
    check = CommandCheck(command=("x",), timeout=7)
    assert check.judge([Reply(status, "")]).detail == f"it ended with {status}, not 0: no output"
    assert check.judge([Reply(None, "")]).detail == "it took longer than 7 s: no output"
    meant = CommandCheck(command=("x",), timeout=7, exit=status)
    assert meant.judge([Reply(status, "")]).holds
    assert not meant.judge([Reply(None, "")]).holds


def test_an_expression_takes_linear_time():
    check = CommandCheck(command=("x",), matches="(a*)*b")
    assert not check.judge([Reply(0, "a" * 65536)]).holds


def test_a_response_is_judged():
    check = HttpCheck(http="/", status=404, contains="gone")
    assert check.judge_response(404, "it is gone").holds
    assert not check.judge_response(200, "it is gone").holds
    assert not check.judge_response(404, "it is here").holds


def test_the_host_reaches_no_port_of_udp():
    with pytest.raises(ValueError, match="port 53: 'reachable' is for TCP only"):
        PortCheck(port=53, protocol="udp", reachable=True)
    assert PortCheck(port=53, protocol="udp").name == "port 53/udp"


def test_nothing_the_recipe_says_becomes_an_option_or_a_path_of_its_own():
    for check in (
        UnitCheck(unit="a.service"),
        FileCheck(file="/x", contains="x"),
        PackageCheck(package="a"),
        UserCheck(user="u"),
    ):
        for argv in check.asks():
            assert "--" in argv


ONE_OF_EACH = """\
checks:
  - unit: ssh.service
  - command: [id, -u]
    exit: 0
    contains: "0"
    matches: "^0$"
    timeout: 10
  - file: /etc/motd
    mode: "0644"
  - package: systemd
  - user: admin
  - http: /health?full=1
    port: 8080
  - port: 22
    reachable: true
  - mount: /
  - kernel-argument: console=ttyS0
  - timezone: Europe/Berlin
  - locale: en_US.UTF-8
  - systemd-analyze: 30
  - reboot: true
  - ostree: {ref: debian/edge}
  - memory: 512M
"""


def test_a_file_of_checks_is_as_in_a_recipe(tmp_path):
    path = tmp_path / "checks.yml"
    path.write_text(ONE_OF_EACH)
    checks = loading.load_boot_test(path)[0].checks
    assert {type(check) for check in checks} == set(KINDS)
    assert MemoryCheck(memory="512M").bytes == 512 << 20
    assert [c for c in checks if isinstance(c, HttpCheck)] == [
        HttpCheck(http="/health?full=1", port=8080)
    ]
    text = (
        "name: x\nbase-image: tar:x.tar\nstages: [{type: qemu, boot-loader: grub, "
        "installer: bootc, bootc: {target-imgref: example.org/edge}}]\nboot-test:\n  "
        + ONE_OF_EACH.replace("\n", "\n  ")
    )
    whole = tmp_path / "x.yml"
    whole.write_text(text)
    assert loading.load(whole).recipe.boot_test.checks == checks


@pytest.mark.parametrize(
    "check",
    [
        "user: Debian-exim", "user: first.last", "user: host1$", "user: 2nd", "user: jörg",
        "file: '/var/lib/dpkg/info/libc6:amd64.list'", "file: /run/secrets/..data", "file: /...",
        "{file: /x, owner: Debian-exim, group: first.last}", "{user: x, groups: [Debian-exim]}",
        "mount: '/mnt/a:b'", "mount: /", "unit: '-.mount'", "unit: '-.slice'",
        "kernel-argument: root=LABEL=ü", "{mount: /, options: [subvol=/ü]}",
    ],
)  # fmt: skip
def test_what_may_be_in_an_image_can_be_asked_for(tmp_path, check):
    path = tmp_path / "checks.yml"
    path.write_text(f"checks:\n- {check}\n")
    (check,) = loading.load_boot_test(path)[0].checks
    assert probe.credentials("0" * 32, [check])


@pytest.mark.parametrize(
    "check",
    [
        'user: "a\\nb"', 'user: "a\\0"', "user: a b", "user: a:b", "user: ''",
        # getent(1) and id(1) take these for ids.
        "user: '1000'", "user: '+1000'", "user: '-1'",
        'file: "/a\\nb"', 'file: "/a\\0"', "file: /a/../b", "file: /..", "file: /a/.", "file: /a/",
        "file: //a", 'mount: "/a\\eb"', 'unit: "-\\n.mount"', "unit: -h",
        'kernel-argument: "a\\nb"', "kernel-argument: a b",
    ],
)  # fmt: skip
def test_what_no_system_has_is_refused(tmp_path, check):
    path = tmp_path / "checks.yml"
    path.write_text(f"checks:\n- {check}\n")
    with pytest.raises(InvalidDocument):
        loading.load_boot_test(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- unti: x.service", "2:3: checks[0]: expected a check, with one of the keys 'unit'"),
        ("- ssh", "2:3: checks[0]: expected a check"),
        ("- command: [x]\n  exitt: 0", "3:3: unknown key 'exitt' (did you mean 'exit'?)"),
        ("- command: []", "2:12: command: at least one item is needed"),
        ("- command: [x]\n  matches: '(?=x)'", "3:12: matches: expected a regular expression"),
        ("- command: [x]\n  matches: '['", "3:12: matches: expected a regular expression"),
        ("- port: 65536", "2:9: port: "),
        ("- file: etc/passwd", "2:9: file: expected an absolute path"),
        ("- reboot: false", "2:11: reboot: expected true"),
        ("- memory: 512", "2:11: memory: expected a size in M or G"),
        ("- unit: ssh.service\n  port: 22", "3:3: unknown key 'port'"),
    ],
)
def test_what_is_wrong_with_a_check_is_reported_with_its_place(tmp_path, text, problem):
    path = tmp_path / "checks.yml"
    path.write_text(f"checks:\n{text}\n")
    with pytest.raises(InvalidDocument) as raised:
        loading.load_boot_test(path)
    assert f"{path}:{problem}" in "\n".join(map(str, raised.value.problems))


def test_the_example_of_the_guide_is_valid_and_has_one_check_of_each_kind(tmp_path):
    guide = (Path(__file__).parents[4] / "docs/boot-test.md").read_text()
    examples = re.findall(r"^```yaml\n(.*?)^```$", guide, re.M | re.S)
    (example,) = (text for text in examples if "checks:" in text)
    path = tmp_path / "checks.yml"
    path.write_text(example)
    wanted, _ = loading.load_boot_test(path)
    assert wanted.firmware == ("bios", "uefi")
    assert {type(check) for check in wanted.checks} == set(KINDS)


def test_every_verdict_is_explained():
    page = (Path(__file__).parents[4] / "docs/troubleshooting.md").read_text()
    explained = re.findall(r"^\| `([a-z-]+)` \|", page, re.M)
    assert sorted(set(explained) & set(get_args(BootStatus))) == sorted(get_args(BootStatus))


LONG = "{command: [echo, '" + 9000 * "x" + "']}"


@pytest.mark.parametrize("within_recipe", [True, False])
def test_checks_that_are_too_long_for_an_image_are_reported_before_it_is_built(
    tmp_path, within_recipe
):
    path = tmp_path / "x.yml"
    lines = ["checks:", "- unit: a.service", *(f"- {LONG}" for _ in range(3))]
    # The wrong size must not hide the problem.
    above = ["name: x", "stages: [{type: qemu, size: 1X}]", "boot-test:"]
    if within_recipe:
        lines = [*above, *(f"  {line}" for line in lines)]
    path.write_text("\n".join(lines))
    with pytest.raises(InvalidDocument) as raised:
        (loading.load if within_recipe else loading.load_boot_test)(path)
    problem = raised.value.problems[-1]
    assert (problem.line, problem.column) == ((8, 5) if within_recipe else (5, 3))
    assert "passed to an image" in problem.message
    assert "script" in problem.hint
    assert len(raised.value.problems) == 1 + within_recipe
