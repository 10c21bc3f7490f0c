"""A shared cache in a registry: Debian's docker-registry, and servers that lie, fail and hang."""

import base64
import hashlib
import json
import socket
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from particle_os.sharing import registry
from particle_os.sharing.registry import RegistryStore
from particle_os.sharing.shared_cache import of_options
from urllib3.util import Retry

from ...waiting import until
from .test_shared_cache import KEY, pair, world  # noqa: F401 - fixtures

ENVELOPE = b"the envelope"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@contextmanager
def serving(answer):
    """A server on loopback; `answer` gets the handler of each request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.content = self.rfile.read(length)
            answer(self)

        do_GET = do_HEAD = do_PUT = do_POST = handle_any  # noqa: N815 - the names of http.server

        def say(self, status, content=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *arguments):
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def quickly(monkeypatch, tmp_path):
    """Tries again at once, and finds no credentials of the user."""
    again = {"status_forcelist": (429, 500, 503), "allowed_methods": None}
    monkeypatch.setattr(registry, "RETRY", Retry(total=2, raise_on_status=False, **again))
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_RUNTIME_DIR", "HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


class Small:
    """A registry in a few lines, as far as a shared cache needs one."""

    def __init__(self):
        self.blobs, self.manifests, self.sent = {}, {}, []

    def __call__(self, handler):
        path, _, query = handler.path.partition("?")
        what = path.removeprefix("/v2/team/cache/")
        if handler.command == "POST":
            handler.say(202, Location=f"{path}one?state=x")
        elif handler.command == "PUT" and what.startswith("blobs/uploads/"):
            digest = query.partition("digest=sha256:")[2]
            good = sha256(handler.content) == digest
            if good:
                self.blobs[digest] = handler.content
                self.sent.append(digest)
            handler.say(201 if good else 400)
        elif handler.command == "PUT":
            self.manifests[what] = handler.content
            handler.say(201)
        else:
            digest = what.partition("sha256:")[2]
            found = self.blobs.get(digest) if digest else self.manifests.get(what)
            handler.say(404) if found is None else handler.say(200, found)


def test_entries_and_blobs_come_back():
    known = Small()
    with serving(known) as host:
        store = RegistryStore(host, "team/cache")
        assert store.entry("base", "ab" * 16) is None
        data = b"a chunk" * 1000
        assert not store.has_blob(sha256(data))
        store.put_blob(sha256(data), data)
        store.put_entry("base", "ab" * 16, ENVELOPE, {sha256(data): len(data)})
        assert store.has_blob(sha256(data))
        assert store.blob(sha256(data), len(data)) == data
        assert store.entry("base", "ab" * 16) == ENVELOPE
        store.put_entry("base", "cd" * 16, ENVELOPE, {sha256(data): len(data)})
    assert len(known.sent) == len(set(known.sent)) == 3, "what is there is not sent again"
    manifest = json.loads(known.manifests[f"manifests/base-{'ab' * 16}"])
    named = {layer["digest"] for layer in manifest["layers"]}
    assert named == {f"sha256:{sha256(data)}", f"sha256:{sha256(ENVELOPE)}"}


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
        (lambda h: h.connection.shutdown(2), "does not answer"),
        (lambda h: h.say(200, b"{"), "malformed"),
        (lambda h: h.say(200, b"[" * 100000), "malformed"),
        (lambda h: h.say(200, b"[]"), "malformed"),
        (lambda h: h.say(200, b'{"layers": []}'), "malformed"),
        (lambda h: h.say(200, b'{"layers": [{"digest": "sha256:../../x"}]}'), "no SHA-256"),
        (lambda h: h.say(200, b" " * (registry.ENTRY_LIMIT + 1)), "larger than"),
    ],
)
def test_a_registry_that_fails_is_an_error_of_one_kind(answer, why, monkeypatch):
    monkeypatch.setattr(registry, "ENTRY_LIMIT", 1 << 20)
    with serving(answer) as host, pytest.raises(OSError) as caught:
        RegistryStore(host, "team/cache").entry("base", "ab" * 16)
    assert why in caught.value.strerror


def test_a_registry_that_hangs_costs_a_bounded_time(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(registry, "TIMEOUT", registry.Timeout(connect=1, read=0.1))
    with serving(lambda handler: until(over.is_set)) as host:
        with pytest.raises(OSError, match="does not answer"):
            RegistryStore(host, "team/cache").entry("base", "ab" * 16)
        over.set()


def test_a_registry_that_drips_is_cut_off(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(registry, "ANSWER_SECONDS", 0.3)

    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.wfile.write(b"x")
        handler.wfile.flush()
        until(over.is_set)

    with serving(drip) as host:
        with pytest.raises(OSError, match=r"ends its answer|larger than"):
            RegistryStore(host, "team/cache").blob("ab" * 32, 1 << 20)
        over.set()


def test_a_registry_gets_no_upload_to_another_host():
    def elsewhere(handler):
        handler.say(202, Location="http://127.0.0.1:1/upload")

    with serving(elsewhere) as host, pytest.raises(OSError, match="another host"):
        RegistryStore(host, "team/cache").put_blob(sha256(b"x"), b"x")


def test_a_failure_that_passes_is_tried_again():
    left = [500, 429]
    known = Small()

    def sometimes(handler):
        handler.say(left.pop()) if left else known(handler)

    with serving(sometimes) as host:
        assert RegistryStore(host, "team/cache").entry("base", "ab" * 16) is None
    assert left == []


@pytest.mark.parametrize("file", ["containers/auth.json", "auth.json"])
def test_the_credentials_of_skopeo_get_a_token(tmp_path, file):
    seen = []
    known = Small()

    def guarded(handler):
        given = handler.headers.get("Authorization", "")
        seen.append((handler.path.partition("?")[0], given.partition(" ")[0]))
        if handler.path.startswith("/token?"):
            assert base64.b64decode(given.partition(" ")[2]) == b"user:password"
            assert "service=cache" in handler.path and "scope=repository" in handler.path
            handler.say(200, b'{"token": "abc"}')
        elif given != "Bearer abc":
            realm = f"http://{handler.headers['Host']}/token"
            challenge = f'Bearer realm="{realm}",service="cache",scope="repository:team/cache:pull"'
            handler.say(401, WWW_Authenticate=challenge)
        else:
            known(handler)

    with serving(guarded) as host:
        place = tmp_path / "home" / file
        place.parent.mkdir(parents=True)
        auth = base64.b64encode(b"user:password").decode()
        place.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
        store = RegistryStore(host, "team/cache")
        assert store.entry("base", "ab" * 16) is None
        assert store.entry("base", "cd" * 16) is None
    assert [scheme for path, scheme in seen] == ["Basic", "Basic", "Bearer", "Bearer"]


def test_a_password_goes_to_no_other_registry(tmp_path):
    """A realm on another host without TLS gets nothing."""
    asked = []

    def realm(handler):
        asked.append(handler.path)
        handler.say(200, b'{"token": "abc"}')

    with serving(realm) as thief:
        challenge = f'Bearer realm="http://{thief}/token"'
        with serving(lambda h: h.say(401, WWW_Authenticate=challenge)) as host:
            place = tmp_path / "home/auth.json"
            place.parent.mkdir(parents=True)
            place.write_text(json.dumps({"auths": {host: {"auth": "eDp5"}}}))
            with pytest.raises(OSError, match="skopeo login"):
                RegistryStore(host, "team/cache").entry("base", "ab" * 16)
    assert asked == []


@pytest.mark.parametrize(
    ("host", "top"),
    [("127.0.0.1:5000", "http://127.0.0.1:5000"), ("localhost", "http://localhost"),
     ("[::1]:5000", "http://[::1]:5000"), ("registry.example.org", "https://registry.example.org"),
     ("127.0.0.1.example.org:80", "https://127.0.0.1.example.org:80")],
)  # fmt: skip
def test_only_loopback_is_reached_without_tls(host, top):
    assert RegistryStore(host, "x")._top == top


SETTINGS = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {place}/data}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


@pytest.fixture
def debian_registry(tmp_path):
    """Debian's docker-registry on a port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = tmp_path / "config.yml"
    settings.write_text(SETTINGS.format(place=tmp_path, port=port))
    server = subprocess.Popen(["/usr/bin/docker-registry", "serve", settings], stderr=-1)
    try:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.communicate()


@pytest.mark.slow
def test_the_registry_of_debian_keeps_a_checkpoint(debian_registry, world):  # noqa: F811
    """The whole way: a sparse file in chunks, signed, to the registry and back."""
    url = f"oci://{debian_registry}/team/cache"
    cache = of_options([url], [world.public], url, world.secret)
    for _ in range(2):
        cache.keep(world.entry(), {"disk.qcow2": world.file})
    assert cache.has_kept("checkpoint", KEY).files
    found = cache.entry("checkpoint", KEY, world.notes.append)
    place = world.file.parent / "fetched"
    place.mkdir()
    found.fetch(place)
    assert (place / "disk.qcow2").read_bytes() == world.file.read_bytes()
    assert cache.entry("checkpoint", "cd" * 20, world.notes.append) is None
    assert world.notes == []
    # The file needs no special tool: skopeo sees an artifact whose layers are the chunks.
    tag = f"docker://{debian_registry}/team/cache:checkpoint-{KEY}"
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", tag]
    shown = json.loads(subprocess.run(argv, check=True, stdout=-1).stdout)
    assert shown["artifactType"] == registry.ARTIFACT
    assert len(shown["layers"]) == 1 + len(found.entry.files[0].chunks)
