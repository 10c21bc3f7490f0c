"""The matrix of a recipe: one image for each combination of the values of some variables."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from particle_os.documents.document import Mark, Node, Source
from particle_os.documents.words import did_you_mean, nearest, shown_key
from particle_os.errors import UsageError
from particle_os.recipe.parameters.variables import KEY as VARIABLES
from particle_os.recipe.parameters.variables import NAME, Variables

KEY, INCLUDE, EXCLUDE = "matrix", "include", "exclude"
LIMIT = 256
SHOWN = 8
DECLARE = "declare it with a default in 'variables'"

# The values of the variables of one image, as --set takes them.
Values = Mapping[str, str]


class _Value(NamedTuple):
    text: str
    mark: Mark


@dataclass(frozen=True)
class Matrix:
    """The images that a recipe makes; each has a value for each variable of the matrix.

    Messages show the values of the `shown` variables only. The recipe is not read yet, so any other
    one may hold a password.
    """

    members: tuple[Values, ...] = ()
    shown: frozenset[str] = frozenset()

    def chosen(self, given: Values) -> tuple[Values, ...]:
        """The members with the given values. Raises UsageError when there is none.

        A recipe without a matrix makes one image.
        """
        if not self.members:
            return ({},)
        wanted = {name: text for name, text in given.items() if name in self.members[0]}
        found = tuple(each for each in self.members if wanted.items() <= each.items())
        if not found:
            asked = self._words(wanted, ", ")
            raise UsageError(
                f"the matrix of the recipe has no image with {asked}",
                hint=f"It has {self._first_members()}.",
            )
        return found

    def one(self, given: Values) -> Values:
        """The only member with the given values. Raises UsageError when there are several."""
        found = self.chosen(given)
        if len(found) > 1:
            choice = self._words(found[0], " ", "--set ")
            raise UsageError(
                f"the recipe makes {len(found)} images, and this command needs one",
                hint=f"Choose it, for example with {choice}.",
            )
        return found[0]

    def _first_members(self) -> str:
        texts = [self._words(each, " ") for each in self.members[:SHOWN]]
        more = len(self.members) - len(texts)
        return "; ".join([*texts, *([f"and {more} more"] if more else [])])

    def _words(self, values: Values, joint: str, before: str = "") -> str:
        pairs = [(name, text if name in self.shown else "…") for name, text in values.items()]
        return joint.join(f"{before}{name}={text}" for name, text in pairs)


def variables_of(source: Source, given: Values) -> Variables:
    """Takes the variables from a document, with the given values, which choose one image.

    Raises UsageError when they choose none or several, and for a variable that is not declared.
    """
    return Variables(source, {**given, **take(source).one(given)})


def for_architecture(source: Source, given: Values, architecture: str | None) -> dict[str, str]:
    """The values for the variables of a recipe that becomes one for `architecture`.

    A recipe that takes its architecture from a variable gets the variable. Any other recipe gets
    the architecture itself.
    """
    root = source.root
    if architecture is None or not isinstance(root.value, dict):
        return dict(given)
    node = root.child("architecture")
    named = re.fullmatch(rf"\$\{{({NAME})\}}", str(node.value)) if node is not None else None
    if named is not None:
        return {**given, named[1]: architecture}
    root.value["architecture"] = Node(architecture, root.mark if node is None else node.mark)
    return dict(given)


def take(source: Source) -> Matrix:
    """Removes the matrix from the document and returns it; notes its problems in `source`."""
    root = source.root.value
    if not isinstance(root, dict) or KEY not in root:
        return Matrix()
    node = root.pop(KEY)
    shown = frozenset(_used(root.get("name")) | _used(root.get("architecture")))
    if not isinstance(node.value, dict) or not node.value:
        message = f"{KEY}: expected a mapping from variables to lists of values"
        source.problem(node.mark, "bad-type", message)
        return Matrix()
    return _Reader(source, node, _defaults(root.get(VARIABLES)), shown).matrix()


def _used(node: Node | None) -> set[str]:
    """The variables in a text of the document."""
    return set(re.findall(rf"\$\{{({NAME})\}}", str(node.value))) if node is not None else set()


def _defaults(declared: Node | None) -> dict[str, str | None]:
    """The default of each declared variable as a text; None for one without such a default."""
    found = dict[str, str | None]()
    known = declared.value if declared and isinstance(declared.value, dict) else {}
    for name, node in known.items():
        stated = node.child("default") if isinstance(node.value, dict) else node
        found[name] = None if stated is None else _text(stated)
    return found


def _text(node: Node) -> str | None:
    """A value as --set takes it; None for a value that no variable of a matrix has."""
    if isinstance(node.value, bool):
        return str(node.value).lower()
    return str(node.value) if isinstance(node.value, str | int) else None


class _Reader:
    """Reads the matrix of one document."""

    def __init__(
        self,
        source: Source,
        node: Node,
        defaults: Mapping[str, str | None],
        shown: frozenset[str],
    ) -> None:
        self._source = source
        self._shown = shown
        self._node = node
        self._defaults = defaults
        self._problems = len(source.problems)

    def matrix(self) -> Matrix:
        """The matrix; without members when it has problems."""
        axes = {
            name: self._values(name, inner)
            for name, inner in self._node.value.items()
            if name not in (INCLUDE, EXCLUDE) and self._is_variable(name, inner)
        }
        included = list(self._rows(INCLUDE))
        excluded = list(self._rows(EXCLUDE))
        names = list(dict.fromkeys([*axes, *(name for _, row in included for name in row)]))
        for mark, row in excluded:
            for name in row.keys() - axes.keys():
                message = f"{EXCLUDE}: the matrix has no variable '{shown_key(name)}'"
                hint = did_you_mean(nearest(name, axes), [*axes])
                self._problem(mark, "unknown-key", message, hint)
        count = len(included) + (math.prod(map(len, axes.values())) if axes else 0)
        if count > LIMIT:
            message = f"{KEY}: {count} images are too many; at most {LIMIT} are possible"
            self._problem(self._node.mark, "bad-value", message, "split the recipe")
        if len(self._source.problems) > self._problems:
            return Matrix()
        return self._made(axes, included, excluded, names)

    def _made(
        self,
        axes: Mapping[str, Sequence[str]],
        included: Sequence[tuple[Mark, Values]],
        excluded: Sequence[tuple[Mark, Values]],
        names: Sequence[str],
    ) -> Matrix:
        rows = [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]
        rows = rows if axes else []
        for mark, row in excluded:
            left = [each for each in rows if not row.items() <= each.items()]
            if len(left) == len(rows):
                message = f"{EXCLUDE}: no combination has these values"
                self._problem(mark, "bad-value", message, "correct or remove it")
            rows = left
        members = [self._complete(row, names, self._node.mark) for row in rows]
        for mark, row in included:
            member = self._complete(row, names, mark)
            if member in members:
                message = f"{INCLUDE}: the matrix has this image already"
                self._problem(mark, "bad-value", message, "remove it")
            members.append(member)
        if not members:
            message = f"{KEY}: no combination is left"
            self._problem(self._node.mark, "bad-value", message, "exclude fewer of them")
        whole = len(self._source.problems) == self._problems
        return Matrix(tuple(members), self._shown) if whole else Matrix()

    def _complete(self, row: Values, names: Sequence[str], mark: Mark) -> Values:
        """A row with the defaults of the variables that it does not name."""
        found = dict[str, str]()
        for name in names:
            value = row.get(name, self._defaults.get(name))
            if value is None:
                message = f"{INCLUDE}: the variable '{shown_key(name)}' has no value here"
                self._problem(mark, "missing-value", message, "give it one, or a default")
            else:
                found[name] = value
        return found

    def _is_variable(self, name: str, node: Node) -> bool:
        if name in self._defaults:
            return True
        near = nearest(name, self._defaults) if re.fullmatch(NAME, name) else None
        hint = f"did you mean '{near}'?" if near else DECLARE
        message = f"{KEY}: there is no variable '{shown_key(name)}'"
        self._problem(node.key or node.mark, "unknown-variable", message, hint)
        return False

    def _values(self, name: str, node: Node) -> list[str]:
        """The values of one axis."""
        if not isinstance(node.value, list) or not node.value:
            message = f"{KEY}: expected a list of values for '{name}'"
            self._problem(node.mark, "bad-type", message, f"write '{name}: [one, other]'")
            return []
        found = [value for inner in node.value if (value := self._value(name, inner))]
        texts = [value.text for value in found]
        for number, (text, mark) in enumerate(found):
            if text in texts[:number]:
                what = f"'{shown_key(text)}'" if name in self._shown else "a value"
                message = f"{KEY}: {what} is there twice for '{name}'"
                self._problem(mark, "bad-value", message, "remove one of them")
        return texts

    def _value(self, name: str, node: Node) -> _Value | None:
        text = _text(node)
        if text is None:
            message = f"{KEY}: expected a string, an integer, true or false for '{name}'"
            self._problem(node.mark, "bad-type", message)
            return None
        return _Value(text, node.mark)

    def _rows(self, key: str) -> Iterator[tuple[Mark, Values]]:
        """The rows of `include` or `exclude`: values of some variables."""
        node = self._node.value.get(key)
        if node is None:
            return
        if not isinstance(node.value, list):
            message = f"{KEY}: expected a list of mappings for '{key}'"
            self._problem(node.mark, "bad-type", message)
            return
        for item in node.value:
            if not isinstance(item.value, dict) or not item.value:
                message = f"{key}: expected a mapping from variables to values"
                self._problem(item.mark, "bad-type", message)
                continue
            named = {n: inner for n, inner in item.value.items() if self._is_variable(n, inner)}
            values = {n: value for n, inner in named.items() if (value := self._value(n, inner))}
            yield item.mark, {name: value.text for name, value in values.items()}

    def _problem(self, mark: Mark, code: str, message: str, hint: str | None = None) -> None:
        self._source.problem(mark, code, message, hint)
