import hashlib
import http.server
import os
import shutil
import threading

import pytest
from particle_agent.contract.values import Download, downloads
from particle_agent.stages.contents.files import File, Files
from particle_agent.stages.software.apt import Apt
from particle_os.apt import download
from particle_os.errors import InfrastructureError

from ...waiting import plenty

DATA = b"data" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    """A web server; `asked` has the paths that it was asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/file")
                self.end_headers()
                return
            self.send_response(200 if self.path == "/file" else 404)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA)

        def log_message(self, *arguments):
            pass

    asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.asked = asked
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield listening
        listening.shutdown()


@pytest.fixture
def fetch(tmp_path, server):
    (tmp_path / "work").mkdir()

    def fetched(path="/file", sha256=SHA256):
        return download.fetch(
            Download(url=f"http://127.0.0.1:{server.server_port}{path}", sha256=sha256),
            cache=tmp_path,
            work=tmp_path / "work",
            proxies={},
            deadline=plenty(),
            log=lambda line: None,
        )

    return fetched


def test_a_file_is_fetched_once_and_again_when_it_is_damaged(server, fetch, tmp_path):
    path = fetch()
    assert path.read_bytes() == DATA
    assert fetch() == path
    assert server.asked == ["/file"]
    path.write_bytes(b"other")
    assert fetch().read_bytes() == DATA
    assert server.asked == ["/file"] * 2
    assert list((tmp_path / "work").iterdir()) == []


def test_a_redirection_is_followed(server, fetch):
    assert fetch("/moved").read_bytes() == DATA
    assert server.asked == ["/moved", "/file"]


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [("/file", "0" * 64, "is another file"), ("/missing", SHA256, "cannot be fetched: 404")],
)
def test_another_file_is_refused_and_not_kept(fetch, tmp_path, path, sha256, message):
    with pytest.raises(InfrastructureError, match=message) as raised:
        fetch(path, sha256)
    assert raised.value.hint
    assert [p for p in (tmp_path / "downloads").iterdir() if p.suffix != ".lock"] == []
    assert list((tmp_path / "work").iterdir()) == []


def test_a_server_that_is_away_and_a_missing_program_are_told(fetch, server, monkeypatch):
    monkeypatch.setattr(server, "server_port", 9)
    with pytest.raises(InfrastructureError, match="cannot be fetched: Could not connect"):
        fetch()
    monkeypatch.setattr(download, "HELPER", download.HELPER.with_name("missing"))
    with pytest.raises(InfrastructureError, match="the host has no") as raised:
        fetch()
    assert "apt" in raised.value.hint


def test_old_downloads_are_removed(fetch, tmp_path):

    fetch()
    old = tmp_path / "downloads" / ("1" * 64)
    shutil.copy(fetch(), old)
    os.utime(old, (0, 0))
    download._prune(old.parent)
    assert not old.exists()
    assert fetch().exists()


def test_the_downloads_of_a_stage_are_found_wherever_they_are():
    one, other = (Download(url="http://example.org/x", sha256=digit * 64) for digit in "12")
    stages = (Files(files=(File(path="/a", content=""), File(path="/b", download=one))),
              Apt(downloads=(other,)))  # fmt: skip
    assert list(downloads(stages)) == [one, other]
