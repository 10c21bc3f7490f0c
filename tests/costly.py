"""Lists the tests that take most of the time, which `make check` leaves to `make test`.

Usage: python -m tests.costly JUNIT.xml. The file comes from a run of all unit and guest tests.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

LIST = Path(__file__).with_name("costly.txt")
# The processor time that all other tests may take together.
BUDGET_SECONDS = 55.0
HEADING = "# Made by `make costly`: the tests that `make check` leaves to `make test`.\n"


def function_of(node: str) -> str:
    """The test function of a pytest node, without its parameters."""
    return node.partition("[")[0]


def costly(times: dict[str, float], budget: float) -> list[str]:
    """The slowest functions, so that the others take `budget` seconds at most."""
    left, found = sum(times.values()), []
    for name, seconds in sorted(times.items(), key=lambda item: (-item[1], item[0])):
        if left <= budget:
            break
        found.append(name)
        left -= seconds
    return sorted(found)


def listed(text: str) -> frozenset[str]:
    """The functions of a list."""
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))


def measured(report: bytes) -> dict[str, float]:
    """The seconds of each test function in a JUnit file of pytest."""
    found: Counter[str] = Counter()
    for case in ElementTree.fromstring(report).iter("testcase"):
        path = case.attrib["classname"].replace(".", "/") + ".py"
        found[function_of(f"{path}::{case.attrib['name']}")] += float(case.attrib["time"])
    return dict(found)


def main(report: str) -> None:
    names = costly(measured(Path(report).read_bytes()), BUDGET_SECONDS)
    LIST.write_text(HEADING + "".join(f"{name}\n" for name in names))
    print(f"{len(names)} tests are costly")


if __name__ == "__main__":
    main(*sys.argv[1:])
