"""System accounts keep their IDs over the versions of a system."""

import os

import pytest
from particle_agent.errors import StageError
from particle_agent.ostree import account_ids

STATIC = "root:x:0:0:root:/root:/bin/bash\nmail:x:8:8::/var/mail:/usr/sbin/nologin\n"


def passwd(**ids):
    return STATIC + "".join(f"{n}:x:{i}:{i}::/:/bin/sh\n" for n, i in ids.items())


def group(**ids):
    return "root:x:0:\nmail:x:8:web\n" + "".join(f"{n}:x:{i}:\n" for n, i in ids.items())


@pytest.fixture
def kept(target):
    """A function that keeps the IDs of a parent; returns the lines that have changed, and both."""

    def keep(before, now, *, users=None, groups=None):
        target.write("/etc/passwd", users or passwd(**now))
        target.write("/etc/group", groups or group(**now))
        account_ids.keep(target, passwd(**before), group(**before))
        return {
            database: {
                line.split(":")[0]: ":".join(line.split(":")[2:4])
                for line in target.read(f"/etc/{database}").splitlines()[2:]
            }
            for database in ("passwd", "group")
        }

    return keep


def test_accounts_with_the_same_ids_stay_as_they_are(kept, target):
    now = {"web": 998, "db": 997}
    assert kept(now, now)["passwd"] == {"web": "998:998", "db": "997:997"}
    assert target.report.notes == []


def test_accounts_get_the_ids_of_the_parent_also_when_these_are_exchanged(kept, target):
    found = kept({"web": 998, "db": 997}, {"db": 998, "web": 997})
    assert found["passwd"] == {"db": "997:997", "web": "998:998"}
    assert found["group"] == {"db": "997:", "web": "998:"}
    assert target.report.notes == ["4 users and groups get the IDs that they have in the parent"]


def test_a_new_account_gets_no_id_of_the_parent(kept):
    found = kept({"web": 999}, {"db": 999, "web": 998})
    assert found["passwd"] == {"db": "997:997", "web": "999:999"}
    assert found["group"] == {"db": "997:", "web": "999:"}


def test_the_id_of_an_account_that_is_gone_stays_taken(kept, target):
    found = kept({"old": 999}, {"web": 999})
    assert found["passwd"] == {"web": "998:998", "old": "999:999"}
    line = "old:*:999:999::/nonexistent:/usr/sbin/nologin"
    assert target.read("/etc/passwd").splitlines()[-1] == line
    assert target.read("/etc/group").splitlines()[-1] == "old:*:999:"


@pytest.mark.parametrize("number", [0, 8, 99, 1000, 65534, 4294967295, 10**30])
def test_a_parent_gives_no_account_the_id_of_root_or_of_a_person(kept, number):
    assert kept({"web": number, "gone": number}, {"web": 998})["passwd"] == {"web": "998:998"}


def test_a_hostile_line_of_the_parent_adds_no_account(target):
    target.write("/etc/passwd", passwd(web=998))
    target.write("/etc/group", group(web=998))
    bad = "-x:x:500:0::/:/bin/sh\nx y:x:501:0::/:/bin/sh\n::502:0::/:/bin/sh\nshort:x:503\n"
    account_ids.keep(target, bad, "a\0b:x:500:\n")
    assert target.read("/etc/passwd") == passwd(web=998)
    assert target.read("/etc/group") == group(web=998)


def test_bytes_that_are_no_text_stay(kept, target):
    users = passwd(db=998) + "web:x:997:997:J\udcff:/:/bin/sh\n"
    target.write("/etc/passwd", "")
    target.path("/etc/passwd").write_bytes(users.encode("utf-8", "surrogateescape"))
    target.write("/etc/group", group())
    account_ids.keep(target, passwd(web=998), group())
    assert b"web:x:998:997:J\xff:/:/bin/sh\n" in target.read_bytes("/etc/passwd")


def test_without_a_free_id_the_stage_fails(kept):
    before = {f"u{number}": number for number in range(100, 1000)}
    with pytest.raises(StageError, match="no ID is left"):
        kept(before, {"web": 500})


def test_files_get_the_new_owner_once_and_keep_their_modes(target):
    target.write("/usr/bin/helper", "", mode=0o4754)
    os.link(target.path("/usr/bin/helper"), target.path("/usr/bin/other-name"))
    target.symlink("/usr/bin/link", "helper")
    target.forget_owners()
    chown, changed = target.chown, []

    def record(place, owner):
        changed.append((place.name, owner))
        chown(place, owner)
        if not place.is_symlink():
            place.chmod(0o754)

    target.chown = record
    account_ids.change_files(target, {os.getuid(): 150}, {})
    assert dict(changed)["link"] == (150, -1)
    assert len([name for name, _ in changed if name in ("helper", "other-name")]) == 1
    assert target.mode("/usr/bin/helper") == 0o4754
    target.forget_owners()
    account_ids.change_files(target, {os.getuid() + 1: 150}, {})
    assert target.owners == {}
