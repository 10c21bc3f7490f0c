"""A build whose helper VM, agent and boot test are played, for tests of what a build prints."""

import base64
import hashlib
import json
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

from click.testing import CliRunner
from particle_agent.contract import wire
from particle_agent.contract.decode import encode
from particle_agent.contract.inspection import CommitFacts, Inspection, Package, System
from particle_os.apt.proxy import NO_PROXY
from particle_os.boot import files, probe, session
from particle_os.boot.observation.verdict import BootProgress, CheckResult, Observation
from particle_os.cli.build import build_command
from particle_os.errors import InfrastructureError, VmError
from particle_os.jobs import build
from particle_os.jobs.execution import helper_vms
from particle_os.jobs.execution.helper_vms import HelperVms
from particle_os.jobs.execution.preparation import Prepared
from particle_os.sandbox.agent import Agent
from particle_os.sandbox.helper import Helper
from particle_os.vm import firmware as firmwares
from particle_os.vm.accel import TCG
from particle_os.vm.console import LastLine, Transcript
from particle_os.vm.traffic import Traffic

from ..waiting import plenty
from .base.test_lookup import AMD64, tar
from .sandbox.test_agent import DONE, HELLO, PROGRAM, Channel, line

RECIPE = """\
name: leaky
base-image: tar:base.tar
stages:
  - type: timezone
    zone: UTC
    secrets:
      - {name: token, env: TOKEN}
  - {type: qemu}
"""
DISK = b"the disk" * 64
NONCE = "0" * 32


class World:
    """The world that a build sees.

    `ends` says how the build ends. `text` is in all texts of the guest, and `detail` in the
    result of a check. Programs print `lines`, and consoles show the bytes `printed`.
    """

    ends = "good"
    # The shared caches of the build.
    sharing = None
    # The disks that each stage after the first one writes, and those that do not contain DISK.
    written = (("output",),)
    contents: Mapping[str, bytes] = MappingProxyType({})

    def disturb(self):
        """Called in the middle of a stage."""

    def __init__(self, path, text, lines, printed, detail):
        self.path = path
        self.out = path / "out"
        self.text = text
        self.detail = detail
        self.lines = lines
        self.printed = printed

    def console(self, log):
        transcript = Transcript(log)
        data = self.printed
        for start in range(0, len(data), 7):
            transcript.write(data[start : start + 7])
        return transcript


class Connection:
    """A connection to an agent that runs the stages and prints the lines of the world."""

    def __init__(self, world):
        self._world = world

    @contextmanager
    def command(self, command, deadline):
        if wire.COMMIT_FACTS in command:
            text = self._world.text
            facts = CommitFacts(
                ref="edge", checksum="0" * 64, parent=None, version=text, signer=None
            )
            yield Channel([json.dumps(encode(facts)).encode()])
        elif command.startswith("cat "):
            text = f"see {self._world.text}"
            package = Package(name=text, version="1", architecture="all", size=1)
            system = System(
                os_release=(), hostname="", kernels=(), packages=(package,), accounts=()
            )
            found = Inspection(size=0, table=None, partitions=(), boot_loaders=(), system=system)
            yield Channel([json.dumps(encode(found)).encode()])
        elif command.startswith("mkdir"):
            yield Channel([])
        else:
            yield Channel([HELLO, *map(line, self._events()), *self._last()])

    def send(self, channel, stream, deadline, more_follows=False):
        sent = hashlib.sha256(stream.read()).hexdigest()
        # The answer to a file that the host puts into the VM.
        channel._pieces = channel._pieces or [sent.encode()]
        return sent

    def _events(self):
        text = self._world.text
        yield wire.StageStart(index=0)
        yield from (wire.OutputLine(text=each) for each in self._world.lines)
        self._world.disturb()
        yield wire.Notice(text=f"a notice with {text}")
        if self._world.ends == "stage failed":
            tail = tuple(self._world.lines)
            yield wire.Failed(
                kind="stage", index=0, message=f"failed: {text}", hint=f"do {text}", tail=tail
            )
            return
        if self._world.ends == "vm died":
            return
        yield wire.StageEnd(index=0, seconds=1.0, parts=(wire.Part(name=text, seconds=1.0),))
        for index, disks in enumerate(self._world.written, start=1):
            yield wire.StageStart(index=index)
            for disk in disks:
                size = len(self._world.contents.get(disk, DISK))
                yield wire.DiskWritten(size=size, disk=disk)
            yield wire.StageEnd(index=index, seconds=1.0)
        if self._world.ends == "defective":
            yield wire.Finding(code="fstab-type-wrong", place=text, message=f"see {text}")
        if ("output",) in self._world.written:
            yield wire.Verified(seconds=0.5)

    def _last(self):
        return [] if self._world.ends in ("vm died", "stage failed") else [DONE]


