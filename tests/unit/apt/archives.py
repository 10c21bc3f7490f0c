"""Packages and archives for the tests of the depot."""

import base64
import io
import subprocess
import tarfile

from particle_agent.contract.wire import FileContent, PackageRequest
from particle_agent.stages.software.apt import Apt
from particle_os.apt.proxy import NO_PROXY

from ...waiting import plenty

NOTHING_MORE = {"attachments": {}, "proxy": NO_PROXY}


def build(directory, name, version="1.0", depends=""):
    """Builds a Debian package with one file and Debian's usual compression (xz)."""
    tree = directory / f"{name}-tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr").mkdir()
    (tree / "usr" / name).write_text(f"{name} {version}\n" * 1000)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\n"
        + (f"Depends: {depends}\n" if depends else "")
        + "Description: a test\n"
    )
    deb = directory / f"{name}_{version.replace(':', '%3a')}_all.deb"
    subprocess.run(["dpkg-deb", "-Zxz", "--build", tree, deb], check=True, capture_output=True)
    return deb


def file(path, text):
    return FileContent(path=path, content=base64.b64encode(text.encode()).decode())


def make_request(url, *packages, installed="", update=True):
    return Apt(packages=packages, update=update), PackageRequest(
        status=file("/var/lib/dpkg/status", installed),
        architectures=(),
        sources=(file("/etc/apt/sources.list", f"deb [trusted=yes] {url} ./\n"),),
        preferences=(),
        keyrings=(),
        settings=(),
    )


def answer(depot, request):
    return depot.answer(*request, plenty())


def content(disk):
    """The files on the disk and their contents; sqfs2tar reads squashfs without a mount."""
    listed = subprocess.run(["sqfs2tar", disk], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(listed)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}


INSTALLED = "Package: {}\nStatus: install ok installed\nArchitecture: all\nVersion: {}\n\n"
SIGNED = (
    ("zz-tool", "1.0", "zz-library"),
    ("zz-tool", "2.0", "zz-library"),
    ("zz-library", "1.0", ""),
)


def ask(archive, stage, *, installed="", preferences=(), key=None):
    """The request of a target whose source has the form that the stage `sources` writes.

    The key stands within the source.
    """
    lines = (key or archive.key).splitlines()
    text = (
        f"Types: deb\nURIs: http://10.0.2.2:{archive.port}\nSuites: test\nComponents: main\n"
        "Signed-By:\n" + "".join(f" {line or '.'}\n" for line in lines)
    )
    return stage, PackageRequest(
        status=file("/var/lib/dpkg/status", installed),
        architectures=(),
        sources=(file("/etc/apt/sources.list.d/x.sources", text),),
        preferences=tuple(file("/etc/apt/preferences", text) for text in preferences),
        keyrings=(),
        settings=(),
    )


def chosen(depot):
    return sorted(name for name in content(depot.disk) if name.startswith("archives/"))


def names(*versions):
    return sorted(f"archives/{one}_all.deb" for one in versions)
