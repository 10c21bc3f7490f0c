"""Variables: declared with a default at the top of a recipe, used as `${name}` in any string.

The substitution replaces text by text. It evaluates nothing and does not scan inserted values.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from particle_os.documents.document import Mark, Node, Source
from particle_os.documents.explanation import SHOWN, quoted
from particle_os.documents.words import did_you_mean, nearest, shown_key
from particle_os.errors import UsageError
from particle_os.recipe.parameters.budget import Budget
from particle_os.recipe.parameters.kinds import (
    KINDS,
    Value,
    VariableKind,
    as_kind,
    in_words,
    kind_of,
    strings,
)

KEY = "variables"
NAME = "[a-z][a-z0-9_-]{0,62}"
# Adds to a list variable: --set NAME+=ITEM.
ADD = "+"
# Reads values from standard input: --set -.
FROM_INPUT = "-"
# `$${` is the escape for a literal `${`.
_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
# The variable of another program's template.
_BRACES = re.compile(r"\{\{-? *(" + NAME + r") *-?\}\}")
_BEGINNING = re.compile(r"\$\{")
_LITERAL_HINT = "write '$${' where no variable is meant"


class NoSuchVariable(UsageError):
    """A value is given, under `given`, for a variable that the recipe does not declare."""

    def __init__(self, name: str, given: str, hint: str) -> None:
        super().__init__(f"--set: there is no variable '{shown_key(name)}'", hint=hint)
        self.given = given
        self.is_near = "?" in hint


@dataclass(frozen=True)
class Variable:
    """A declared variable; `value` is None when the value is missing or wrong.

    `made_of` names the variables in an argument that is the value. `refused` are the texts of a
    wrong argument, which may be confidential, too.
    """

    kind: VariableKind | None
    value: Value | None
    mark: Mark
    made_of: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Variables:
    """The variables of a recipe or of an included file, with their values."""

    def __init__(self, source: Source, given: Mapping[str, str]) -> None:
        """Removes the declarations from `source`; `given` are values from the command line.

        A name of `given` with "+" at its end adds to a list. Notes in `source` the problems of the
        declarations, and the given values that have another type than their variables. Raises
        NoSuchVariable for a variable that is not declared.
        """
        self._known = _declared(source)
        self._given = {name.removesuffix(ADD): text for name, text in given.items()}
        self.budget = Budget()
        # Of each '${' in the document whose variables are replaced.
        self._places: list[tuple[int, int]] = []
        self._inner: list[Variables] = []
        for name, text in given.items():
            plain = name.removesuffix(ADD)
            self._known[plain] = self._set(source, plain, text, adds=plain != name)
        for name, variable in self._known.items():
            if variable.value is None and variable.kind is not None:
                message = f"the variable '{name}' has no value"
                source.problem(variable.mark, "missing-value", message, f"use --set {name}=VALUE")

    def of_included(
        self, included: Source, arguments: Mapping[str, Node], place: Mark
    ) -> Variables:
        """The variables in an included file: these, and over them the file's own ones.

        Removes the declarations from `included`. `arguments` are values for them, and `place` is
        where the file is included. Notes in `included` the problems of both.
        """
        own = _declared(included)
        for name, node in arguments.items():
            if node.unknown:
                own[name] = Variable(None, None, node.mark)
            elif name not in own:
                message = f"{included.path.name} has no variable '{shown_key(name)}'"
                mark, nothing = node.key or node.mark, "the file declares none"
                self.report(included, mark, message, name, own, nothing)
            else:
                own[name] = _argued(included, name, own[name], node)
        for name, variable in own.items():
            if variable.value is None and variable.kind is not None:
                message = f"the variable '{name}' of {included.path.name} has no value"
                included.problem(place, "missing-value", message, f"give it here: {name}: …")
        inner = Variables.__new__(Variables)
        inner._known = {**self._known, **own}
        inner._given, inner.budget, inner._inner = self._given, self.budget, []
        self._inner.append(inner)
        return inner

    def value(self, name: str) -> Value | None:
        """The value of a variable; None for one that is unknown or has none."""
        return self._known[name].value if name in self._known else None

    def has(self, source: Source, place: Mark, name: str) -> bool:
        """Whether there is a variable of this name; notes in `source` that there is none."""
        if name in self._known:
            return True
        message, nothing = f"there is no variable '{name}'", "the recipe declares none"
        self.report(source, place, message, name, self._known, nothing)
        return False

    def report(
        self,
        source: Source,
        place: Mark,
        message: str,
        name: str,
        known: Collection[str],
        nothing: str,
    ) -> None:
        """Notes an unknown variable; the hint names known ones, or says `nothing` without any."""
        self.budget.charge_fault(source, place)
        source.problem(place, "unknown-variable", message, self.budget.hint(name, known, nothing))

    def _set(self, source: Source, name: str, text: str, *, adds: bool = False) -> Variable:
        if name not in self._known:
            none = f"{source.path.name} declares none"
            hint = self.budget.hint(name, self._known, none)
            raise NoSuchVariable(name, f"{name}{ADD}" if adds else name, hint)
        declared = self._known[name]
        value: Value | None = text
        if declared.kind == "integer":
            value = int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text) else None
        elif declared.kind == "boolean":
            value = {"true": True, "false": False}.get(text)
        elif declared.kind == "list":
            value = [item.strip() for item in text.split(",")] if text else []
            if adds and isinstance(declared.value, list):
                value = [*declared.value, *value]
        if adds and declared.kind != "list":
            message = f"--set {name}+=…: the variable is no list"
            source.problem(declared.mark, "bad-value", message)
            return declared
        if value is None:
            what = {"integer": "an integer", "boolean": "true or false"}[str(declared.kind)]
            message = f"--set {name}: expected {what}, found '{text}'"
            source.problem(declared.mark, "bad-value", message)
            value = declared.value
        return Variable(declared.kind, value, declared.mark)

    def unknown(self, names: Iterable[str]) -> Iterator[str]:
        """The names that no variable has, in quotes, as messages show them."""
        known = {name for each in self._all() for name in each._known}
        return (f"'{name}'" for name in names if name not in known)

    def related(self, names: Iterable[str]) -> set[str]:
        """`names`, and the variables that share a part of their values as arguments of files."""
        shared = defaultdict[str, set[str]](set)
        for each in self._all():
            for name, variable in each._known.items():
                for part in variable.made_of:
                    shared[name].add(part)
                    shared[part].add(name)
        found, left = set[str](), set(names)
        while left:
            found |= left
            left = {other for name in left for other in shared[name]} - found
        return found

    def _all(self) -> Iterator[Variables]:
        """These variables, and those of all included files."""
        yield self
        for inner in self._inner:
            yield from inner._all()

    def all_texts(self) -> Iterator[str]:
        """The values of all variables, declared and given, as texts."""
        yield from self.texts(self._known)
        for inner in self._inner:
            yield from inner.all_texts()

    def texts(self, names: Iterable[str]) -> Iterator[str]:
        """The values of the variables `names`, declared and given, as texts."""
        for name in names:
            given = self._given.get(name, "")
            value = self._known[name].value if name in self._known else None
            yield from self._known[name].refused if name in self._known else ()
            # "true" and "false" occur in many messages.
            if given not in ("true", "false"):
                yield from (given, *(item.strip() for item in given.split(",")))
            if value is not None and not isinstance(value, bool):
                yield from [str(value)] if isinstance(value, int) else strings(value)
        for inner in self._inner:
            yield from inner.texts(names)

    def substitute(self, source: Source) -> None:
        """Replaces the variables in every string of a document; notes references that fail.

        Also notes variables that are written as templates of other programs have them.
        """
        self._places = _all_places(source)
        # The list is complete before the first replacement, so inserted values are not scanned.
        nodes = list(source.root.walk())
        for node in [n for n in nodes if isinstance(n.value, str) and "{{" in n.value]:
            for name in dict.fromkeys(_BRACES.findall(node.value)):
                if name in self._known:
                    message = f"'{{{{ {name} }}}}' is no variable here: write ${{{name}}}"
                    source.note(node.mark, "other-syntax", message)
        for node in [n for n in nodes if isinstance(n.value, dict | list)]:
            if isinstance(node.value, list):
                node.value = [new for item in node.value for new in self._items(source, item)]
            else:
                for item in node.value.values():
                    self._replace(source, item)
        self._replace(source, source.root)

    def substitute_text(self, source: Source) -> None:
        """Replaces the variables in a document that is one text, and stays one."""
        self._places = _all_places(source)
        self._replace(source, source.root, as_text=True)

    def _items(self, source: Source, item: Node) -> list[Node]:
        """A list item with its variables replaced; the items of a list variable are spliced in."""
        was_text = isinstance(item.value, str)
        self._replace(source, item)
        if was_text and isinstance(item.value, list):
            found: list[Node] = item.value
            return found
        return [item]

    def _replace(self, source: Source, node: Node, *, as_text: bool = False) -> None:
        if not isinstance(node.value, str) or "${" not in node.value:
            return
        value = self._value(source, node, as_text=as_text)
        node.made_of = tuple(match[1] for match in _REFERENCE.finditer(node.value) if match[1])
        if value is None:
            node.unknown = True
            return
        if isinstance(value, list):
            node.value = [Node(item, node.mark, made_of=node.made_of) for item in value]
        else:
            node.value = value

    def _value(self, source: Source, node: Node, *, as_text: bool = False) -> Value | None:
        """The value of a text with its variables replaced; None when a variable is unknown."""
        text: str = node.value
        parts: list[str] = []
        places = _places(self._places, node.mark)
        complete, end = True, 0
        for match in _REFERENCE.finditer(text):
            parts.append(text[end : match.start()])
            end = match.end()
            place = next(places, node.mark)
            if match[0] == "$${":
                parts.append("${")
                continue
            value = self._look_up(source, place, match[1])
            if value is not None:
                size = sum(len(part) + 1 for part in strings(value))
                self.budget.charge(source, node.mark, size)
            if value is not None and match[0] == text and not as_text:
                return value
            if isinstance(value, list):
                message = f"the list '{match[1]}' can only be a whole value, not a part of a text"
                source.problem(place, "bad-variable", message)
                value = None
            complete = complete and value is not None
            parts.append(str(value).lower() if isinstance(value, bool) else str(value))
        parts.append(text[end:])
        return "".join(parts) if complete else None

    def _look_up(self, source: Source, place: Mark, name: str | None) -> Value | None:
        if name in self._known:
            return self._known[name].value
        self.budget.charge_fault(source, place)
        if name is None:
            source.problem(place, "bad-variable", "'${' without '}'", _LITERAL_HINT)
            return None
        valid = re.fullmatch(NAME, name)
        near = self.budget.near(name, self._known) if valid else None
        hint = f"did you mean '{near}'?" if near else _LITERAL_HINT
        message = f"there is no variable '{name}'" if valid else "there is no such variable"
        source.problem(place, "unknown-variable", message, hint)
        return None


def _places(known: list[tuple[int, int]], mark: Mark) -> Iterator[Mark]:
    """The places of each '${' in the text of the value at `mark`, and of all that follow.

    `known` are all places in the document.
    """
    start = bisect.bisect_left(known, (mark.line, mark.column))
    for line, column in itertools.islice(known, start, None):
        yield Mark(mark.path, line, column)


def _all_places(source: Source) -> list[tuple[int, int]]:
    """The lines and columns of each '${' in a document, from 1."""
    return [
        (number, found.start() + 1)
        for number, line in enumerate(source.lines, 1)
        for found in _BEGINNING.finditer(line)
    ]


def _declared(source: Source) -> dict[str, Variable]:
    """Removes the declarations from the document and returns them."""
    if not isinstance(source.root.value, dict) or KEY not in source.root.value:
        return {}
    node = source.root.value.pop(KEY)
    if not isinstance(node.value, dict):
        source.problem(node.mark, "bad-type", f"{KEY}: expected a mapping from names to defaults")
        return {}
    found = {}
    for name, inner in node.value.items():
        if not re.fullmatch(NAME, name):
            what = "a letter of a-z, then at most 62 of a-z, 0-9, '_' and '-'"
            name = shown_key(name)
            source.problem(inner.key, "bad-key", f"{KEY}: expected {what}, found '{name}'")
        found[name] = _declaration(source, name, inner)
    return found


def _declaration(source: Source, name: str, node: Node) -> Variable:
    wrong = Variable(None, None, node.mark)
    kind: VariableKind | None = None
    default: Node | None = node
    if isinstance(node.value, dict):
        for key, inner in node.value.items():
            if key not in ("type", "default", "description"):
                allowed = ["default", "description", "type"]
                hint = did_you_mean(nearest(key, allowed), allowed)
                message = f"unknown key '{shown_key(key)}'"
                source.problem(inner.key, "unknown-key", message, hint)
        about = node.child("description")
        if about is not None and not isinstance(about.value, str):
            source.problem(about.mark, "bad-type", "description: expected a string")
        stated, default = node.child("type"), node.child("default")
        if stated is not None:
            if stated.value not in KINDS:
                near = nearest(str(stated.value), KINDS)
                message = f"type: expected {', '.join(KINDS[:-1])} or {KINDS[-1]}"
                hint = f"did you mean '{near}'?" if near else None
                source.problem(stated.mark, "bad-value", message, hint)
                return wrong
            kind = stated.value
        elif default is None:
            source.problem(node.mark, "missing-key", f"{name}: 'type' or 'default' is needed")
            return wrong
    if default is None:
        return Variable(kind, None, node.mark)
    value = default.plain()
    found = kind_of(value)
    if found is None or (kind is not None and kind != found):
        source.problem(default.mark, "bad-type", f"{name}: the default must be {in_words(kind)}")
        return wrong
    if any("${" in text for text in strings(value)):
        message = f"{name}: a default is literal and cannot contain '${{'"
        source.problem(default.mark, "bad-variable", message)
        return wrong
    return Variable(found, value, node.mark)


def _argued(included: Source, name: str, declared: Variable, node: Node) -> Variable:
    """A declared variable with an argument as its value."""
    value = node.plain()
    if declared.kind == "string" and node.made_of and isinstance(value, int):
        value = str(value).lower()
    kind = kind_of(value)
    made_of = tuple(dict.fromkeys(part for inner in node.walk() for part in inner.made_of))
    if kind is None or declared.kind not in (None, kind):
        shown = quoted(value) if len(str(value)) <= SHOWN else "a longer text"
        message = f"{name}: expected {in_words(declared.kind)}, found {shown}"
        included.problem(node.mark, "bad-type", message, as_kind(node, declared.kind))
        return Variable(None, None, node.mark, made_of, refused=(shown, str(value)))
    return Variable(kind, value, node.mark, made_of)
