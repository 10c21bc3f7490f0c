"""`make mutants`: the faults that it plants, the map of the tests, and the verdicts."""

import ast
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from ..mutants.__main__ import Results, all_mutants, summary
from ..mutants.mapping import CoverageMap, coverage_map
from ..mutants.planting import mutants
from ..mutants.project import TOP, Project
from ..mutants.trial import Laboratory, Verdict
from ..mutants.walls import Ended, check_walls


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("a == b", ["(a != b)"]),
        ("a and b", ["(a or b)"]),
        ("a if b else c", ["a if (not (b)) else c"]),
        ("not a", ["(a)"]),
        ("x = True", ["x = False"]),
        ("x = 7", ["x = 8"]),
        ("raise a", ["pass"]),
        ("f()", ["pass"]),
        ("x += y", ["pass"]),
        ("x = f(a, b=c, d=e)", ["x = f(a, d=e)", "x = f(a, b=c)"]),
        ("x = dataclass(frozen=True, order=o)", ["x = dataclass(frozen=True)"]),
        ("if TYPE_CHECKING: x", []),
        ("with f: x", ["with __import__('contextlib').nullcontext(): x"]),
        ("def f(): return x", ["def f(): return None"]),
        ("def f(): return None", []),
        ("def f(): return False", ["def f(): return True"]),
        ("READ_SECONDS, LIMIT = 7, 1 << 20", []),
        ("LIMIT, OTHER = 7, 8", ["LIMIT, OTHER = 7, 9", "LIMIT, OTHER = 8, 8"]),
        ("def f(): LIMIT = 7", ["def f(): LIMIT = 8"]),
        ("x = open(a, encoding='utf-8')", []),
        ("x = run(a, check=False)", ["x = run(a, check=True)"]),
        ("x = run(a, check=True)", ["x = run(a, check=False)", "x = run(a)"]),
        ("x = run(a, timeout=7)", ["x = run(a)"]),
        ("x = run(a, limit=True)", ["x = run(a, limit=False)", "x = run(a)"]),
        ("x = Text(a, b, 7)", []),
        ("x = f'{a[:7]!r} {b[7]}'", ["x = f'{a[:7]!r} {b[8]}'"]),
        ("x = Text(a, b, 7 * 2)", ["x = Text(a, b, 7 * 3)", "x = Text(a, b, 8 * 2)"]),
    ],
)
def test_each_kind_of_fault_is_planted(line, faults):
    source = f"é = 'é'\n{line}\n".encode()
    changed = [mutant.applied(source).decode().splitlines()[1] for mutant in mutants("x", source)]
    assert sorted(changed) == sorted(faults)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["system/process.py", "boot/observation/watch.py"])
def test_every_mutant_is_a_program_with_a_name_of_its_own(name):
    source = (TOP / Project().packages[0] / name).read_bytes()
    found = list(mutants(name, source))
    assert len({mutant.name for mutant in found}) == len(found) > 0
    assert all(ast.parse(mutant.applied(source)) for mutant in found)


def test_a_mutant_keeps_its_name_when_other_lines_come_and_go():
    code = b"def f():\n    return 1 == 1\n"
    moved = b"import os\n\n\n" + code
    assert {m.name for m in mutants("x", code)} == {m.name for m in mutants("x", moved)}


MODULE = """\
import os
import subprocess
import threading

TOP = 7

def double(x):
    spare = 40 + 2
    return x * 2

def limited(x):
    return min(x, TOP)

def in_a_thread(found):
    found.append(3)

def in_a_child():
    return 4

def before_exec():
    os.umask(0o077)

def untested():
    return 5

def typed() -> int:
    return TOP

def breaks_pytest(safe=True):
    if not safe:
        os._exit(0)
"""
TESTS = """\
import os, subprocess, threading
import pytest
from particle_os import module

@pytest.fixture
def four():
    return module.double(2)

class TestDouble:
    @pytest.mark.parametrize("x", [1, 3])
    def test_it(self, x):
        assert module.double(x) == 2 * x

def test_a_fixture(four):
    assert four == 4

def test_the_limit():
    assert module.limited(9) == 7

def test_a_thread():
    found = []
    thread = threading.Thread(target=module.in_a_thread, args=(found,))
    thread.start()
    thread.join()
    assert found == [3]

def test_a_fork():
    if not (pid := os.fork()):
        os._exit(module.in_a_child())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4

def test_a_child():
    done = subprocess.run(["sh", "-c", "umask"], preexec_fn=module.before_exec, capture_output=True)
    assert done.stdout.strip() == b"0077"

def test_nothing():
    module.typed()

def test_the_end():
    module.breaks_pytest()
"""


