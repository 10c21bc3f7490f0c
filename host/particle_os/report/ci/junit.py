"""Verdicts as JUnit XML for CI systems (https://github.com/testmoapp/junitxml)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from particle_os.boot.observation.verdict import Verdict
from particle_os.errors import Defective, ParticleError, printable, whole_line

# Characters that XML 1.0 excludes (production [2]), even as a reference.
NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(image: str, verdicts: Sequence[Verdict]) -> bytes:
    """One test suite for each boot, with a test case for the boot and one for each check.

    Without any boot, the test case is skipped: some CI systems reject a file without test cases.
    """
    top = ET.Element("testsuites", name="particle-os boot-test")
    _boots(top, image, verdicts)
    return _written(top)


def failed_build(image: str, error: ParticleError) -> bytes:
    """One test suite with one test case, for a build that failed before its boot test."""
    top = ET.Element("testsuites", name="particle-os build")
    _failure(top, image, error)
    return _written(top)


def of_images(found: Mapping[str, Sequence[Verdict] | ParticleError | None]) -> bytes:
    """One file for several images: the boots of each, or its error; None for one not built."""
    top = ET.Element("testsuites", name="particle-os build")
    for image, what in found.items():
        if what is None:
            _skipped(top, image, "build", "the image was not built")
        elif isinstance(what, ParticleError):
            _failure(top, image, what)
        else:
            _boots(top, image, what)
    return _written(top)


def _boots(top: ET.Element, image: str, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        _suite(top, image, verdict)
    if not verdicts:
        _skipped(top, image, "boot", "the image was not booted")


def _skipped(top: ET.Element, image: str, name: str, why: str) -> None:
    counts = {"tests": "1", "failures": "0", "errors": "0", "skipped": "1"}
    suite = ET.SubElement(top, "testsuite", {"name": image, **counts})
    case = ET.SubElement(suite, "testcase", classname=image, name=name, time="0")
    ET.SubElement(case, "skipped", message=why)


def _failure(top: ET.Element, image: str, error: ParticleError) -> None:
    # The disk of a build can have defects: that is a verdict, like a boot that failed.
    kind = "failure" if isinstance(error, Defective) else "error"
    counts = {"tests": "1", "failures": "0", "errors": "0", f"{kind}s": "1"}
    suite = ET.SubElement(top, "testsuite", {"name": image, **counts})
    case = ET.SubElement(suite, "testcase", classname=image, name="build", time="0")
    what = ET.SubElement(case, kind, type=type(error).__name__, message=error.brief)
    what.text = "\n".join([*error.tail, *([error.hint] if error.hint else [])])


def _written(top: ET.Element) -> bytes:
    for element in top.iter():
        element.attrib.update({name: _legal(value) for name, value in element.attrib.items()})
        element.text = _legal(element.text) if element.text else None
    ET.indent(top)
    return bytes(ET.tostring(top, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite(top: ET.Element, image: str, verdict: Verdict) -> None:
    booted = verdict.accepted or verdict.status == "checks-failed"
    broken = verdict.status == "infrastructure"
    failures = [check for check in verdict.checks if not check.passed]
    suite = ET.SubElement(
        top,
        "testsuite",
        name=f"{image} ({verdict.machine})",
        tests=str(1 + len(verdict.checks)),
        failures=str(len(failures) + (not booted and not broken)),
        errors=str(int(broken)),
        time=f"{verdict.seconds:.3f}",
    )
    case = ET.SubElement(
        suite, "testcase", classname=image, name="boot", time=f"{verdict.seconds:.3f}"
    )
    if not booted:
        what = ET.SubElement(
            case, "error" if broken else "failure", type=verdict.status, message=verdict.message
        )
        journals = [text for name, text in verdict.facts.items() if name.startswith("journal:")]
        what.text = "\n".join([*journals, *verdict.console_tail])
    seen: Counter[str] = Counter()
    for check in verdict.checks:
        # GitLab shows only the first of several test cases with the same name.
        seen[check.name] += 1
        name = check.name if seen[check.name] == 1 else f"{check.name} ({seen[check.name]})"
        case = ET.SubElement(suite, "testcase", classname=image, name=name, time="0")
        if not check.passed:
            ET.SubElement(case, "failure", type="check", message=check.detail)


def _legal(text: str) -> str:
    """`text` as printable lines, with the characters escaped that XML excludes."""
    # A later step of a workflow may print the file.
    shown = "\n".join(whole_line(printable(line, len(line))) for line in text.split("\n"))
    return NO_CHARACTER.sub(lambda found: ascii(found.group())[1:-1], shown)
