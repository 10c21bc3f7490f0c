"""A private directory for the host's apt, written from what the guest says of the target.

The guest is not trusted, and apt reads what it says natively. So nothing of it is passed on as it
came: package states, sources and pins are taken apart and written anew from those fields and
characters that belong there, and whatever else they hold refuses the request (the apt in the VM
then does the work itself). Formats: dpkg(1) status, sources.list(5), apt_preferences(5).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from particle_agent.apt import proxy as apt_proxy
from particle_agent.contract.packages import SETTINGS
from particle_agent.contract.wire import AptProxy, FileContent, PackageRequest

from particle_os.apt import deb822

# Debian Policy 5.6; relations are names, versions, architectures and operators.
_RELATIONS = r"[A-Za-z0-9+.:~ ,|()<>=\[\]!-]*"
_VERSION = r"[A-Za-z0-9.+:~-]{1,200}"
_STATUS_FIELDS = {
    "Package": r"[a-z0-9][a-z0-9+.-]{1,200}",
    "Status": r"(install|hold|deinstall|purge|unknown) (ok|reinstreq) [a-z-]{1,20}",
    "Essential": "yes|no",
    "Important": "yes|no",
    "Protected": "yes|no",
    "Priority": "[a-z]{1,20}",
    "Section": "[a-z0-9/-]{1,60}",
    # apt takes a version for another one when this differs.
    "Installed-Size": "[0-9]{1,12}",
    "Architecture": "[a-z0-9-]{1,20}",
    "Multi-Arch": "same|foreign|allowed|no",
    "Source": r"[a-z0-9][a-z0-9+.-]* ?(\([A-Za-z0-9.+:~-]+\))?",
    "Version": _VERSION,
    "Pre-Depends": _RELATIONS,
    "Depends": _RELATIONS,
    "Recommends": _RELATIONS,
    "Suggests": _RELATIONS,
    "Breaks": _RELATIONS,
    "Conflicts": _RELATIONS,
    "Replaces": _RELATIONS,
    "Provides": _RELATIONS,
    "Enhances": _RELATIONS,
}
_NEEDED = ("Package", "Status", "Version", "Architecture")
_WORDS = r"[A-Za-z0-9./_+~ -]{0,500}"
_URIS = r"https?://[A-Za-z0-9.:_~%+/-]+( https?://[A-Za-z0-9.:_~%+/-]+)*"
_SOURCE_FIELDS = {
    "types": "(deb|deb-src| )+",
    "uris": _URIS,
    "suites": _WORDS,
    "components": _WORDS,
    "architectures": _WORDS,
    "trusted": "yes|no",
    "check-valid-until": "yes|no",
    "enabled": "yes|no",
}
_LINE = re.compile(r"deb(?:-src)?\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)\s*(?:#.*)?")
_PIN_FIELDS = {"package": r"[A-Za-z0-9+.:*?/ -]+", "pin": r"[ -~]+", "pin-priority": "-?[0-9]+"}
_ARMOR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_KEY = (
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n[ -~\n]{1,262144}-----END PGP PUBLIC KEY BLOCK-----\n"
)
_HOST_LOOPBACK = re.compile(r"\bhttp://" + re.escape(apt_proxy.HOST_LOOPBACK) + r"(?=[:/\s]|$)()")
_SETTING = re.compile(r"[A-Za-z0-9./:_~+@-]*")


class Refused(Exception):
    """The host's apt is not given this; the text says what and why."""


