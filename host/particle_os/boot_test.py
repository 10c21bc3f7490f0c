"""Boots an image through a throwaway overlay and asks the running system itself.

systemd 256 and later takes units from SMBIOS credentials (systemd.system-credentials(7)), so the
image needs no agent and no change. Only the nonce of this run, answered on a channel of its own
from inside the settled system, is a pass; what the console says can only explain a failure.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Literal

import pydantic
import tenacity

from particle_os import process
from particle_os.deadline import Deadline
from particle_os.errors import DeadlineExceeded, UsageError, printable
from particle_os.vm import firmware as firmwares
from particle_os.vm.accel import Acceleration
from particle_os.vm.argv import MIB, Disk, MachineSpec
from particle_os.vm.console import Console, GuestPanic, QemuEnded
from particle_os.vm.firmware import Firmware
from particle_os.vm.machine import running
from particle_os.vm.monitor import connect_unix

Status = Literal[
    "passed",
    "units-failed",
    "checks-failed",
    "no-bootable-device",
    "boot-loader-failed",
    "root-not-found",
    "kernel-panic",
    "emergency-mode",
    "powered-off-early",
    "timed-out",
]
# QEMU's names.
ImageFormat = Literal["raw", "qcow2", "vmdk", "vdi", "vpc"]
MEMORY = 1024 * MIB
CPUS = 2
TIMEOUT_SECONDS = 60.0
ATTEMPTS = 3
ANSWER_LIMIT = 1 << 20
POLL_SECONDS = 0.2
UNIT = "particle-os-probe.service"
UNIT_TEXT = """\
[Unit]
Description=particle-os boot test
[Service]
Type=exec
LoadCredential=particle-os.probe
LoadCredential=particle-os.units
ExecStart=/bin/sh -c '. "$${CREDENTIALS_DIRECTORY}/particle-os.probe"' probe %s
"""
# What a failed boot says on the console; the words of initramfs-tools, systemd and syslinux.
SIGNS: tuple[tuple[Status, re.Pattern[bytes]], ...] = (
    (
        "root-not-found",
        re.compile(rb"Dropping to a shell!|\(initramfs\)|ALERT! +\S+ does not exist"),
    ),
    ("emergency-mode", re.compile(rb"You are in (emergency|rescue) mode")),
    (
        "boot-loader-failed",
        re.compile(
            rb"Missing OS|Missing operating system|No DEFAULT or UI|Boot error|ldlinux\.c32|"
            rb"Booting kernel failed|Could not find kernel|Invalid or corrupt kernel"
        ),
    ),
    (
        "no-bootable-device",
        re.compile(
            rb"No bootable device|Boot failed: not a bootable disk|"
            rb"No bootable option or device was found"
        ),
    ),
)
PHASES = (
    ("firmware", re.compile(rb"SeaBIOS|BdsDxe: loading")),
    ("boot loader", re.compile(rb"SYSLINUX|EXTLINUX|Loading /|GRUB|BdsDxe: starting")),
    ("kernel", re.compile(rb"Linux version \d")),
    ("initramfs", re.compile(rb"Run /init as init process|Loading, please wait")),
    ("systemd", re.compile(rb"Welcome to |systemd \d+.* running in system mode")),
    ("login prompt", re.compile(rb"login: ")),
)


class Verdict(pydantic.BaseModel):
    """What one boot showed."""

    model_config = pydantic.ConfigDict(frozen=True)

    status: Status
    firmware: Firmware = "bios"
    seconds: float
    message: str
    # Seconds until each phase showed itself on the console.
    phases: dict[str, float] = {}
    # What the running system told; empty when it never answered. Untrusted text, escaped.
    facts: dict[str, str] = {}
    console_tail: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def image_format(path: Path) -> Literal["raw", "qcow2"]:
    """The format of an image, by its magic number: qcow2, else raw.

    Raises UsageError for a qcow2 that refers to other files: an untrusted image could name any
    file of the host (docs/interop/qcow2.txt: backing_file_offset, incompatible feature bit 2).
    """
    with path.open("rb") as file:
        head = file.read(80)
    if not head.startswith(b"QFI\xfb"):
        return "raw"
    backing = int.from_bytes(head[8:16], "big")
    version = int.from_bytes(head[4:8], "big")
    external = version >= 3 and int.from_bytes(head[72:80], "big") & 4
    if backing or external:
        raise UsageError(
            f"{path} refers to another file; only images that stand alone are booted",
            hint="Flatten it with 'qemu-img convert -O qcow2'.",
        )
    return "qcow2"


class _Listener:
    """Collects what a Unix socket sends, up to a limit, until a marker ends it."""

    def __init__(self, connection: socket.socket, marker: bytes | None) -> None:
        self._socket = connection
        self._marker = marker
        self._data = bytearray()
        self.complete = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while chunk := self._socket.recv(65536):
                room = ANSWER_LIMIT - len(self._data)
                self._data += chunk[: max(0, room)]
                if self._marker and self._marker in self._data[-(len(chunk) + len(self._marker)) :]:
                    self.complete.set()
        except OSError:
            return

    @property
    def data(self) -> bytes:
        return bytes(self._data)

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(5)
        self._socket.close()


def boot(
    image: Path,
    acceleration: Acceleration,
    *,
    format: ImageFormat,  # noqa: A002 - the field's own word
    directory: Path,
    transcript: Path,
    firmware: Firmware = "bios",
    units: Sequence[str] = (),
    memory: int = MEMORY,
    timeout: float | None = None,
) -> Verdict:
    """Boots `image` under a firmware and returns the verdict; the image is never written.

    `units` must be active for a pass. `memory` is in bytes, `timeout` in seconds (by default
    longer under emulation). Raises InfrastructureError when QEMU or the host fails.
    """
    directory.mkdir(mode=0o700)
    # QEMU 10.0 sometimes dies by itself (an assertion in iotlb_to_section) while several emulated
    # processors boot; that says nothing of the image.
    for attempt in tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        retry=tenacity.retry_if_exception(_qemu_aborted),
        reraise=True,
    ):
        with attempt:
            verdict = _boot_once(
                image,
                acceleration,
                format=format,
                firmware=firmware,
                directory=directory / str(attempt.retry_state.attempt_number),
                transcript=transcript,
                units=units,
                memory=memory,
                timeout=timeout,
            )
    return verdict


def _qemu_aborted(error: BaseException) -> bool:
    return isinstance(error, QemuEnded) and error.status == -signal.SIGABRT


def _boot_once(
    image: Path,
    acceleration: Acceleration,
    *,
    format: ImageFormat,  # noqa: A002 - the field's own word
    firmware: Firmware,
    directory: Path,
    transcript: Path,
    units: Sequence[str],
    memory: int,
    timeout: float | None,
) -> Verdict:
    directory.mkdir(mode=0o700)
    nonce = secrets.token_hex(16)
    limit = timeout if timeout is not None else TIMEOUT_SECONDS * acceleration.factor
    deadline = Deadline.after(limit, "the boot test")
    overlay = directory / "overlay.qcow2"
    process.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.resolve(), "-F", format, overlay],
        deadline=Deadline.after(30, "making the overlay"),
        what="making the overlay",
    )
    spec = MachineSpec(
        accelerator=acceleration.name,
        memory=memory,
        cpus=CPUS,
        disks=(Disk(overlay, "qcow2", "image"),),
        uefi=firmwares.prepare(firmware, directory),
        network="isolated",
        credentials=_credentials(nonce, units),
        probe_socket="probe.sock",
        firmware_socket="firmware.sock",
    )
    started = time.monotonic()
    with ExitStack() as stack:
        machine = stack.enter_context(
            running(spec, directory=directory, transcript=transcript, deadline=deadline)
        )
        alive = machine.console.is_alive
        probe = _Listener(
            connect_unix(directory, "probe.sock", deadline, alive),
            f"PARTICLE-OS-PROBE-END {nonce}".encode(),
        )
        stack.callback(probe.close)
        debug = _Listener(connect_unix(directory, "firmware.sock", deadline, alive), None)
        stack.callback(debug.close)
        phases: dict[str, float] = {}
        status, message = _wait(machine.console, probe, debug, deadline, phases, started)
        facts: dict[str, str] = {}
        if status == "passed":
            facts = _facts(probe.data, nonce)
            status, message = _judge(facts, units)
        return Verdict(
            status=status,
            firmware=firmware,
            seconds=round(time.monotonic() - started, 3),
            message=message,
            phases=phases,
            facts=facts,
            console_tail=() if status == "passed" else tuple(machine.console.transcript.tail()),
        )


def _credentials(nonce: str, units: Sequence[str]) -> dict[str, bytes]:
    script = resources.files("particle_os").joinpath("probe.sh").read_bytes()
    return {
        f"systemd.extra-unit.{UNIT}": (UNIT_TEXT % nonce).encode(),
        "systemd.unit-dropin.multi-user.target~particle-os": f"[Unit]\nWants={UNIT}\n".encode(),
        "particle-os.probe": script,
        "particle-os.units": "".join(f"{unit}\n" for unit in units).encode(),
    }


def _wait(
    console: Console,
    probe: _Listener,
    firmware: _Listener,
    deadline: Deadline,
    phases: dict[str, float],
    started: float,
) -> tuple[Status, str]:
    """Waits for the answer, or for a sign that none will come."""
    pending = list(PHASES)
    while True:
        if probe.complete.is_set():
            return "passed", ""
        if re.search(rb"No bootable device", firmware.data):
            return "no-bootable-device", "the firmware found no bootable device"
        patterns = [pattern for _, pattern in (*SIGNS, *pending)]
        try:
            slice_ = deadline.sooner(POLL_SECONDS, "a moment")
            index, match = console.expect_any(patterns, slice_)
        except DeadlineExceeded:
            if time.monotonic() >= deadline.at:
                return "timed-out", _time_out(deadline.seconds, list(phases))
            continue
        except GuestPanic as panic:
            return "kernel-panic", panic.brief.removeprefix("the VM died: ")
        except QemuEnded as ended:
            if ended.status != 0:
                raise
            if probe.complete.wait(0.5):
                return "passed", ""
            return "powered-off-early", "the machine switched itself off before it answered"
        if index < len(SIGNS):
            if probe.complete.wait(1.0):
                return "passed", ""
            said = printable(match.group().decode("utf-8", "replace"))
            return SIGNS[index][0], f"the console says: {said}"
        name = pending[index - len(SIGNS)][0]
        # A later phase shows that the earlier ones passed unseen.
        pending = pending[index - len(SIGNS) + 1 :]
        phases[name] = round(time.monotonic() - started, 2)


def _time_out(seconds: float, phases: Sequence[str]) -> str:
    last = phases[-1] if phases else "nothing"
    text = f"no answer within {seconds:.0f} s; last seen: {last}"
    if last == "login prompt":
        text += " (a systemd older than 256 cannot be questioned this way)"
    elif last in ("nothing", "firmware", "boot loader"):
        text += " (a kernel without console=ttyS0 says nothing here)"
    return text


def _facts(data: bytes, nonce: str) -> dict[str, str]:
    """The answer between this run's markers, decoded; lines that are not facts are passed over."""
    text = data.decode("ascii", "replace").replace("\r", "")
    body = text.partition(f"PARTICLE-OS-PROBE {nonce}\n")[2]
    body = body.partition(f"PARTICLE-OS-PROBE-END {nonce}")[0]
    facts: dict[str, str] = {}
    for line in body.splitlines():
        name, _, value = line.partition(" ")
        try:
            decoded = base64.b64decode(value, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            continue
        facts[printable(name, 200)] = "\n".join(
            printable(part) for part in decoded.strip().split("\n")[:200]
        )
    return facts


def _judge(facts: dict[str, str], units: Sequence[str]) -> tuple[Status, str]:
    state, failed = facts.get("state", ""), facts.get("failed", "").split()
    if failed:
        return "units-failed", f"failed units: {', '.join(failed)}"
    if state != "running":
        return "units-failed", f"systemd says '{state}', not 'running'"
    inactive = [f"{u} is {facts.get(f'unit:{u}', 'unknown')}" for u in units]
    inactive = [text for text in inactive if not text.endswith(" is active")]
    if inactive:
        return "checks-failed", ", ".join(inactive)
    return "passed", f"{facts.get('system', 'the system')} is up, no unit failed"
