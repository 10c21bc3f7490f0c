"""The mirror of the fault campaign behaves for some bytes, and then in its manner."""

import functools
import http.client
import http.server
import threading
import urllib.request

import pytest

from ..campaign import mirror
from ..campaign.mirror import BLOCK, Mirror, served

CONTENT = bytes(range(256)) * 64


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """The log is of no interest."""


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(CONTENT)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(
            mirror, "upstream_url", lambda: f"http://127.0.0.1:{server.server_port}"
        )
        yield
        server.shutdown()


def get(disturbed):
    with served(disturbed) as url, urllib.request.urlopen(f"{url}/file") as answer:
        return answer.read()


def test_a_mirror_with_bytes_left_hands_on_the_real_one(upstream):
    assert get(Mirror("cut", 1 << 20)) == CONTENT


def test_a_cut_mirror_closes_the_connection(upstream):
    with pytest.raises(http.client.IncompleteRead) as error:
        get(Mirror("cut", 2 * BLOCK))
    assert error.value.partial == CONTENT[:BLOCK]


def test_a_garbage_mirror_sends_other_bytes_of_the_same_length(upstream):
    received = get(Mirror("garbage", 2 * BLOCK))
    assert received[:BLOCK] == CONTENT[:BLOCK]
    assert received != CONTENT
    assert len(received) == len(CONTENT)


def test_a_slow_mirror_reports_that_it_has_begun(upstream):
    begun = threading.Event()
    slow = Mirror("slow", 2 * BLOCK, begun.set)
    with served(slow) as url, urllib.request.urlopen(f"{url}/file") as answer:
        assert answer.read(BLOCK + 1) == CONTENT[: BLOCK + 1]
        assert begun.is_set()
