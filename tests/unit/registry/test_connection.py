"""Requests to registries that fail, hang, lie about their size, and want credentials."""

import base64
import json
import socket
import subprocess
import threading
from contextlib import suppress
from functools import partial

import pytest
import tenacity
from particle_os.registry import connection, limited
from particle_os.registry.connection import RegistryLink
from particle_os.registry.repository import ImageRepository
from urllib3.util import Timeout

from ...registry import Small, serving, sha256
from ...waiting import pause, until

NAME = "team/server"
# So many bytes take longer than the limits of these tests.
MOST = 500


def failing(status):
    return lambda handler: handler.say(status)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (failing(500), "status 500"),
        (failing(503), "status 503"),
        (failing(429), "status 429"),
        (failing(401), "skopeo login 127.0.0.1"),
        (failing(403), "skopeo login 127.0.0.1"),
        (failing(418), "status 418"),
        (lambda h: h.say(403, b'{"errors": [{"code": "DENIED", "message": "x\\u001b[2J"}]}'),
         r"\(DENIED: x\\x1b\[2J\)"),
        (lambda h: h.say(418, b"[" * 60000), "status 418"),
        (lambda h: h.cut(), "does not answer"),
        (lambda h: h.say(200, b" " * 5000), "larger than 4096"),
        (lambda h: (h.say(200, b"x", length=500), h.cut()), "ends its answer"),
        (lambda h: h.say(307, Location=h.path), "does not answer"),
    ],
)  # fmt: skip
def test_a_registry_that_fails_is_an_error_of_one_kind(answer, why):
    with serving(answer) as host, pytest.raises(OSError, match=why) as caught:
        ImageRepository(host, NAME).manifest("latest", 4096)
    assert caught.value.strerror


def test_a_registry_that_is_not_there_is_an_error_in_few_words():
    with pytest.raises(OSError) as caught:
        ImageRepository("127.0.0.1:1", NAME).manifest("latest")
    words = "the registry does not answer: Failed to establish a new connection: [Errno 111] "
    assert caught.value.strerror == f"{words}Connection refused"


def test_a_compressed_answer_is_not_unpacked():
    """Few bytes of a hostile registry do not become many."""
    with serving(lambda h: h.say(200, b"\x1f\x8b", Content_Encoding="gzip")) as host:
        assert ImageRepository(host, NAME).manifest("latest").content == b"\x1f\x8b"


