"""The inputs that the fuzzer begins with: small, and valid where the parser accepts anything."""

from __future__ import annotations

import base64
import gzip
import io
import json
import lzma
import struct
import tarfile
from pathlib import Path
from typing import Any

import yaml
from particle_agent.contract import wire
from particle_agent.contract.decode import encode
from particle_agent.contract.inspection import (
    Account,
    FileSystem,
    Inspection,
    OsReleaseField,
    Package,
    Partition,
    System,
)
from particle_agent.contract.packages import Loose
from particle_os.boot.observation import screen

from ..unit.ostree import sample
from . import archives

TOP = Path(__file__).parents[2]
HEX = "sha256:" + "5" * 64
STATUS = """\
Package: base
Status: install ok installed
Priority: required
Installed-Size: 12
Architecture: amd64
Multi-Arch: same
Source: base (1.0)
Version: 1:2.0~rc1-3+b1
Depends: libc6 (>= 2.38), a | b:any
Description: words
 more words
 .
"""
SOURCES = """\
# a comment
Types: deb deb-src
URIs: https://mirror.example.org/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /etc/apt/keyrings/a.asc

Enabled: no
Types: deb
"""
LINES = "deb [arch=amd64,i386 trusted=yes] http://mirror.example.org/debian trixie main # words\n"
PREFERENCES = "Package: *\nPin: release a=stable\nPin-Priority: -10\n"
KEY = """\
Types: deb
URIs: http://mirror.example.org/
Suites: s
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQ==
 -----END PGP PUBLIC KEY BLOCK-----
"""
EVENTS: tuple[wire.AgentEvent, ...] = (
    wire.Hello(protocol=wire.PROTOCOL, agent_sha256="5" * 64),
    wire.Heartbeat(),
    wire.StageStart(index=0),
    wire.OutputLine(text="words \x1b[31m ä \U0001f600 a secret"),
    wire.Notice(text="words"),
    wire.StageEnd(index=0, seconds=1.5, parts=(wire.Part(name="apt", seconds=1),)),
    wire.Frozen(index=1),
    wire.Unpacked(size=1 << 30, sha256="5" * 64),
    wire.PackagesNeeded(),
    wire.DiskNeeded(size=1 << 30, content=1 << 20),
    wire.DiskWritten(size=1 << 30),
    wire.Finding(code="no-table", place="", message="words"),
    wire.Verified(seconds=0.5),
    wire.Failed(kind="stage", index=None, message="words", hint=None, tail=("a", "b")),
    wire.Done(),
)
RECIPE = """\
variables:
  name: {type: string, default: a}
  list: [curl, sudo]
name: ${name}
base-image: mmdebstrap:trixie
stages:
  - {type: apt, packages: ["${list}", linux-image-amd64, systemd-sysv], update: true}
  - type: files
    files:
      - {path: /etc/a, content: "a\\n", mode: "0644"}
  - type: users
    users: [{name: b, groups: [sudo], shell: /bin/sh}]
  - type: qemu
    formats: [qcow2, raw]
    size: 2G
boot-test:
  checks:
    - unit: ssh.service
    - {command: [a, "b c"], contains: "x"}
    - {file: /etc/a, contains: a}
"""
CONSOLE = b"""\
SeaBIOS (version 1.16)\r
Booting from 0000:7c00\r
GNU GRUB  version 2.12\r
\x1b[0m\x1b[30;47mLinux version 6.12.0 (x@example.org)\r
[    0.000000] Run /init as init process\r
error: file `/boot/vmlinuz' not found.\r
Failed to open \\EFI\\BOOT\\grubx64.efi - Not Found\r
BdsDxe: failed to start Boot0001 "UEFI Misc Device" from PciRoot(0x0): Not Found\r
Kernel panic - not syncing: Requested init /x failed (error -2).\r
ALERT!  /dev/vda1 does not exist.  Dropping to a shell!\r
Generating "/run/initramfs/rdsosreport.txt"\r
Welcome to Debian GNU/Linux 13!\r
a login: \x1b]0;title\x07\xff\xfe
"""
PLOT = b"""\
<?xml version="1.0" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg width="88000px" height="250px" version="1.1" xmlns="http://www.w3.org/2000/svg">
<defs><style type="text/css"><![CDATA[ rect { fill: red } ]]></style></defs>
<rect class="background" width="100%" height="100%" />
<g transform="translate(20.000,100)"><line class="sec5" x1="0.0" y1="0" x2="0.0" y2="80.0" />
<text class="sec" x="1" y="2" transform="rotate(90 1.0,2.0)">1.0s</text>
<g><rect class="activating" x="-3.000" y="20.000" width="38.625" height="19.000" />
<text class="left" x="5.000" y="34.000">x.service (1min 2.345s)</text></g></g></svg>
"""
REGISTERS = b"EFER=0000000000000d01\nIDT=     fffffe0000000000 00000fff\n"


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def events() -> list[bytes]:
    """A line for each event of the protocol."""
    return [wire.to_line(event).encode() for event in EVENTS]


