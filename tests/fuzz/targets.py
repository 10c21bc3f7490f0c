"""The parsers of foreign bytes on the host, each as a function of bytes.

A function writes files only to the current directory. It raises what its callers in the product
handle, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

from particle_agent.contract import wire
from particle_agent.contract.decode import DecodeError, decode, encode
from particle_agent.contract.inspection import Inspection
from particle_agent.contract.packages import Loose
from particle_os.apt import deb822, directory
from particle_os.base import oci, tarball
from particle_os.boot import contents, files, plot, probe
from particle_os.boot.frameworks import goss, image_shell
from particle_os.boot.observation import screen, shown_console, signs
from particle_os.egress import request
from particle_os.errors import InvalidDocument, ParticleError, UsageError
from particle_os.ostree import history, objects
from particle_os.recipe import loading
from particle_os.recipe.checks.contents import CommandCheck
from particle_os.shortcuts import dpkg_database
from particle_os.system.gate import Gate
from particle_os.vm import console, image_format

from . import archives, seeds

KIB, MIB = 1 << 10, 1 << 20
INPUT = Path("input")
ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A parser, the errors that its callers handle, and inputs to begin with.

    `size` is the largest input that the product hands to the parser, or that a second is enough
    for, in bytes. `repair` makes checksums right, so that inputs get past them.
    """

    function: Callable[[bytes], None]
    allowed: tuple[type[Exception], ...] = ()
    seeds: Callable[[], list[bytes]]
    size: int
    repair: Callable[[bytes], bytes] | None = None


def _wire(data: bytes) -> None:
    event = wire.from_line(data)
    # The host answers, and shows what it has read.
    json.dumps(encode(event)).encode()
    Gate([b"secret"]).hide(event)


