"""Accounts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from particle_agent.accounts import entries
from particle_agent.errors import StageError
from particle_agent.options import (
    AbsolutePath,
    Options,
    PasswordHash,
    SshPublicKey,
    StageOptions,
    UserId,
    UserName,
)
from particle_agent.target import Target


@dataclass(frozen=True, kw_only=True)
class User(Options):
    """One account. An account that exists already (root, say) is changed to what is given."""

    name: UserName
    """The login name."""
    uid: UserId | None = None
    """The numeric user id; the next free one when not given."""
    groups: tuple[UserName, ...] = ()
    """Supplementary groups; each must exist in the image."""
    shell: AbsolutePath | None = None
    """The login shell; /bin/bash for a new account."""
    home: AbsolutePath | None = None
    """The home directory, made with the skeleton files; /home/NAME for a new account."""
    password_hash: PasswordHash | None = None
    """A hash of crypt(5); without it no password is accepted."""
    ssh_authorized_keys: tuple[SshPublicKey, ...] = ()
    """OpenSSH public keys that may log in."""
    sudo: Literal["password", "no-password"] | None = None
    """Lets the user run anything as root, with or without being asked for the password."""


@dataclass(frozen=True, kw_only=True)
class Users(StageOptions):
    """Makes or changes user accounts."""

    type: Literal["users"] = "users"
    users: tuple[User, ...]
    """The accounts, made in this order."""

    def run(self, target: Target) -> None:
        for user in self.users:
            _check(target, user)
            _account(target, user)
            if user.password_hash is not None:
                line = f"{user.name}:{user.password_hash}\n"
                target.chroot(["chpasswd", "--encrypted"], stdin=line)
            if user.ssh_authorized_keys:
                _authorize(target, user)
            if user.sudo is not None:
                tag = "NOPASSWD:" if user.sudo == "no-password" else ""
                text = f"{user.name} ALL=(ALL:ALL) {tag}ALL\n"
                target.write(f"/etc/sudoers.d/{user.name}", text, mode=0o440)


def _check(target: Target, user: User) -> None:
    groups = entries(target, "group")
    if missing := [g for g in user.groups if g not in groups]:
        raise StageError(
            f"user {user.name}: there is no group {missing[0]} in the image",
            hint="Install the package that brings the group before this stage.",
        )
    if user.shell is not None and not target.exists(user.shell):
        raise StageError(
            f"user {user.name}: there is no shell {user.shell} in the image",
            hint="Install its package in an apt stage before this one.",
        )
    if user.sudo is not None and not target.exists("/usr/bin/sudo"):
        raise StageError(
            f"user {user.name}: 'sudo' is not installed in the image",
            hint="Add 'sudo' to the packages of an apt stage before this one.",
        )
    if user.uid is not None:
        for name, fields in entries(target, "passwd").items():
            if fields[2] == str(user.uid) and name != user.name:
                raise StageError(f"user {user.name}: the uid {user.uid} belongs to {name}")


def _account(target: Target, user: User) -> None:
    exists = user.name in entries(target, "passwd")
    options = []
    if user.uid is not None:
        options += ["--uid", str(user.uid)]
    if user.groups:
        options += ["--groups", ",".join(user.groups)]
    if exists:
        options += ["--append"] if user.groups else []
        options += ["--home", user.home, "--move-home"] if user.home else []
        options += ["--shell", user.shell] if user.shell else []
        if options:
            target.chroot(["usermod", *options, "--", user.name])
        return
    # A private group is made unless a group of that name is there already.
    private = "--gid" if user.name in entries(target, "group") else "--user-group"
    options += [private, user.name] if private == "--gid" else [private]
    options += ["--home-dir", user.home] if user.home else []
    target.chroot(
        [
            "useradd",
            "--create-home",
            "--shell",
            user.shell or "/bin/bash",
            *options,
            "--",
            user.name,
        ]
    )


def _authorize(target: Target, user: User) -> None:
    fields = entries(target, "passwd")[user.name]
    owner, home = (int(fields[2]), int(fields[3])), fields[5]
    target.make_directory(f"{home}/.ssh", mode=0o700, owner=owner)
    text = "".join(f"{key}\n" for key in user.ssh_authorized_keys)
    target.write(f"{home}/.ssh/authorized_keys", text, mode=0o600, owner=owner)
