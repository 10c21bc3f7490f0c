"""Stage users: user accounts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from particle_agent.contract import keys, needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import (
    HOST_PATH,
    PUBLIC_IF_VALID,
    AtLeastOne,
    OnHost,
    Options,
    Place,
    SecretName,
    refuse,
    repeated,
)
from particle_agent.contract.values import (
    AbsolutePath,
    Comment,
    Date,
    GroupId,
    KnownAccount,
    PasswordHash,
    SshPublicKey,
    UserId,
    UserName,
)
from particle_agent.errors import StageError
from particle_agent.stages.accounts.subordinate import SubordinateIds, overlaps
from particle_agent.stages.base import StageOptions
from particle_agent.system.accounts import (
    HOMES,
    SKELETON,
    entries,
    id_of,
    numeric,
    take_home,
)
from particle_agent.target.target import SECRETS, Target

KeysFile = Annotated[str, OnHost(*HOST_PATH, faults=keys.authorized_keys_faults)]
NOLOGIN = "/usr/sbin/nologin"
SUDO = "/usr/bin/sudo"
# The home directory that base-passwd gives to accounts without one.
NO_HOME = "/nonexistent"
# usermod(8), --expiredate: "1" (1970-01-02) closes the account.
CLOSED, OPEN = "1", ""


@dataclass(frozen=True, kw_only=True)
class User(Options):
    """One account. An existing account, such as root, is changed to the given values."""

    name: UserName
    """The login name."""
    uid: UserId | None = None
    """The numeric user ID. The default is the next free one."""
    system: bool = False
    """Whether a new account is a system account: its ID is below 1000, and it has no home directory
    and no login shell unless they are given."""
    comment: Comment | None = None
    """The full name, or what the account is for (GECOS)."""
    group: KnownAccount | None = None
    """The primary group, which must exist in the image or come from an earlier `groups` stage. The
    default is a new group with the user's name."""
    gid: GroupId | None = None
    """The group ID of the user's own group. The default is the user ID, or the next free one."""
    groups: tuple[KnownAccount, ...] = ()
    """Supplementary groups. Each must exist in the image or come from an earlier `groups` stage."""
    shell: AbsolutePath | None = None
    """The login shell. The default is /bin/bash, and /usr/sbin/nologin for a system account."""
    home: AbsolutePath | None = None
    """The home directory, created with the skeleton files. The default is /home/NAME."""
    skeleton: AbsolutePath | None = None
    """The directory in the image whose files a new home directory gets. The default is /etc/skel.
    """
    subordinate_ids: SubordinateIds | None = None
    """The IDs for containers without root. By default useradd chooses them for regular users."""
    expires: Date | None = None
    """The date from which on the account refuses every login."""
    password_hash: PasswordHash | None = None
    """A password hash of crypt(5). Without one, no password is accepted."""
    password_secret: Annotated[SecretName, PUBLIC_IF_VALID] | None = None
    """The name of one of the stage's `secrets` that holds the password. The image's own chpasswd
    hashes it, with a new salt in each build."""
    password: Annotated[Literal["locked", "empty", "expired"], PUBLIC_IF_VALID] | None = None
    """`locked`: no password is accepted, but the hash is kept. `empty`: login needs no password.
    `expired`: the user must change the password at the next login."""
    lock: bool | None = None
    """Whether the account refuses every login, by SSH key too; `false` opens it."""
    ssh_authorized_keys: tuple[SshPublicKey, ...] = ()
    """OpenSSH public keys that can log in, optionally after the options of sshd(8), such as
    `restrict,command="/usr/bin/backup"`."""
    ssh_authorized_keys_file: KeysFile | None = None
    """A file of such keys in the format of authorized_keys, relative to the recipe."""
    sudo: Literal["password", "no-password"] | None = None
    """Lets the user run any command as root, with or without entering the password."""

    def __post_init__(self) -> None:
        refuse((place, f"user {self.name}: {message}") for place, message in self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        if self.group is not None and self.gid is not None:
            yield ("gid",), "'gid' is for a new group, and 'group' names an existing one"
        if self.lock and self.expires is not None:
            yield ("expires",), "a locked account refuses every login already"
        if self.expires is not None and not _is_date(self.expires):
            yield ("expires",), f"there is no day {self.expires}"
        if self.uid == 0 and self.name != "root":
            yield ("uid",), "the uid 0 is root's"
        for index, key in enumerate(self.ssh_authorized_keys):
            if fault := keys.ssh_key_fault(key):
                yield ("ssh-authorized-keys", index), fault
        if self.password_secret is not None and self.password_hash is not None:
            yield ("password-secret",), "'password-secret' excludes a hash"
        match self.password, self.password_hash or self.password_secret:
            case "empty", str():
                yield ("password",), "'password: empty' excludes a hash"
            case "expired", "!" | "*":
                yield ("password",), "there is no password that can expire"


@dataclass(frozen=True, kw_only=True)
class Users(StageOptions):
    """Creates or changes user accounts."""

    type: Literal["users"] = "users"
    users: Annotated[tuple[User, ...], AtLeastOne()]
    """The accounts, in the order of creation."""

    def __post_init__(self) -> None:
        users = tuple(enumerate(self.users))
        known = (None, *(secret.name for secret in self.secrets))
        refuse(
            repeated("user", ((("users", i, "name"), user.name) for i, user in users)),
            repeated("uid", ((("users", i, "uid"), user.uid) for i, user in users)),
            (
                (
                    ("users", i, "password-secret"),
                    # Someone may have written the password itself there.
                    f"user {user.name}: the stage has no secret of the name in 'password-secret'",
                )
                for i, user in users
                if user.password_secret not in known
            ),
            (
                (("users", i, "subordinate-ids"), f"user {users[i][1].name}: {fault}")
                for i, fault in overlaps(user.subordinate_ids for user in self.users)
            ),
        )

    def needs(self) -> Iterator[Need]:
        made: list[str] = []
        for number, user in enumerate(self.users):
            why, key = f"user {user.name}", ("users", number)
            if user.group is not None and user.group not in made:
                yield needs.group(user.group, why, *key, "group")
            for index, group in enumerate(user.groups):
                if group not in made:
                    yield needs.group(group, why, *key, "groups", index)
            if user.sudo is not None:
                yield needs.package("sudo", SUDO, f"{why}: 'sudo'", *key, "sudo")
            made.append(user.name)

    def may_bring(self, need: Need) -> bool:
        # useradd gives each user a group of the same name.
        return any(need.what in (f"user {u.name}", f"group {u.name}") for u in self.users)

    def names(self, need: Need) -> bool:
        return self.may_bring(need)

    def rewrites(self) -> Iterator[tuple[str, str]]:
        for user in self.users:
            if user.sudo is not None:
                yield f"/etc/sudoers.d/{user.name}", "give the file another name"
            home = user.home or (None if user.system else f"{HOMES}{user.name}")
            home = "/root" if user.name == "root" and user.home is None else home
            if home and (user.ssh_authorized_keys or user.ssh_authorized_keys_file):
                path = f"{home}/.ssh/authorized_keys"
                yield path, "name the keys in the options of the user"

    def run(self, target: Target) -> None:
        for user in self.users:
            _check(target, user)
            _account(target, user)
            _password(target, user)
            if user.lock is not None:
                day = CLOSED if user.lock else OPEN
                target.chroot(["usermod", "--expiredate", day, "--", user.name])
            if user.expires is not None:
                target.chroot(["usermod", "--expiredate", user.expires, "--", user.name])
            if user.subordinate_ids is not None:
                user.subordinate_ids.add(target, user.name)
            if lines := _keys(target, user):
                _authorize(target, user, lines)
            if user.sudo is not None:
                tag = "NOPASSWD:" if user.sudo == "no-password" else ""
                text = f"{user.name} ALL=(ALL:ALL) {tag}ALL\n"
                target.write(f"/etc/sudoers.d/{user.name}", text, mode=0o440)


def _check(target: Target, user: User) -> None:
    groups = entries(target, "group")
    wanted = (*user.groups, *((user.group,) if user.group else ()))
    if missing := [g for g in wanted if g not in groups]:
        raise StageError(
            f"user {user.name}: there is no group {missing[0]} in the image",
            hint="Make the group in a groups stage, or install the package that brings it, "
            "before this stage.",
        )
    if user.shell is not None and not target.exists(user.shell):
        raise StageError(
            f"user {user.name}: there is no shell {user.shell} in the image",
            hint="Install its package in an apt stage before this one.",
        )
    if user.sudo is not None and not target.exists(SUDO):
        raise StageError(
            f"user {user.name}: 'sudo' is not installed in the image",
            hint="Add 'sudo' to the packages of an apt stage before this one.",
        )
    if user.uid is not None:
        for name, fields in entries(target, "passwd").items():
            if numeric(fields[2]) == user.uid and name != user.name:
                raise StageError(f"user {user.name}: the uid {user.uid} belongs to {name}")
    if user.gid is not None:
        for name, fields in groups.items():
            if numeric(fields[2]) == user.gid and name != user.name:
                raise StageError(f"user {user.name}: the gid {user.gid} belongs to {name}")
    if user.skeleton is not None and not target.exists(user.skeleton):
        raise StageError(
            f"user {user.name}: there is no directory {user.skeleton} in the image",
            hint="Make it in a files stage before this one.",
        )
    if user.subordinate_ids is not None:
        user.subordinate_ids.check(target, user.name)
    home = _home(target, user)
    if _keys(target, user) and home is not None and (home == NO_HOME or home[:1] != "/"):
        raise StageError(
            f"user {user.name}: an account without a home directory cannot have SSH keys",
            hint="Give the user a 'home'.",
        )


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text) is not None
    except ValueError:
        return False