def _parsed(data: bytes) -> object:
    """The JSON in a file of the VM. Its reader handles any error of the parser."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError(str(error)) from error


def _inspection(data: bytes) -> None:
    decode(Inspection, _parsed(data))


def _loose(data: bytes) -> None:
    decode(Loose, _parsed(data))


def _packages_request(data: bytes) -> None:
    request = decode(wire.PackageRequest, _parsed(data))
    directory.sources_key(request)
    directory.write(request, Path("apt"), Path("lists"))


def _apt_files(data: bytes) -> None:
    """The input holds a status file, sources, one-line sources and preferences; NUL parts them."""
    status, sources, lines, preferences = (*data.split(b"\0", 3), b"", b"", b"")[:4]
    request = wire.PackageRequest(
        status=_file("/var/lib/dpkg/status", status),
        architectures=("amd64",),
        sources=(_file("/etc/apt/a.sources", sources), _file("/etc/apt/a.list", lines)),
        preferences=(_file("/etc/apt/preferences", preferences),),
        keyrings=(_file("/etc/apt/keyrings/a.asc", b""),),
        settings=(),
    )
    proxy = wire.AptProxy(url="http://127.0.0.1:3142", https="rewrite", caches=True)
    directory.write(request, Path("apt"), Path("lists"), proxy)
    directory.installed(Path("apt"))


def _file(path: str, content: bytes) -> wire.FileContent:
    return wire.FileContent(path=path, content=base64.b64encode(content).decode())


def _deb822(data: bytes) -> None:
    list(deb822.paragraphs(data.decode("utf-8", "replace")))


def _recipe(data: bytes) -> None:
    """Validates a recipe, and shows what is wrong with it, as `validate` does."""
    INPUT.with_suffix(".yml").write_bytes(data)
    try:
        loading.load(INPUT.with_suffix(".yml"))
    except InvalidDocument as invalid:
        for problem in (*invalid.problems, *invalid.notes):
            f"{problem} {problem.annotation('error')}".encode()
        raise


def _boot_test(data: bytes) -> None:
    INPUT.with_suffix(".yml").write_bytes(data)
    loading.load_boot_test(INPUT.with_suffix(".yml"))


def _image(data: bytes) -> None:
    contents.description(data[: contents.HEAD_BYTES])
    INPUT.write_bytes(data)
    for given in (None, *image_format.FORMATS):
        try:
            image_format.image_format(INPUT, given)
        except UsageError:
            continue


def _tarball(data: bytes) -> None:
    # A program of its own unpacks zstd; starting it takes most of the time.
    if not data.startswith(ZSTD):
        INPUT.write_bytes(data)
        tarball.architecture_of(INPUT)


def _oci_documents(data: bytes) -> None:
    for read in (_oci_index, _oci_image):
        try:
            read(data)
        except UsageError as error:
            str(error).encode()


def _oci_index(data: bytes) -> None:
    if (index := oci.read_index(data, "it")) is not None:
        oci.choose(index, "amd64", "it")


def _oci_image(data: bytes) -> None:
    """The input holds a manifest and, after NUL, a configuration."""
    document, _, configuration = data.partition(b"\0")
    manifest = oci.read_manifest(document, "it")
    image = oci.read_image("it", oci.digest_of(document), manifest, configuration, "amd64")
    json.dumps(dict(image.config)).encode()


def _packages(data: bytes) -> None:
    """The input holds the control archive and, after the mark, the data archive of a package."""
    control, _, content = data.partition(archives.MARK)
    deb = Path("a_1_amd64.deb")
    deb.write_bytes(archives.deb(control, content))
    dpkg_database.write([deb], Path("database.tar"))
    dpkg_database.write_loose([deb], Path())


def _package_file(data: bytes) -> None:
    deb = Path("a_1_amd64.deb")
    deb.write_bytes(data)
    dpkg_database.write([deb], Path("database.tar"))


def _console(data: bytes) -> None:
    signs.find_sign(data)
    for _, phase in signs.PHASES:
        phase.search(data)
    "\n".join(console.last_lines(data, console.TAIL_LINES)).encode()


def _gate(data: bytes) -> None:
    stream = Gate([b"a secret of mine"]).stream()
    half = len(data) // 2
    stream.feed(data[:half]) + stream.feed(data[half:]) + stream.flush()


class _Machine:
    """A machine whose memory, screen and registers are the input."""

    def __init__(self, data: bytes) -> None:
        self.directory = Path()
        self.monitor = SimpleNamespace(execute=self._dump, human=self._registers)
        self._data = data

    def _dump(self, command: str, deadline: object, *, filename: str = "", **_: Any) -> None:
        if filename:
            Path(filename).write_bytes(self._data)

    def _registers(self, command: str, deadline: object) -> str:
        return self._data.decode("utf-8", "replace")


def _screen(data: bytes) -> None:
    machine, never = cast(Any, _Machine(data)), cast(Any, None)
    signs.find_sign(screen.text(machine, never))
    signs.find_sign(screen.terminals(machine, [(0, len(data))]))
    screen.picture(machine, never)
    registers = screen.registers_of(machine, never)
    screen.kernel_runs(registers, uefi=False)
    screen.LoaderProcessor().look(registers, 1.0)
    for _ in shown_console.ShownConsole().feed(data):
        pass


def _answer(data: bytes) -> None:
    """The lines of a probe's answer, as they come over the port."""
    text = b"\n".join([probe.begin_marker("0"), data, probe.end_marker("0"), b""])
    probe.facts(text, "0")
    probe.replies(text, "0", [CommandCheck(command=["true"])])
    sent = b"\n".join([files.first_marker("0"), data, files.last_marker("0")])
    files.write(text + sent, "0", Path(), Gate())


def _ran(data: bytes) -> None:
    """The lines of a probe that has run a command, and the output of goss."""
    list(goss.read(image_shell.Ran(1, data, b"")))
    for found in image_shell.RAN.finditer(data):
        try:
            list(goss.read(image_shell.decoded(found)))
        except image_shell.NotRun:
            continue


def _facts(data: bytes) -> None:
    _answer(b"facts " + base64.b64encode(data) + b"\nreply:0.0 " + base64.b64encode(data) + b" 0")


