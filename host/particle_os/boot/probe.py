"""Questions the running system: makes the credentials for the image and reads the answer.

systemd 256 and later takes units from credentials (systemd.system-credentials(7)), and credentials
from SMBIOS (systemd(1)), so the image needs no agent and no change. systemd 252 to 255 takes
credentials, but no units; `tmpfiles.extra` starts the unit there, see `_for_older_systemd`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from importlib import resources

from particle_os.architecture import AMD64, MachineFacts
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
# An initramfs with systemd takes the credentials, too; such a one has the file
# (https://systemd.io/INITRD_INTERFACE/). The image itself is to answer.
UNIT_TEXT = """\
[Unit]
Description=particle-os boot test
ConditionPathExists=!/etc/initrd-release
[Service]
Type=exec
RuntimeDirectory=particle-os-probe
%s
ExecStart=/bin/sh -c 'eval "$$(cat "$${CREDENTIALS_DIRECTORY}"/particle-os.probe.*)"' probe %s
"""
# A system that stops in emergency or rescue mode never starts the probe: another unit reports it.
EMERGENCY_UNIT = "particle-os-emergency.service"
EMERGENCY_TEXT = """\
[Unit]
Description=particle-os boot test
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo %s >/dev/%s'
"""
# The module does not exist, so modprobe runs the install command (modprobe.d(5)).
MODULE = "particle_os"
INSTALL = f"install tcp_{MODULE} /bin/systemctl start --no-block {UNIT}\n"
CONGESTION_CONTROL = "/proc/sys/net/ipv4/tcp_congestion_control"
QUESTIONS = "particle-os.questions"
FACTS, REPLY, LATE = "facts", "reply:", "late"
SEPARATOR = "\x1e"
FACT_LINES = 200


def begin_marker(nonce: str) -> bytes:
    """Returns the first line of the probe's answer."""
    return f"PARTICLE-OS-PROBE {nonce}".encode()


def end_marker(nonce: str) -> bytes:
    """Returns the last line of the probe's answer."""
    return f"PARTICLE-OS-PROBE-END {nonce}".encode()


def emergency_marker(nonce: str) -> bytes:
    """Returns the line that systemd 256 or later sends in emergency or rescue mode."""
    return f"PARTICLE-OS-EMERGENCY {nonce}".encode()


def credentials(
    nonce: str, checks: Sequence[Check], vm: MachineFacts = AMD64.vm
) -> dict[str, bytes]:
    """Returns the credentials that make the image answer with `nonce` and run the checks' commands.

    The image is to run on a machine `vm`. Raises UsageError when the questions of the checks are
    too long.
    """
    script = resources.files("particle_os.boot").joinpath("probe.sh").read_bytes()
    script = script.replace(AMD64.vm.answers.encode(), vm.answers.encode())
    asked = b"".join(questions(checks))
    if first_beyond_limit(checks) is not None:
        raise UsageError(f"{TOO_LONG}: {len(asked)} bytes", hint=TOO_LONG_HINT)
    given = {**_pieces("particle-os.probe", script), **_pieces(QUESTIONS, asked)}
    unit = (UNIT_TEXT % ("\n".join(f"LoadCredential={name}" for name in given), nonce)).encode()
    emergency = (EMERGENCY_TEXT % (emergency_marker(nonce).decode(), vm.answers)).encode()
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
    """Returns a credential that makes `target` start `unit`."""
    return {f"systemd.unit-dropin.{target}~particle-os": f"[Unit]\nWants={unit}\n".encode()}


def _pieces(name: str, data: bytes) -> dict[str, bytes]:
    """Splits `data` into credentials that fit into SMBIOS tables; their names sort in its order."""
    step = smbios.room(f"{name}.000")
    starts = range(0, len(data), step)
    return {f"{name}.{i:03}": data[start : start + step] for i, start in enumerate(starts)}


def _for_older_systemd(unit: bytes) -> bytes:
    """Returns tmpfiles.d(5) lines that write our unit to /run and start it.

    systemd-tmpfiles runs no programs. But when a line sets an unknown congestion control, the
    kernel calls modprobe, and modprobe's configuration names the program to run. The kernel keeps
    its setting. systemd 256 has the unit already and does not start it twice.
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
    """Returns the lines of the answer between this run's markers; others are not the probe's."""
    text = data.decode("ascii", "replace").replace("\r", "")
    body = text.partition(begin_marker(nonce).decode() + "\n")[2]
    return body.partition(end_marker(nonce).decode())[0].splitlines()


def _decoded(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None


def facts(data: bytes, nonce: str) -> dict[str, str]:
    """Returns the facts in the system's answer, safe to show; other lines are skipped."""
    found: dict[str, str] = {}
    for line in _body(data, nonce):
        name, _, value = line.partition(" ")
        if name != FACTS or (text := _decoded(value)) is None:
            continue
        for fact in text.split(SEPARATOR)[1:]:
            name, *lines = fact.rstrip().split("\n")[: 1 + FACT_LINES]
            # The first fact of a name counts: a journal's text could imitate a later one.
            found.setdefault(printable(name, 200), "\n".join(map(printable, lines)))
    return found


def replies(data: bytes, nonce: str, checks: Sequence[Check]) -> list[list[Reply]]:
    """Returns each check's replies; a missing reply is `NO_REPLY`. The text is untrusted."""
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