def test_a_registry_that_hangs_costs_a_bounded_time(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(connection, "TIMEOUT", Timeout(connect=1, read=0.1))
    with serving(lambda handler: until(over.is_set)) as host:
        with pytest.raises(OSError, match="does not answer"):
            ImageRepository(host, NAME).manifest("latest")
        over.set()


def drip(over, ending="length", status=200, **headers):
    """Gives an answer byte by byte, and sets `over` when the client has taken MOST bytes."""
    ends = {"length": {"Content-Length": "1000000"}, "close": {"Connection": "close"}}
    ends["both"] = ends["length"] | ends["close"]

    def answer(handler):
        handler.protocol_version = "HTTP/1.0" if ending == "old" else "HTTP/1.1"
        handler.send_response(status)
        for name, value in {**ends.get(ending, {}), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.close_connection = True
        with suppress(OSError):
            for _ in range(MOST):
                handler.wfile.write(b"x")
                pause()
            over.set()

    return answer


@pytest.mark.parametrize("ending", ["length", "close", "both", "old"])
@pytest.mark.parametrize("limit", ["ANSWER_SECONDS", "BLOCK_SECONDS"])
def test_a_registry_that_drips_is_cut_off(monkeypatch, limit, ending, tmp_path):
    """Also after http.client has set the socket to None, or the content has no known length."""
    over = threading.Event()
    monkeypatch.setattr(connection, limit, 0.2)
    with serving(drip(over, ending)) as host, (tmp_path / "blob").open("wb+") as file:
        asked = ImageRepository(host, NAME)
        with pytest.raises(OSError, match=r"ends its answer"):
            if limit == "ANSWER_SECONDS":
                asked.manifest("latest")
            else:
                asked.download(f"sha256:{'ab' * 32}", 1000000, file)
    assert not over.is_set()


@pytest.mark.parametrize("ending", ["length", "close"])
def test_a_redirection_that_drips_is_cut_off(monkeypatch, ending):
    """urllib3 reads the content of a redirection before it follows."""
    over = threading.Event()
    monkeypatch.setattr(limited, "HEAD_SECONDS", 0.2)
    with serving(drip(over, ending, 307, Location="/elsewhere")) as host:
        with pytest.raises(OSError, match="does not answer"):
            ImageRepository(host, NAME).manifest("latest")
    assert not over.is_set()


@pytest.mark.parametrize("length", [5, 200_000])
def test_a_redirection_with_content_is_followed(length):
    """The rest of a long one is not taken for the next answer."""
    data, known = b"the content", []

    def answer(handler):
        known.append(handler.path)
        if handler.path == "/elsewhere":
            handler.say(200, data)
        else:
            handler.say(307, b"x" * length, Location="/elsewhere")

    with serving(answer) as host:
        asked = ImageRepository(host, NAME)
        for _ in range(2):
            assert asked.blob(f"sha256:{sha256(data)}", len(data)) == data
    assert known[1::2] == ["/elsewhere"] * 2


def test_a_registry_that_drips_its_headers_is_cut_off(monkeypatch):
    """Each byte comes in time, and the headers never end."""
    over = threading.Event()
    monkeypatch.setattr(limited, "HEAD_SECONDS", 0.2)

    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not over.is_set():
            handler.wfile.write(b"a")
            pause()

    with serving(answer) as host:
        with pytest.raises(OSError, match="does not answer"):
            ImageRepository(host, NAME).manifest("latest")
        over.set()


def test_a_registry_that_drips_its_handshake_is_cut_off(monkeypatch):
    """127.1 is loopback, too, and is reached with TLS."""
    over = threading.Event()
    monkeypatch.setattr(limited, "HEAD_SECONDS", 0.2)

    def serve(listener):
        while not over.is_set():
            peer, _ = listener.accept()
            with peer, suppress(OSError):
                peer.sendall(b"\x16\x03\x03\x40\x00")
                while not over.is_set():
                    peer.sendall(b"\x02")
                    pause()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        with pytest.raises(OSError, match="does not answer"):
            ImageRepository(f"127.1:{listener.getsockname()[1]}", NAME).manifest("latest")
        over.set()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("99999", 30.0), ("Fri, 01 Jan 2100 00:00:00 GMT", 30.0), ("soon", 0.0)],
)
def test_a_busy_registry_says_when_to_come_again(monkeypatch, header, seconds):
    slept, left, known = [], [429], Small()
    patient = partial(tenacity.Retrying, sleep=slept.append)
    monkeypatch.setattr(connection.tenacity, "Retrying", patient)
    monkeypatch.setattr(connection, "WAIT", tenacity.wait_none())

    def busy(handler):
        handler.say(left.pop(), Retry_After=header) if left else known(handler)

    with serving(busy) as host:
        assert ImageRepository(host, NAME).manifest("latest") is None
    assert slept == [seconds]


def test_a_failure_that_passes_is_tried_again():
    left = [500, 429]
    known = Small()

    def sometimes(handler):
        handler.say(left.pop()) if left else known(handler)

    with serving(sometimes) as host:
        assert ImageRepository(host, NAME).manifest("latest") is None
    assert left == []


def stored(tmp_path, host, name="home/auth.json", password=b"user:password"):
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(password).decode()
    place.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


class Guarded:
    """A registry whose tokens are good for some requests only."""

    def __init__(self, uses=1000):
        self.uses, self.left, self.seen, self.known = uses, 0, [], Small()

    def __call__(self, handler):
        given = handler.headers.get("Authorization", "")
        self.seen.append(given.partition(" ")[0])
        if handler.path.startswith("/token?"):
            assert base64.b64decode(given.partition(" ")[2]) == b"user:password"
            assert "service=cache" in handler.path and "scope=repository" in handler.path
            self.left = self.uses
            handler.say(200, b'{"token": "abc%d"}' % len(self.seen))
        elif self.left == 0 or not given.startswith("Bearer abc"):
            realm = f"http://{handler.headers['Host']}/token"
            scope = f"repository:{NAME}:pull"
            challenge = f'Bearer realm="{realm}",service="cache",scope="{scope}"'
            handler.say(401, WWW_Authenticate=challenge)
        else:
            self.left -= 1
            self.known(handler)


@pytest.mark.parametrize("file", ["containers/auth.json", "auth.json"])
def test_the_credentials_of_skopeo_get_a_token(tmp_path, file):
    guarded = Guarded()
    with serving(guarded) as host:
        stored(tmp_path, host, f"home/{file}")
        asked = ImageRepository(host, NAME)
        assert asked.manifest("one") is None
        assert asked.manifest("other") is None
    assert guarded.seen == ["Basic", "Basic", "Bearer", "Bearer"]