def _request(data: bytes) -> None:
    """The head of a request to the proxy of a stage. The server gets one request."""
    found = request.parse(data + b"\r\n\r\n")
    assert found.tunnel or found.head.find(b"\r\n\r\n") == len(found.head) - 4, found.head


class _Object:
    """A repository in which each file has the same content."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, name: str) -> tuple[BinaryIO, int]:
        return io.BytesIO(self._data), len(self._data)


def _ostree(data: bytes) -> None:
    found, checksum = cast(Any, _Object(data)), hashlib.sha256(data).hexdigest()
    for read in (objects.commit, objects.directory, partial(objects.content, limit=KIB)):
        try:
            str(read(found, checksum)).encode()
        except objects.BadObject:
            continue
    history._installed(data)


def _plot(data: bytes) -> None:
    if (drawn := plot.redrawn(data)) is not None:
        plot.unit_times(drawn)
        drawn.encode()


TARGETS = {
    "wire": Target(
        function=_wire, allowed=(DecodeError,), seeds=seeds.events, size=wire.LINE_LIMIT
    ),
    "inspection": Target(
        function=_inspection, allowed=(DecodeError,), seeds=seeds.inspections, size=MIB
    ),
    "loose": Target(function=_loose, allowed=(DecodeError,), seeds=seeds.loose, size=MIB),
    "packages-request": Target(
        function=_packages_request,
        allowed=(DecodeError, directory.Refused),
        seeds=seeds.packages_requests,
        size=MIB,
    ),
    "apt-files": Target(
        function=_apt_files, allowed=(directory.Refused,), seeds=seeds.apt_files, size=256 * KIB
    ),
    "deb822": Target(
        function=_deb822, allowed=(deb822.Malformed,), seeds=seeds.paragraphs, size=MIB
    ),
    "recipe": Target(
        function=_recipe,
        allowed=(UsageError, InvalidDocument),
        seeds=seeds.recipes,
        size=64 * KIB,
    ),
    "boot-test": Target(
        function=_boot_test,
        allowed=(UsageError, InvalidDocument),
        seeds=seeds.boot_tests,
        size=64 * KIB,
    ),
    "image": Target(function=_image, seeds=seeds.images, size=MIB),
    "tarball": Target(
        function=_tarball,
        allowed=(ParticleError,),
        seeds=seeds.tarballs,
        size=MIB,
        repair=archives.with_checksums,
    ),
    "oci": Target(function=_oci_documents, seeds=seeds.oci_documents, size=oci.DOCUMENT_LIMIT),
    "package-archives": Target(
        function=_packages,
        allowed=(dpkg_database.Unusual,),
        seeds=seeds.package_archives,
        size=MIB,
        repair=archives.with_checksums,
    ),
    "package-file": Target(
        function=_package_file,
        allowed=(dpkg_database.Unusual,),
        seeds=seeds.package_files,
        size=MIB,
        repair=archives.with_checksums,
    ),
    "console": Target(function=_console, seeds=seeds.consoles, size=4 * screen.AROUND_BYTES),
    "gate": Target(function=_gate, seeds=seeds.consoles, size=256 * KIB),
    "screen": Target(function=_screen, seeds=seeds.screens, size=screen.TEXT_BYTES),
    "answer": Target(function=_answer, seeds=seeds.answers, size=MIB),
    "ran": Target(function=_ran, seeds=seeds.ran, size=MIB),
    "facts": Target(function=_facts, seeds=seeds.facts, size=256 * KIB),
    "request": Target(
        function=_request,
        allowed=(request.BadRequest,),
        seeds=seeds.requests,
        size=request.HEAD_LIMIT,
    ),
    "ostree": Target(
        function=_ostree, allowed=(objects.BadObject,), seeds=seeds.objects, size=MIB
    ),
    "plot": Target(function=_plot, seeds=seeds.plots, size=MIB),
}  # fmt: skip