def inspections() -> list[bytes]:
    """A disk, and a system without a disk."""
    file_system = FileSystem(kind="ext4", label="root", uuid="0-1", size=1 << 30, used=None)
    partition = Partition(
        number=1, start=1 << 20, size=1 << 30, type="8300", name="root", file_system=file_system
    )
    system = System(
        os_release=(OsReleaseField(key="ID", value="debian"),),
        hostname="a",
        kernels=("6.12",),
        packages=(Package(name="a", version="1", architecture="amd64", size=5),),
        accounts=(Account(name="root", uid=0, shell="/bin/sh", password="locked"),),
    )
    return [
        _json(encode(Inspection(size=s, table=t, partitions=p, boot_loaders=("grub",), system=i)))
        for s, t, p, i in ((1 << 31, "gpt", (partition,), None), (0, None, (), system))
    ]


def loose() -> list[bytes]:
    """A package that tar can unpack."""
    package = Loose(stanza="Package: a\n", directories=("/usr",), files=("/usr/a",))
    return [_json(encode(package))]


def packages_requests() -> list[bytes]:
    """A request with each kind of file."""

    def file(path: str, text: str) -> wire.FileContent:
        return wire.FileContent(path=path, content=base64.b64encode(text.encode()).decode())

    request = wire.PackageRequest(
        status=file("/var/lib/dpkg/status", STATUS),
        architectures=("amd64", "i386"),
        sources=(file("/etc/apt/a.sources", SOURCES), file("/etc/apt/sources.list", LINES)),
        preferences=(file("/etc/apt/preferences", PREFERENCES),),
        keyrings=(file("/etc/apt/keyrings/a.asc", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"),),
        settings=(wire.AptSetting(key="APT::Default-Release", value="trixie"),),
    )
    return [_json(encode(request))]


def apt_files() -> list[bytes]:
    """A status file, sources, one-line sources and preferences."""
    texts = ((STATUS, SOURCES, LINES, PREFERENCES), (STATUS, KEY, "", ""), ("", "", LINES, ""))
    return ["\0".join(parts).encode() for parts in texts]


def paragraphs() -> list[bytes]:
    """The files of apt and dpkg."""
    return [text.encode() for text in (STATUS, SOURCES, KEY, PREFERENCES)]


def recipes() -> list[bytes]:
    """The recipes of the product, and one that is small, in YAML and in JSON."""
    paths = sorted(TOP.glob("recipes/*.yml"))
    return [*_and_json([RECIPE.encode()]), *(path.read_bytes() for path in paths)]


def boot_tests() -> list[bytes]:
    """Files with checks of several kinds, in YAML and in JSON."""
    texts = [
        b"checks:\n  - {unit: a.service}\n  - {port: 22}\n  - {http: /, port: 80, status: 200}\n",
        b"firmware: [bios]\nchecks:\n  - {file: /etc/a, contains: x}\n  - {package: base-files}\n",
        b"checks: []\n",
    ]
    return _and_json(texts)


def _and_json(texts: list[bytes]) -> list[bytes]:
    return [*texts, *(_json(yaml.safe_load(text)) for text in texts)]


def images() -> list[bytes]:
    """The headers of images in several formats."""
    head = (b"QFI\xfb", 3, 0, 0, 16, 1 << 20, 0, 1, 1 << 16, 1 << 17, 1, 0, 0, 0)
    return [
        struct.pack(">4sIQIIQIIQQIIQQ", *head) + bytes(512),
        b"KDMV" + bytes(508) + b'# Disk DescriptorFile\nparentFileNameHint="x"\n',
        b"QED\0" + bytes(60),
        bytes(512) + b"conectix" + bytes(504),
        bytes(64) + b"\x7f\x10\xda\xbe" + bytes(100),
        b"QFI\xfb\0\0\0\1" + bytes(64),
        bytes(450) + b"\x83" + bytes(59) + b"\x55\xaa",
        b"LUKS\xba\xbe" + bytes(506),
        b"",
    ]


def tarballs() -> list[bytes]:
    """A base in each form of tar, and compressed."""
    files: dict[str, bytes | str] = {"etc/": b"", "etc/a": b"x", "bin": "usr/bin"}
    files |= {"./usr/bin/a": b"#!/bin/sh\n", "usr/bin/b": archives.PROGRAM}
    long = {f"usr/share/{'n' * 120}": b"y", **files}
    plain = archives.tar(files)
    extended = archives.tar({**long, "ä": b""}, tarfile.PAX_FORMAT)
    return [plain, archives.tar(long), extended, gzip.compress(plain), lzma.compress(plain)]


def _descriptor(kind: str, **changes: Any) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": HEX, "size": 10, **changes}


def oci_documents() -> list[bytes]:
    """An index, and a manifest with its configuration."""
    platform = {"architecture": "amd64", "os": "linux", "variant": "v2"}
    index = {"manifests": [_descriptor("manifest.v1+json", platform=platform)]}
    manifest = {
        "schemaVersion": 2,
        "config": _descriptor("config.v1+json"),
        "layers": [_descriptor("layer.v1.tar+gzip")],
    }
    config = {"Env": ["PATH=/bin"], "Labels": {"a": "b"}, "User": None}
    rootfs = {"type": "layers", "diff_ids": [HEX]}
    described = {"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": config}
    return [_json(index), _json(manifest) + b"\0" + _json(described)]


def _packages() -> list[tuple[bytes, bytes]]:
    control: dict[str, bytes | str] = {"./": b"", "./control": archives.CONTROL}
    more: dict[str, bytes | str] = {
        **control,
        "./conffiles": b"/etc/a\nremove-on-upgrade /etc/b\n",
        "./md5sums": b"0" * 32 + b"  usr/a\n",
        "./postinst": b"#!/bin/sh\n",
        "./triggers": b"interest /usr/x\n",
    }
    data: dict[str, bytes | str] = {"./": b"", "./etc/": b"", "./etc/a": b"x", "./usr/l": "a"}
    return [
        (archives.tar(control), archives.tar(data)),
        (archives.tar(more), archives.tar(data)),
        (archives.tar(more, tarfile.PAX_FORMAT), archives.tar({"ä" * 80: b""}, tarfile.PAX_FORMAT)),
    ]


def package_archives() -> list[bytes]:
    """The two archives of packages."""
    return [control + archives.MARK + data for control, data in _packages()]


def package_files() -> list[bytes]:
    """Packages."""
    return [archives.deb(control, data) for control, data in _packages()]


def consoles() -> list[bytes]:
    """The output of a machine, and a secret in it."""
    return [CONSOLE, b"a sec\r\nret of mine [    1.234567] \x1b[1;31ma secret of mine"]


def screens() -> list[bytes]:
    """Memory with a message on a virtual terminal, a text screen, registers, a picture."""
    grey = screen.GREY
    words = b"x" * 80 + b"Kernel panic - not syncing: VFS" + b" " * 40 + b"end"
    cells = b"".join(bytes([byte]) + grey for byte in words)
    return [
        cells,
        bytes(100) + screen.FAILURES[1] + bytes(100),
        REGISTERS,
        b"P6\n720 400\n255\n123",
    ]


def answers() -> list[bytes]:
    """The lines of a probe, with files."""
    text = base64.b64encode(b"\x1estate\nrunning\n")
    lines = [b"facts " + text, b"reply:0.0 " + text + b" 0", b"reply:0.1 " + text + b" late"]
    lines += [b"file:journal.txt " + text, b"file:plot.svg " + base64.b64encode(PLOT)]
    return [b"\r\n".join(lines) + b"\r\n"]


def ran() -> list[bytes]:
    """The answer of a probe to a command, and the results of goss."""
    results = (
        b'{"results": [{"resource-type": "File", "resource-id": "/a", "property": "exists", '
        b'"successful": false, "skipped": true, "summary-line": "x"}], '
        b'"summary": {"test-count": 1}}'
    )
    return [b"taken:1\r\nran:2 %s  1\r\n" % base64.b64encode(results), results]


def facts() -> list[bytes]:
    """The facts of a system."""
    return [b"\x1estate\nrunning\n\x1ejournal:x.service\none\ntwo \x1b[31m\n\x1efailed\n"]


def objects() -> list[bytes]:
    """The objects of a repository of OSTree, and a database of packages."""
    with tarfile.open(fileobj=io.BytesIO(sample.archive())) as tar:
        files = [tar.extractfile(member) for member in tar if "objects/" in member.name]
        found = [file.read() for file in files if file is not None]
    return [*found, STATUS.encode()]


def plots() -> list[bytes]:
    """A plot of `systemd-analyze plot`."""
    return [PLOT]


def requests() -> list[bytes]:
    """Requests of a tunnel, and of a page with a body."""
    return [
        b"CONNECT a.example.org:443 HTTP/1.1\r\nHost: a.example.org:443",
        b"POST http://a.example.org:8080/a?b#c HTTP/1.0\r\nHost: b\r\nContent-Length: 12\r\n"
        b"Connection: x-a, close\r\nX-A: \xff",
        b"GET http://192.0.2.1 HTTP/1.1\r\nAccept: */*",
    ]
