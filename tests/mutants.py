"""Measures what the tests notice: `make mutants SEED=1 N=500 JOBS=1`.

A mutant is a copy of the tree with one small fault in one of the two packages. It survives when all
tests pass that run its line. Kept tools run the product's code without a boundary; a mutant of this
project may delete files or signal processes. So each mutant runs in namespaces without a network
and without other processes (unshare(1)), under Landlock, and writes to its own copy only.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import difflib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from particle_agent.target import limits
from particle_os.system.confinement import GIB, Confinement, landlock_abi

TOP = Path(__file__).parents[1]
PACKAGES = ("host/particle_os", "guest-agent/particle_agent")
GENERATED = ("contract/debian.py", "shortcuts/known_scripts.py")
TESTS = ("tests/unit", "tests/guest")
SECONDS, CPU_SECONDS = 240, 600
# Landlock keeps signals inside since this version.
LEAST_ABI = 6
SWAPPED: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Eq: ast.NotEq(), ast.NotEq: ast.Eq(), ast.Lt: ast.LtE(), ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(), ast.GtE: ast.Gt(), ast.Is: ast.IsNot(), ast.IsNot: ast.Is(),
    ast.In: ast.NotIn(), ast.NotIn: ast.In(),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A fault: the text that replaces the bytes from `start` up to `end` of a file."""

    path: str
    line: int
    start: int
    end: int
    text: str

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

    for node in ast.walk(ast.parse(source)):
        for target, text in _faults(node):
            start, end = place(target)
            yield Mutant(path, target.lineno, start, end, text)


def _faults(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """The faults at one node: the node that is replaced, and the text instead."""
    match node:
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
        case ast.Expr(value=ast.Call() | ast.Yield()) if not isinstance(node.value, ast.Yield):
            yield node, "pass"
        case ast.AugAssign() | ast.Delete() | ast.Continue() | ast.Break():
            yield node, "pass"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield value, "None"
        case ast.With(items=[ast.withitem(context_expr=context, optional_vars=None)]):
            yield context, "__import__('contextlib').nullcontext()"
        case ast.Call(keywords=keywords):
            for dropped in keywords:
                kept = [keyword for keyword in keywords if keyword is not dropped]
                yield node, ast.unparse(ast.Call(node.func, node.args, kept))


def copy_tree(tree: Path, to: Path) -> None:
    shutil.copytree(tree, to, symlinks=True)


def make_pristine(to: Path) -> None:
    """Copies the files of the tree that git knows."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, check=True)
    for name in names.stdout.decode().split("\0")[:-1]:
        if (TOP / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, to / name)


def confined(place: Path, argv: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs a Python program in `place`/tree, in namespaces and under Landlock."""
    for name in ("tmp", "home"):
        (place / name).mkdir(exist_ok=True)
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    unshare = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        *user,
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TMPDIR": str(place / "tmp"),
        "HOME": str(place / "home"),
        "LC_ALL": "C.UTF-8",
    }
    own = [sys.executable, str(Path(__file__).resolve()), "--inside", str(place)]
    process = subprocess.Popen(
        [*unshare, *own, *argv],
        cwd=place / "tree",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)  # The kernel then ends all processes inside.
        output, _ = process.communicate()
    return subprocess.CompletedProcess(argv, process.returncode, output)


def inside(place: Path, argv: list[str]) -> None:
    """Runs Python with these arguments, confined, as a child of the first process in here.

    The child has a session of its own: the group of its parent has the number 0 in here, and a
    program that signals group 0 signals itself.
    """
    if landlock_abi() < LEAST_ABI:
        sys.exit("mutants need a kernel with Landlock 6 or later (Linux 6.12)")
    limits._loopback_up()
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) and 1)
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    terminals = (Path("/dev/pts"), Path("/dev/ptmx"), Path("/dev/shm"))
    python = (Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent)
    Confinement(reads=python, writes=(place, *terminals), tcp="any", memory=16 * GIB).entry(
        sys.executable
    )()
    # Only from here on does Python load the mutated packages.
    roots = (place / "tree" / package.split("/")[0] for package in PACKAGES)
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, roots))
    os.execv(sys.executable, [sys.executable, *argv])


PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]


def run_map(pristine: Path, place: Path, folder: str) -> tuple[Path, set[str]]:
    """Runs the tests of a folder. Returns the file of coverage, and the tests that fail here."""
    copy_tree(pristine, place / "tree")
    settings = place / "coverage.ini"
    settings.write_text(
        f"[run]\ndata_file = {place}/coverage\ndynamic_context = test_function\n"
        f"source = {','.join(str(place / 'tree' / package) for package in PACKAGES)}\n"
    )
    argv = ["-m", "coverage", "run", f"--rcfile={settings}", *PYTEST, "-rfE", folder]
    done = confined(place, argv, 3600)
    words = [line.split() for line in done.stdout.splitlines()]
    failed = {w[1].split("[")[0] for w in words if len(w) > 1 and w[0] in ("FAILED", "ERROR")}
    print(f"{folder}: {done.stdout.splitlines()[-1:]}, fail without a mutant: {sorted(failed)}")
    return place / "coverage", failed


