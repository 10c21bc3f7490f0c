"""The memory of the machine of a boot test, and the time limit of a boot."""

from __future__ import annotations

from collections.abc import Sequence

from particle_os.errors import UsageError
from particle_os.recipe.checks.base import QUESTION_SECONDS
from particle_os.recipe.checks.contents import CommandCheck
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.checks.system import MemoryCheck
from particle_os.vm.accel import Acceleration
from particle_os.vm.argv import MIB

MEMORY = 1024 * MIB
# systemd waits 90 s for a missing disk; the limit is longer, and doubled under emulation.
TIMEOUT_SECONDS = {"kvm": 120.0, "tcg": 240.0}


def memory_for(checks: Sequence[Check], given: int | None) -> int:
    """Returns the machine's memory in bytes: `given`, the smallest limit of a check, or MEMORY.

    Raises UsageError when `given` exceeds the limit of a check.
    """
    limit = min((check.bytes for check in checks if isinstance(check, MemoryCheck)), default=None)
    if given is not None and limit is not None and given > limit:
        raise UsageError(
            f"--memory exceeds the limit of a check: the image must boot in {limit // MIB} MiB"
        )
    return given or limit or MEMORY


def seconds_for(checks: Sequence[Check], acceleration: Acceleration) -> float:
    """Returns the time limit of one boot in seconds; slow command checks extend it."""
    commands = [check.timeout for check in checks if isinstance(check, CommandCheck)]
    longer = sum(max(0, seconds - QUESTION_SECONDS) for seconds in commands)
    return TIMEOUT_SECONDS[acceleration.name] + longer
