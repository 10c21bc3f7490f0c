"""What stage options are made of: strict dataclasses and constrained strings.

A stage is written once, as a frozen standard-library dataclass. The host hands the same class to
pydantic, which reads ``__pydantic_config__`` and calls ``__get_pydantic_core_schema__`` on the
metadata of ``Annotated`` types; core schemas are plain dictionaries, so pydantic is not needed
here (https://docs.pydantic.dev/latest/concepts/types/). The guest checks the same constraints
when it decodes the wire.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

if TYPE_CHECKING:
    pass


def kebab_case(name: str) -> str:
    """The spelling of a Python field name in recipes and on the wire.

    A name that is a Python keyword has an underscore at its end, which is not spelled.
    """
    return name.rstrip("_").replace("_", "-")


@dataclass(frozen=True)
class Text:
    """Constrains a string to a pattern; `what` is how an error names the expected thing.

    `meant` guesses what was probably meant by a text that is not accepted. The pattern must mean
    the same to Python's ``re.fullmatch`` and to Rust's ``regex`` crate (which pydantic uses): no
    look-around and no back-references. It is anchored here.
    """

    what: str
    pattern: str
    max_length: int = 255
    meant: Callable[[str], str | None] | None = None

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
            "custom_error_context": {
                "what": self.what,
                "text": self.pattern,
                "meant": self.meant,
            },
        }

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        schema: dict[str, Any] = handler(core)
        named = re.findall("'([^']+)'", self.what.partition("such as")[2])
        if examples := [word for word in named if self.accepts(word)]:
            schema["examples"] = examples
        return schema


@dataclass(frozen=True)
class Confidential:
    """Marks a value that no message shows, such as the hash of a password.

    With `option`, the value is shown where the option of that name beside it has one of the values
    in `open_with`.
    """

    option: str | None = None
    open_with: tuple[str, ...] = ()


CONFIDENTIAL = Confidential()


@dataclass(frozen=True)
class OnHost(Text):
    """Marks the path of a file on the host, relative to the recipe.

    In the VM the value is "sha256:" and the SHA-256 of the file; where `directories` are taken,
    too, "tree:" and that of the directory as a tar archive (see `Target.attached`). `faults` are
    what is wrong with the content of a small file.
    """

    directories: bool = False
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
    """Constrains an integer to a number of seconds; recipes may say `90s`, `20m` or `2h` instead.

    The host converts them; only the integer goes over the wire.
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
class AtLeastOne:
    """Constrains a list to have an item."""

    def accepts(self, value: tuple[object, ...]) -> bool:
        return len(value) > 0

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> dict[str, Any]:
        schema: dict[str, Any] = handler(source)
        schema["min_length"] = 1
        return schema


@dataclass(frozen=True)
class OneOrMore(AtLeastOne):
    """Constrains a list of words to have an item; recipes may write one word without a list."""

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
    # What a function returns is no JSON any more to pydantic, where only a list is a tuple.
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str) else value


# A path in options: the keys, and the numbers of items in lists.
Place = tuple[str | int, ...]


class Faults(ValueError):
    """What is wrong with options: of each fault the place, below those options, and a message.

    As a text it is the first message.
    """

    def __init__(self, found: Sequence[tuple[Place, str]]) -> None:
        super().__init__(found[0][1])
        self.found = tuple(found)


def refuse(*found: Iterable[tuple[Place, str]]) -> None:
    """Raises Faults when there are any."""
    if faults := [fault for several in found for fault in several]:
        raise Faults(faults)


def idle(stage: str, *words: str) -> Iterator[tuple[Place, str]]:
    """The fault of a stage that has nothing to do; `words` are options that would give it work."""
    named = [f"'{word}'" for word in words]
    yield (), f"{stage}: there is nothing to do without {', '.join(named[:-1])} or {named[-1]}"


class Options:
    """Base of every options class: unknown keys are errors, types are not converted.

    What its options exclude or need among themselves a class says in `__post_init__`, by raising
    ValueError, or `Faults` when there may be several; the host tells it with the place in the
    recipe.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "alias_generator": kebab_case,
    }
    # Whether its result depends on what the network has to give at the time.
    reads_network: ClassVar[bool] = False
    # Whether it uses the recipe's name (`Target.hostname`).
    uses_name: ClassVar[bool] = False
    # Whether it does nothing but set up what is there.
    only_configures: ClassVar[bool] = False


# The release architectures of Debian 12 and 13.
Architecture = Literal[
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
SecretName = Annotated[
    str, Text("a name of a-z, 0-9, '-' and '_'", r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", 63)
]
# POSIX, 8.1; env(1) and the shells know no other names.
VariableName = Annotated[
    str, Text("the name of a variable: A-Z a-z 0-9 _, no digit first", r"[A-Za-z_][A-Za-z0-9_]*")
]


def repeated(what: str, names: Iterable[tuple[Place, object]]) -> Iterator[tuple[Place, str]]:
    """The faults of names that come a second time: nobody can tell which one is meant.

    With each name comes its place; None is no name.
    """
    seen: set[object] = set()
    for place, name in names:
        if name is not None and name in seen:
            yield place, f"{what} '{name}' is there twice"
        seen.add(name)


DURATION = "[1-9][0-9]{0,5}[smh]"


def seconds_of(text: object) -> object:
    """A duration such as '20m' in seconds; anything else comes back as it is."""
    if isinstance(text, str) and re.fullmatch(DURATION, text):
        return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]
    return text


def duration(seconds: int) -> str:
    """Seconds as recipes write them, in the largest unit that is exact."""
    for unit, letter in ((3600, "h"), (60, "m")):
        if seconds and seconds % unit == 0:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
