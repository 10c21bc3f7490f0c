"""The end of a job as each system shows it."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

# The end of a played build: exit code, results in the JUnit file, annotation, heading, status.
TABLE = {
    "good": (0, [], "notice passed", "passed", "passed"),
    "check failed": (4, ["failure"], "error checks-failed", "checks-failed", "not-booted"),
    "not booted": (4, ["failure"] * 2, "error units-failed", "units-failed", "not-booted"),
    "defective": (4, ["failure"], "error defective", "defective", "defective"),
    "stage failed": (3, ["error"], "error failed", "failed", "failed"),
    "vm died": (5, ["error"], "error infrastructure", "infrastructure", "infrastructure"),
}
# Two images, one after the other; the second one is good unless the job ends: exit code, results in
# the JUnit file, annotations, and the heading, which ends with the status.
TWO_IMAGES = {
    "good": (0, [], ["notice passed", "notice passed"], "2 of 2 images are good: passed"),
    "stage failed": (
        3, ["error"], ["error failed", "notice passed"], "1 of 2 images are good: failed",
    ),
    "wait": (
        143, ["error", "error"], ["error cancelled"] * 2, "0 of 2 images are good: cancelled",
    ),
}  # fmt: skip


def annotations(log: str) -> list[str]:
    """The annotations of a GitHub workflow, without their messages."""
    found = re.findall(r"^::(error|notice) title=[^:]*%3A ([a-z-]+)::", log, re.MULTILINE)
    return [" ".join(each) for each in found]


def of_junit(path: Path) -> list[str]:
    """The results of test cases that are no success."""
    return [case.tag for case in ET.fromstring(path.read_bytes()).iterfind("testsuite/testcase/*")]


def left_behind(output: Path, cache: Path) -> list[Path]:
    """The hidden directories and the private files that a build has left."""
    hidden = [path for path in output.iterdir() if path.name.startswith(".")]
    return hidden + [path for path in (cache / "work").glob("*") if path.name != ".lock"]