def tests_by_line(data_file: Path, tree: Path) -> dict[str, dict[int, set[str]]]:
    """For each file and line, the tests that run it, as pytest names them."""
    import coverage

    data = coverage.CoverageData(str(data_file))
    data.read()
    found: dict[str, dict[int, set[str]]] = {}
    for file in data.measured_files():
        lines = data.contexts_by_lineno(file)
        found[str(Path(file).relative_to(tree))] = {
            line: {name for context in contexts if (name := _node(tree, context))}
            for line, contexts in lines.items()
        }
    return found


def _node(tree: Path, context: str) -> str | None:
    module, _, function = context.rpartition(".")
    path = f"{module.replace('.', '/')}.py"
    if not function.startswith("test_") or not (tree / path).is_file():
        return None
    return f"{path}::{function}"


def nearest_first(path: str, tests: set[str]) -> list[str]:
    """The tests, those in the folder of the module's own tests first."""
    folder = "/" + "/".join(path.split("/")[2:-1])
    stem = Path(path).stem
    return sorted(tests, key=lambda t: (f"test_{stem}.py" not in t, folder not in t, t))


def noticed(pristine: Path, mutant: Mutant, tests: list[str]) -> bool:
    """Whether a test fails, or does not end, with the mutant."""
    with tempfile.TemporaryDirectory(prefix="mutant-", dir=pristine.parent) as name:
        place = Path(name)
        copy_tree(pristine, place / "tree")
        file = place / "tree" / mutant.path
        file.write_bytes(mutant.applied(file.read_bytes()))
        argv = [*PYTEST, "-x", "--timeout", "60", *tests]
        return confined(place, argv, SECONDS).returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="particle-os-mutants-", dir="/var/tmp") as name:
        return campaign(Path(name), arguments)


ESCAPES = """
import os, pathlib, socket, sys
def escapes(attempt):
    try:
        attempt()
    except (OSError, ProcessLookupError):
        return False
    return True
print(escapes(lambda: pathlib.Path({outside!r}).write_text("x")),
      escapes(lambda: pathlib.Path({outside!r}).parent.rmdir()),
      escapes(lambda: os.kill({pid}, 0)),
      escapes(lambda: socket.create_connection(("192.0.2.1", 9), 1)))
"""


def check_walls(work: Path) -> None:
    """Ends the program unless a mutant is kept from other files, processes and networks."""
    place, outside = work / "walls", work / "outside" / "file"
    outside.parent.mkdir()
    (place / "tree").mkdir(parents=True)
    code = ESCAPES.format(outside=str(outside), pid=os.getpid())
    said = confined(place, ["-c", code], SECONDS).stdout
    if said.split() != ["False"] * 4:
        sys.exit(f"mutants cannot be confined here: {said}")


def campaign(work: Path, arguments: argparse.Namespace) -> int:
    check_walls(work)
    pristine = work / "pristine"
    make_pristine(pristine)
    lines: dict[str, dict[int, set[str]]] = {}
    failing: set[str] = set()
    pool = concurrent.futures.ThreadPoolExecutor(arguments.jobs)
    places = [work / folder.replace("/", "-") for folder in TESTS]
    for place in places:
        place.mkdir()
    for place, (data, failed) in zip(
        places, pool.map(run_map, [pristine] * len(TESTS), places, TESTS), strict=True
    ):
        failing |= failed
        for path, numbers in tests_by_line(data, place / "tree").items():
            for number, tests in numbers.items():
                lines.setdefault(path, {}).setdefault(number, set()).update(tests)
    possible = []
    for path, numbers in sorted(lines.items()):
        if arguments.only in path and not path.endswith(GENERATED):
            source = (pristine / path).read_bytes()
            for mutant in mutants(path, source):
                if tests := numbers.get(mutant.line, set()) - failing:
                    possible.append((mutant, nearest_first(path, tests)))
    random.Random(arguments.seed).shuffle(possible)
    sample = possible[: arguments.n]
    print(f"{len(sample)} of {len(possible)} mutants in lines that the tests run", flush=True)
    return report(pristine, sample, pool)


def report(
    pristine: Path,
    sample: list[tuple[Mutant, list[str]]],
    pool: concurrent.futures.Executor,
) -> int:
    found = {pool.submit(noticed, pristine, mutant, tests): mutant for mutant, tests in sample}
    done = survived = 0
    for future in concurrent.futures.as_completed(found):
        mutant = found[future]
        done += 1
        if not future.result():
            survived += 1
            diff = mutant.diff((pristine / mutant.path).read_bytes())
            print(f"survived: {mutant.path}:{mutant.line}\n{diff}")
        print(f"# {done} tried, {done - survived} noticed", flush=True)
    print(f"{done - survived} of {done} noticed: {100 * (done - survived) / max(done, 1):.1f} %")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(Path(sys.argv[2]), sys.argv[3:])
    sys.exit(main())
