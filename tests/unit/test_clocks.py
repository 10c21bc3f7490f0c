"""No test passes or fails by how long something takes: a busy machine is slow.

A test waits for an event (tests/waiting.py), moves its own clock, or counts steps.
"""

import ast
import re
from pathlib import Path

import pytest

from ..sources import nodes
from ..waiting import HANG_SECONDS

TESTS = Path(__file__).parents[1]
CLOCK = re.compile(
    r"\btime\.(time|monotonic|perf_counter|process_time|thread_time|clock_gettime)(_ns)?\b"
    r"|\bdatetime\.(now|today|utcnow)\b"
)
# These functions take a limit in seconds, as `timeout` or as their last argument.
BOUNDED = {
    "check_call", "check_output", "communicate", "create_connection", "join", "open", "run",
    "settimeout", "urlopen", "wait",
}  # fmt: skip
SOFTWARE = "guest/stages/software"
# Remove entries from this list; add none.
ALLOWED = {
    ("debian_facts.py", "datetime.now"): "dates what it writes",
    ("unit/system/test_interrupt.py", "time.sleep"): "spreads signals over the start of programs",
    (f"{SOFTWARE}/test_initramfs.py", "time.sleep"): "lets a program overtake; decides nothing",
    (f"{SOFTWARE}/test_stand_ins.py", "time.sleep"): "lets a program overtake; decides nothing",
}


def clocks(source):
    """The calls in a module's source that read a clock, sleep, or set a short time limit."""
    for node in nodes(source):
        match node:
            case ast.ImportFrom(module="time"):
                yield "from time import"
            case ast.Constant(value=str(text)):
                yield from (found.group() for found in CLOCK.finditer(text))
            case ast.Attribute():
                name = ast.unparse(node)
                if CLOCK.fullmatch(name) or name in ("time.sleep", "Deadline.after"):
                    yield name
            case ast.Call(func=ast.Attribute(attr=name, value=owner)) if name in BOUNDED:
                if name != "run" or ast.unparse(owner) == "subprocess":
                    yield from (f"{name}({bound})" for bound in short_bounds(node))


def short_bounds(call):
    named = [keyword.value for keyword in call.keywords if keyword.arg == "timeout"]
    for argument in named or call.args[-1:]:
        match argument:
            case ast.Constant(value=int(bound) | float(bound)) if bound < HANG_SECONDS:
                yield bound


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("assert time.monotonic() - began < 3", ["time.monotonic"]),
        ("CODE = 'print(time.process_time() < 1)'", ["time.process_time"]),
        ("from time import sleep", ["from time import"]),
        ("time.sleep(1)", ["time.sleep"]),
        ("run(Deadline.after(5, 'x'))", ["Deadline.after"]),
        ("subprocess.run(argv, timeout=20)", ["run(20)"]),
        ("assert done.wait(5) or thread.join(0.5)", ["wait(5)", "join(0.5)"]),
        ("until(ready); process.wait(); ', '.join(names); done.wait(HANG_SECONDS)", []),
        ("command.run(argv, timeout=1); CommandCheck(timeout=5); clock.sleep(9)", []),
    ],
)
def test_every_way_to_decide_by_a_clock_is_found(source, found):
    assert list(clocks(source)) == found


def test_no_test_decides_by_a_clock():
    modules = [*TESTS.glob("*.py"), *TESTS.glob("unit/**/*.py"), *TESTS.glob("guest/**/*.py")]
    programs = {"broken.py", "matrix.py"}
    found = {
        (str(path.relative_to(TESTS)), what)
        for path in modules
        if path.name not in ("waiting.py", Path(__file__).name, *programs)
        for what in clocks(path.read_text())
    }
    assert not found - ALLOWED.keys(), "wait with tests/waiting.py, move its Clock, or count steps"
    assert not ALLOWED.keys() - found, "remove these entries from ALLOWED"