def unconfined(place, argv, env, seconds):
    tree = place / "tree"
    env = {**env, "PATH": os.environ["PATH"], "PYTHONPATH": f"{tree}/host", "HOME": str(place)}
    argv = [sys.executable, *argv]
    done = subprocess.run(argv, cwd=tree, env=env, capture_output=True, text=True, timeout=seconds)
    return Ended(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def project(tmp_path):
    """A small tree, as a copy that mutants are made of."""
    tree = tmp_path / "pristine"
    (tree / "host/particle_os").mkdir(parents=True)
    (tree / "tests/unit").mkdir(parents=True)
    (tree / "guest-agent").mkdir()
    for folder in ("host/particle_os", "tests", "tests/unit"):
        (tree / folder / "__init__.py").touch()
    shutil.copytree(TOP / "tests/mutants", tree / "tests/mutants")
    (tree / "host/particle_os/module.py").write_text(MODULE)
    (tree / "tests/unit/test_module.py").write_text(TESTS)
    return Project(top=tree, packages=("host/particle_os",), tests=("tests/unit",))


def mapped(project, run=unconfined):
    work = project.top.parent
    return coverage_map(project, work, work / "cache", run)


def verdict(project, found, old, new, laboratory=None, run=unconfined):
    """The verdict on the mutant that turns `old` into `new`, and the tests that were chosen."""
    path = "host/particle_os/module.py"
    source = (project.top / path).read_bytes()
    (mutant,) = (m for m in mutants(path, source) if m.applied(source) == source.replace(old, new))
    tests = found.tests_of(path, mutant.line)
    laboratory = laboratory or Laboratory(project.top.parent, run)
    return laboratory.verdict(mutant, tests, found.reading)


@pytest.mark.slow
def test_faults_are_noticed_and_harmless_ones_survive(project):
    found = mapped(project)
    test = "tests/unit/test_module.py::test_"
    cases = [
        (b"x * 2", b"x * 3", "tests/unit/test_module.py::TestDouble::test_it[1]"),
        (b"TOP = 7", b"TOP = 8", f"{test}the_limit"),
        (b"found.append(3)", b"pass", f"{test}a_thread"),
        (b"return 4", b"return 5", f"{test}a_fork"),
        (b"os.umask(0o077)", b"pass", f"{test}a_child"),
        # pytest ends at once, and with the status 0.
        (b"if not safe", b"if (safe)", "the end of pytest"),
    ]
    for old, new, by in cases:
        seen = verdict(project, found, old, new)
        assert seen == Verdict("noticed", by)
    assert verdict(project, found, b"40 + 2", b"41 + 2") == Verdict("survived")


READING = """\
from pathlib import Path

def test_nothing_is_spare():
    assert "41" not in Path("host/particle_os/module.py").read_text()
"""


@pytest.mark.slow
def test_a_fault_that_no_test_runs_into_is_read(project):
    (project.top / "mypy.ini").write_text("[mypy]\nfiles = host/particle_os\n")
    (project.top / "tests/unit/test_reading.py").write_text(READING)
    project = replace(project, reading=("tests/unit/test_reading.py",))
    found = mapped(project)
    test = "tests/unit/test_reading.py::test_nothing_is_spare"
    assert found.reading == [test]
    laboratory = Laboratory(project.top.parent, unconfined)
    assert verdict(project, found, b"40 + 2", b"41 + 2", laboratory) == Verdict("noticed", test)
    typed = (b"int:\n    return TOP", b"int:\n    return None")
    assert verdict(project, found, *typed, laboratory).word == "survived"
    laboratory.learn_types()
    assert verdict(project, found, *typed, laboratory) == Verdict("noticed", "mypy")


@pytest.mark.slow
def test_the_map_knows_fixtures_and_leaves_out_what_no_test_runs(project):
    found = mapped(project)
    line = MODULE.splitlines().index("    return x * 2") + 1
    tests = found.tests_of("host/particle_os/module.py", line)
    names = {test.rpartition("::")[2] for test in tests}
    assert names == {"test_a_fixture", "test_it[1]", "test_it[3]"}
    everything = all_mutants(project, project.top, 1)
    tested = [m for m in everything if found.tests_of(m.path, m.line)]
    left_out = {m.line for m in everything} - {m.line for m in tested}
    texts = {MODULE.splitlines()[line - 1].strip() for line in left_out}
    assert texts == {"return 5", "os._exit(0)"}


@pytest.mark.slow
def test_the_map_is_made_again_for_changed_files_only(project):
    mapped(project)
    assert mapped(project, run=None).tests == 9
    file = project.top / "tests/unit/test_module.py"
    file.write_text(f"{TESTS}\ndef test_more():\n    module.untested()\n")
    assert mapped(project).tests == 10
    module = project.top / "host/particle_os/module.py"
    module.write_text(f"{MODULE}\nMORE = 1\n")
    with pytest.raises(TypeError):
        mapped(project, run=None)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["os._exit(0)", "os.kill(os.getpid(), 9)", "os._exit(1)"])
