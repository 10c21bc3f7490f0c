import functools
import hashlib
import http.server
import subprocess
import threading

import pytest
from particle_os.apt.depot import Depot

from ...archive import served
from .archives import (
    NOTHING_MORE,
    SIGNED,
    build,
)


@pytest.fixture
def archive(tmp_path):
    """An archive with two packages; `served` lists the paths that clients have requested."""
    directory = tmp_path / "archive"
    directory.mkdir()
    debs = [build(directory, "tool", "2:1.0", "library"), build(directory, "library")]
    stanzas = []
    for deb in debs:
        control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True).stdout
        data = deb.read_bytes()
        renamed = deb.rename(directory / deb.name.replace("%3a", "_"))
        stanzas.append(
            f"{control.decode()}Filename: ./{renamed.name}\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    (directory / "Packages").write_text("\n".join(stanzas))
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=directory)
    with http.server.ThreadingHTTPServer(("", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.elsewhere = f"http://127.0.0.2:{server.server_port}"
        server.served = asked
        server.directory = directory
        yield server
        server.shutdown()


@pytest.fixture
def depot(tmp_path):
    disk = tmp_path / "packages.squashfs"
    with disk.open("wb") as stream:
        stream.truncate(64 << 20)
    (tmp_path / "cache").mkdir()
    lines = []
    depot = Depot(
        architecture="amd64",
        cache=tmp_path / "cache",
        work=tmp_path,
        disk=disk,
        log=lines.append,
        note=lines.append,
        **NOTHING_MORE,
    )
    depot.lines = lines
    depot.disk = disk
    return depot


@pytest.fixture
def signed(tmp_path):
    with served(tmp_path / "signed", *SIGNED) as archive:
        yield archive