def _keys(target: Target, user: User) -> list[str]:
    """The lines for the user's authorized_keys."""
    lines = list(user.ssh_authorized_keys)
    if user.ssh_authorized_keys_file is not None:
        text = target.attached(user.ssh_authorized_keys_file).read_text("utf-8", "replace")
        lines += [line for _, line in keys.ssh_key_lines(text)]
    return lines


def _home(target: Target, user: User) -> str | None:
    """The account's home directory after this stage; None for useradd's default."""
    if user.home is not None:
        return user.home
    if found := entries(target, "passwd").get(user.name):
        return found[5]
    return NO_HOME if user.system else None


def _account(target: Target, user: User) -> None:
    exists = user.name in entries(target, "passwd")
    if user.gid is not None:
        program = "groupmod" if user.name in entries(target, "group") else "groupadd"
        target.chroot([program, "--gid", str(user.gid), "--", user.name])
    options = []
    if user.group is not None or (exists and user.gid is not None):
        # The primary group of an existing user may be another one.
        options += ["--gid", user.group or user.name]
    if user.uid is not None:
        options += ["--uid", str(user.uid)]
    if user.comment is not None:
        options += ["--comment", user.comment]
    if user.groups:
        options += ["--groups", ",".join(user.groups)]
    if exists:
        options += ["--append"] if user.groups else []
        options += ["--home", user.home, "--move-home"] if user.home else []
        options += ["--shell", user.shell] if user.shell else []
        if options:
            target.chroot(["usermod", *options, "--", user.name])
        return
    options += ["--system"] if user.system else []
    if user.subordinate_ids is not None:
        options += ["--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0"]
    if user.group is None:
        # useradd --user-group fails when a group of that name exists.
        there = user.gid is not None or user.name in entries(target, "group")
        options += ["--gid", user.name] if there else ["--user-group"]
    options += ["--skel", user.skeleton] if user.skeleton else []
    home = _home(target, user)
    options += ["--no-create-home" if home == NO_HOME else "--create-home"]
    options += ["--home-dir", home] if home else []
    options += ["--shell", user.shell or (NOLOGIN if user.system else "/bin/bash")]
    had_home = target.exists(home or f"{HOMES}{user.name}")
    target.chroot(["useradd", *options, "--", user.name])
    if had_home:
        take_home(target, user.name, user.skeleton or SKELETON)


def _password(target: Target, user: User) -> None:
    if user.password_hash is not None:
        line = f"{user.name}:{user.password_hash}\n"
        target.chroot(["chpasswd", "--encrypted"], stdin=line)
    if user.password_secret is not None:
        password = target.read(f"{SECRETS}/{user.password_secret}")
        if not password.isprintable():
            raise StageError(f"user {user.name}: a password is one line of printable characters")
        target.chroot(["chpasswd"], stdin=f"{user.name}:{password}\n")
    match user.password:
        case "locked":
            target.chroot(["usermod", "--lock", "--", user.name])
        case "empty":
            target.chroot(["passwd", "--quiet", "--delete", "--", user.name])
        case "expired":
            target.chroot(["chage", "--lastday", "0", "--", user.name])


def _authorize(target: Target, user: User, lines: list[str]) -> None:
    fields = entries(target, "passwd")[user.name]
    owner, home = (id_of(fields, 2), id_of(fields, 3)), fields[5]
    target.make_directory(f"{home}/.ssh", mode=0o700, owner=owner)
    text = "".join(f"{line}\n" for line in lines)
    target.write(f"{home}/.ssh/authorized_keys", text, mode=0o600, owner=owner)
