"""Each program that meets hostile bytes fails to open a file of the user's home.

A script stands before each program. It ends with SPIED if it can open the file; otherwise it runs
the program. So a step succeeds exactly when its programs cannot open the file.
"""

import functools
import hashlib
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_agent.contract.values import Download
from particle_os.apt import download
from particle_os.apt.host import Own, apt_get
from particle_os.apt.mmdebstrap import Extraction, extract_packages
from particle_os.apt.package_disk import write_disk
from particle_os.apt.proxy import NO_PROXY
from particle_os.base import container
from particle_os.base.tarball import architecture_of
from particle_os.errors import ParticleError, VmError
from particle_os.jobs import artifact
from particle_os.publishing import export
from particle_os.sandbox import helper
from particle_os.system import confinement, process
from particle_os.system.checksum import file_sha256
from particle_os.system.gate import Gate
from particle_os.system.workspace import cache_directory, workspace
from particle_os.vm.argv import MIB, Disk, MachineSpec
from particle_os.vm.console import ConsoleLog
from particle_os.vm.devices import tpm
from particle_os.vm.devices.hardware import TPM_SOCKET
from particle_os.vm.image_format import check_readable
from particle_os.vm.machine import running
from particle_os.vm.overlay import copy_disk, make_disk, make_overlay

from ..archive import build_deb
from ..image_layout import Layout
from ..waiting import plenty, until
from .base.test_lookup import AMD64, tar

pytestmark = pytest.mark.slow

SPIED = 99
APT_HELPER = download.HELPER
PROGRAMS = (
    "qemu-system-x86_64", "qemu-img", "zstd", "apt-get", "dpkg-deb", "gensquashfs",
    "skopeo", "mmdebstrap", "tar2sqfs", "lz4", "swtpm", "tar", "apt-helper",
)  # fmt: skip
SPY = '#!/bin/sh\n(read -r line <{secret}) 2>/dev/null && exit {status}\nexec {program} "$@"\n'


@pytest.fixture(autouse=True)
def spies(tmp_path, monkeypatch):
    """Puts a spy before each program."""
    secret, programs = tmp_path / "home" / "secret", tmp_path / "spies"
    secret.parent.mkdir()
    secret.write_text("line\n")
    programs.mkdir()
    for name in PROGRAMS:
        real = APT_HELPER if name == APT_HELPER.name else shutil.which(name)
        spy = programs / name
        spy.write_text(SPY.format(secret=secret, status=SPIED, program=real))
        spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(download, "HELPER", programs / APT_HELPER.name)


@pytest.fixture
def work(tmp_path):
    """The directory that the steps work in."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@contextmanager
def without_spies():
    """Lets the test itself run programs, which nothing confines."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", os.environ["PATH"].partition(":")[2])
        yield


def machine(work):
    spec = MachineSpec(accelerator="tcg", memory=64 * MIB, cpus=1)
    log = ConsoleLog(work / "console.log", Gate())
    with running(spec, directory=work / "vm", transcript=log, deadline=plenty()) as started:
        started.monitor.execute("query-status", plenty())


def disk(work):
    make_disk(work / "disk.qcow2", MIB, plenty(), what="making a disk")
    copy_disk(Disk(work / "disk.qcow2", "qcow2", "x"), work / "copy", plenty(), what="copying")


def headers(work):
    image = work / "image.qcow2"
    make_overlay(image, raw(work), "raw", plenty())
    check_readable(image, "qcow2")


def raw(work):
    path = work / "disk.raw"
    path.write_bytes(b"content" * 1000 + bytes(1 << 20))
    return path


def conversion(work):
    artifact.convert(raw(work), work / "disk.vmdk", "vmdk", plenty())


def compression(work):
    path = raw(work)
    artifact.compress(path, work / "disk.raw.zst", file_sha256(path), plenty())


