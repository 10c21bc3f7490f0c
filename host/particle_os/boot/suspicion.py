"""Weighs signs of failure: one only counts while nothing contradicts it.

The console can lie: an image can print any words. A sign is dismissed when the boot goes on to a
later phase, and it waits while the machine still does what a failed one cannot do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from particle_os.boot.signs import ANSWER, BEFORE_KERNEL, INIT, KERNEL, SIGNS, find_sign
from particle_os.boot.verdict import BootStatus, Outcome
from particle_os.errors import printable

EVIDENCE_BYTES = 16384
# A sign counts after so long, and sooner when console and disk fall silent. Once there is an init,
# other programs write there, too, and silence has to last longer.
GRACE_SECONDS = 8.0
SILENCE_SECONDS = 2.0
INIT_SILENCE_SECONDS = 5.0
# A machine that reads its disk so long after the sign reads on.
READS_ON_SECONDS = 1.0
# After these nothing is read from a disk any more: whoever still reads has lied, unless systemd
# itself has told of its emergency mode.
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
    """A sign of failure that has not been contradicted yet."""

    status: BootStatus
    words: bytes
    since: float
    phase: int
    evidence: bytes
    place: SignPlace
    # The system itself has told, where nothing else can write.
    told: bool = False


class Suspicion:
    """The sign of failure that stands, if one does; phases are indices of PHASE_NAMES.

    Times are in seconds of the monotonic clock.
    """

    def __init__(self) -> None:
        self._sign: _Sign | None = None
        self._dismissed: set[bytes] = set()

    def __bool__(self) -> bool:
        return self._sign is not None

    def look_for_signs(self, text: bytes, place: SignPlace, phase: int, now: float) -> None:
        """Suspects the first sign in `text`, unless one stands or this one was dismissed."""
        if self._sign is not None:
            return
        found = find_sign(text, _past(phase))
        if found and found[1] not in self._dismissed:
            status, words = found
            self._sign = _Sign(status, words, now, phase, text, place)

    def hear_of_emergency(self, phase: int, now: float) -> None:
        """Takes the system's own word that it is in emergency mode.

        Such a system runs, and whatever reads its disk may go on to do so.
        """
        if self._sign is None and EMERGENCY not in self._dismissed:
            self._sign = _Sign("emergency-mode", EMERGENCY, now, phase, b"", "system")
        if self._sign is not None:
            self._sign.told = True

    def add_evidence(self, data: bytes) -> None:
        """Takes what the console says after the sign."""
        if self._sign is not None:
            room = EVIDENCE_BYTES - len(self._sign.evidence)
            self._sign.evidence += data[: max(0, room)]

    def contradict(self, phase: int) -> None:
        """Dismisses the sign for good if it came before `phase`, which the boot has reached."""
        if self._sign is not None and phase > self._sign.phase:
            self._dismissed.add(self._sign.words)
            self._sign = None

    def weigh(self, phase: int, heard: float, used_disk: float, now: float) -> Outcome | None:
        """How the boot ended, once the sign has stood for long enough.

        `heard` is when the console spoke last, `used_disk` when the machine last used a disk.
        """
        if self._sign is None:
            return None
        since = self._sign.since
        silence = now - max(heard, used_disk, since)
        if silence >= (INIT_SILENCE_SECONDS if phase >= INIT else SILENCE_SECONDS):
            return self.believed(phase)
        reads_on = used_disk - since > READS_ON_SECONDS
        lies = self._sign.status in DEATHS and reads_on and not self._sign.told
        if now - since < GRACE_SECONDS or lies:
            return None
        return self.believed(phase)

    def believed(self, phase: int) -> Outcome:
        """How the boot ended by the sign that stands."""
        assert self._sign is not None
        # The line may have been incomplete when it was noticed.
        found = find_sign(self._sign.evidence, _past(phase))
        status, words = found or (self._sign.status, self._sign.words)
        said = printable(words.decode("utf-8", "replace"), 300)
        return status, f"the {self._sign.place} says: {said}"


def _past(phase: int) -> tuple[BootStatus, ...]:
    """What cannot fail any more."""
    if phase >= ANSWER:
        return AFTER_ANSWER
    return BEFORE_KERNEL if phase >= KERNEL else ()
