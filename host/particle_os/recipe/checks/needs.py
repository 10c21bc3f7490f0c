"""The needs of a boot test, which any stage of the recipe may meet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from particle_agent.contract.needs import Need

from particle_os.recipe.checks.base import BaseCheck
from particle_os.recipe.checks.contents import PackageCheck, UserCheck

PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class TestNeed(NamedTuple):
    """A need, its place in the document, and whether the test fails for certain without it."""

    key: tuple[str | int, ...]
    need: Need
    is_certain: bool


def of_boot_test(checks: Sequence[BaseCheck], *, goss: bool, user_data: bool) -> Iterator[TestNeed]:
    """The needs of the options of a boot test.

    The base, a dependency of a package or the first boot may meet the need of a check.
    """
    if goss:
        yield TestNeed(("boot-test", "goss"), _goss(), is_certain=True)
    if user_data:
        message = "no stage installs 'cloud-init', which reads the user data"
        yield TestNeed(("boot-test", "user-data"), _package("cloud-init", message), False)
    for index, check in enumerate(checks):
        key = ("boot-test", "checks", index)
        if isinstance(check, PackageCheck):
            message = f"no stage names the package '{check.package}'"
            yield TestNeed((*key, "package"), _package(check.package, message), False)
        if isinstance(check, UserCheck):
            yield TestNeed((*key, "user"), _user(check.user), False)


def _goss() -> Need:
    return Need(
        what="package goss",
        message="the tests need the program 'goss', which no stage installs",
        hint="add 'goss' to the packages of an apt stage (Debian 13), or copy it to /usr/local/bin",
        packages=("goss",),
        files=tuple(f"{directory}/goss" for directory in PROGRAMS),
    )


def _package(name: str, message: str) -> Need:
    """The need for a package. One with the same beginning of its name may depend on it."""
    stem = re.split("[-.0-9:]", name.removeprefix("lib"), maxsplit=1)[0]
    return Need(
        what=f"package {name}",
        message=message,
        hint="the base or a dependency may bring it",
        packages=(name, f"{stem}*", f"lib{stem}*"),
    )


def _user(name: str) -> Need:
    return Need(
        what=f"user {name}",
        message=f"no stage makes the user '{name}'",
        hint="the base, a package or the first boot may make it",
        others=True,
    )
