"""Weighs signs of failure: a sign counts only while nothing contradicts it.

The console can lie, because an image can print any words. A sign is dismissed when the boot reaches
a later phase. A sign does not count while the machine does what a failed machine cannot do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from particle_os.boot.observation.signs import ANSWER, BEFORE_KERNEL, INIT, KERNEL, SIGNS, find_sign
from particle_os.boot.observation.verdict import BootStatus, Outcome
from particle_os.errors import printable

EVIDENCE_BYTES = 16384
# A sign counts after GRACE_SECONDS, or sooner when console and disk fall silent. Once an init runs,
# other programs write to the console, too, so the silence must last longer.
GRACE_SECONDS = 8.0
SILENCE_SECONDS = 2.0
INIT_SILENCE_SECONDS = 5.0
# A machine that reads its disk so long after the sign has not stopped reading.
READS_ON_SECONDS = 1.0
# After these failures, no machine reads its disk. A sign of a machine that reads on is ignored,
# unless systemd itself has reported the emergency mode.
DEATHS: tuple[BootStatus, ...] = (
    "kernel-panic",
    "root-not-found",
    "init-missing",
    "emergency-mode",
)
EMERGENCY = b"it is in emergency or rescue mode"
# Once the system has answered, only its kernel can fail.
AFTER_ANSWER = tuple(status for status, _ in SIGNS if status != "kernel-panic")
SignPlace = Literal["console", "screen", "system"]


@dataclass
class _Sign:
    """A sign of failure that nothing has contradicted yet."""

    status: BootStatus
    words: bytes
    since: float
    phase: int
    evidence: bytes
    place: SignPlace
    # Whether the system itself has reported it, on the probe's channel.
    reported: bool = False


class Suspicion:
    """The current sign of failure, if any; true when there is a sign.

    Phases are indices of PHASE_NAMES. Times are in seconds of the monotonic clock.
    """

    def __init__(self) -> None:
        self._sign: _Sign | None = None
        self._dismissed: set[bytes] = set()

    def __bool__(self) -> bool:
        return self._sign is not None

    def look_for_signs(self, text: bytes, place: SignPlace, phase: int, now: float) -> None:
        """Takes the first sign in `text`, unless a sign is known or this sign was dismissed."""
        if self._sign is not None:
            return
        found = find_sign(text, _past(phase))
        if found and found[1] not in self._dismissed:
            status, words = found
            self._sign = _Sign(status, words, now, phase, text, place)

    def hear_of_emergency(self, phase: int, now: float) -> None:
        """Takes the system's own report of emergency mode.

        Such a system runs, and its services may continue to read the disk.
        """
        if self._sign is None and EMERGENCY not in self._dismissed:
            self._sign = _Sign("emergency-mode", EMERGENCY, now, phase, b"", "system")
        if self._sign is not None:
            self._sign.reported = True

    def add_evidence(self, data: bytes) -> None:
        """Adds output of the console after the sign to the evidence, up to EVIDENCE_BYTES."""
        if self._sign is not None:
            room = EVIDENCE_BYTES - len(self._sign.evidence)
            self._sign.evidence += data[: max(0, room)]

    def contradict(self, phase: int) -> None:
        """Dismisses the sign for good if the boot has reached `phase` after it."""
        if self._sign is not None and phase > self._sign.phase:
            self._dismissed.add(self._sign.words)
            self._sign = None

    def weigh(self, phase: int, heard: float, used_disk: float, now: float) -> Outcome | None:
        """Returns the outcome of the boot once the sign counts; else None.

        `heard` is the time of the last console output, `used_disk` of the last disk operation.
        """
        if self._sign is None:
            return None
        since = self._sign.since
        silence = now - max(heard, used_disk, since)
        if silence >= (INIT_SILENCE_SECONDS if phase >= INIT else SILENCE_SECONDS):
            return self.believed(phase)
        reads_on = used_disk - since > READS_ON_SECONDS
        lies = self._sign.status in DEATHS and reads_on and not self._sign.reported
        if now - since < GRACE_SECONDS or lies:
            return None
        return self.believed(phase)

    def believed(self, phase: int) -> Outcome:
        """Returns the outcome of the boot according to the current sign."""
        assert self._sign is not None
        # The line may have been incomplete when the sign was found.
        found = find_sign(self._sign.evidence, _past(phase))
        status, words = found or (self._sign.status, self._sign.words)
        text = printable(words.decode("utf-8", "replace"), 300)
        return status, f"the {self._sign.place} says: {text}"


def _past(phase: int) -> tuple[BootStatus, ...]:
    """Returns the statuses that are impossible after `phase`."""
    if phase >= ANSWER:
        return AFTER_ANSWER
    return BEFORE_KERNEL if phase >= KERNEL else ()
