"""The reports of verdicts for CI systems."""

import json
from xml.etree import ElementTree as ET

from particle_os.boot.observation.verdict import CheckResult, Verdict
from particle_os.cli.command import OutputStyle
from particle_os.errors import Defective, StageFailed
from particle_os.report.ci import github, junit

GOOD = CheckResult(name="unit ssh.service", passed=True, detail="ssh.service is active")
BAD = CheckResult(name="port 80/tcp", passed=False, detail="nothing <listens> there & so on")
PASSED = Verdict(status="passed", seconds=12.5, message="it is up", checks=(GOOD,))
CHECKS_FAILED = Verdict(
    status="checks-failed", firmware="uefi", seconds=1, message="port 80/tcp: …", checks=(GOOD, BAD)
)
PANIC = Verdict(
    status="kernel-panic", seconds=3, message='it says "panic"', console_tail=("one", "two]]>")
)
BROKEN = Verdict(status="infrastructure", seconds=0, message="QEMU is not installed")


def suites(*verdicts):
    return ET.fromstring(junit.document("x.raw", verdicts)).findall("testsuite")


def counts(suite):
    return tuple(int(suite.get(name)) for name in ("tests", "failures", "errors"))


def test_each_boot_is_a_suite_and_each_check_a_case():
    first, second = suites(PASSED, CHECKS_FAILED)
    assert (first.get("name"), second.get("name")) == ("x.raw (bios)", "x.raw (uefi)")
    assert (counts(first), counts(second)) == ((2, 0, 0), (3, 1, 0))
    assert [case.get("name") for case in second] == ["boot", "unit ssh.service", "port 80/tcp"]
    assert first[0].get("time") == "12.500"
    (failure,) = second.iter("failure")
    assert failure.get("message") == BAD.detail


def test_a_boot_that_failed_has_its_verdict_and_the_end_of_the_console():
    (suite,) = suites(PANIC)
    assert counts(suite) == (1, 1, 0)
    (failure,) = suite.iter("failure")
    assert (failure.get("type"), failure.get("message")) == ("kernel-panic", 'it says "panic"')
    assert failure.text == "one\ntwo]]>"


def test_a_broken_host_is_an_error_and_no_failure():
    (suite,) = suites(BROKEN)
    assert counts(suite) == (1, 0, 1)
    assert [error.get("type") for error in suite.iter("error")] == ["infrastructure"]


def test_whatever_an_image_is_called_a_parser_takes_the_file():
    name = "a\x01b\ufffe\udcffc.raw"
    (suite,) = ET.fromstring(junit.document(name, [PANIC])).findall("testsuite")
    assert suite.get("name") == "a\\x01b\\ufffe\\udcffc.raw (bios)"


def test_a_build_without_an_image_is_an_error():
    failed = StageFailed("stage apt: no\x01", hint="look at it", tail=["E: one", "E: two"])
    (suite,) = ET.fromstring(junit.failed_build("x", failed)).findall("testsuite")
    assert counts(suite) == (1, 0, 1)
    (error,) = suite.iter("error")
    assert (error.get("type"), error.get("message")) == ("StageFailed", "stage apt: no\\x01")
    assert error.text == "E: one\nE: two\nlook at it"


def test_a_disk_with_defects_is_a_failure():
    (suite,) = ET.fromstring(junit.failed_build("x", Defective("no fstab"))).findall("testsuite")
    assert counts(suite) == (1, 1, 0)
    assert [found.get("message") for found in suite.iter("failure")] == ["no fstab"]


def test_an_image_that_was_not_booted_is_a_skipped_test():
    (suite,) = suites()
    assert (suite.get("name"), suite.get("skipped")) == ("x.raw", "1")
    assert counts(suite) == (1, 0, 0)
    (skipped,) = suite.iter("skipped")
    assert skipped.get("message") == "the image was not booted"


def test_checks_of_one_name_are_told_apart():
    twice = PASSED.model_copy(update={"checks": (GOOD, GOOD)})
    (suite,) = suites(twice)
    names = [case.get("name") for case in suite]
    assert names == ["boot", "unit ssh.service", "unit ssh.service (2)"]


def test_annotations_of_a_workflow():
    assert github.workflow_commands("x.raw", [PASSED, PANIC]) == [
        "::notice title=boot test of x.raw (bios)%3A passed::it is up",
        '::error title=boot test of x.raw (bios)%3A kernel-panic::it says "panic"',
    ]


def test_an_annotation_is_one_line_whatever_the_image_says():
    verdict = PANIC.model_copy(update={"message": "50%\r\n::error::forged, too"})
    (line,) = github.workflow_commands("a,b", [verdict])
    assert line.endswith("::50%25%0D%0A::error::forged, too")
    assert "title=boot test of a%2Cb (bios)%3A kernel-panic::" in line


def test_several_failed_checks_are_listed():
    verdict = CHECKS_FAILED.model_copy(update={"checks": (BAD, GOOD, BAD)})
    (line,) = github.workflow_commands("x", [verdict])
    assert line.count("port 80/tcp: nothing") == 2


