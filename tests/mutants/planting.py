"""The small faults that are planted into the sources, one at a time."""

from __future__ import annotations

import ast
import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SWAPPED: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Eq: ast.NotEq(), ast.NotEq: ast.Eq(), ast.Lt: ast.LtE(), ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(), ast.GtE: ast.Gt(), ast.Is: ast.IsNot(), ast.IsNot: ast.Is(),
    ast.In: ast.NotIn(), ast.NotIn: ast.In(),
}  # fmt: skip
# mypy reads them and no test can: a dataclass whose fields are assigned to nowhere, and imports
# that only annotations need.
FOR_MYPY = ("frozen", "kw_only", "TYPE_CHECKING")
# Arguments without which the program does the same, or shows less help: the encoding is that of the
# locale, zipped sequences have equal lengths, and the size of a buffer is a matter of speed.
NO_FAULT = ("encoding", "strict", "bufsize", "buffering", "help", "metavar", "show_default",
            "show_envvar", "short_help", "epilog")  # fmt: skip
# The linter wants to read it, and it is the default.
BY_DEFAULT = "check=False"
# Results that are the same as None to callers.
FALSE = ("None", "False", "()", "[]", "{}", "''", "0")
# Names of limits and durations, also as arguments, and the class of texts, whose last argument is a
# length. No promise depends on the exact number.
TUNED = (
    "SECONDS",
    "HOURS",
    "BYTES",
    "LIMIT",
    "LIMITS",
    "LINES",
    "CHARACTERS",
    "MOST",
    "CHUNK",
    "STEP",
)


@dataclass(frozen=True)
class Mutant:
    """A fault: the text that replaces the bytes from `start` up to `end` of a file.

    `name` stays the same when other parts of the file change.
    """

    path: str
    line: int
    start: int
    end: int
    text: str
    name: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]

    def diff(self, source: bytes) -> str:
        before, after = (s.decode().splitlines() for s in (source, self.applied(source)))
        lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[3:]
        return "\n".join(f"    {line}" for line in lines)


def mutants(path: str, source: bytes) -> Iterator[Mutant]:
    """All mutants of a file."""
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))

    def place(node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = offsets[node.lineno - 1] + node.col_offset
        return start, offsets[node.end_lineno - 1] + node.end_col_offset

    same: Counter[str] = Counter()
    for scope, node in _nodes(ast.parse(source), ""):
        for target, text in _faults(node):
            start, end = place(target)
            name = f"{path} {scope} {source[start:end].decode()} -> {text}"
            same[name] += 1
            yield Mutant(path, target.lineno, start, end, text, f"{name} #{same[name]}")


def _nodes(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.AST]]:
    """All nodes, with the names of the classes and functions around them."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        scope = f"{scope}.{node.name}"
    yield scope, node
    if isinstance(node, ast.keyword) and node.arg in (*FOR_MYPY, *NO_FAULT):
        return
    if isinstance(node, ast.Assign) and scope == "" and _are_tuned(node.targets):
        return
    for child in ast.iter_child_nodes(node):
        if _is_tuned(node, child):
            continue
        yield from _nodes(child, scope)


def _are_tuned(targets: Iterable[ast.expr]) -> bool:
    """Whether all targets of an assignment are names of limits and durations."""
    names = [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return all(name.split("_")[-1] in TUNED for name in names)


def _is_tuned(node: ast.AST, child: ast.AST) -> bool:
    """Whether the child is the number of a limit or a duration, or cuts a text of a message."""
    if isinstance(node, ast.FormattedValue) and isinstance(child, ast.Subscript):
        return isinstance(child.slice, ast.Slice)
    if not isinstance(child, ast.Constant) or isinstance(child.value, bool):
        return False
    match node:
        case ast.keyword(arg=str(name)):
            return name.upper() in TUNED or name == "timeout"
        case ast.Call(func=ast.Name("Text"), args=[_, _, last]):
            return child is last
    return False


def _faults(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """The faults at one node: the node that is replaced, and the text instead."""
    match node:
        case ast.If(test=ast.Name(id=name)) if name in FOR_MYPY:
            return
        case ast.Compare(ops=[operator]):
            swapped = SWAPPED[type(operator)]
            new = ast.Compare(node.left, [swapped], node.comparators)
            yield node, f"({ast.unparse(new)})"
        case ast.BoolOp(op=operator):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield node, f"({ast.unparse(ast.BoolOp(other, node.values))})"
        case ast.UnaryOp(op=ast.Not()):
            yield node, f"({ast.unparse(node.operand)})"
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, f"(not ({ast.unparse(test)}))"
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int(value)):
            yield node, str(value + 1)
        case ast.Raise():
            yield node, "pass"
        case ast.Expr(value=ast.Call()):
            yield node, "pass"
        case ast.AugAssign() | ast.Delete() | ast.Continue() | ast.Break():
            yield node, "pass"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) not in FALSE:
            yield value, "None"
        case ast.With(items=[ast.withitem(context_expr=context, optional_vars=None)]):
            yield context, "__import__('contextlib').nullcontext()"
        case ast.Call(keywords=keywords):
            for dropped in keywords:
                if dropped.arg not in (*FOR_MYPY, *NO_FAULT) and ast.unparse(dropped) != BY_DEFAULT:
                    kept = [keyword for keyword in keywords if keyword is not dropped]
                    yield node, ast.unparse(ast.Call(node.func, node.args, kept))
