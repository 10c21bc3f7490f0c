"""Stage cleanup: a smaller system."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar, Literal

from particle_agent.contract.values import LanguageName
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

DPKG_CONFIG = "/etc/dpkg/dpkg.cfg.d/cleanup"
# dpkg(1), --path-exclude and --path-include; Debian Policy 12.5: the copyright of each package.
DOCUMENTATION = (
    ("exclude", "/usr/share/doc/*"),
    ("include", "/usr/share/doc/*/copyright"),
    ("exclude", "/usr/share/info/*"),
    ("exclude", "/usr/share/lintian/*"),
)
MANUAL_PAGES = (("exclude", "/usr/share/man/*"),)
TRANSLATIONS = (
    ("exclude", "/usr/share/locale/*"),
    ("include", "/usr/share/locale/locale.alias"),
    ("exclude", "/usr/share/man/*"),
    ("include", "/usr/share/man/man[0-9]*/*"),
)
# Caches that programs rebuild. debconf's directory in /var/cache is no cache.
CACHES = (
    "/root/.cache",
    "/var/cache/fontconfig",
    "/var/cache/man",
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
)
# update-alternatives(1) makes links to manual pages, and fails without their directories.
KEPT_DIRECTORY = re.compile(r"/usr/share/(?:doc|info|locale|man|man/man\d)")

AFTERWARDS = "write it in a stage after the 'cleanup', which removes such files"

Rule = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Cleanup(StageOptions):
    """Removes files that a server does not need: documentation, translations, caches.

    The copyright files of packages stay. With `later`, dpkg also leaves these files out of every
    package that it installs or upgrades later, in the build and in the running system.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["cleanup"] = "cleanup"
    documentation: bool = True
    """Whether to remove /usr/share/info and /usr/share/doc except the copyright files."""
    manual_pages: bool = True
    """Whether to remove the manual pages of all languages."""
    keep_languages: tuple[LanguageName, ...] | None = None
    """Languages, such as `de` or `pt_BR`, whose translations stay. All others are removed. By
    default all stay. English has no translations."""
    caches: bool = True
    """Whether to remove the caches of man, fontconfig, apt and root."""
    later: bool = False
    """Whether later packages install without these files (by a file in /etc/dpkg/dpkg.cfg.d)."""

    def rewrites(self) -> Iterator[tuple[str, str]]:
        if self.later:
            yield DPKG_CONFIG, "give the file another name: the stage 'cleanup' writes this one"
        for path in CACHES if self.caches else ():
            # A directory itself stays.
            yield path if path.endswith(".bin") else f"{path}/*", AFTERWARDS

    def replaces(self, path: str, before: Sequence[StageOptions]) -> str | None:
        # Directly in /usr/share/doc, links and directories may stay.
        stays = KEPT_DIRECTORY.fullmatch(path) or posixpath.dirname(path) == "/usr/share/doc"
        if not stays and _goes(path, self._rules()):
            return AFTERWARDS
        return super().replaces(path, before)

    def run(self, target: Target) -> None:
        rules = self._rules()
        freed = 0
        for top in sorted({pattern.partition("/*")[0] for _, pattern in rules}):
            freed += _remove(target, top, rules)
        if self.caches:
            # A link may lead to files that are no cache.
            for path in (each for each in CACHES if not target.is_link(each)):
                freed += _size(target.path(path))
                _empty(target, path)
        if self.later:
            lines = "".join(f"path-{kind}={pattern}\n" for kind, pattern in rules)
            target.write(DPKG_CONFIG, lines)
        target.reporter.output(f"removed {freed >> 20} MiB")

    def _rules(self) -> list[Rule]:
        """The rules for what to remove and to keep. As in dpkg, the last matching rule wins."""
        rules: list[Rule] = []
        if self.documentation:
            rules += DOCUMENTATION
        if self.keep_languages is not None:
            rules += TRANSLATIONS
            for language in self.keep_languages:
                for name in _spellings(language):
                    rules.append(("include", f"/usr/share/locale/{name}/*"))
                    rules.append(("include", f"/usr/share/man/{name}/*"))
        if self.manual_pages:
            rules += MANUAL_PAGES
        return rules


def _spellings(language: str) -> list[str]:
    """The patterns of the directories where gettext(3) looks for a language."""
    plain, _, territory = language.partition("_")
    if territory:
        return [plain, language, f"{language}[.@]*"]
    return [plain, f"{plain}_*", f"{plain}[.@]*"]


def _goes(path: str, rules: list[Rule]) -> bool:
    """Whether the rules exclude a path. A star also matches slashes, in dpkg as in fnmatch."""
    matching = [kind for kind, pattern in rules if fnmatchcase(path, pattern)]
    return matching[-1:] == ["exclude"]


def _remove(target: Target, top: str, rules: list[Rule]) -> int:
    """Removes excluded files below `top`, and directories that become empty.

    Returns the number of bytes freed.
    """
    place = target.path(top)
    if not target.holds(place):
        return 0
    freed = 0
    for directory, directories, files in os.walk(place, topdown=False):
        here = top + directory.removeprefix(str(place))
        links = [name for name in directories if Path(directory, name).is_symlink()]
        for name in (*files, *links):
            file = Path(directory, name)
            # dpkg keeps such a link too: a package may use the copyright file of another.
            shows_directory = name in links and here == "/usr/share/doc"
            if _goes(f"{here}/{name}", rules) and not shows_directory:
                freed += _size(file)
                file.unlink()
        kept = KEPT_DIRECTORY.fullmatch(here) or not _goes(f"{here}/", rules)
        if not kept and not os.listdir(directory):
            Path(directory).rmdir()
    return freed


def _empty(target: Target, path: str) -> None:
    """Removes a file, or the content of a directory."""
    if target.is_file(path):
        target.remove(path)
    for name in target.list(path):
        target.remove(f"{path}/{name}")


def _size(place: Path) -> int:
    """The bytes on disk of a file, or of a directory's content."""
    if place.is_dir() and not place.is_symlink():
        return sum(_size(entry) for entry in place.iterdir())
    return place.lstat().st_blocks * 512 if os.path.lexists(place) else 0
