"""Registries for tests: a small one that can fail in many ways, and Debian's docker-registry."""

import hashlib
import json
import re
import socket
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .waiting import until

SETTINGS = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {place}/data}}}}
http: {{addr: 127.0.0.1:0}}
"""
INDEX = "application/vnd.oci.image.index.v1+json"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@contextmanager
def serving(answer):
    """A server on loopback; `answer` gets the handler of each request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            self.left = int(self.headers.get("Content-Length") or 0)
            answer(self)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_any  # noqa: N815

        def take(self, most=None):
            """The content of the request, or only its first bytes."""
            data = self.rfile.read(self.left if most is None else min(most, self.left))
            self.left -= len(data)
            return data

        def say(self, status, content=b"", length=None, **headers):
            if self.left:
                self.take()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def cut(self):
            """Ends the connection without an answer."""
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

        def log_message(self, *arguments):
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # A client may end the connection at any moment.
        server.handle_error = lambda *arguments: None
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Small:
    """A registry of OCI 1.1 in a few lines, for all repositories at once.

    `cuts` are the bytes after which it ends the next transfers. Without `resumes` it has no uploads
    that continue, without `ranges` no parts of blobs, without `lists` no list of referrers.
    """

    def __init__(self, *, resumes=True, ranges=True, lists=True):
        self.resumes, self.ranges, self.lists = resumes, ranges, lists
        self.blobs, self.manifests, self.uploads = {}, {}, {}
        self.asked, self.sent, self.cuts = [], [], []
        # All bytes of blobs that were received, and that were given.
        self.received = self.given = 0

    def __call__(self, handler):
        path, _, query = handler.path.partition("?")
        for part in ("/manifests/", "/blobs/uploads/", "/blobs/", "/referrers/"):
            _, found, what = path.partition(part)
            if found:
                self.asked.append((handler.command, f"{part[1:]}{what}"))
                getattr(self, f"_{part.strip('/').replace('/', '_')}")(handler, what, query, path)
                return
        handler.say(404)

    def _manifests(self, handler, reference, query, path):
        if handler.command == "PUT":
            content = handler.take()
            digest = f"sha256:{sha256(content)}"
            if reference.startswith("sha256:") and reference != digest:
                handler.say(400)
                return
            stored = (handler.headers["Content-Type"], content)
            self.manifests[reference] = self.manifests[digest] = stored
            subject = json.loads(content).get("subject", {}).get("digest")
            headers = {"OCI-Subject": subject} if subject and self.lists else {}
            handler.say(201, **headers)
        elif (found := self.manifests.get(reference)) is None:
            handler.say(404)
        else:
            handler.say(200, found[1], Content_Type=found[0])

    def _referrers(self, handler, digest, query, path):
        if not self.lists:
            handler.say(404, b"404 page not found")
            return
        listed = {}
        for kind, content in self.manifests.values():
            document = json.loads(content)
            if document.get("subject", {}).get("digest") == digest:
                own = f"sha256:{sha256(content)}"
                listed[own] = {
                    "mediaType": kind, "digest": own, "size": len(content),
                    "artifactType": document.get("artifactType"),
                }  # fmt: skip
        handler.say(200, json.dumps({"manifests": [*listed.values()]}).encode(), Content_Type=INDEX)

    def _blobs(self, handler, digest, query, path):
        found = self.blobs.get(digest.removeprefix("sha256:"))
        if found is None:
            handler.say(404)
            return
        status, headers = 200, {}
        asked = handler.headers.get("Range")
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            status = 206
            headers = {"Content-Range": f"bytes {start}-{len(found) - 1}/{len(found)}"}
            found = found[start:]
        if self.cuts and handler.command == "GET":
            part = found[: self.cuts.pop(0)]
            self.given += len(part)
            handler.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(found))}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(part)
            handler.cut()
            return
        self.given += len(found) if handler.command == "GET" else 0
        handler.say(status, found, **headers)

    def _blobs_uploads(self, handler, name, query, path):
        if handler.command == "POST":
            name = f"upload-{len(self.asked)}"
            self.uploads[name] = bytearray()
            handler.say(202, Location=f"{path}{name}?state=x")
        elif name not in self.uploads:
            handler.say(404)
        elif handler.command == "GET":
            self._say_state(handler, name, path, 204 if self.resumes else 404)
        elif handler.command == "PATCH":
            self._patch(handler, name, path)
        else:
            self._complete(handler, name, query)

    def _say_state(self, handler, name, path, status):
        end = max(len(self.uploads[name]) - 1, 0)
        handler.say(status, Location=f"{path}?state=y", Range=f"0-{end}")

    def _patch(self, handler, name, path):
        start = (handler.headers.get("Content-Range") or "0").partition("-")[0]
        if int(start) != len(self.uploads[name]):
            self._say_state(handler, name, path, 416)
            return
        cut = self.cuts.pop(0) if self.cuts else None
        data = handler.take(cut)
        self.received += len(data)
        self.uploads[name] += data
        if cut is None:
            self._say_state(handler, name, path, 202)
        else:
            handler.cut()

    def _complete(self, handler, name, query):
        data = handler.take()
        self.received += len(data)
        content = bytes(self.uploads.pop(name) + data)
        digest = query.partition("digest=sha256:")[2]
        good = sha256(content) == digest
        if good:
            self.blobs[digest] = content
            self.sent.append(digest)
        refusal = b'{"errors": [{"code": "DIGEST_INVALID", "message": "no such content"}]}'
        handler.say(201) if good else handler.say(400, refusal)


@contextmanager
def debian_registry(directory):
    """Debian's docker-registry on a port of loopback, with its files in a directory."""
    settings = directory / "config.yml"
    settings.write_text(SETTINGS.format(place=directory))
    log = directory / "log"
    with log.open("w") as output:
        argv = ["/usr/bin/docker-registry", "serve", settings]
        server = subprocess.Popen(argv, stdout=output, stderr=output)
    try:
        yield address_of(server, log)
    finally:
        server.kill()
        server.communicate()


def address_of(registry, log):
    """Where a docker-registry listens that was asked to choose a port, by its log."""

    def found():
        assert registry.poll() is None, log.read_text()
        return re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())

    return until(found).group(1)
