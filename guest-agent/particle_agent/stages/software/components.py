"""Adds components to the package sources that an image has."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from particle_agent.errors import StageError
from particle_agent.target.target import Target

# sources.list(5): a line of a .list file; stanzas of a .sources file, and their fields, which other
# lines may continue.
LINE = re.compile(
    r"^[ \t]*deb(?:-src)?[ \t]+(?:\[(?P<options>[^\]\n]*)\][ \t]+)?(?P<uri>\S+)[ \t]+\S+[ \t]+"
    r"(?P<names>[^#\n]*)",
    re.MULTILINE,
)
STANZA = re.compile(r"(?:[^\n]+\n?)+")
FIELD = re.compile(r"^(?P<name>[A-Za-z-]+):(?P<value>[^\n]*(?:\n[ \t#][^\n]*)*)", re.MULTILINE)
DISABLED = ("no", "false", "without", "off", "disable")
# Debian's archive has this component. Other repositories that have it often have no others.
MAIN = "main"
# The keyrings of the distributions, and the URIs of their archives and of mirrors.
KEYRING = re.compile(r"/(debian|ubuntu)-archive-")
ARCHIVE = re.compile(
    r"//([^/]*\.)?(debian\.org|ubuntu\.com)(:[0-9]+)?/|/(debian|debian-security|ubuntu)(/|$)"
)


@dataclass(frozen=True)
class _Source:
    """A source in a file: its components, the offset behind them, its URIs and its keyring."""

    components: Sequence[str]
    end: int
    uris: Sequence[str]
    keyring: str

    @property
    def is_distributions(self) -> bool:
        """Whether the source is probably one of the distribution's own archives."""
        if self.keyring:
            return KEYRING.search(self.keyring) is not None
        return any(ARCHIVE.search(uri) for uri in self.uris)


def add(target: Target, paths: Sequence[str], components: Sequence[str]) -> None:
    """Adds the components to the distribution's sources that have `main`.

    If no source is certainly the distribution's, all with `main` get them, with a note. Raises
    StageError if no source has `main`.
    """
    # As apt, ignore what is no file.
    texts = {path: target.read(path) for path in paths if target.is_file(path)}
    found = [(path, each) for path, text in texts.items() for each in _sources(path, text)]
    certain = [(path, each) for path, each in found if each.is_distributions]
    if not found:
        raise StageError(
            f"no package source of the image has the component '{MAIN}'",
            hint="Describe the repository in 'repositories', with its components.",
        )
    # From the end on, so that the offsets of the sources before stay right.
    for path, source in reversed(certain or found):
        if more := [name for name in components if name not in source.components]:
            text = texts[path]
            texts[path] = f"{text[: source.end]} {' '.join(more)}{text[source.end :]}"
            if not certain:
                target.reporter.note(
                    f"{path}: {source.uris[0]} gets {', '.join(more)}, because no source of the "
                    "image is known to be Debian's"
                )
    for path, text in texts.items():
        if text != target.read(path):
            status = target.path(path).stat()
            owner, mode = (status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode)
            target.write(path, text, mode=mode, owner=owner)


def _sources(path: str, text: str) -> Iterator[_Source]:
    """The sources of a file that have `main`."""
    every = _of_stanzas(text) if path.endswith(".sources") else _of_lines(text)
    return (source for source in every if MAIN in source.components)


def _of_lines(text: str) -> Iterator[_Source]:
    for line in LINE.finditer(text):
        options = dict(each.partition("=")[::2] for each in (line["options"] or "").split())
        end = line.start("names") + len(line["names"].rstrip())
        keyring = options.get("signed-by", "")
        yield _Source(line["names"].split(), end, [line["uri"]], keyring)


def _of_stanzas(text: str) -> Iterator[_Source]:
    for stanza in STANZA.finditer(text):
        fields = {
            field["name"].lower(): field
            for field in FIELD.finditer(text, stanza.start(), stanza.end())
        }
        words = {name: list(_words(field["value"])) for name, field in fields.items()}
        uris, enabled = words.get("uris", []), words.get("enabled", [])
        if "components" not in fields or not uris or (enabled and enabled[0].lower() in DISABLED):
            continue
        names = words["components"]
        if not names:
            continue
        value = fields["components"]["value"]
        end = fields["components"].start("value") + _end_of_words(value)
        yield _Source(names, end, uris, " ".join(words.get("signed-by", [])))


def _words(value: str) -> Iterator[str]:
    for line in value.split("\n"):
        if not line.startswith("#"):
            yield from line.split()


def _end_of_words(value: str) -> int:
    """The offset behind the last word of a field that is not in a comment."""
    end = offset = 0
    for line in value.split("\n"):
        if line.strip() and not line.startswith("#"):
            end = offset + len(line.rstrip())
        offset += len(line) + 1
    return end
