"""Asks the running system itself: what is handed into the image, and how its answer is read.

systemd 256 and later takes units from credentials (systemd.system-credentials(7)), and credentials
from SMBIOS (systemd(1)), so the image needs no agent and no change. systemd 252 to 255 takes
credentials, but no units; `tmpfiles.extra` does the same for them, see `_for_older_systemd`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from importlib import resources

from particle_os.errors import UsageError, printable
from particle_os.recipe.checks.base import NO_REPLY, Reply
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.checks.questions import (
    TOO_LONG,
    TOO_LONG_HINT,
    first_beyond_limit,
    questions,
)
from particle_os.vm import smbios

UNIT = "particle-os-probe.service"
UNIT_TEXT = """\
[Unit]
Description=particle-os boot test
[Service]
Type=exec
RuntimeDirectory=particle-os-probe
%s
ExecStart=/bin/sh -c 'eval "$$(cat "$${CREDENTIALS_DIRECTORY}"/particle-os.probe.*)"' probe %s
"""
# What stops in emergency or rescue mode never comes to the probe, and says so itself.
EMERGENCY_UNIT = "particle-os-emergency.service"
EMERGENCY_TEXT = """\
[Unit]
Description=particle-os boot test
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo %s >/dev/ttyS1'
"""
# A module that does not exist, so that modprobe comes to its install command (modprobe.d(5)).
MODULE = "particle_os"
INSTALL = f"install tcp_{MODULE} /bin/systemctl start --no-block {UNIT}\n"
CONGESTION_CONTROL = "/proc/sys/net/ipv4/tcp_congestion_control"
QUESTIONS = "particle-os.questions"
FACTS, REPLY, LATE = "facts", "reply:", "late"
SEPARATOR = "\x1e"
FACT_LINES = 200


def begin_marker(nonce: str) -> bytes:
    """What the probe says first."""
    return f"PARTICLE-OS-PROBE {nonce}".encode()


def end_marker(nonce: str) -> bytes:
    """What the probe says when it has told everything."""
    return f"PARTICLE-OS-PROBE-END {nonce}".encode()


def emergency_marker(nonce: str) -> bytes:
    """What a system with systemd 256 or later says in emergency or rescue mode."""
    return f"PARTICLE-OS-EMERGENCY {nonce}".encode()


def credentials(nonce: str, checks: Sequence[Check]) -> dict[str, bytes]:
    """The credentials that make the image answer with `nonce`, and ask what the checks ask."""
    script = resources.files("particle_os.boot").joinpath("probe.sh").read_bytes()
    asked = b"".join(questions(checks))
    if first_beyond_limit(checks) is not None:
        raise UsageError(f"{TOO_LONG}: {len(asked)} bytes", hint=TOO_LONG_HINT)
    given = {**_pieces("particle-os.probe", script), **_pieces(QUESTIONS, asked)}
    unit = (UNIT_TEXT % ("\n".join(f"LoadCredential={name}" for name in given), nonce)).encode()
    emergency = (EMERGENCY_TEXT % emergency_marker(nonce).decode()).encode()
    return {
        f"systemd.extra-unit.{UNIT}": unit,
        f"systemd.extra-unit.{EMERGENCY_UNIT}": emergency,
        **_wants("multi-user.target", UNIT),
        **_wants("emergency.target", EMERGENCY_UNIT),
        **_wants("rescue.target", EMERGENCY_UNIT),
        "tmpfiles.extra": _for_older_systemd(unit),
        **given,
    }


def _wants(target: str, unit: str) -> dict[str, bytes]:
    """A credential that has a target start a unit."""
    return {f"systemd.unit-dropin.{target}~particle-os": f"[Unit]\nWants={unit}\n".encode()}


def _pieces(name: str, data: bytes) -> dict[str, bytes]:
    """`data` as credentials that are short enough, whose names sort in its order."""
    step = smbios.room(f"{name}.000")
    starts = range(0, len(data), step)
    return {f"{name}.{i:03}": data[start : start + step] for i, start in enumerate(starts)}


def _for_older_systemd(unit: bytes) -> bytes:
    """tmpfiles.d(5) lines that write our unit to /run and have it started.

    systemd-tmpfiles runs no programs. But a congestion control that the kernel does not know makes
    it ask modprobe, and modprobe's configuration names the program to run. The setting itself
    stays as it is. systemd 256 has the unit already and does not start it twice.
    """
    files = {
        f"/run/systemd/system/{UNIT}": unit,
        "/run/modprobe.d/particle-os.conf": INSTALL.encode(),
    }
    lines = [
        f"f+~ {path} 0644 root root - {base64.b64encode(data).decode()}"
        for path, data in files.items()
    ]
    return "\n".join([*lines, f"w- {CONGESTION_CONTROL} - - - - {MODULE}", ""]).encode()


def _body(data: bytes, nonce: str) -> list[str]:
    """The lines of the answer between this run's markers; what stands around them is not ours."""
    text = data.decode("ascii", "replace").replace("\r", "")
    body = text.partition(begin_marker(nonce).decode() + "\n")[2]
    return body.partition(end_marker(nonce).decode())[0].splitlines()


def _decoded(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None


def facts(data: bytes, nonce: str) -> dict[str, str]:
    """What the system told of itself, safe to show; lines that are not facts are passed over."""
    found: dict[str, str] = {}
    for line in _body(data, nonce):
        name, _, value = line.partition(" ")
        if name != FACTS or (told := _decoded(value)) is None:
            continue
        for fact in told.split(SEPARATOR)[1:]:
            name, *lines = fact.rstrip().split("\n")[: 1 + FACT_LINES]
            # The first one counts: in a later one there may be what services have said.
            found.setdefault(printable(name, 200), "\n".join(map(printable, lines)))
    return found


def replies(data: bytes, nonce: str, checks: Sequence[Check]) -> list[list[Reply]]:
    """For each check the replies to what it asks; a missing one is `NO_REPLY`. Untrusted text."""
    found: dict[str, Reply] = {}
    for line in _body(data, nonce):
        name, _, rest = line.partition(" ")
        value, _, status = rest.rpartition(" ")
        output = _decoded(value)
        if name.startswith(REPLY) and output is not None and (status.isdecimal() or status == LATE):
            ended = None if status == LATE else int(status[:4])
            found[name.removeprefix(REPLY)] = Reply(ended, output)
    return [
        [found.get(f"{number}.{index}", NO_REPLY) for index in range(len(check.asks()))]
        for number, check in enumerate(checks)
    ]