def test_a_map_of_an_incomplete_run_is_refused(project, fault):
    file = project.top / "tests/unit/test_module.py"
    file.write_text(f"{TESTS}\ndef test_more():\n    {fault}\n")
    with pytest.raises(SystemExit, match="the map is incomplete"):
        mapped(project)


def test_a_map_of_a_run_that_was_cut_or_has_not_begun_is_refused(project):
    for ended, message in [(Ended(None, ""), "did not end"), (Ended(1, "x"), "status 1.*x")]:
        with pytest.raises(SystemExit, match=rf"(?s){message}"):
            mapped(project, run=lambda *arguments, ended=ended: ended)


@pytest.mark.slow
def test_a_map_with_many_failing_tests_is_refused(project):
    file = project.top / "tests/unit/test_module.py"
    file.write_text(f"{TESTS}\ndef test_more():\n    assert module.double(1) == 3\n")
    with pytest.raises(SystemExit, match="too many tests fail"):
        mapped(project)


@pytest.mark.slow
def test_a_failure_that_also_comes_without_the_mutant_is_not_counted(project):
    found = mapped(project)
    laboratory = Laboratory(project.top.parent, unconfined)
    said = verdict(project, found, b"x * 2", b"x * 3")
    assert laboratory.failing([said.by]) == set()
    file = project.top / "tests/unit/test_module.py"
    file.write_text(TESTS.replace("== 2 * x", "== 9"))
    said = verdict(project, found, b"x * 2", b"x * 3")
    assert laboratory.failing([said.by]) == {said.by}
    record = {"path": "host/particle_os/module.py", "word": said.word, "by": said.by}
    assert "1 not judged" in " ".join(summary([record], {said.by}))
    file.unlink()
    assert verdict(project, found, b"x * 2", b"x * 3").word == "broken"


@pytest.mark.slow
@pytest.mark.parametrize("ended", [Ended(1, "no Landlock"), Ended(None, ""), Ended(137, "")])
def test_an_error_of_the_walls_is_not_counted(project, ended):
    found = mapped(project)
    seen = verdict(project, found, b"x * 2", b"x * 3", run=lambda *arguments: ended)
    assert seen.word == "broken"


def test_a_program_without_walls_is_refused(tmp_path):
    (tmp_path / "work").mkdir()
    with pytest.raises(SystemExit, match="cannot be confined"):
        check_walls(tmp_path / "work", unconfined)


def test_a_seed_is_one_order_of_all_mutants(project):
    first, again, other = (all_mutants(project, project.top, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert set(first) == set(other)
    assert len(first) == len(set(first)) > 10


def test_the_summary_counts_what_was_judged(tmp_path):
    results = Results(tmp_path / "results")
    words = [("host/a", "noticed"), ("host/b", "survived"), ("guest-agent/c", "broken")]
    for path, word in [*words, ("host/d", "noticed")]:
        results.add({"path": path, "word": word, "by": f"test of {path}"})
    assert list(summary(results.records(), {"test of host/d"})) == [
        "guest-agent: 0 of 0 noticed, 0.0 %",
        "host: 1 of 2 noticed, 50.0 %",
        "both: 1 of 2 noticed, 50.0 %",
        "2 not judged: their tests fail without a mutant, too",
    ]


def test_the_nearest_tests_come_first():
    tests = ["tests/unit/a/test_x.py::t", "tests/unit/b/test_m.py::t", "tests/unit/c/test_m.py::t"]
    found = CoverageMap(by_line={"host/particle_os/c/m.py": {1: set(tests)}})
    assert found.tests_of("host/particle_os/c/m.py", 1) == [tests[2], tests[1], tests[0]]
