"""`make check` leaves the tests that take most of the time to `make test`."""

import ast
from collections import namedtuple
from pathlib import Path

from .. import conftest
from ..costly import LIST, costly, listed, measured

TOP = Path(__file__).parents[2]
REPORT = b"""<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_b[1]" time="0.25"/>
<testcase classname="tests.unit.test_a" name="test_b[x[2]]" time="0.5"/>
<testcase classname="tests.unit.test_a" name="test_c" time="2"/>
</testsuite></testsuites>"""


def test_the_times_of_all_parameters_count_together():
    assert measured(REPORT) == {
        "tests/unit/test_a.py::test_b": 0.75,
        "tests/unit/test_a.py::test_c": 2.0,
    }


def test_the_slowest_are_left_out_until_the_others_fit():
    times = {"a": 5.0, "b": 1.0, "c": 3.0, "d": 1.0}
    assert costly(times, 100.0) == []
    assert costly(times, 5.0) == ["a"]
    assert costly(times, 4.9) == ["a", "c"]
    assert costly(times, 0.0) == ["a", "b", "c", "d"]


def test_every_listed_test_exists():
    """A test that has another name now would run in `make check` without notice."""
    for name in listed(LIST.read_text()):
        path, _, function = name.partition("::")
        tree = ast.parse((TOP / path).read_bytes())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_a_heading_is_no_test():
    assert listed("# a heading\ntests/a.py::test_b\n") == {"tests/a.py::test_b"}


def test_what_is_listed_is_marked(monkeypatch):
    node = namedtuple("Node", ["nodeid", "add_marker"])
    marked = []
    items = [node(f"tests/a.py::{n}", lambda mark, n=n: marked.append((n, mark))) for n in "bc"]
    monkeypatch.setattr(conftest, "listed", lambda text: {"tests/a.py::b"})
    conftest.pytest_collection_modifyitems(items)
    assert marked == [("b", "costly")]
