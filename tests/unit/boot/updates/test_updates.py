"""The tests of updates: the order of the boots, and the verdict on each way to fail."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from particle_os.boot.evidence import Evidence
from particle_os.boot.frameworks.image_shell import NotRun, Ran
from particle_os.boot.observation.verdict import BootProgress, Observation
from particle_os.boot.request import BootRequest
from particle_os.boot.updates import boots as module
from particle_os.boot.updates import scripts, tests
from particle_os.boot.updates.boots import UpdateBoots
from particle_os.recipe.checks.system import RebootCheck, UnitCheck
from particle_os.system.gate import Gate
from particle_os.vm import accel
from particle_os.vm.console import QemuEnded

OLD, NEW = "a" * 64, "b" * 64
ORDERS = {
    scripts.RUNNING: "running", scripts.MARK: "mark", scripts.MARKED: "marked",
    scripts.TAKE: "take", scripts.RETURN: "return", scripts.COUNTED: "counted",
    scripts.BREAK: "break", scripts.STATE: "state",
}  # fmt: skip


class Machine:
    """Plays the machine of each step: it runs the version `running[step]` and answers orders."""

    def __init__(self, running):
        self.running = running
        self.done = []
        # By the names of a step and of an order: what its script prints, or raises.
        self.answers = {}
        # By the name of a step: the observation of a boot that fails.
        self.fails = {}
        self.progress = {}
        # By the name of a step: the kinds of its checks, and its goss file.
        self.checked = {}

    def boot_once(self, request, overlay, directory, *, shut_down):
        assert shut_down, "the next step needs a file system that is whole"
        assert request.processors == accel.Processors(1, x2apic=False)
        self.done.append((request.step, request.most_restarts, request.seconds))
        self.checked[request.step] = [check.kind for check in request.checks], request.goss
        progress = BootProgress({}, *self.progress.get(request.step, (0, 0)))
        if request.step in self.fails:
            status, message = self.fails[request.step]
            return Observation(status, message, 5.0, progress)
        self.step = request.step
        status, message = request.errand(self) or ("passed", "it is up")
        return Observation(status, message, 5.0, progress)

    def run(self, command, deadline):
        order = ORDERS[command.decode()]
        self.done.append(order)
        usual = {"running": f"{self.running[self.step]}.0\n", "take": f"{NEW}\n", "counted": "3\n"}
        answer = self.answers.get((self.step, order), usual.get(order, ""))
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Ran) else Ran(0, answer.encode(), b"")


@pytest.fixture
def verdicts_of(tmp_path, monkeypatch):
    """A function that runs one of the tests on a machine; returns the verdicts as tuples."""

    def run(test, machine):
        monkeypatch.setattr(module, "boot_once", machine.boot_once)
        monkeypatch.setattr(module, "make_overlay", lambda *arguments: machine.done.append("new"))
        evidence = Evidence(tmp_path / "evidence", None, plot=False, gate=Gate([b"secret-value"]))
        request = BootRequest(
            image=tmp_path / "x.raw", format="raw", acceleration=accel.TCG,
            processors=accel.Processors(2, x2apic=True), evidence=evidence,
            checks=[UnitCheck(unit="ssh.service"), RebootCheck(reboot=True)], goss=b"file: {}",
            memory=1 << 30, seconds=100, on_phase=lambda phase, seconds: None,
            on_line=lambda line: None, console_only=False,
        )  # fmt: skip
        places = UpdateBoots(
            request,
            tmp_path / "boots",
            lambda step: evidence_of(evidence, tmp_path / step),
            lambda step: nullcontext(),
        )
        return list(test(places))

    return run


def evidence_of(evidence: Evidence, place: Path) -> Evidence:
    return Evidence(place, evidence.image, plot=False, gate=evidence.gate)


def upgraded(**running):
    return Machine({"parent": OLD, "upgrade": NEW, "rollback": OLD} | running)


def upgrade(boots):
    return tests.upgrade(boots, NEW)


def told(verdicts):
    return [(verdict.step, verdict.status, verdict.message) for verdict in verdicts]


def test_an_upgrade_boots_the_parent_the_update_and_the_parent_again(verdicts_of):
    machine = upgraded()
    assert told(verdicts_of(upgrade, machine)) == [
        (step, "passed", "it is up") for step in ("parent", "upgrade", "rollback")
    ]
    assert [each for each in machine.done if isinstance(each, str)] == [
        "new",
        *("running", "mark", "take"),
        *("running", "marked", "return"),
        *("running", "marked"),
    ]
    none = ([], None)
    of_recipe = (["unit"], b"file: {}")
    assert machine.checked == {"parent": none, "upgrade": of_recipe, "rollback": none}


FAILED_SCRIPT = Ran(1, b"", b"first\nerror: no signature\n")


@pytest.mark.parametrize(
    ("step", "order", "answer", "status", "message"),
    [
        ("parent", "running", "", "upgrade-failed",
         "the system does not name the version that runs"),
        ("parent", "mark", FAILED_SCRIPT, "upgrade-failed",
         "the files of the machine: error: no signature"),
        ("parent", "take", FAILED_SCRIPT, "upgrade-failed",
         "taking the update: error: no signature"),
        ("parent", "take", Ran(7, b"", b""), "upgrade-failed",
         "taking the update: the script ended with status 7"),
        ("parent", "take", "no checksum\n", "upgrade-failed",
         "taking the update: OSTree names no new commit"),
        ("parent", "take", f"{'c' * 64}\n", "upgrade-failed",
         f"taking the update: the machine found {'c' * 64}, not {NEW}"),
        ("parent", "take", NotRun("the command took longer than 1 s"), "upgrade-failed",
         "taking the update: the command took longer than 1 s"),
        ("parent", "take", QemuEnded(0, []), "upgrade-failed",
         "the machine has switched itself off"),
        ("upgrade", "running", f"{OLD}.0\n", "upgrade-failed",
         f"the version that runs is {OLD}.0, not the update {NEW}"),
        ("upgrade", "marked", FAILED_SCRIPT, "upgrade-failed",
         "the files of the machine: error: no signature"),
        ("upgrade", "return", FAILED_SCRIPT, "upgrade-failed",
         "the order to return: error: no signature"),
        ("rollback", "running", f"{NEW}.0\n", "rollback-failed",
         f"the version that runs is {NEW}.0, not {OLD}.0"),
        ("rollback", "running", f"{OLD}.1\n", "rollback-failed",
         f"the version that runs is {OLD}.1, not {OLD}.0"),
        ("rollback", "marked", FAILED_SCRIPT, "rollback-failed",
         "the files of the machine: error: no signature"),
    ],
)  # fmt: skip
def test_each_failure_of_an_upgrade_has_its_verdict(
    verdicts_of, step, order, answer, status, message
):
    machine = upgraded()
    machine.answers[step, order] = answer
    *before, last = told(verdicts_of(upgrade, machine))
    assert last == (step, status, message)
    assert all(found == "passed" for _, found, _ in before)


@pytest.mark.parametrize(
    ("step", "status", "message"),
    [
        ("parent", "upgrade-failed", "the parent's system: kernel-panic: so it is"),
        ("upgrade", "upgrade-failed", "the new version: kernel-panic: so it is"),
        ("rollback", "rollback-failed", "the return to the parent: kernel-panic: so it is"),
    ],
)
def test_a_version_that_does_not_boot_is_told_with_its_reason(verdicts_of, step, status, message):
    machine = upgraded()
    machine.fails[step] = "kernel-panic", "so it is"
    assert told(verdicts_of(upgrade, machine))[-1] == (step, status, message)


def test_a_qemu_that_fails_is_no_verdict_on_the_image(verdicts_of):
    machine = upgraded()
    machine.answers["parent", "take"] = QemuEnded(1, ["qemu: it broke"])
    with pytest.raises(QemuEnded):
        verdicts_of(upgrade, machine)


def test_no_verdict_shows_a_secret_or_a_control_character(verdicts_of):
    machine = upgraded()
    machine.answers["parent", "take"] = Ran(1, b"", b"\x1b[2Jis secret-value \xff")
    (verdict,) = verdicts_of(upgrade, machine)
    assert "secret-value" not in verdict.message
    assert verdict.message.isprintable()


def left(**running):
    machine = Machine({"bad-update": OLD, "fallback": OLD} | running)
    machine.progress["fallback"] = (3, 0)
    return machine


@pytest.mark.parametrize("starts", [(3, 0), (2, 1)])
def test_a_bad_update_is_left_after_the_counted_boots(verdicts_of, starts):
    machine = left()
    machine.progress["fallback"] = starts
    found = verdicts_of(tests.fallback, machine)
    assert [(verdict.step, verdict.status) for verdict in found] == [
        ("bad-update", "passed"),
        ("fallback", "passed"),
    ]
    assert machine.done == [
        "new",
        ("bad-update", 2, 100), "running", "counted", "break",
        # A machine that is expected to restart gets the time for it.
        ("fallback", 5, 400), "running", "state",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "order", "answer", "message"),
    [
        ("bad-update", "counted", "0\n", "the image counts no boots of an update"),
        ("bad-update", "counted", Ran(1, b"", b"cat: no such file"),
         "the count of boots: cat: no such file"),
        ("bad-update", "break", FAILED_SCRIPT, "making a bad update: error: no signature"),
        ("fallback", "running", f"{NEW}.0", f"the version that runs is {NEW}.0, not {OLD}.0"),
        ("fallback", "state", FAILED_SCRIPT, "the state after the return: error: no signature"),
    ],
)  # fmt: skip
def test_each_failure_to_leave_an_update_has_its_verdict(verdicts_of, step, order, answer, message):
    machine = left()
    machine.answers[step, order] = answer
    assert told(verdicts_of(tests.fallback, machine))[-1] == (step, "fallback-failed", message)


@pytest.mark.parametrize("starts", [(0, 0), (1, 1), (4, 0)])
def test_an_image_that_never_tried_the_update_or_too_often_fails(verdicts_of, starts):
    machine = left()
    machine.progress["fallback"] = starts
    message = f"GRUB started the bad update {sum(starts)} times, not 3 times"
    assert told(verdicts_of(tests.fallback, machine))[-1] == (
        "fallback",
        "fallback-failed",
        message,
    )
