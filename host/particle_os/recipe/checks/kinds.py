"""All kinds of checks, and the union type that selects the kind of a mapping in a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic
from particle_agent.contract.options import kebab_case

from particle_os.recipe.checks.base import BaseCheck
from particle_os.recipe.checks.contents import CommandCheck, FileCheck, PackageCheck, UserCheck
from particle_os.recipe.checks.network import HttpCheck, PortCheck
from particle_os.recipe.checks.ostree import OstreeCheck
from particle_os.recipe.checks.system import (
    BootTimeCheck,
    KernelArgumentCheck,
    LocaleCheck,
    MemoryCheck,
    MountCheck,
    RebootCheck,
    TimezoneCheck,
    UnitCheck,
)

# The first kind whose key is present counts. `http` precedes `port`, because it has a key `port`.
KINDS: tuple[type[BaseCheck], ...] = (
    UnitCheck, CommandCheck, FileCheck, PackageCheck, UserCheck, HttpCheck, PortCheck, MountCheck,
    KernelArgumentCheck, TimezoneCheck, LocaleCheck, BootTimeCheck, RebootCheck, MemoryCheck,
    OstreeCheck,
)  # fmt: skip


def _kind(value: Any) -> str | None:
    """The tag of the check kind that a mapping identifies by its keys."""
    if isinstance(value, dict):
        return next((_tag(kind) for kind in KINDS if kind.kind in value), None)
    return _tag(type(value)) if isinstance(value, BaseCheck) else None


def _tag(kind: type[BaseCheck]) -> str:
    # pydantic puts tags into the locations of errors, where they must differ from keys.
    return f"check:{kind.kind}"


NAMES = ", ".join(f"'{kind.kind}'" for kind in KINDS)
_Discriminator = pydantic.Discriminator(
    _kind,
    custom_error_type="not_accepted",
    custom_error_message="expected {what}",
    custom_error_context={"what": f"a check, with one of the keys {NAMES}"},
)
Check = Annotated[
    Annotated[UnitCheck, pydantic.Tag("check:unit")]
    | Annotated[CommandCheck, pydantic.Tag("check:command")]
    | Annotated[FileCheck, pydantic.Tag("check:file")]
    | Annotated[PackageCheck, pydantic.Tag("check:package")]
    | Annotated[UserCheck, pydantic.Tag("check:user")]
    | Annotated[HttpCheck, pydantic.Tag("check:http")]
    | Annotated[PortCheck, pydantic.Tag("check:port")]
    | Annotated[MountCheck, pydantic.Tag("check:mount")]
    | Annotated[KernelArgumentCheck, pydantic.Tag("check:kernel-argument")]
    | Annotated[TimezoneCheck, pydantic.Tag("check:timezone")]
    | Annotated[LocaleCheck, pydantic.Tag("check:locale")]
    | Annotated[BootTimeCheck, pydantic.Tag("check:systemd-analyze")]
    | Annotated[RebootCheck, pydantic.Tag("check:reboot")]
    | Annotated[MemoryCheck, pydantic.Tag("check:memory")]
    | Annotated[OstreeCheck, pydantic.Tag("check:ostree")],
    _Discriminator,
]


def keys(given: Mapping[str, object]) -> list[str]:
    """Allowed keys for the check kind that `given` identifies, or for all kinds if none."""
    meant = [kind for kind in KINDS if kind.kind in given][:1] or KINDS
    return sorted({kebab_case(field.name) for kind in meant for field in dataclasses.fields(kind)})


def of_build(checks: Sequence[Check], commit: str | None) -> tuple[Check, ...]:
    """The checks within a build that has made `commit`: those of OSTree expect this one."""
    return tuple(
        check.of_build(commit) if commit and isinstance(check, OstreeCheck) else check
        for check in checks
    )
