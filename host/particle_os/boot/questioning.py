"""Questions a system that has answered: its checks, the tests of other frameworks, its files."""

from __future__ import annotations

from collections.abc import Callable

from particle_os.boot import files, probe
from particle_os.boot.frameworks import suites, testinfra
from particle_os.boot.judgement import check_results, judge
from particle_os.boot.observation.verdict import CheckResult, Outcome
from particle_os.boot.request import BootRequest
from particle_os.system.deadline import Deadline
from particle_os.vm.chardev import Chardev
from particle_os.vm.machine import Machine

# The files do not affect the verdict, so a journal that takes longer is left out.
FILES_SECONDS = 10.0
PLOT_SECONDS = 45.0


def results(
    request: BootRequest,
    machine: Machine,
    answer: Chardev,
    nonce: str,
    begin_tests: Callable[[], None] | None,
) -> tuple[Outcome, dict[str, str], tuple[CheckResult, ...]]:
    """Returns the outcome of a boot, the facts about the system, and the results of the checks.

    `begin_tests` is called before the tests of other frameworks; with None they do not run. They
    cannot run in emergency mode. Raises InfrastructureError when the host fails.
    """
    data = answer.data
    facts = probe.facts(data, nonce)
    emulated = request.acceleration.name == "tcg"
    checks = check_results(request.checks, data, nonce, machine, emulated=emulated)
    outcome = judge(facts, checks)
    if request.has_suites and begin_tests and outcome[0] != "emergency-mode":
        begin_tests()
        checks += _of_frameworks(request, machine, answer)
        outcome = judge(facts, checks)
    return outcome, facts, checks


def _of_frameworks(
    request: BootRequest, machine: Machine, answer: Chardev
) -> tuple[CheckResult, ...]:
    """Runs the tests of other frameworks, and keeps what pytest prints in the evidence."""
    evidence, factor = request.evidence, request.acceleration.factor
    try:
        return suites.results(request.testinfra, request.goss, machine, answer, factor)
    finally:
        output = machine.directory / testinfra.OUTPUT
        files.keep_tests(output, evidence.directory, evidence.gate)


def fetch_files(request: BootRequest, machine: Machine, answer: Chardev, nonce: str) -> None:
    """Keeps the files that the system hands over for people in the evidence."""
    if not machine.console.is_alive():
        return
    evidence = request.evidence
    seconds = FILES_SECONDS + (PLOT_SECONDS if evidence.plot else 0)
    deadline = Deadline.after(seconds * request.acceleration.factor, "the journal")
    files.fetch(
        machine,
        answer,
        nonce,
        evidence.directory,
        evidence.gate,
        deadline,
        with_plot=evidence.plot,
    )
