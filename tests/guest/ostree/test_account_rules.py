"""The rules of sysusers.d(5) for the accounts of the system."""

import shutil
import subprocess

import pytest
from particle_agent.errors import StageError
from particle_agent.ostree import account_rules
from particle_agent.ostree.account_rules import ALWAYS, RULES

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
toor:x:0:0:another root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
quotes:x:101:101:A "quoted" \\ name 100% %m,room 7:/var/lib/quotes:/usr/sbin/nologin
bare:x:102:1:::
nogroup:x:103:4000::relative/home:sh
taken:x:104:4001::/var/lib/with blank:/bin/sh -c evil
people:x:105:1000::/var/lib/../../etc:/bin/bash
ends:x:106:1:backslash\\:/:/bin/sh
Debian-exim:x:107:107:ä:/var/spool/exim4:/usr/sbin/nologin
sixteen:x:65535:1::/:
dot.ted:x:108:1::/:
sp ace:x:109:1::/:
%m:x:110:1::/:
return:x:111:1:x\ru evil 0:0 "" / /bin/sh:/:/bin/sh
#off:x:112:1::/:
-option:x:113:1::/:
+::::::
ann:x:1000:1000:Ann:/home/ann:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
short
"""
GROUP = """\
root:x:0:
daemon:x:1:daemon,ann,toor,gone,dot.ted,bare
also:x:1:quotes
quotes:x:101:
Debian-exim:x:107:
taken:x:200:
ann:x:1000:daemon
others:x:1001:daemon
nogroup:x:65534:
+:::
"""


@pytest.fixture
def written(target):
    """A function that writes the rules for two databases, and returns their lines."""

    def written(passwd=PASSWD, group=GROUP):
        target.write("/etc/passwd", passwd)
        target.write("/etc/group", group)
        account_rules.write(target)
        return target.read(RULES).splitlines()

    return written


def test_accounts_keep_their_ids_on_each_machine(written):
    """People, and what systemd-sysusers(8) cannot have, stay in /etc alone."""
    assert written() == [
        "g root 0",
        "g daemon 1",
        "g quotes 101",
        "g Debian-exim 107",
        "g taken 200",
        "g ann 1000",
        "g nogroup 65534",
        "g group4000 4000",
        "g group4001 4001",
        'u root 0:root "root" /root /bin/bash',
        'u daemon 1:daemon "daemon" /usr/sbin /usr/sbin/nologin',
        'u quotes 101:quotes "A quoted  name 100%% %%m" /var/lib/quotes /usr/sbin/nologin',
        'u bare 102:daemon "" - /bin/sh',
        'u nogroup 103:group4000 "" - -',
        'u taken 104:group4001 "" - -',
        'u people 105:ann "" - /bin/bash',
        'u ends 106:daemon "backslash" / /bin/sh',
        'u Debian-exim 107:Debian-exim "ä" /var/spool/exim4 /usr/sbin/nologin',
        'u return 111:daemon "xu evil 0" - /',
        'u nobody 65534:nogroup "nobody" /nonexistent /usr/sbin/nologin',
        "m daemon daemon",
        "m bare daemon",
        "m daemon ann",
    ]


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd-sysusers")
def test_systemd_makes_the_same_accounts(written, target, tmp_path):
    written()
    root = tmp_path / "machine"
    for name in ("etc", "usr/lib/sysusers.d"):
        (root / name).mkdir(parents=True)
    rules = root / RULES.removeprefix("/")
    shutil.copy(target.path(RULES), rules)
    argv = ["systemd-sysusers", f"--root={root}", rules]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("Creating ") for line in lines), "each line is accepted"
    users = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
    expected = [line.split(":") for line in PASSWD.split("\n")]
    ids = {fields[0]: fields[2:4] for fields in expected if len(fields) >= 7}
    assert len(users) == 11
    assert {fields[0]: fields[2:4] for fields in users} == {
        fields[0]: ids[fields[0]] for fields in users
    }


@pytest.mark.parametrize("line", ["broken:x:many:1::/:", "broken:x:7:::/:", "broken:x:-1:1::/:"])
def test_an_account_without_an_id_is_an_error_that_names_it(written, line):
    with pytest.raises(StageError, match="the entry of broken"):
        written(f"{line}\n", "daemon:x:1:\n")


def test_an_image_without_accounts_has_no_rules(written, target):
    assert written("", "") == []
    target.remove("/etc/passwd")
    target.remove("/etc/group")
    account_rules.write(target)
    assert target.read(RULES) == ""


def test_new_accounts_are_made_although_no_file_is_newer(written, target):
    """The times of all files of a commit are 0."""
    written()
    assert target.read(ALWAYS) == "[Unit]\nConditionNeedsUpdate=\n"
