"""Limits for the structure of the code: folders, levels, cycles, long modules, repeated names.

The tests read the sources and run nothing. Each measure must equal its limit in `LIMITS`: lower the
limit when a measure falls, so that the next growth is seen.
"""

import ast
import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from ..sources import folder, imported, modules, nodes, ours, parsed


class Limit(NamedTuple):
    """The present value of a measure, and the target: no limit may exceed it."""

    now: int
    target: int


LIMITS = {
    "modules in the largest folder": Limit(14, 14),
    "levels of folders in the host": Limit(9, 9),
    "levels of folders in the guest": Limit(7, 8),
    "import cycles between modules": Limit(0, 0),
    "import cycles between folders": Limit(0, 0),
    "sub-folders in an import cycle": Limit(2, 2),
    "modules with more than 12 imports of ours": Limit(2, 2),
    "functions over 50 lines": Limit(2, 3),
    "modules over 400 lines": Limit(0, 0),
    "names of classes and types that exist more than once": Limit(0, 6),
}
MOST_IMPORTS, LONGEST_FUNCTION, LONGEST_MODULE = 12, 50, 400
# `make debian-facts` writes this list of Debian's packages.
GENERATED = {"particle_agent.contract.debian"}
# `make generate` writes this list, which imports every sub-folder of stages.
REGISTRY = "particle_agent.stages.registry"
HOST, GUEST = "particle_os", "particle_agent"
# Of the tests, only the length of the modules is measured.
TESTS = modules("tests", Path(__file__).parents[1])


def graph(files):
    """The modules of `files` that each module imports."""
    names = frozenset(files)
    return {name: imports_of(path, names) & names - {name} for name, path in files.items()}


@cache
def imports_of(path, known):
    """The names that a source file imports. Each file is parsed once for all measures."""
    return frozenset(imported(path, known))


def folder_graph(files, package):
    """The folders of a package that each folder imports, without the modules beside the folders.

    Those modules are no level: they lie below all folders (errors) or above them (__main__).
    """
    folders = {folder(n) for n, p in files.items() if n.startswith(f"{package}.") and inside(p, n)}
    found = {name: set() for name in folders}
    for name, others in graph(files).items():
        if name.startswith(f"{package}.") and folder(name) in folders:
            inner = {folder(other) for other in others if other.startswith(f"{package}.")}
            found[folder(name)] |= inner & folders - {folder(name)}
    return found


def sub_folder_graph(files):
    """The folders and sub-folders that each of them imports, except for the registry of stages."""
    places = {n: place(p, n) for n, p in files.items() if n != REGISTRY and inside(p, n)}
    found = {name: set() for name in places.values()}
    for name, others in graph(files).items():
        if name in places:
            inner = {places[other] for other in others if other in places}
            found[places[name]] |= inner - {places[name]}
    return found


def place(path, name):
    """The folder or sub-folder that a module lies in, with the package."""
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def sub_folders_in_cycles(files):
    """The sub-folders that a chain of imports leads back to, through any other folder."""
    found = [name for group in cycles(sub_folder_graph(files)) for name in group]
    return sorted(name for name in found if name.count(".") > 1)


def inside(path, name):
    """Whether a module lies in a folder of its package."""
    return path.name == "__init__.py" or name.count(".") > 1


def cycles(edges):
    """The groups of nodes that reach each other (strongly connected components)."""
    reached = {node: reachable(edges, node) for node in edges}
    groups = {
        frozenset(other for other in reached[node] if node in reached[other]) for node in edges
    }
    return [sorted(group) for group in groups if group]


def reachable(edges, start):
    """The nodes that `start` reaches; `start` is one of them only when a cycle leads back to it."""
    found, left = set(), list(edges[start])
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += edges[node]
    return found


def longest_chain(edges):
    """The longest chain of nodes, the highest first; a chain ends where it would close a cycle."""

    def chain(node, above):
        below = [chain(n, (*above, node)) for n in edges[node] if n not in (*above, node)]
        return [node, *max(below, key=len, default=[])]

    return max((chain(node, ()) for node in sorted(edges)), key=len, default=[])


def largest_folder(files):
    """The modules of the folder with the most modules."""
    found = defaultdict(list)
    for name, path in files.items():
        if path.name != "__init__.py":
            found[path.parent].append(name)
    return max(found.values(), key=len)


def many_imports(files):
    """The modules that import more than `MOST_IMPORTS` of our other modules."""
    return [
        f"{name} ({len(others)})"
        for name, others in graph(files).items()
        if len(others) > MOST_IMPORTS
    ]