def tarball(work):
    (work / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
    with without_spies():
        subprocess.run(["zstd", "-q", work / "base.tar"], check=True)
    assert architecture_of(work / "base.tar.zst") == "amd64"


def packages(work):
    debs = work / "debs"
    debs.mkdir()
    with without_spies():
        deb = build_deb(debs, "tool")
    (work / "packages").write_bytes(bytes(1 << 20))
    write_disk([deb], work / "packages", work, plenty())


def apt(work):
    (work / "apt.conf").touch()
    apt_get(Own(work / "apt.conf", work, {}), ["--version"], plenty(), print)


def image(work):
    layout = Layout(work / "layout")
    name = layout.name(layout.image(tar(etc__a=b"a")))
    found = container.describe(name, Path(), "amd64", cache_directory())
    source = container.parse(name, Path())
    with workspace() as own:
        container.fetch(
            found, source, cache=cache_directory(), work=own, deadline=plenty(), log=print
        )


def root(work):
    (work / "root.tar").write_bytes(tar(usr__bin__ls=AMD64))
    helper._write_root(work / "root.tar", work / "root.squashfs", print, plenty())


def kernel(work):
    with without_spies():
        packed = subprocess.run(["zstd", "-c"], input=b"elf", stdout=subprocess.PIPE, check=True)
    packed = packed.stdout + bytes(4)
    header = bytearray(1024)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    header[0x248:0x250] = struct.pack("<II", 0, len(packed))
    helper._write_kernel(work / "kernel", bytes(header) + packed, plenty())


def lz4_tarball(work):
    (work / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
    with without_spies():
        subprocess.run(["lz4", "-q", work / "base.tar", work / "base.tar.lz4"], check=True)
    assert architecture_of(work / "base.tar.lz4") == "amd64"


def exported(work):
    export._pack(raw(work), work / "disk.tar.gz", plenty())


def fetched(work):
    (work / "www").mkdir()
    (work / "www/file").write_bytes(b"content")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=work / "www")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            download.fetch(
                Download(
                    url=f"http://127.0.0.1:{server.server_port}/file",
                    sha256=hashlib.sha256(b"content").hexdigest(),
                ),
                cache=work, work=work, limit=1 << 20, proxies={}, deadline=plenty(), log=print,
                note=print,
            )  # fmt: skip
        finally:
            server.shutdown()
            thread.join()


def trusted_platform(work):
    """A swtpm that answers on its socket: to PTM_GET_CAPABILITY (swtpm_ioctl(8))."""
    children = []

    @contextmanager
    def started(*arguments, **options):
        with process.started(*arguments, **options) as child:
            children.append(child)
            yield child

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tpm, "process", SimpleNamespace(started=started))
        patched.chdir(work)  # The path of a socket is short.
        with tpm.running_tpm(work), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(TPM_SOCKET)
            connection.sendall((1).to_bytes(4, "big"))
            answers = select.poll()
            answers.register(connection, select.POLLIN)
            until(lambda: answers.poll(0) or children[0].poll() is not None)
            assert children[0].poll() is None
            assert len(connection.recv(8)) == 8


STEPS = (
    machine, disk, headers, conversion, compression, tarball, lz4_tarball, packages, apt, image,
    root, kernel, exported, fetched, trusted_platform,
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_no_program_opens_a_file_of_the_users_home(step, work):
    step(work)


@pytest.mark.parametrize("step", STEPS)
def test_a_program_that_is_not_confined_is_noticed(step, work, monkeypatch):
    monkeypatch.setattr(confinement, "landlock_abi", lambda: 0)
    with pytest.raises((ParticleError, subprocess.CalledProcessError, AssertionError)):
        step(work)


def test_qemu_opens_no_file_that_its_monitor_names(work, tmp_path):
    spec = MachineSpec(accelerator="tcg", memory=64 * MIB, cpus=1)
    log = ConsoleLog(work / "console.log", Gate())
    with running(spec, directory=work / "vm", transcript=log, deadline=plenty()) as started:
        (work / "vm" / "own").write_bytes(bytes(512))
        own = {"driver": "file", "node-name": "own", "filename": "own"}
        started.monitor.execute("blockdev-add", plenty(), **own)
        other = {**own, "node-name": "other", "filename": str(tmp_path / "home" / "secret")}
        with pytest.raises(VmError, match="Permission denied"):
            started.monitor.execute("blockdev-add", plenty(), **other)


def test_mmdebstrap_opens_no_file_of_the_users_home(work):
    """Without a mirror it fails, after the spy; its status is not the one of the spy."""
    wanted = Extraction("trixie", "http://127.0.0.1:9/debian", "amd64", ["apt"])
    with pytest.raises(ParticleError) as caught:
        extract_packages(wanted, work=work, log=print, deadline=plenty(), proxy=NO_PROXY)
    assert f"status {SPIED}" not in str(caught.value)