@pytest.mark.parametrize("uses", [2, 3, 4])
def test_a_token_that_ends_during_an_upload_is_renewed(tmp_path, uses):
    guarded = Guarded(uses)
    data = b"the disk" * 100000
    with serving(guarded) as host, (tmp_path / "disk").open("wb+") as file:
        stored(tmp_path, host)
        file.write(data)
        file.seek(0)
        ImageRepository(host, NAME).upload(f"sha256:{sha256(data)}", len(data), file)
    assert guarded.known.blobs == {sha256(data): data}


@pytest.mark.parametrize("part", ["/team", "/team/server", ""])
def test_the_closest_credentials_count(tmp_path, part):
    with serving(Guarded()) as host:
        stored(tmp_path, f"{host}{part}", "home/auth.json")
        stored(tmp_path, host if part else f"{host}/other", "home/.docker/config.json", b"no:no")
        assert ImageRepository(host, NAME).manifest("one") is None


def test_a_password_goes_to_no_other_registry(tmp_path):
    """A realm on another host without TLS gets nothing."""
    asked = []

    def realm(handler):
        asked.append(handler.path)
        handler.say(200, b'{"token": "abc"}')

    with serving(realm) as thief:
        challenge = f'Bearer realm="http://{thief}/token"'
        with serving(lambda h: h.say(401, WWW_Authenticate=challenge)) as host:
            stored(tmp_path, host)
            with pytest.raises(OSError, match="skopeo login"):
                ImageRepository(host, NAME).manifest("latest")
    assert asked == []


def test_a_password_does_not_follow_a_redirection(tmp_path):
    """The storage of a registry is another host, which gets no credentials."""
    data, seen = b"the content", []

    def storage(handler):
        seen.append(handler.headers.get("Authorization"))
        handler.say(200, data)

    with serving(storage) as other:
        with serving(lambda h: h.say(307, Location=f"http://{other}/x")) as host:
            stored(tmp_path, host)
            asked = ImageRepository(host, NAME)
            assert asked.blob(f"sha256:{sha256(data)}", len(data)) == data
    assert seen == [None]


@pytest.mark.parametrize(
    ("host", "top"),
    [("127.0.0.1:5000", "http://127.0.0.1:5000"), ("localhost", "http://localhost"),
     ("[::1]:5000", "http://[::1]:5000"), ("registry.example.org", "https://registry.example.org"),
     ("127.0.0.1.example.org:80", "https://127.0.0.1.example.org:80"),
     ("docker.io", "https://registry-1.docker.io")],
)  # fmt: skip
def test_only_loopback_is_reached_without_tls(host, top):
    assert RegistryLink(host, "x").top == top


@pytest.mark.parametrize(
    ("variables", "host", "proxy"),
    [
        ({"https_proxy": "http://me:a%3Ab@proxy.example.org:3128"}, "registry.example.org", True),
        ({"https_proxy": "http://proxy.example.org:3128", "no_proxy": ".example.org"},
         "registry.example.org", False),
        ({"https_proxy": "http://proxy.example.org:3128"}, "127.0.0.1:5000", False),
        ({}, "registry.example.org", False),
    ],
)  # fmt: skip
def test_the_proxy_of_the_environment_is_used_as_by_skopeo(monkeypatch, variables, host, proxy):
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    pool = RegistryLink(host, "x")._pool
    assert (pool.proxy is not None and pool.proxy.host == "proxy.example.org") is proxy
    if "@" in variables.get("https_proxy", ""):
        auth = base64.b64encode(b"me:a:b").decode()
        assert pool.proxy_headers["proxy-authorization"] == f"Basic {auth}"


def test_a_registry_has_its_own_certificates(monkeypatch, tmp_path):
    """containers-certs.d(5): *.crt are authorities; *.cert and *.key are of the client."""
    directory = tmp_path / "certs.d/registry.example.org:5000"
    directory.mkdir(parents=True)
    argv = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=particle-os",
            "-keyout", directory / "client.key", "-out", directory / "client.cert"]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    (directory / "ca.crt").write_bytes((directory / "client.cert").read_bytes())
    monkeypatch.setattr(connection, "CERTIFICATES", (str(tmp_path / "certs.d"),))

    def names(host):
        found = connection._context(host).get_ca_certs()
        return [dict(item[0] for item in each["subject"]).get("commonName") for each in found]

    assert "particle-os" in names("registry.example.org:5000")
    assert "particle-os" not in names("registry.example.org")
    (directory / "client.key").write_text("no key")
    with pytest.raises(OSError):
        connection._context("registry.example.org:5000")
