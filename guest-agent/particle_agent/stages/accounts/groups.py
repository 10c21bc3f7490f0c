"""Stage groups: groups of users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import AtLeastOne, Options, refuse, repeated
from particle_agent.contract.values import GroupId, KnownAccount, UserName
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.system.accounts import entries, numeric
from particle_agent.target.target import Target


@dataclass(frozen=True, kw_only=True)
class Group(Options):
    """One group. An existing group gets the given number and members."""

    name: UserName
    """The group name."""
    gid: GroupId | None = None
    """The numeric group ID. The default is the next free one."""
    members: tuple[KnownAccount, ...] = ()
    """Users to add to the group. Each must exist in the image."""
    system: bool = False
    """Whether a new group is a system group, with an ID below 1000."""


@dataclass(frozen=True, kw_only=True)
class Groups(StageOptions):
    """Creates or changes groups. A later `users` stage can add its users to them."""

    type: Literal["groups"] = "groups"
    groups: Annotated[tuple[Group, ...], AtLeastOne()]
    """The groups, in the order of creation."""

    def __post_init__(self) -> None:
        groups = tuple(enumerate(self.groups))
        refuse(
            repeated("group", ((("groups", i, "name"), group.name) for i, group in groups)),
            repeated("gid", ((("groups", i, "gid"), group.gid) for i, group in groups)),
        )

    def needs(self) -> Iterator[Need]:
        for number, group in enumerate(self.groups):
            for index, name in enumerate(group.members):
                yield needs.user(name, f"group {group.name}", "groups", number, "members", index)

    def may_bring(self, need: Need) -> bool:
        return any(need.what == f"group {group.name}" for group in self.groups)

    def names(self, need: Need) -> bool:
        return self.may_bring(need)

    def run(self, target: Target) -> None:
        for group in self.groups:
            _check(target, group)
            _make(target, group)
            for user in group.members:
                target.chroot(["usermod", "--append", "--groups", group.name, "--", user])


def _check(target: Target, group: Group) -> None:
    users = entries(target, "passwd")
    if missing := [user for user in group.members if user not in users]:
        raise StageError(
            f"group {group.name}: there is no user {missing[0]} in the image",
            hint=f"Make the user in a users stage after this one, with '{group.name}' among its "
            "groups.",
        )
    if group.gid is not None:
        for name, fields in entries(target, "group").items():
            if numeric(fields[2]) == group.gid and name != group.name:
                raise StageError(f"group {group.name}: the gid {group.gid} belongs to {name}")


def _make(target: Target, group: Group) -> None:
    found = entries(target, "group").get(group.name)
    number = ["--gid", str(group.gid)] if group.gid is not None else []
    if found is None:
        system = ["--system"] if group.system else []
        target.chroot(["groupadd", *system, *number, "--", group.name])
    elif number and numeric(found[2]) != group.gid:
        target.chroot(["groupmod", *number, "--", group.name])
