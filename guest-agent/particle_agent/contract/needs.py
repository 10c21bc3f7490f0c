"""What a stage needs of the stages before it, declared by the stage and checked by the host.

A need says what the system must have when the stage runs; other stages say whether they may bring
it (`StageOptions.may_bring`). What none of them may bring is an error before anything starts, where
the base is known, and before the first stage, where it must be looked at. In doubt a stage may: it
then fails by itself when the thing is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

# What several stages know of, among the things that are needed.
INIT = "package init"


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that the system must have when a stage runs.

    `what` names it among stages: "package locales", "group docker", "user deploy". `message` and
    `hint` are for the user; `key` is the place of the value in the stage that asks for it.
    `packages` are the packages that bring it, as patterns of fnmatch(3). With `others`, packages
    of any other name may bring it, too. One of the files `files` is there when the system has it;
    their last components are such patterns, too. Of users and groups the name says enough.
    """

    what: str
    message: str
    hint: str
    key: tuple[str | int, ...] = ()
    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    others: bool = False

    def is_brought_by(self, package: str) -> bool:
        """Whether the package is known to bring it."""
        return any(fnmatchcase(package, pattern) for pattern in self.packages)


def package(
    name: str,
    file: str,
    why: str,
    *key: str | int,
    also: tuple[str, ...] = (),
    others: bool = False,
) -> Need:
    """The need of a file of a package, which those in `also` bring with them."""
    return Need(
        what=f"package {name}",
        message=f"{why} needs the package '{name}', which no stage before it installs",
        hint=f"add '{name}' to the packages of an apt stage before it",
        key=key,
        packages=(name, *also),
        files=(file,),
        others=others,
    )


def group(name: str, why: str, *key: str | int) -> Need:
    """The need of a group; packages make groups of names that nobody can guess."""
    return Need(
        what=f"group {name}",
        message=f"{why}: no stage before makes the group '{name}'",
        hint="make it in a groups stage before this one, or install the package that brings it",
        key=key,
        others=True,
    )


def user(name: str, why: str, *key: str | int) -> Need:
    """The need of a user."""
    return Need(
        what=f"user {name}",
        message=f"{why}: no stage before makes the user '{name}'",
        hint="make it in a users stage before this one, or install the package that brings it",
        key=key,
        others=True,
    )
