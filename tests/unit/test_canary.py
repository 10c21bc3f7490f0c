"""A random secret goes into played builds, and everything that comes out is searched for it."""

import base64
import hashlib
import html
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from particle_agent.contract import wire
from particle_agent.contract.decode import encode
from particle_agent.contract.inspection import Inspection, Package, System
from particle_os.apt.proxy import NO_PROXY
from particle_os.boot import files, probe, session
from particle_os.boot.verdict import BootProgress, CheckResult, Observation
from particle_os.cli.build import build_command
from particle_os.errors import VmError
from particle_os.jobs import build
from particle_os.jobs.execution import helper_vms
from particle_os.jobs.execution.helper_vms import HelperVms
from particle_os.jobs.execution.preparation import Prepared
from particle_os.sandbox.agent import Agent
from particle_os.sandbox.helper import Helper
from particle_os.system.gate import Gate
from particle_os.vm.accel import TCG
from particle_os.vm.console import Transcript
from particle_os.vm.traffic import Traffic

from .. import canary
from ..waiting import plenty, until
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


def folded(text, width, divider="\n"):
    return divider.join(text[i : i + width] for i in range(0, len(text), width))


def printed(secret):
    """The lines in which programs of a guest may print the secret."""
    value = secret.encode()
    yield f"the token is {secret}."
    yield from folded(secret, 12).split("\n")
    yield from folded(secret, 1).split("\n")
    for before in (b"", b"x", b"xy"):
        yield from folded(base64.b64encode(before + value).decode(), 20).split("\n")
    yield value.hex()
    yield value.hex(" ")
    yield value.hex(":").upper()
    yield quote(secret, safe="")
    yield json.dumps({"token": secret})
    yield html.escape(secret)
    yield secret.replace("'", "'\\''")
    yield f"::error::{secret} ##[error]{secret}"


def on_console(secret):
    """The bytes of a console to which a stage has written the secret."""
    lines = "\r\n".join(printed(secret))
    stamped = folded(secret, 10, "\r\n[   12.345678] ")
    return f"{lines}\r\n[   12.345678] {stamped}\r\nKernel panic: {secret}\r\n".encode()


class World:
    """The world that a build sees. `ends` says how the build ends."""

    secret = ""
    ends = "good"

    def console(self, log):
        transcript = Transcript(log)
        data = on_console(self.secret)
        for start in range(0, len(data), 7):
            transcript.write(data[start : start + 7])
        return transcript


class Connection:
    """A connection to an agent that runs the stages and prints the secret in every way."""

    def __init__(self, world):
        self._world = world

    @contextmanager
    def command(self, command, deadline):
        if command.startswith("cat "):
            text = f"see {self._world.secret}"
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
        secret = self._world.secret
        yield wire.StageStart(index=0)
        yield from (wire.OutputLine(text=text) for text in printed(secret))
        yield wire.Notice(text=f"a notice with {secret}")
        if self._world.ends == "stage failed":
            tail = tuple(printed(secret))
            yield wire.Failed(
                kind="stage", index=0, message=f"failed: {secret}", hint=f"do {secret}", tail=tail
            )
            return
        if self._world.ends == "vm died":
            return
        yield wire.StageEnd(index=0, seconds=1.0, parts=(wire.Part(name=secret, seconds=1.0),))
        yield wire.StageStart(index=1)
        yield wire.DiskWritten(size=len(DISK))
        yield wire.StageEnd(index=1, seconds=1.0)
        if self._world.ends == "defective":
            yield wire.Finding(code="fstab-type-wrong", place=secret, message=f"see {secret}")
        yield wire.Verified(seconds=0.5)

    def _last(self):
        return [] if self._world.ends in ("vm died", "stage failed") else [DONE]