def write(
    request: PackageRequest, directory: Path, lists: Path, proxy: AptProxy | None = None
) -> Path:
    """Fills `directory` for apt and returns the configuration file for APT_CONFIG.

    `lists` is where the indexes are kept. Raises Refused.
    """
    for name in ("etc/preferences.d", "trusted.gpg.d", "keyrings", "archives/partial", "log"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    architectures = [_accepted(a, "[a-z0-9-]{1,20}", "architecture") for a in request.architectures]
    keyrings = _write_keyrings(request.keyrings, directory)
    (directory / "status").write_text("".join(_status(request.status)))
    preferences = "".join(_preferences(request.preferences))
    (directory / "etc/preferences").write_text(preferences)
    sources = "".join(_sources(request.sources, keyrings, directory))
    sources = _as_seen_here(sources, preferences)
    if proxy is not None and apt_proxy.may_rewrite(proxy, preferences):
        sources = apt_proxy.rewritten(sources)
    (directory / "etc/target.sources").write_text(sources)
    settings = _directories(directory, lists) | {
        "APT::Architecture": architectures[0] if architectures else "amd64"
    }
    for setting in request.settings:
        # Others can make apt run programs.
        if setting.key not in SETTINGS:
            raise Refused(f"the target sets {setting.key[:80]!r}")
        settings[setting.key] = _accepted(setting.value, _SETTING.pattern, setting.key)
    if proxy is not None:
        settings |= apt_proxy.settings(proxy, sources)
    text = "".join(f'{key} "{value}";\n' for key, value in settings.items())
    text += "".join(f'APT::Architectures:: "{name}";\n' for name in architectures or ["amd64"])
    config = directory / "apt.conf"
    config.write_text(text)
    return config


def _directories(directory: Path, lists: Path) -> dict[str, str]:
    """apt.conf(5) for an apt that keeps everything in `directory`, and indexes in `lists`."""
    return {
        "Dir": f"{directory}/",
        "Dir::Etc": f"{directory}/etc/",
        # Not what the host's own apt is told.
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::sourcelist": f"{directory}/etc/target.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::trusted": "/dev/null",
        "Dir::Etc::trustedparts": f"{directory}/trusted.gpg.d/",
        "Dir::State": f"{directory}/",
        "Dir::State::status": f"{directory}/status",
        "Dir::State::lists": f"{lists}/",
        "Dir::Cache": f"{directory}/",
        "Dir::Cache::archives": f"{directory}/archives/",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Log": f"{directory}/log/",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
        "APT::Update::Error-Mode": "any",
    }


def sources_key(request: PackageRequest) -> str:
    """A name for the indexes of these sources, as trusted by these keys."""
    digest = hashlib.sha256(repr((request.sources, request.keyrings, request.settings)).encode())
    digest.update(repr(request.architectures).encode())
    return digest.hexdigest()[:32]


def _accepted(value: str, pattern: str, what: str) -> str:
    if not re.fullmatch(pattern, value):
        raise Refused(f"the target's {what} is not one that is known here: {value[:80]!r}")
    return value


def _text(file: FileContent) -> str:
    try:
        return base64.b64decode(file.content, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Refused(f"{file.path} is no text") from error


def _paragraphs(file: FileContent) -> Iterator[Mapping[str, str]]:
    """The fields of each paragraph of a file, by their names in lower case. Raises Refused."""
    try:
        for fields in deb822.paragraphs(_text(file)):
            yield {
                # A key stands in its own lines.
                name: value if _ARMOR.decode() in value else " ".join(value.split())
                for name, value in fields.items()
            }
    except deb822.Malformed as error:
        raise Refused(f"{file.path[:80]} is malformed: {error}") from error


def _status(file: FileContent) -> Iterator[str]:
    for paragraph in _paragraphs(file):
        if not paragraph.get("status", "").endswith((" installed", "-configured", " unpacked")):
            continue
        if missing := [name for name in _NEEDED if name.lower() not in paragraph]:
            raise Refused(f"a package in the target's status has no {missing[0]}")
        for name, pattern in _STATUS_FIELDS.items():
            if value := paragraph.get(name.lower()):
                yield f"{name}: {_accepted(value, pattern, f'package field {name}')}\n"
        yield "\n"


def _write_keyrings(files: Iterable[FileContent], directory: Path) -> dict[str, Path]:
    """The keyrings under names of ours, those that are trusted by themselves apart."""
    places: dict[str, Path] = {}
    for number, file in enumerate(files):
        try:
            data = base64.b64decode(file.content, validate=True)
        except binascii.Error as error:
            raise Refused(f"{file.path} is no keyring") from error
        trusted = file.path.startswith(("/etc/apt/trusted.gpg.d/", "/etc/apt/trusted.gpg"))
        # apt knows a keyring's format by the name's ending.
        ending = "asc" if data.lstrip().startswith(_ARMOR) else "gpg"
        place = directory / ("trusted.gpg.d" if trusted else "keyrings") / f"{number}.{ending}"
        place.write_bytes(data)
        places[file.path] = place
    return places


def _as_seen_here(sources: str, preferences: str) -> str:
    """The VM has another name for the host's loopback."""
    seen = _HOST_LOOPBACK.sub("http://127.0.0.1", sources)
    if seen != sources and apt_proxy.HOST_LOOPBACK in preferences:
        raise Refused("a pin names the host's loopback as the VM sees it")
    return seen


def installed(directory: Path) -> set[str]:
    """The packages that are there, by the states that `write` has written."""
    return set(re.findall(r"^Package: (\S+)$", (directory / "status").read_text(), re.MULTILINE))


def _sources(
    files: Iterable[FileContent], keyrings: Mapping[str, Path], directory: Path
) -> Iterator[str]:
    number = 0
    for file in files:
        if file.path.endswith(".sources"):
            entries = list(_paragraphs(file))
        elif file.path.endswith(".list"):
            entries = list(_one_line_sources(_text(file)))
        else:
            continue  # As apt does with names that it does not know.
        for entry in entries:
            if entry.get("enabled") == "no" or "deb" not in entry.get("types", "").split():
                continue
            number += 1
            inline = directory / "keyrings" / f"inline-{number}.asc"
            yield "".join(_source(entry, keyrings, inline))


def _source(entry: Mapping[str, str], keyrings: Mapping[str, Path], inline: Path) -> Iterator[str]:
    for name, value in entry.items():
        if name == "signed-by":
            if _ARMOR.decode() in value:
                _write_inline_key(value, inline)
                places = [inline]
            elif missing := [place for place in value.split() if place not in keyrings]:
                raise Refused(
                    f"a source is signed by something else than a keyring: {missing[0][:80]}"
                )
            else:
                places = [keyrings[place] for place in value.split()]
            yield f"Signed-By: {' '.join(map(str, places))}\n"
        elif name in _SOURCE_FIELDS:
            value = "deb" if name == "types" else value
            yield f"{name.title()}: {_accepted(value, _SOURCE_FIELDS[name], f'source {name}')}\n"
        elif not name.startswith("x-"):
            raise Refused(f"a source has the option '{name[:40]}'")
    yield "\n"


def _write_inline_key(value: str, place: Path) -> None:
    """A key in the source itself: sources.list(5) has a dot where the key has an empty line."""
    lines = [line.strip() for line in value.strip().splitlines()]
    text = "".join(f"{'' if line == '.' else line}\n" for line in lines)
    place.write_text(_accepted(text, _KEY, "key"))


def _one_line_sources(text: str) -> Iterator[Mapping[str, str]]:
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", "deb-src")):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise Refused(f"a source is not understood: {stripped[:80]!r}")
        entry = {"types": "deb", "uris": match.group(2), "suites": match.group(3)}
        if components := match.group(4).strip():
            entry["components"] = " ".join(components.split())
        for option in (match.group(1) or "").split():
            name, _, value = option.partition("=")
            entry["architectures" if name == "arch" else name.lower()] = value.replace(",", " ")
        yield entry


def _preferences(files: Iterable[FileContent]) -> Iterator[str]:
    for file in files:
        for fields in _paragraphs(file):
            for name, pattern in _PIN_FIELDS.items():
                value = _accepted(fields.get(name, ""), pattern, f"preference {name}")
                yield f"{name.title()}: {value}\n"
            yield "\n"
