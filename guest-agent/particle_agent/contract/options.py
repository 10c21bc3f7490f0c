"""The building blocks of stage options: strict dataclasses and constrained values.

Each stage is one frozen standard-library dataclass, which serves both sides. The host gives the
class to pydantic, which reads ``__pydantic_config__`` and calls ``__get_pydantic_core_schema__`` on
the metadata of ``Annotated`` types. Core schemas are plain dictionaries, so this module does not
import pydantic (https://docs.pydantic.dev/latest/concepts/types/). The guest checks the same
constraints when it decodes the wire.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal


@functools.cache
def kebab_case(name: str) -> str:
    """The spelling of a Python field name in recipes and on the wire.

    A field whose name would be a Python keyword ends with an underscore, which is left out.
    """
    return name.rstrip("_").replace("_", "-")


# By its pattern: the `meant` of a constrained text.
_GUESSES: dict[str, Callable[[str], str | None]] = {}


def guess_for(pattern: str, text: str) -> str | None:
    """The correction that the constraint with this pattern suggests for a text; None for none."""
    guess = _GUESSES.get(pattern)
    return None if guess is None else guess(text)


@dataclass(frozen=True)
class Text:
    """Constrains a string to a pattern that the whole string matches.

    `what` describes the expected text in errors. `meant` suggests a correction for a text that is
    not accepted. `max_length` is in characters. The pattern must mean the same to Python's
    ``re.fullmatch`` and to Rust's ``regex`` crate, which pydantic uses: no look-around, no
    back-references.
    """

    what: str
    pattern: str
    max_length: int = 255
    meant: Callable[[str], str | None] | None = None

    def __post_init__(self) -> None:
        if self.meant is not None:
            _GUESSES[self.pattern] = self.meant

    def accepts(self, value: str) -> bool:
        return len(value) <= self.max_length and re.fullmatch(self.pattern, value) is not None

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> dict[str, Any]:
        return {
            "type": "custom-error",
            "schema": {
                "type": "str",
                "strict": True,
                "pattern": f"^(?:{self.pattern})$",
                "max_length": self.max_length,
            },
            "custom_error_type": "not_accepted",
            "custom_error_message": "expected {what}",
            # Older versions of pydantic take only texts and numbers here; see `guess_for`.
            "custom_error_context": {"what": self.what, "text": self.pattern},
        }

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        schema: dict[str, Any] = handler(core)
        named = re.findall("'([^']+)'", self.what.partition("such as")[2])
        if examples := [word for word in named if self.accepts(word)]:
            schema["examples"] = examples
        return schema


@dataclass(frozen=True)
class Confidential:
    """Marks a value that no message shows, such as a password hash.

    With `option`, messages show the value if the sibling option of that name has one of the values
    in `open_with`. Something else in the place of the value might be a secret, but a valid value
    that is `public` is none.
    """

    option: str | None = None
    open_with: tuple[str, ...] = ()
    public: bool = False


CONFIDENTIAL = Confidential()
PUBLIC_IF_VALID = Confidential(public=True)


@dataclass(frozen=True)
class OnHost(Text):
    """Marks the path of a file on the host, relative to the recipe.

    The host replaces the path before it sends the stage to the VM. A file becomes "sha256:" and its
    SHA-256. With `directories`, the path may be a directory, which becomes "tree:" and the SHA-256
    of its tar archive (see `Target.attached`), and a file becomes "mode-" with its octal mode, ":"
    and its SHA-256. With `ending`, an item of a list may be a directory or a pattern of shells: it
    becomes the files with this ending. `faults` returns the faults of a small file's content.
    """

    directories: bool = False
    ending: str | None = None
    faults: Callable[[bytes], Iterable[str]] | None = None


@dataclass(frozen=True)
class Between:
    """Constrains an integer to a closed range."""

    low: int
    high: int

    def accepts(self, value: int) -> bool:
        return self.low <= value <= self.high

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> dict[str, Any]:
        return {"type": "int", "strict": True, "ge": self.low, "le": self.high}


@dataclass(frozen=True)
class Seconds:
    """Constrains an integer number of seconds to a closed range.

    Recipes may also write `90s`, `20m` or `2h`. The host converts these: the wire has integers.
    """

    low: int
    high: int

    def accepts(self, value: int) -> bool:
        return self.low <= value <= self.high

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> dict[str, Any]:
        return {
            "type": "custom-error",
            "schema": {
                "type": "function-before",
                "function": {"type": "no-info", "function": seconds_of},
                "schema": {"type": "int", "strict": True, "ge": self.low, "le": self.high},
            },
            "custom_error_type": "not_accepted",
            "custom_error_message": "expected {what}",
            "custom_error_context": {
                "what": f"a duration from {duration(self.low)} to {duration(self.high)}, such as "
                "'90s', '20m' or '2h', or whole seconds"
            },
        }

    def __get_pydantic_json_schema__(self, core: object, handler: object) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "integer", "minimum": self.low, "maximum": self.high},
                {"type": "string", "pattern": f"^{DURATION}$"},
            ]
        }


@dataclass(frozen=True)
class AnyOf:
    """Names, for messages, the kinds of values that a union has."""

    what: str

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> dict[str, Any]:
        return {
            "type": "custom-error",
            "schema": handler(source),
            "custom_error_type": "not_accepted",
            "custom_error_message": "expected {what}",
            "custom_error_context": {"what": self.what},
        }


@dataclass(frozen=True)
class AtLeastOne:
    """Constrains a list to have at least one item, and at most `most` items."""

    most: int | None = None

    def accepts(self, value: tuple[object, ...]) -> bool:
        return 0 < len(value) <= (self.most or len(value))

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> dict[str, Any]:
        schema: dict[str, Any] = handler(source)
        schema["min_length"] = 1
        if self.most is not None:
            schema["max_length"] = self.most
        return schema


@dataclass(frozen=True)
class OneOrMore(AtLeastOne):
    """Constrains a list of words to have at least one item.

    Recipes may write a single word without a list.
    """

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> dict[str, Any]:
        return {
            "type": "function-before",
            "function": {"type": "no-info", "function": _as_tuple},
            "schema": super().__get_pydantic_core_schema__(source, handler),
        }

    def __get_pydantic_json_schema__(self, core: object, handler: Any) -> dict[str, Any]:
        schema: dict[str, Any] = handler(core)
        return {"anyOf": [schema["items"], schema]}


def _as_tuple(value: object) -> object:
    # pydantic accepts a list for a tuple in JSON input only, and a function's result is not JSON.
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str) else value


# A path in options: keys, and indexes of list items.
Place = tuple[str | int, ...]


class Faults(ValueError):
    """The faults of options: `found` has the place and the message of each.

    Places are relative to the options.
    `str()` of the error is the first message.
    """

    def __init__(self, found: Sequence[tuple[Place, str]]) -> None:
        super().__init__(found[0][1])
        self.found = tuple(found)


def refuse(*found: Iterable[tuple[Place, str]]) -> None:
    """Raises Faults with all the given faults; does nothing if there are none."""
    if faults := [fault for several in found for fault in several]:
        raise Faults(faults)


def idle(stage: str, *words: str) -> Iterator[tuple[Place, str]]:
    """The fault of a stage with nothing to do. `words` are the options that would give it work."""
    named = [f"'{word}'" for word in words]
    yield (), f"{stage}: there is nothing to do without {', '.join(named[:-1])} or {named[-1]}"


class Options:
    """The base of all options classes. Unknown keys are errors; types are not converted.

    A class checks the relations between its options in `__post_init__`. It raises ValueError, or
    `Faults` if there may be several. The host reports each with its place in the recipe.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "alias_generator": kebab_case,
    }
    # Whether the result depends on what the network currently offers.
    reads_network: ClassVar[bool] = False
    # Whether the stage uses the recipe's name (`Target.hostname`).
    uses_name: ClassVar[bool] = False
    # Whether the stage only configures what is installed, and so brings nothing that others need.
    only_configures: ClassVar[bool] = False