class Vms(HelperVms):
    world = None

    @contextmanager
    def start(self, purpose, output, layers=()):
        world = self.world
        transcript = world.console(self.job.transcript)

        def death():
            return VmError("the VM died: QEMU ended", tail=transcript.tail())

        gate = self.job.progress.gate
        sandbox = SimpleNamespace(
            agent=Agent(Connection(world), death, PROGRAM, gate),
            output=output,
            packages=output.with_name("packages"),
            written=None,
            connect_outside=lambda *arguments: None,
            take_traffic=Traffic,
        )

        def take_disk_event(event, deadline):
            output.write_bytes(DISK)
            sandbox.written = event.size

        sandbox.take_disk_event = take_disk_event
        try:
            yield sandbox
        finally:
            transcript.close()


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World()
    world.secret = canary.new_secret()
    world.out = tmp_path / "out"
    world.path = tmp_path
    (tmp_path / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
    (tmp_path / "leaky.yml").write_text(RECIPE)
    (tmp_path / "root").touch()
    monkeypatch.setattr(helper_vms.process, "version", lambda program: "QEMU 10")
    monkeypatch.setattr(Vms, "world", world)
    monkeypatch.setattr(build.firmwares, "check", lambda firmware: None)
    monkeypatch.setenv("TOKEN", world.secret)

    def prepare(job):
        made = Helper("key", Path("kernel"), Path("initrd"), tmp_path / "root")
        base = SimpleNamespace(
            reference="tar:base.tar", digest="sha256:0", size=lambda: 10, is_here=lambda: True,
            push=lambda agent, deadline, listen: None, drop_damaged=lambda: None,
        )  # fmt: skip
        keys = job.plan.keys(base, made)
        return Prepared(NO_PROXY, Vms(job, made, TCG, plenty()), base, keys, ())

    def boot(request, directory):
        evidence, secret = request.evidence, world.secret
        evidence.directory.mkdir(parents=True)
        transcript = world.console(evidence.console_log)
        encoded = base64.b64encode("\n".join(printed(secret)).encode()).decode()
        answer = [probe.end_marker(NONCE).decode(), f"file:journal.txt {encoded}"]
        data = "\n".join([*answer, files.last_marker(NONCE).decode(), ""]).encode()
        files.write(data, NONCE, evidence.directory, evidence.gate)
        tail = tuple(transcript.tail())
        transcript.close()
        good = world.ends == "good"
        return Observation(
            status="passed" if good else "units-failed",
            message=f"it says {secret}",
            seconds=1.0,
            progress=BootProgress(),
            checks=(CheckResult(name=secret, passed=good, detail=folded(secret, 5)),),
            facts={"hostname": secret, "journal:x.service": "\n".join(printed(secret))},
            console_tail=() if good else tail,
        )

    monkeypatch.setattr(build, "prepare", prepare)
    monkeypatch.setattr(session, "_boot_repeatedly", boot)
    monkeypatch.setattr(session, "check_readable", lambda image, image_format: None)
    return world


ENDS = {"good": 0, "stage failed": 3, "vm died": 5, "defective": 4, "not booted": 4}
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
    arguments += ["--junit", str(world.path / "boot.xml"), "--accel", "tcg", *style]
    return CliRunner().invoke(build_command, arguments, prog_name="particle-os")


def found(world, result, cache):
    """The places where a run shows the secret."""
    for name, data in (("stdout", result.stdout_bytes), ("stderr", result.stderr_bytes)):
        yield from (f"{name}: {view}" for view in canary.traces(data, world.secret))
    for place in (world.path, cache):
        yield from canary.in_files(place, world.secret)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("ends", ENDS)
def test_no_output_of_a_build_shows_its_secret(world, own_cache, monkeypatch, ends, style):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    world.ends = ends
    result = run(world, *STYLES[style])
    assert result.exit_code == ENDS[ends], result.output
    assert "***" in result.output or (style == "debug" and ends == "good")
    assert list(found(world, result, own_cache)) == []


@pytest.mark.parametrize("ends", ENDS)
def test_the_canary_detects_a_gate_that_is_open(world, own_cache, monkeypatch, ends):
    monkeypatch.setattr(Gate, "learn", lambda gate, values: None)
    world.ends = ends
    places = "\n".join(found(world, run(world, "-v"), own_cache))
    wanted = ["stderr: plain", ".log: plain", ".console.log: plain", ".result.json: plain"]
    wanted += [".report.html: plain, from HTML"]
    if ends in ("good", "not booted"):
        wanted += ["journal.txt: plain", "bios/console.log: plain"]
    if ends not in ("good", "defective"):
        wanted += ["boot.xml: plain, from HTML"]
    for place in wanted:
        assert place in places


@pytest.mark.parametrize("width", [1, 5, 12])
def test_the_search_detects_each_form(width):
    secret = canary.new_secret()
    for text in printed(secret):
        if len(text) > 30:
            assert canary.traces(text.encode(), secret) != [], text
    for between in ("\n", "\r\n", "\n[   12.345678] ", "\n    12.34 ", '",\n    "', "\n  | "):
        assert canary.traces(folded(secret, width, between).encode(), secret)
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + secret.encode() + b"y").decode()
        assert canary.traces(folded(encoded, 13 * width).encode(), secret)
    assert canary.traces(b"nothing", secret) == []


def test_the_search_detects_a_file_its_name_and_a_disk(tmp_path):
    secret = canary.new_secret().replace("/", "-")
    (tmp_path / "clean").write_text("clean")
    assert canary.in_files(tmp_path, secret) == []
    (tmp_path / f"a {secret}").touch()
    (tmp_path / "file").write_text(secret)
    with (tmp_path / "disk").open("wb") as disk:
        disk.truncate(canary.DECODED_BYTES + (3 << 20))
        disk.seek(canary.DECODED_BYTES + (1 << 20) - 5)
        disk.write(secret.encode())
    assert {place.rpartition(":")[0].rpartition("/")[2] for place in canary.in_files(
        tmp_path, secret
    )} == {f"a {secret}", "file", "disk"}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "name"), [("[]", None), ("[os.environ['A']]", "cmdline"), ("[], None", "environ")]
)
def test_the_watch_detects_programs_that_show_what_their_parent_was_given(more, name):
    secret = canary.new_secret()
    code = (
        "import os, subprocess, sys\n"
        "def start(more, env={}):\n"
        "    subprocess.run([sys.executable, '-c', 'input()', *more], env=env)\n"
        f"start({more})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={"A": secret},
    ) as process:  # fmt: skip
        with canary.Watch(process.pid, secret) as watch:
            until(lambda: watch.programs)
        process.stdin.close()
    assert watch.programs == {Path(sys.executable).name}
    files = {Path(place.split(":")[0]).name for place in watch.found}
    assert files == ({name} if name else set())