def long_functions(files):
    """The functions of more than `LONGEST_FUNCTION` lines, decorators included."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    for name, path in files.items():
        for node in nodes(path.read_text()):
            if isinstance(node, kinds):
                first = min([node.lineno, *(part.lineno for part in node.decorator_list)])
                if (lines := node.end_lineno - first + 1) > LONGEST_FUNCTION:
                    yield f"{name}.{node.name} ({lines})"


def long_modules(files):
    """The modules of more than `LONGEST_MODULE` lines."""
    for name, path in files.items():
        lines = len(path.read_text().splitlines())
        if lines > LONGEST_MODULE and name not in GENERATED:
            yield f"{name} ({lines})"


def defined(path):
    """The names of the classes and type aliases at the top level of a source file."""
    for node in parsed(path.read_text()).body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                if last_word(annotation) == "TypeAlias":
                    yield name
            case ast.Assign(targets=targets, value=value):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                yield from (name for name in names if is_type(name, value))
            # Python 3.12 and newer: `type X = ...`.
            case _ if type(node).__name__ == "TypeAlias":
                yield node.name.id


def is_type(name, value):
    """Whether an assignment of `value` to `name` defines a type."""
    match value:
        case ast.Call(func=function):
            return last_word(function) in ("NewType", "NamedTuple", "namedtuple", "TypedDict")
        case ast.Subscript(value=head) if last_word(head) in ("Annotated", "Literal"):
            return True
        case ast.Subscript() | ast.BinOp():
            # All-capital names are constants; a type alias is written like a class name.
            return name.lstrip("_")[:1].isupper() and not name.isupper()
    return False


def last_word(node):
    """The name that an expression such as `typing.Literal` ends with."""
    return ast.unparse(node).rpartition(".")[2]


def repeated_names(files):
    """The names of classes and types that more than one module defines."""
    counts = Counter(name for path in files.values() for name in set(defined(path)))
    return sorted(name for name, count in counts.items() if count > 1)


def measured(files):
    """The list of findings for each measure in `LIMITS`."""
    host, guest = folder_graph(files, HOST), folder_graph(files, GUEST)
    return {
        "modules in the largest folder": largest_folder(files),
        "levels of folders in the host": longest_chain(host),
        "levels of folders in the guest": longest_chain(guest),
        "import cycles between modules": cycles(graph(files)),
        "import cycles between folders": [*cycles(host), *cycles(guest)],
        "sub-folders in an import cycle": sub_folders_in_cycles(files),
        "modules with more than 12 imports of ours": many_imports(files),
        "functions over 50 lines": list(long_functions(files)),
        "modules over 400 lines": list(long_modules({**files, **TESTS})),
        "names of classes and types that exist more than once": repeated_names(files),
    }


@pytest.fixture(scope="module")
def house():
    return measured(ours())


@pytest.mark.parametrize("measure", LIMITS)
def test_the_house_stays_within_its_limits(house, measure):
    found = house[measure]
    assert len(found) <= LIMITS[measure].now, f"{measure}: {found}"
    assert len(found) == LIMITS[measure].now, f"{measure}: lower the limit to {len(found)}"


@pytest.mark.parametrize("measure", LIMITS)
def test_no_limit_is_above_its_target(measure):
    assert LIMITS[measure].now <= LIMITS[measure].target


def test_every_measure_has_a_limit(house):
    assert set(house) == set(LIMITS)


@pytest.fixture
def small(tmp_path):
    """Writes the modules of a small host package; `files` maps module paths to contents."""

    def write(**files):
        for name, content in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return modules(HOST, tmp_path)

    return write


def test_the_largest_folder_is_found(small):
    files = small(a__one="", a__two="", b__one="")
    assert largest_folder(files) == ["particle_os.a.one", "particle_os.a.two"]


def test_the_modules_of_a_sub_folder_count_as_a_folder_of_their_own(small):
    files = small(a__one="", a__in__one="", a__in__two="")
    assert largest_folder(files) == ["particle_os.a.in.one", "particle_os.a.in.two"]


def test_levels_are_the_longest_chain_of_folders(small):
    files = small(
        a__m="from particle_os.b import m\nfrom particle_os.c import m as other\n",
        b__m="def late():\n    from particle_os.c import m\n",
        c__m="from particle_os import errors\n",
        errors="",
    )
    assert longest_chain(folder_graph(files, HOST)) == ["a", "b", "c"]


def test_a_cycle_of_modules_is_seen_under_type_checking(small):
    files = small(
        a__one="from particle_os.a import two\n",
        a__two="from particle_os.a.three import X\n",
        a__three="if TYPE_CHECKING:\n    from particle_os.a.one import X\n",
        a__four="from particle_os.a import one\n",
    )
    names = ["particle_os.a.one", "particle_os.a.three", "particle_os.a.two"]
    assert cycles(graph(files)) == [names]


def test_a_cycle_of_folders_needs_no_cycle_of_modules(small):
    files = small(
        a__one="from particle_os.b import one\n",
        b__one="",
        b__two="from particle_os.a import two\n",
        a__two="",
    )
    assert cycles(graph(files)) == []
    assert cycles(folder_graph(files, HOST)) == [["a", "b"]]


def test_a_cycle_of_sub_folders_is_found(small):
    files = small(
        a__x__one="from particle_os.a.y import one\n",
        a__y__one="",
        a__y__two="from particle_os.a.x import two\n",
        a__x__two="",
        a__z__one="from particle_os.a import above\n",
        a__above="",
        a__user="from particle_os.a.z import one\n",
        a__w__one="from particle_os.a.x import one\n",
    )
    assert cycles(folder_graph(files, HOST)) == []
    found = sub_folders_in_cycles(files)
    assert found == ["particle_os.a.x", "particle_os.a.y", "particle_os.a.z"]


def test_a_module_with_many_imports_is_found(small):
    most = {f"a__m{number}": "" for number in range(MOST_IMPORTS)}
    imports = "".join(f"from particle_os.a import m{number}\n" for number in range(MOST_IMPORTS))
    assert many_imports(small(**most, b__one=imports)) == []
    files = small(a__x="X = 1", b__one=f"{imports}from particle_os.a.x import X\n")
    assert many_imports(files) == [f"particle_os.b.one ({MOST_IMPORTS + 1})"]


def test_a_long_function_is_found_inside_a_class_too(small):
    body = "        pass\n" * (LONGEST_FUNCTION - 1)
    files = small(a__one=f"class A:\n    def f():\n{body}    async def g():\n{body}        pass\n")
    assert list(long_functions(files)) == [f"particle_os.a.one.g ({LONGEST_FUNCTION + 1})"]


def test_the_decorators_are_lines_of_a_function(small):
    body = "    pass\n" * (LONGEST_FUNCTION - 2)
    files = small(a__one=f"@one\ndef f():\n{body}@one(\n)\ndef g():\n{body}")
    assert list(long_functions(files)) == [f"particle_os.a.one.g ({LONGEST_FUNCTION + 1})"]


def test_a_long_module_is_found(small):
    files = small(a__one="\n" * LONGEST_MODULE, a__two="\n" * (LONGEST_MODULE + 1))
    assert list(long_modules(files)) == [f"particle_os.a.two ({LONGEST_MODULE + 1})"]


def test_a_repeated_name_is_found_whether_class_or_alias(small):
    files = small(
        a__one="class Disk: ...\nKind = int | str\nMOST = 1 << 20\nclass O:\n    class In: ...\n",
        b__one="Disk = list[int]\nclass Kind: ...\nMOST = 2 << 20\nclass In: ...\n",
    )
    assert repeated_names(files) == ["Disk", "Kind"]


@pytest.mark.parametrize(
    "text",
    [
        "class Kind: ...",
        "Kind: TypeAlias = int",
        "Kind: typing.TypeAlias = int",
        "Kind = NewType('Kind', int)",
        "Kind = typing.NamedTuple('Kind', [])",
        "Kind = collections.namedtuple('Kind', 'a')",
        "Kind = Literal['a', 'b']",
        "KIND = Literal['a', 'b']",
        "_Kind = int | str",
        # Older versions of Python do not parse this form, so no module of the tree can have it.
        *(["type Kind = int"] if sys.version_info >= (3, 12) else []),
    ],
)
def test_a_type_is_found_in_every_form(small, text):
    assert [name.strip("_").title() for name in defined(small(a__m=text)["particle_os.a.m"])] == [
        "Kind"
    ]


@pytest.mark.parametrize(
    "text", ["KIND = 1 << 20", "KIND: int = 1", "Kind = make()", "kind = a[0]"]
)
def test_a_constant_is_no_type(small, text):
    assert list(defined(small(a__m=text)["particle_os.a.m"])) == []
