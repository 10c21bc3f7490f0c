import pytest
from particle_os.boot.observation.verdict import CheckResult, Verdict
from particle_os.report import verdict
from particle_os.sandbox.verification import FindingResult, Verification

from .pages import result

FACTS = {"journal:x.service": "it failed", "kernel": "6.1"}


def judged(status, firmware="bios", **more):
    return Verdict(status=status, firmware=firmware, seconds=1, message="so it is", **more)


def test_one_verdict_is_an_object_and_several_are_an_array():
    one, other = judged("passed"), judged("passed", "uefi")
    assert verdict.data([one])["firmware"] == "bios"
    assert [each["firmware"] for each in verdict.data([one, other])] == ["bios", "uefi"]


def test_each_check_has_a_line_before_its_verdict():
    checks = (
        CheckResult(name="a", passed=True, detail="x"),
        CheckResult(name="b", passed=False, detail="y"),
    )
    assert list(verdict.lines([judged("checks-failed", checks=checks)])) == [
        "ok     a: x",
        "FAILED b: y",
        "checks-failed in 1.0 s under bios: so it is",
    ]


@pytest.mark.parametrize(
    ("status", "log", "hint"),
    [
        ("no-bootable-device", None, "--firmware uefi"),
        ("units-failed", None, "--evidence DIRECTORY"),
        ("units-failed", "console.log", None),
    ],
)
def test_an_error_has_the_journals_of_failed_units_and_a_hint(tmp_path, status, log, hint):
    place = log and tmp_path / log
    error = verdict.not_booted(judged(status, facts=FACTS, console_tail=("login:",)), place)
    assert error.brief == f"the image did not pass its boot test: {status}: so it is"
    assert error.tail == ("x.service:", "it failed", "login:")
    assert error.log == place
    assert (error.hint is None) if hint is None else (hint in error.hint)


def test_the_failure_of_a_build_names_its_evidence(tmp_path):
    good, bad = judged("passed"), judged("units-failed", "uefi")
    assert verdict.failure_of(result("x", [good]), tmp_path) is None
    error = verdict.failure_of(result("x", [good, bad], status="not-booted"), tmp_path)
    name = result("x").recipe
    assert error.log == tmp_path / f"{name}.evidence/uefi/console.log"
    finding = FindingResult(code="c", severity="error", place="", message="broken")
    found = Verification(seconds=1, findings=(finding,))
    error = verdict.failure_of(result("x", status="defective", verification=found), tmp_path)
    assert error.log == tmp_path / f"{name}.log"
    assert error.tail == ("broken [c]",)
