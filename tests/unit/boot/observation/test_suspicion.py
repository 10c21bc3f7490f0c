"""Tests of when a sign of failure counts, and what contradicts a sign."""

from particle_os.boot.observation.signs import ANSWER, BEFORE_KERNEL, INIT, KERNEL
from particle_os.boot.observation.suspicion import AFTER_ANSWER, Suspicion, _past

PANIC = b"Kernel panic - not syncing: Attempted to kill init!"


def suspect(text=PANIC, phase=KERNEL):
    suspicion = Suspicion()
    suspicion.look_for_signs(text, "console", phase, 10.0)
    return suspicion


def weigh(suspicion, now, phase=KERNEL, used_disk=0.0, heard=10.0):
    return suspicion.weigh(phase, heard, used_disk, now)


def test_a_sign_counts_when_nothing_follows_and_later_where_other_programs_write():
    suspicion = suspect()
    assert weigh(suspicion, 11.9) is None
    assert weigh(suspicion, 12.1) == ("kernel-panic", f"the console says: {PANIC.decode()}")
    assert weigh(suspicion, 12.1, phase=INIT) is None


def test_a_panic_does_not_count_while_the_machine_reads_its_disk():
    assert weigh(suspect(), 19.0, used_disk=18.5) is None
    assert weigh(suspect(b"Missing OS", phase=0), 19.0, phase=0, used_disk=18.5) is not None


def test_a_later_phase_dismisses_a_sign_for_good():
    suspicion = suspect()
    suspicion.contradict(KERNEL)
    assert suspicion
    suspicion.contradict(INIT)
    assert not suspicion
    suspicion.look_for_signs(PANIC, "console", INIT, 20.0)
    assert not suspicion


def test_once_the_system_has_answered_only_its_kernel_can_fail():
    assert not suspect(b"You are in emergency mode", phase=ANSWER)
    assert suspect(phase=ANSWER)


def test_a_system_in_emergency_mode_may_go_on_to_read_its_disk():
    suspicion = Suspicion()
    suspicion.hear_of_emergency(INIT, 10.0)
    outcome = weigh(suspicion, 19.0, phase=INIT, used_disk=18.5)
    assert outcome == ("emergency-mode", "the system says: it is in emergency or rescue mode")


def test_words_that_are_no_text_are_told():
    assert suspect(PANIC + b" \xff\xc3").believed(KERNEL) == (
        "kernel-panic", f"the console says: {PANIC.decode()} \ufffd\ufffd",
    )  # fmt: skip


def test_the_words_are_those_of_the_whole_line():
    suspicion = suspect(b"Kernel panic - not syn" + PANIC[22:30])
    suspicion.add_evidence(PANIC[30:])
    assert suspicion.believed(KERNEL)[1].endswith(PANIC.decode())


def test_each_phase_has_its_impossible_statuses():
    assert _past(KERNEL - 1) == ()
    assert _past(KERNEL) == _past(ANSWER - 1) == BEFORE_KERNEL
    assert _past(ANSWER) == AFTER_ANSWER
