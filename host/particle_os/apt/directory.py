"""Writes a private directory for the host's apt, from the guest's description of the target.

The guest is not trusted, and the host's apt reads these files outside of a VM. So this module
passes no file on unchanged: it parses package states, sources and pins, and writes new files with
known fields and characters only. Any other content refuses the request, and the apt in the VM does
the work. Formats: dpkg(1) status, sources.list(5), apt_preferences(5).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from particle_agent.apt import proxy as apt_proxy
from particle_agent.contract.packages import SETTINGS
from particle_agent.contract.wire import AptProxy, FileContent, PackageRequest

from particle_os.apt import deb822
from particle_os.architecture import AMD64

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
    # If this field differs, apt considers two equal versions as different.
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
    """The host's apt must not read this; the text names the content and the reason."""


def write(
    request: PackageRequest,
    directory: Path,
    lists: Path,
    proxy: AptProxy | None = None,
    native: str = AMD64.name,
) -> Path:
    """Fills `directory` for apt and returns the path of the file for APT_CONFIG.

    `lists` is the directory of the indexes, `native` the architecture of the image. Raises Refused.
    """
    for name in ("etc/preferences.d", "trusted.gpg.d", "keyrings", "archives/partial", "log"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    architectures = [
        _accepted(a, "[a-z0-9-]{1,20}", "architecture") for a in _architectures(request, native)
    ]
    keyrings = _write_keyrings(request.keyrings, directory)
    (directory / "status").write_text("".join(_status(request.status)))
    preferences = "".join(_preferences(request.preferences))
    (directory / "etc/preferences").write_text(preferences)
    sources = "".join(_sources(request.sources, keyrings, directory))
    sources = _as_seen_here(sources, preferences)
    if proxy is not None and apt_proxy.may_rewrite(proxy, preferences):
        sources = apt_proxy.rewritten(sources)
    (directory / "etc/target.sources").write_text(sources)
    settings = _directories(directory, lists) | {"APT::Architecture": architectures[0]}
    for setting in request.settings:
        # Other settings can make apt run programs.
        if setting.key not in SETTINGS:
            raise Refused(f"the target sets {setting.key[:80]!r}")
        settings[setting.key] = _accepted(setting.value, _SETTING.pattern, setting.key)
    if proxy is not None:
        settings |= apt_proxy.settings(proxy, sources)
    text = "".join(f'{key} "{value}";\n' for key, value in settings.items())
    text += "".join(f'APT::Architectures:: "{name}";\n' for name in architectures)
    config = directory / "apt.conf"
    config.write_text(text)
    return config


def _directories(directory: Path, lists: Path) -> dict[str, str]:
    """Settings (apt.conf(5)) that keep all files in `directory`, and the indexes in `lists`."""
    return {
        "Dir": f"{directory}/",
        "Dir::Etc": f"{directory}/etc/",
        # Ignores the configuration of the host's own apt.
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


def _architectures(request: PackageRequest, native: str) -> tuple[str, ...]:
    return request.architectures or (native,)


def sources_key(request: PackageRequest, native: str = AMD64.name) -> str:
    """A name for the indexes of these sources, with these keys and settings."""
    digest = hashlib.sha256(repr((request.sources, request.keyrings, request.settings)).encode())
    digest.update(repr(_architectures(request, native)).encode())
    return digest.hexdigest()[:32]


def _accepted(value: str, pattern: str, what: str) -> str:
    if not re.fullmatch(pattern, value):
        raise Refused(f"the target's {what} is not supported: {value[:80]!r}")
    return value


def _text(file: FileContent) -> str:
    try:
        return base64.b64decode(file.content, validate=True).decode("utf-8")
    except ValueError as error:
        raise Refused(f"{file.path[:80]} is not UTF-8 text") from error


def _paragraphs(file: FileContent) -> Iterator[Mapping[str, str]]:
    """Yields the fields of each paragraph of a file, keyed by lower-case names. Raises Refused."""
    try:
        for fields in deb822.paragraphs(_text(file)):
            yield {
                # The line ends of an embedded key have a meaning.
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
    """Writes the keyrings under new names; returns their new paths, keyed by the old ones.

    apt trusts the keyrings in trusted.gpg.d for all sources.
    """
    places: dict[str, Path] = {}
    for number, file in enumerate(files):
        try:
            data = base64.b64decode(file.content, validate=True)
        except ValueError as error:
            raise Refused(f"{file.path[:80]} is not a keyring") from error
        trusted = file.path.startswith(("/etc/apt/trusted.gpg.d/", "/etc/apt/trusted.gpg"))
        # apt derives the format of a keyring from the file name's extension.
        ending = "asc" if data.lstrip().startswith(_ARMOR) else "gpg"
        place = directory / ("trusted.gpg.d" if trusted else "keyrings") / f"{number}.{ending}"
        place.write_bytes(data)
        places[file.path] = place
    return places


def _as_seen_here(sources: str, preferences: str) -> str:
    """Replaces the address by which the VM reaches the host's loopback. Raises Refused."""
    seen = _HOST_LOOPBACK.sub("http://127.0.0.1", sources)
    if seen != sources and apt_proxy.HOST_LOOPBACK in preferences:
        raise Refused(
            f"a pin names the host's loopback by the VM's address {apt_proxy.HOST_LOOPBACK}"
        )
    return seen


def installed(directory: Path) -> set[str]:
    """The installed packages in the states that `write` has written."""
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
            continue  # apt ignores files with other names.
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
                    f"a source is signed by a key that is not a known keyring: {missing[0][:80]}"
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
    """Writes a key that a source contains; a dot is an empty line there (sources.list(5))."""
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
            raise Refused(f"this line is not a valid source: {stripped[:80]!r}")
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
