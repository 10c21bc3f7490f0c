"""Judges a system's answer, and whether two boots show the same machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from particle_os.boot import outside, probe
from particle_os.boot.observation.verdict import CheckResult, Observation, Outcome
from particle_os.errors import printable
from particle_os.recipe.checks.base import NO_REPLY, Judgement
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.checks.system import BootTimeCheck
from particle_os.system.deadline import Deadline
from particle_os.vm.machine import Machine

NOT_REBOOTED = CheckResult(name="reboot", passed=False, detail="the first boot did not pass")
EMULATED = "; the machine was emulated (no KVM), which takes several times as long as hardware"
UNANSWERED = Judgement(False, "the system has not answered this check")
# These facts must stay the same when a system boots again.
LASTING = ("machine-id", "ssh-host-keys")


def check_results(
    checks: Sequence[Check], data: bytes, nonce: str, machine: Machine, *, emulated: bool
) -> tuple[CheckResult, ...]:
    """Returns the result of each check, from the answer `data` and from connections of the host.

    The processor of the machine may have been `emulated`.
    """
    results = []
    for check, replies in zip(checks, probe.replies(data, nonce, checks), strict=True):
        found = UNANSWERED if NO_REPLY in replies else check.judge(replies)
        if found.holds:
            deadline = Deadline.after(2 * check.seconds, check.name)
            found = outside.reach(check, machine.monitor, deadline) or found
        elif emulated and isinstance(check, BootTimeCheck):
            found = Judgement(False, found.detail + EMULATED)
        results.append(_result(check, found))
    return tuple(results)


def _result(check: Check, found: Judgement) -> CheckResult:
    name, detail = printable(check.name, 200), printable(found.detail.replace("\n", " / "))
    return CheckResult(name=name, passed=found.holds, detail=detail)


def judge(facts: Mapping[str, str], results: Sequence[CheckResult]) -> Outcome:
    """Returns the outcome of a boot whose system answered."""
    state = facts.get("state", "")
    if state == "maintenance":
        return "emergency-mode", "the system itself says that it is in emergency or rescue mode"
    bad = {how: facts.get(how, "").split() for how in ("failed", "crash-looping")}
    if named := [f"{how} units: {', '.join(units)}" for how, units in bad.items() if units]:
        return "units-failed", "; ".join(named)
    if state != "running":
        return "units-failed", f"systemd says '{state}', not 'running'"
    if wrong := [f"{each.name}: {each.detail}" for each in results if not each.passed]:
        return "checks-failed", "; ".join(wrong)
    return "passed", f"{facts.get('system') or 'the system'} is up, no unit failed"


def not_rebooted(first: Observation) -> Observation:
    """Returns a failed first boot, with a failed result for the check `reboot`."""
    return replace(first, checks=_with_reboot(first.checks, NOT_REBOOTED))


def compared(first: Observation, second: Observation) -> Observation:
    """Returns the joint observation of two boots of one system."""
    seconds = round(first.seconds + second.seconds, 3)
    if second.status in ("passed", "checks-failed", "units-failed"):
        second = _with_identity(first, second)
    if second.status in ("passed", "checks-failed"):
        progress = replace(second.progress, phases=first.progress.phases)
        return replace(second, progress=progress, seconds=seconds)
    return replace(second, message=f"at the second boot: {second.message}", seconds=seconds)


def _with_identity(first: Observation, second: Observation) -> Observation:
    """Returns the second boot, judged with the result of the comparison of the LASTING facts."""
    pairs = {name: (first.facts.get(name), second.facts.get(name)) for name in LASTING}
    faults = [f"{name} is unknown" for name, facts in pairs.items() if None in facts]
    changed = [name for name, (one, two) in pairs.items() if None not in (one, two) and one != two]
    if changed:
        faults.append(f"{', '.join(changed)} changed")
    detail = "; ".join(faults) or "the system booted again as the same machine"
    result = CheckResult(name="reboot", passed=not faults, detail=detail)
    checks = _with_reboot(second.checks, result)
    status, message = judge(second.facts, checks)
    return replace(second, status=status, message=message, checks=checks)


def _with_reboot(checks: Sequence[CheckResult], result: CheckResult) -> tuple[CheckResult, ...]:
    """Returns the results, with `result` for the check `reboot`."""
    return tuple(result if each.name == "reboot" else each for each in checks)