class Vms(HelperVms):
    world = None

    @contextmanager
    def start(self, purpose, output, layers=(), more_outputs=None, stages_from=None):
        world = self.world
        transcript = world.console(self.job.transcript)

        def death():
            return VmError("the VM died: QEMU ended", tail=transcript.tail())

        gate = self.job.progress.gate
        sandbox = SimpleNamespace(
            agent=Agent(Connection(world), death, PROGRAM, gate),
            packages=output.with_name("packages"),
            connect_outside=lambda *arguments: None,
            take_traffic=Traffic,
        )

        def take_disk_event(event, deadline):
            place = {"output": output, **(more_outputs or {})}[event.disk]
            place.write_bytes(world.contents.get(event.disk, DISK))
            return SimpleNamespace(path=place)

        sandbox.take_disk_event = take_disk_event
        try:
            yield sandbox
        finally:
            transcript.close()


def set_up(world, monkeypatch):
    """Lets the builds of this process see the world; a stage has the secret of TOKEN."""
    path = world.path
    (path / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
    (path / "leaky.yml").write_text(RECIPE)
    (path / "root").touch()
    monkeypatch.setattr(helper_vms.process, "version", lambda program: "QEMU 10")
    monkeypatch.setattr(Vms, "world", world)
    monkeypatch.setattr(firmwares, "check", lambda firmware, architecture: None)

    def prepare(job):
        if world.ends == "no mirror":
            raise InfrastructureError("the mirror cannot be reached")
        made = Helper("key", Path("kernel"), Path("initrd"), path / "root")
        base = SimpleNamespace(
            reference="tar:base.tar", digest="sha256:0", identity="sha256:0", is_commit=False,
            signature=None, size=lambda: 10, is_here=lambda: True,
            push=lambda agent, deadline, listen: None, drop_damaged=lambda: None,
        )  # fmt: skip
        keys = job.plan.keys(base, made)
        return Prepared(NO_PROXY, Vms(job, made, TCG, plenty()), base, keys, (), world.sharing)

    def boot(request, directory):
        evidence, text = request.evidence, world.text
        evidence.clear()
        transcript = world.console(evidence.console_log)
        LastLine(transcript, request.on_line).look()
        encoded = base64.b64encode("\n".join(world.lines).encode()).decode()
        begin = [probe.end_marker(NONCE).decode(), files.first_marker(NONCE).decode()]
        answer = [*begin, f"file:journal.txt {encoded}"]
        data = "\n".join([*answer, files.last_marker(NONCE).decode(), ""]).encode()
        files.write(data, NONCE, evidence.directory, evidence.gate)
        tail = tuple(transcript.tail())
        transcript.close()
        good = world.ends == "good"
        bad = "checks-failed" if world.ends == "check failed" else "units-failed"
        return Observation(
            status="passed" if good else bad,
            message=f"it says {text}",
            seconds=1.0,
            progress=BootProgress(),
            checks=(CheckResult(name=text, passed=good, detail=world.detail),),
            facts={"hostname": text, "journal:x.service": "\n".join(world.lines)},
            console_tail=() if good else tail,
        )

    monkeypatch.setattr(build, "prepare", prepare)
    monkeypatch.setattr(session, "_boot_repeatedly", boot)
    monkeypatch.setattr(session, "check_readable", lambda image, image_format: None)


ENDS = {
    "good": 0,
    "stage failed": 3,
    "vm died": 5,
    "defective": 4,
    "not booted": 4,
    "check failed": 4,
}
STYLES = {
    "verbose": ["-v"],
    "json": ["--json", "--progress", "json"],
    "debug": ["--debug", "--progress", "none"],
}


def run(world, *style):
    arguments = [
        str(world.path / "leaky.yml"),
        "--output",
        str(world.out),
        "--no-cache",
        "--allow-env",
        "TOKEN",
    ]
    arguments += ["--junit", str(world.path / "boot.xml"), "--accel", "tcg"]
    arguments += ["--summary", str(world.path / "summary.md"), *style]
    return CliRunner().invoke(build_command, arguments, prog_name="particle-os")
