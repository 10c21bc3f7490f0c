"""Rules for the accounts of the system, for machines whose /etc/passwd differs from the image's.

An update changes /usr, and no file of /etc that the machine has changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from particle_agent.ostree.image.choices import UserRules
from particle_agent.ostree.image.lints import Flaw
from particle_agent.system import accounts
from particle_agent.target.target import Target

RULES = "/usr/lib/sysusers.d/ostree-accounts.conf"
# systemd-sysusers(8) runs when /usr is newer than the machine's /etc. The times of files in a
# commit are all 0, so the condition would never hold.
ALWAYS = "/usr/lib/systemd/system/systemd-sysusers.service.d/ostree.conf"
ALWAYS_TEXT = "[Unit]\nConditionNeedsUpdate=\n"
# The fields that systemd-sysusers(8) accepts. It fails for a line with anything else.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")
PLACE = re.compile(r"/|(/[A-Za-z0-9_+~-][A-Za-z0-9._+~-]*)+")
NOT_IN_COMMENT = re.compile(r"[\x00-\x1f\x7f\"\\]")
# -1 of 16 bits, and the ID of `nobody` and `nogroup`.
NO_ID, NOBODY = 0xFFFF, 0xFFFE


# base-passwd(8) gives these IDs, the same on each system of Debian.
STATIC = range(100)
SYSUSERS = ("/usr/lib/sysusers.d", "/etc/sysusers.d")


def write(target: Target) -> None:
    """Writes the accounts of the system as rules; those of people stay in /etc alone.

    Of accounts that share an ID, the first one has a rule: sysusers.d(5) gives the others new IDs.
    """
    users = _by_id(accounts.entries(target, "passwd"))
    groups = _by_id(accounts.entries(target, "group"))
    users = {uid: fields for uid, fields in users.items() if uid not in accounts.REGULAR_IDS}
    primary = {accounts.id_of(fields, 3): fields[0] for fields in users.values()}
    for gid, name in primary.items():
        # systemd-sysusers(8) makes no user whose group does not exist.
        taken = name in (fields[0] for fields in groups.values())
        groups.setdefault(gid, [f"group{gid}" if taken else name, "x", str(gid), ""])
    made = [gid for gid in groups if gid not in accounts.REGULAR_IDS or gid in primary]
    lines = [f"g {groups[gid][0]} {gid}" for gid in made]
    lines += [_user_rule(uid, fields, groups) for uid, fields in users.items()]
    names = {fields[0] for fields in users.values()}
    for name, members in ((groups[gid][0], groups[gid][3].split(",")) for gid in made):
        lines += [f"m {member} {name}" for member in members if member in names]
    target.write(RULES, "".join(f"{line}\n" for line in lines))
    target.write(ALWAYS, ALWAYS_TEXT)


def flaws(target: Target, users: UserRules) -> Iterator[Flaw]:
    """The accounts of the system without a rule: of `write`, or of packages with `merge`."""
    named = set(_names_with_rules(target)) if users == "merge" else set[str]()
    for what, database in (("user", "passwd"), ("group", "group")):
        found = accounts.entries(target, database)
        ruled = _by_id(found)
        for name, fields in found.items():
            known = accounts.id_of(fields, 2)
            if users == "merge":
                has_rule = known in STATIC or known == NOBODY or name in named
            else:
                has_rule = ruled.get(known) is fields
            if known not in accounts.REGULAR_IDS and not has_rule:
                yield Flaw("account-without-rule", f"{what} {name}")


def _names_with_rules(target: Target) -> Iterator[str]:
    """The accounts that the rules of the image make (sysusers.d(5))."""
    for directory in SYSUSERS:
        for name in target.list(directory):
            if name.endswith(".conf") and target.is_file(f"{directory}/{name}"):
                for line in target.read(f"{directory}/{name}").splitlines():
                    kind, account, *_ = (*line.split(maxsplit=2), "", "")
                    if kind.rstrip("!") in ("u", "g"):
                        yield account


def _by_id(entries: Mapping[str, list[str]]) -> dict[int, list[str]]:
    """The entries that systemd-sysusers(8) accepts, by ID; the first one of each ID."""
    found: dict[int, list[str]] = {}
    for name, fields in entries.items():
        if NAME.fullmatch(name) and (known := accounts.id_of(fields, 2)) != NO_ID:
            found.setdefault(known, fields)
    return found


def _user_rule(uid: int, fields: Sequence[str], groups: Mapping[int, Sequence[str]]) -> str:
    name, _, _, gid, comment, home, shell, *_ = fields
    comment = NOT_IN_COMMENT.sub("", comment.split(",")[0]).replace("%", "%%")
    # Without a shell, passwd(5) means this one.
    places = (home, shell or "/bin/sh")
    home, shell = (place if PLACE.fullmatch(place) else "-" for place in places)
    return f'u {name} {uid}:{groups[int(gid)][0]} "{comment}" {home} {shell}'
