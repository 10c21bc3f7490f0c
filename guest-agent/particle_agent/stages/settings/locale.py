"""Stage locale: language and character set."""

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
# /run is in memory.
COMPILED = "/run/particle-os-locales"
BUILT_IN = ("C", "C.UTF-8")
# Packages of Debian 12 and 13 that depend on the package `locales`.
WITH_LOCALES = ("cloud-init", "libreoffice-*", "localepurge", "postgresql*")


@dataclass(frozen=True, kw_only=True)
class Locale(StageOptions):
    """Generates locales and sets the default locale.

    Every locale except C and C.UTF-8 needs the package `locales` in the image.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["locale"] = "locale"
    default: LocaleName
    """The default locale: LANG in /etc/locale.conf (/etc/default/locale on Debian 12)."""
    generate: tuple[LocaleName, ...] = ()
    """More locales to generate."""

    def needs(self) -> Iterator[Need]:
        wanted = {"default": [self.default], "generate": self.generate}
        for option, names in wanted.items():
            for number, name in enumerate(names):
                if name not in BUILT_IN:
                    key = (option,) if option == "default" else (option, number)
                    yield needs.package("locales", SUPPORTED, f"locale {name}", *key)

    def rewrites(self) -> Iterator[tuple[str, str]]:
        instead = "name the locales in the options 'default' and 'generate' of the stage"
        yield "/etc/locale.conf", instead
        yield "/etc/default/locale", instead
        if {self.default, *self.generate} - set(BUILT_IN):
            yield "/etc/locale.gen", instead
            yield ARCHIVE, instead

    def ahead(self, target: Target) -> None:
        for name, charset in self._entries(target):
            _compile(target, name, charset)

    def run(self, target: Target) -> None:
        if entries := self._entries(target):
            target.write("/etc/locale.gen", "".join(f"{n} {charset}\n" for n, charset in entries))
            with ThreadPoolExecutor() as pool:
                compiled = list(pool.map(lambda entry: _compile(target, *entry), entries))
            # As locale-gen(8) does after it has compiled the locales.
            target.remove(ARCHIVE)
            target.chroot(["localedef", "--add-to-archive", "-A", ALIASES, *compiled])
            target.remove(COMPILED)
        text = f"LANG={self.default}\n"
        target.write("/etc/locale.conf", text)
        target.symlink("/etc/default/locale", "../locale.conf")

    def _entries(self, target: Target) -> list[tuple[str, str]]:
        """The locales to generate, as (name, character set): the lines of locale.gen(5)."""
        names = dict.fromkeys([self.default, *self.generate])
        return [(name, _charset(target, name)) for name in names if name not in BUILT_IN]


def _compile(target: Target, name: str, charset: str) -> str:
    """Compiles a locale with localedef(1) below COMPILED; returns the directory of the result."""
    done, unfinished = f"{COMPILED}/{name}", f"{COMPILED}/unfinished-{name}"
    if target.exists(done):
        return done
    target.make_directory(COMPILED)
    options = ["--no-archive", "-i", _source(target, name), "-c", "-f", charset, "-A", ALIASES]
    try:
        target.chroot(["localedef", *options, unfinished])
    except CommandFailed as failed:
        # With -c, localedef also exits with 1 after mere warnings.
        if failed.status != 1 or not target.exists(f"{unfinished}/LC_CTYPE"):
            raise
    target.path(unfinished).rename(target.path(done))
    return done


def _source(target: Target, name: str) -> str:
    """The source file of a locale, looked up as locale-gen(8) does: local sources come first."""
    language, _, variant = name.partition("@")
    plain = language.partition(".")[0] + (f"@{variant}" if variant else "")
    for source in (name, plain):
        if target.exists(f"{OWN_SOURCES}/{source}"):
            return f"{OWN_SOURCES}/{source}"
        if target.exists(f"{SOURCES}/{source}"):
            return source
    raise StageError(f"there is no {SOURCES}/{plain} to make the locale {name} from")


def _charset(target: Target, name: str) -> str:
    """The character set of a locale, from glibc's list SUPPORTED. Raises StageError."""
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
        hint=f"glibc has {', '.join(near)}." if near else f"See {SUPPORTED} in the image.",
    )