# The release architectures of Debian 12 and 13.
DebianArchitecture = Literal[
    "amd64", "arm64", "armel", "armhf", "i386", "mips64el", "mipsel", "ppc64el", "riscv64", "s390x"
]
StageName = Annotated[
    str,
    Text(
        "one line of at most 80 characters, without spaces around it",
        r"[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?",
        80,
    ),
]
Duration = Annotated[int, Seconds(1, 86400)]


HOST_PATH = ("a path without control characters", r"[^\x00-\x1f\x7f]+", 4096)
HostPath = Annotated[str, Text(*HOST_PATH)]
HostFile = Annotated[str, OnHost(*HOST_PATH)]
HostTree = Annotated[str, OnHost(*HOST_PATH, directories=True)]
HostDebs = Annotated[str, OnHost(*HOST_PATH, ending=".deb")]
ATTACHED_MODE = "mode-"


def attached_mode(reference: str) -> int:
    """The mode on the host of an attached file; 0644 for a reference without a mode."""
    kind = reference.partition(":")[0]
    return int(kind.removeprefix(ATTACHED_MODE), 8) if kind.startswith(ATTACHED_MODE) else 0o644


SecretName = Annotated[
    str, Text("a name of a-z, 0-9, '-' and '_'", r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", 63)
]
RecipeVariable = Annotated[str, Text("the name of a variable", r"[a-z][a-z0-9_-]{0,62}", 63)]
# POSIX, 8.1: env(1) and shells accept no other names.
VariableName = Annotated[
    str, Text("the name of a variable: A-Z a-z 0-9 _, no digit first", r"[A-Za-z_][A-Za-z0-9_]*")
]


def repeated(what: str, names: Iterable[tuple[Place, object]]) -> Iterator[tuple[Place, str]]:
    """The faults of repeated names. `names` are pairs of a place and a name; None is no name."""
    seen: set[object] = set()
    for place, name in names:
        if name is not None and name in seen:
            yield place, f"{what} '{name}' is there twice"
        seen.add(name)


DURATION = "[1-9][0-9]{0,5}[smh]"


def seconds_of(text: object) -> object:
    """Converts a duration such as '20m' to seconds. Returns any other value unchanged."""
    if isinstance(text, str) and re.fullmatch(DURATION, text):
        return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]
    return text


def duration(seconds: int) -> str:
    """Seconds in the notation of recipes, in the largest exact unit."""
    for unit, letter in ((3600, "h"), (60, "m")):
        if seconds and seconds % unit == 0:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
