"""Runs goss in a booted image, and reads its results.

The results are in the format `json` of goss (https://goss.rocks/cli/#format). They are untrusted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pydantic

from particle_os.boot.frameworks.image_shell import ImageShell, NotRun, Ran
from particle_os.boot.observation.verdict import CheckResult
from particle_os.errors import printable
from particle_os.system.deadline import Deadline

NAME = "goss"
RESULTS_LIMIT = 1000
MISSING = 127  # sh(1): the program is not found.
# base64 keeps the file's text out of the shell.
SCRIPT = """\
command -v goss >/dev/null || exit 127
file=$RUNTIME_DIRECTORY/goss.yaml
printf %s {file} | base64 -d >"$file"
exec goss --gossfile "$file" validate --format json
"""
ABSENT = (
    "the image has no program 'goss' in its PATH: install the package goss (Debian 13), or put the "
    "program to /usr/local/bin by a stage 'files' with 'download:' (docs/boot-test.md)"
)


class _Keys(pydantic.BaseModel):
    """The keys that are read; the versions of goss differ in the others."""

    model_config = pydantic.ConfigDict(
        alias_generator=lambda name: name.replace("_", "-"), frozen=True, strict=True
    )


class _TestedProperty(_Keys):
    """One property of one resource."""

    resource_type: str
    resource_id: str
    property: str
    successful: bool
    skipped: bool = False
    summary_line: str = ""


class _GossSummary(_Keys):
    """The end of the document: it is whole."""

    test_count: int


class _GossOutput(_Keys):
    """The whole output of goss."""

    results: tuple[_TestedProperty, ...]
    summary: _GossSummary


def results(file: bytes, shell: ImageShell, deadline: Deadline) -> Iterator[CheckResult]:
    """Yields the result of each test in the content of a goss file.

    Raises DeadlineExceeded, and QemuEnded when the machine has ended.
    """
    text = base64.b64encode(file).decode()
    try:
        ran = shell.run(SCRIPT.format(file=text).encode(), deadline)
    except NotRun as error:
        yield _failed(str(error))
    else:
        yield from read(ran)


def read(ran: Ran) -> Iterator[CheckResult]:
    """Yields the results that goss has printed, and their faults."""
    if ran.status == MISSING:
        yield _failed(ABSENT)
        return
    try:
        found = _GossOutput.model_validate_json(ran.stdout)
    except pydantic.ValidationError:
        said = (ran.stderr or ran.stdout).decode("utf-8", "replace").strip()[-1000:]
        yield _failed(f"it ended with {ran.status}, without results: {said or 'no output'}")
        return
    # goss tests at the same time, and prints what ends first.
    results = sorted(found.results, key=lambda each: (each.resource_type, each.resource_id))
    shown = [_check(each) for each in results[:RESULTS_LIMIT]]
    yield from shown
    if len(results) != found.summary.test_count:
        yield _failed(f"{len(results)} of {found.summary.test_count} results arrived")
    elif len(results) > RESULTS_LIMIT:
        yield _failed(f"it has {len(results)} results, more than {RESULTS_LIMIT}")
    elif not shown:
        yield _failed("the file has no test")
    elif ran.status != 0 and all(each.passed for each in shown):
        yield _failed(f"it ended with {ran.status}, but no test failed")


def _check(found: _TestedProperty) -> CheckResult:
    name = " ".join((NAME, found.resource_type, found.resource_id, found.property))
    detail = found.summary_line.strip().replace("\n", " / ")
    return CheckResult(
        name=printable(name, 200),
        passed=found.successful or found.skipped,
        detail=printable(f"skipped: {detail}" if found.skipped else detail, 1000),
    )


def _failed(detail: str) -> CheckResult:
    return CheckResult(name=NAME, passed=False, detail=printable(detail.replace("\n", " / ")))
