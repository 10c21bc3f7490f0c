"""Language and character set."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.values import LocaleName
from particle_agent.errors import CommandFailed, StageError
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

SUPPORTED = "/usr/share/i18n/SUPPORTED"
SOURCES = "/usr/share/i18n/locales"
OWN_SOURCES = "/usr/local/share/i18n/locales"
ALIASES = "/usr/share/locale/locale.alias"
ARCHIVE = "/usr/lib/locale/locale-archive"
# In memory, as all of /run.
COMPILED = "/run/particle-os-locales"
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

    def ahead(self, target: Target) -> None:
        for name, charset in self._entries(target):
            _compile(target, name, charset)

    def run(self, target: Target) -> None:
        if entries := self._entries(target):
            target.write("/etc/locale.gen", "".join(f"{n} {charset}\n" for n, charset in entries))
            with ThreadPoolExecutor() as pool:
                compiled = list(pool.map(lambda entry: _compile(target, *entry), entries))
            # What locale-gen(8) does, but for the compilation.
            target.remove(ARCHIVE)
            target.chroot(["localedef", "--add-to-archive", "-A", ALIASES, *compiled])
            target.remove(COMPILED)
        text = f"LANG={self.default}\n"
        target.write("/etc/locale.conf", text)
        target.symlink("/etc/default/locale", "../locale.conf")

    def _entries(self, target: Target) -> list[tuple[str, str]]:
        """The lines of locale.gen(5): names and their character sets."""
        names = dict.fromkeys([self.default, *self.generate])
        return [(name, _charset(target, name)) for name in names if name not in BUILT_IN]


def _compile(target: Target, name: str, charset: str) -> str:
    """Has localedef(1) compile a locale outside of the image; returns its directory there."""
    done, unfinished = f"{COMPILED}/{name}", f"{COMPILED}/unfinished-{name}"
    if target.exists(done):
        return done
    target.make_directory(COMPILED)
    options = ["--no-archive", "-i", _source(target, name), "-c", "-f", charset, "-A", ALIASES]
    try:
        target.chroot(["localedef", *options, unfinished])
    except CommandFailed as failed:
        # With -c warnings give this status, too.
        if failed.status != 1 or not target.exists(f"{unfinished}/LC_CTYPE"):
            raise
    target.path(unfinished).rename(target.path(done))
    return done


def _source(target: Target, name: str) -> str:
    """What locale-gen(8) makes a locale from; the administrator's own come first."""
    language, _, variant = name.partition("@")
    plain = language.partition(".")[0] + (f"@{variant}" if variant else "")
    for source in (name, plain):
        if target.exists(f"{OWN_SOURCES}/{source}"):
            return f"{OWN_SOURCES}/{source}"
        if target.exists(f"{SOURCES}/{source}"):
            return source
    raise StageError(f"there is no {SOURCES}/{plain} to make the locale {name} from")


def _charset(target: Target, name: str) -> str:
    """The character set of a locale."""
    if not target.exists(SUPPORTED):
        raise StageError(
            f"locale {name} cannot be generated: the package 'locales' is not installed",
            hint="Add 'locales' to the packages of an apt stage before this one.",
        )
    known = [line.split() for line in target.read(SUPPORTED).splitlines() if " " in line]
    for known_name, charset, *_ in known:
        if known_name == name:
            return charset
    language = name.split("_")[0]
    near = [n for n, *_ in known if n.startswith(f"{language}_")][:8]
    raise StageError(
        f"there is no locale {name}",
        hint=f"glibc knows {', '.join(near)}." if near else f"See {SUPPORTED} in the image.",
    )
