"""The messages and files of a build, in each of its ends."""

from xml.etree import ElementTree as ET

import pytest

from .played_build import ENDS, World, run, set_up


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path, "text", ["a line"], b"on the console\r\n", "detail")
    set_up(world, monkeypatch)
    monkeypatch.setenv("TOKEN", "the secret of a stage")
    return world


def kinds(path):
    """The results of the test cases in a JUnit file that are no success."""
    cases = ET.fromstring(path.read_bytes()).findall("testsuite/testcase")
    return len(cases), [child.tag for case in cases for child in case]


@pytest.mark.parametrize(
    ("ends", "options", "expected"),
    [
        ("good", [], (2, [])),
        ("good", ["--no-boot-test"], (1, ["skipped"])),
        ("defective", [], (1, ["failure"])),
        ("defective", ["--no-boot-test"], (1, ["failure"])),
        ("not booted", [], (2, ["failure", "failure"])),
        ("stage failed", [], (1, ["error"])),
    ],
)
def test_the_junit_file_of_a_build_has_its_end_as_a_test_case(world, ends, options, expected):
    world.ends = ends
    assert run(world, *options).exit_code == ENDS[ends]
    assert kinds(world.path / "boot.xml") == expected
