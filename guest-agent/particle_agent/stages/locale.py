"""Language and character set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent import needs
from particle_agent.errors import StageError
from particle_agent.needs import Need
from particle_agent.options import LocaleName, StageOptions
from particle_agent.target import Target

SUPPORTED = "/usr/share/i18n/SUPPORTED"
BUILT_IN = ("C", "C.UTF-8")
# Of Debian 12 and 13, what people name that depends on the package `locales`.
WITH_LOCALES = ("cloud-init", "libreoffice-*", "localepurge", "postgresql*")


@dataclass(frozen=True, kw_only=True)
class Locale(StageOptions):
    """Generates locales and sets the system's default one.

    Anything but C and C.UTF-8 needs the package `locales` in the image.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["locale"] = "locale"
    default: LocaleName
    """The locale of the system: LANG in /etc/locale.conf (/etc/default/locale on Debian 12)."""
    generate: tuple[LocaleName, ...] = ()
    """Further locales to generate."""

    def needs(self) -> Iterator[Need]:
        wanted = {"default": [self.default], "generate": self.generate}
        for option, names in wanted.items():
            for number, name in enumerate(names):
                if name not in BUILT_IN:
                    key = (option,) if option == "default" else (option, number)
                    yield needs.package(
                        "locales", SUPPORTED, f"locale {name}", *key, also=WITH_LOCALES
                    )

    def run(self, target: Target) -> None:
        wanted = [n for n in dict.fromkeys([self.default, *self.generate]) if n not in BUILT_IN]
        if wanted:
            target.write("/etc/locale.gen", "".join(f"{_line(target, n)}\n" for n in wanted))
            target.chroot(["locale-gen"])
        text = f"LANG={self.default}\n"
        target.write("/etc/locale.conf", text)
        target.symlink("/etc/default/locale", "../locale.conf")


def _line(target: Target, name: str) -> str:
    """The line of locale.gen(5) for a locale: its name and its character set."""
    if not target.exists(SUPPORTED):
        raise StageError(
            f"locale {name} cannot be generated: the package 'locales' is not installed",
            hint="Add 'locales' to the packages of an apt stage before this one.",
        )
    known = [line.split() for line in target.read(SUPPORTED).splitlines() if " " in line]
    for known_name, charset, *_ in known:
        if known_name == name:
            return f"{known_name} {charset}"
    language = name.split("_")[0]
    near = [n for n, *_ in known if n.startswith(f"{language}_")][:8]
    raise StageError(
        f"there is no locale {name}",
        hint=f"glibc knows {', '.join(near)}." if near else f"See {SUPPORTED} in the image.",
    )