def test_only_a_workflow_is_told():
    assert github.reads_us({"GITHUB_ACTIONS": "true"})
    assert not github.reads_us({})


def test_a_prompt_alone_is_a_warning_and_no_failure():
    weak = PASSED.model_copy(update={"status": "console-only", "checks": ()})
    assert github.workflow_commands("x", [weak])[0].startswith("::warning ")
    assert counts(suites(weak)[0]) == (1, 0, 0)


CONTROLS = "a\x1b[2J\x85\u2028\u202e,b:c"


def test_an_annotation_escapes_control_characters_and_older_commands():
    verdict = PANIC.model_copy(update={"message": "x ##[error]y \x1b]0;z\u202e"})
    (shown,) = github.workflow_commands(CONTROLS, [verdict])
    assert shown == (
        "::error title=boot test of a\\x1b[2J\\x85\\u2028\\u202e%2Cb%3Ac (bios)%3A kernel-panic"
        "::x #\\x23[error]y \\x1b]0;z\\u202e"
    )


def test_junit_shows_no_bidirectional_text():
    (suite,) = ET.fromstring(junit.document(CONTROLS, [PANIC])).findall("testsuite")
    assert suite.get("name") == "a\\x1b[2J\\x85\\u2028\\u202e,b:c (bios)"


class Runner:
    """Obeys lines as GitHub's runner does: one command at a time, none while it is stopped."""

    def __init__(self):
        self.obeyed, self.token = [], None

    def read(self, text):
        command, _, data = text.lstrip().removeprefix("::").partition("::")
        is_command = text.lstrip().startswith("::") or "##[" in text
        if self.token is not None:
            self.token = None if is_command and command == self.token else self.token
        elif is_command and command == "stop-commands":
            self.token = data
        elif is_command:
            self.obeyed.append(text)


def test_a_workflow_obeys_our_annotations_and_nothing_else():
    runner = Runner()
    workflow = github.Workflow(runner.read, {"GITHUB_ACTIONS": "true"})
    workflow.stop()
    token = runner.token
    for text in ("::error::forged", "  ::add-mask::x", "x ##[error]y", "::stop-commands::mine"):
        runner.read(text)
    workflow.command(["::error::ours"])
    assert runner.obeyed == ["::error::ours"]
    # A token that has been printed protects nothing any more.
    assert runner.token not in (None, token, "mine")
    workflow.resume()
    workflow.resume()
    assert runner.token is None
    workflow.command(["::notice::ours"])
    assert runner.obeyed == ["::error::ours", "::notice::ours"]


def test_commands_are_no_part_of_the_data(capsys, monkeypatch):
    """Standard output may be JSON for another program."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    OutputStyle().workflow.command(["::notice::ours"])
    assert capsys.readouterr() == ("", "::notice::ours\n")


def test_there_are_no_commands_outside_of_a_workflow():
    printed = []
    workflow = github.Workflow(printed.append, {})
    workflow.stop()
    workflow.command(["::error::ours"])
    workflow.resume()
    assert printed == []


def test_json_holds_no_command_and_keeps_its_content():
    text = json.dumps({"a": "x ##[error]y ###"})
    assert "##" not in github.unlike_commands(text)
    assert json.loads(github.unlike_commands(text)) == json.loads(text)


def test_the_junit_file_of_a_boot_that_failed_its_checks():
    """Consumers read the attributes by name."""
    facts = {"journal:x.service": "it failed", "kernel": "6.1"}
    panic = PANIC.model_copy(update={"facts": facts})
    assert junit.document("x.raw", [CHECKS_FAILED, panic]).decode() == (
        """<?xml version='1.0' encoding='utf-8'?>
<testsuites name="particle-os boot-test">
  <testsuite name="x.raw (uefi)" tests="3" failures="1" errors="0" time="1.000">
    <testcase classname="x.raw" name="boot" time="1.000" />
    <testcase classname="x.raw" name="unit ssh.service" time="0" />
    <testcase classname="x.raw" name="port 80/tcp" time="0">
      <failure type="check" message="nothing &lt;listens&gt; there &amp; so on" />
    </testcase>
  </testsuite>
  <testsuite name="x.raw (bios)" tests="1" failures="1" errors="0" time="3.000">
    <testcase classname="x.raw" name="boot" time="3.000">
      <failure type="kernel-panic" message="it says &quot;panic&quot;">it failed
one
two]]&gt;</failure>
    </testcase>
  </testsuite>
</testsuites>
"""
    )


def test_the_junit_file_of_a_build_that_failed():
    failed = StageFailed("no", tail=["E: one"])
    assert junit.failed_build("x", failed).decode() == (
        """<?xml version='1.0' encoding='utf-8'?>
<testsuites name="particle-os build">
  <testsuite name="x" tests="1" failures="0" errors="1">
    <testcase classname="x" name="build" time="0">
      <error type="StageFailed" message="no">E: one</error>
    </testcase>
  </testsuite>
</testsuites>
"""
    )
