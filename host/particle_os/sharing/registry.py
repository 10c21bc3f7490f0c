"""A shared cache in an OCI registry (https://github.com/opencontainers/distribution-spec).

An entry is a manifest with the tag KIND-KEY. Its first layer is the signed envelope, and the others
are the chunks, so that a registry that removes what no manifest names keeps them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import urllib3
from urllib3.util import Retry, Timeout

from particle_os import __version__
from particle_os.sharing import credentials
from particle_os.sharing.store import ENTRY_LIMIT
from particle_os.system.deadline import Deadline, cut_off

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.particle-os.cache-entry.v1"
ENVELOPE = f"{ARTIFACT}+dsse"
CHUNK = f"{ARTIFACT}.chunk+zstd"
# The content of a configuration that has none (image-spec, "Guidance for an Empty Descriptor").
EMPTY, EMPTY_TYPE = b"{}", "application/vnd.oci.empty.v1+json"
TOKEN_LIMIT = 1 << 20
ANSWER_SECONDS = 300.0
CERTIFICATES = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
# A registry that hangs costs so many seconds at most, for each of few attempts.
TIMEOUT = Timeout(connect=10, read=60)
RETRY = Retry(
    total=3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None, raise_on_status=False, respect_retry_after_header=False,
)  # fmt: skip
LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|\[::1\]")


class RegistryStore:
    """A shared cache in one repository of a registry. Only loopback is reached without TLS."""

    def __init__(self, host: str, repository: str) -> None:
        self.name = f"oci://{host}/{repository}"
        self._host, self._repository = host, repository
        plain = LOOPBACK.fullmatch(host.rpartition(":")[0] or host) is not None
        self._top = f"{'http' if plain else 'https'}://{host}"
        self._pool = urllib3.PoolManager(
            timeout=TIMEOUT, retries=RETRY, ssl_context=None if plain else _context(host)
        )
        self._header = credentials.basic(host)

    def entry(self, kind: str, key: str) -> bytes | None:
        answer = self._ask("GET", f"manifests/{kind}-{key}", headers={"Accept": MANIFEST})
        if answer.status == 404:
            return None
        try:
            first = json.loads(_content(answer, ENTRY_LIMIT))["layers"][0]
            digest = str(first["digest"]).removeprefix("sha256:")
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise OSError(errno.EBADMSG, "a manifest is malformed") from error
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise OSError(errno.EBADMSG, "a manifest names no SHA-256")
        return self.blob(digest, ENTRY_LIMIT)

    def put_entry(self, kind: str, key: str, envelope: bytes, chunks: Mapping[str, int]) -> None:
        layers = [self._put(envelope, ENVELOPE)]
        layers += [_descriptor(digest, size, CHUNK) for digest, size in chunks.items()]
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT,
            "config": self._put(EMPTY, EMPTY_TYPE), "layers": layers,
        }  # fmt: skip
        headers = {"Content-Type": MANIFEST}
        body = json.dumps(manifest).encode()
        self._done(self._ask("PUT", f"manifests/{kind}-{key}", headers=headers, body=body), 201)

    def has_blob(self, digest: str) -> bool:
        answer = self._ask("HEAD", f"blobs/sha256:{digest}")
        return answer.status == 200

    def blob(self, digest: str, limit: int) -> bytes:
        answer = self._ask("GET", f"blobs/sha256:{digest}")
        if answer.status == 404:
            raise FileNotFoundError(errno.ENOENT, "the registry lacks a blob")
        return _content(answer, limit)

    def put_blob(self, digest: str, content: bytes) -> None:
        answer = self._ask("POST", "blobs/uploads/")
        self._done(answer, 202)
        place = urllib.parse.urljoin(f"{self._top}/", answer.headers.get("Location", ""))
        if not place.startswith(f"{self._top}/"):
            raise OSError(errno.EBADMSG, "the registry names another host for an upload")
        joint = "&" if urllib.parse.urlsplit(place).query else "?"
        headers = {"Content-Type": "application/octet-stream"}
        query = f"{joint}digest=sha256:{digest}"
        self._done(self._send("PUT", place + query, headers, content), 201)

    def _put(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        if not self.has_blob(digest):
            self.put_blob(digest, content)
        return _descriptor(digest, len(content), kind)

    def _ask(
        self, verb: str, path: str, *, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> urllib3.BaseHTTPResponse:
        """Asks the registry; gets a token when the registry wants one. Raises OSError."""
        url = f"{self._top}/v2/{self._repository}/{path}"
        answer = self._send(verb, url, headers or {}, body)
        if answer.status == 401:
            answer.drain_conn()
            self._header = self._token(answer.headers.get("WWW-Authenticate", ""))
            answer = self._send(verb, url, headers or {}, body)
        if answer.status in (401, 403):
            raise OSError(errno.EACCES, f"the registry refuses: run 'skopeo login {self._host}'")
        if answer.status >= 400 and answer.status != 404:
            raise OSError(errno.EIO, f"the registry answers with status {answer.status}")
        return answer

    def _send(
        self, verb: str, url: str, headers: dict[str, str], body: bytes
    ) -> urllib3.BaseHTTPResponse:
        given = {"User-Agent": f"particle-os/{__version__}", **headers}
        if self._header is not None:
            given["Authorization"] = self._header
        try:
            return self._pool.request(
                verb, url, headers=given, body=body or None, preload_content=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise OSError(errno.EIO, f"the registry does not answer: {_brief(error)}") from error

    def _token(self, challenge: str) -> str | None:
        """The header with a token (https://distribution.github.io/distribution/spec/auth/token/)."""
        scheme, _, rest = challenge.partition(" ")
        asked = dict(re.findall(r'([a-z]+)="([^"]*)"', rest))
        realm = asked.get("realm", "")
        if scheme.lower() != "bearer" or not realm.startswith(("https://", f"{self._top}/")):
            return self._header
        query = {k: asked[k] for k in ("service", "scope") if k in asked}
        basic = credentials.basic(self._host)
        try:
            answer = self._pool.request(
                "GET", f"{realm}?{urllib.parse.urlencode(query)}",
                headers={"Authorization": basic} if basic else {}, preload_content=False,
            )  # fmt: skip
            found = json.loads(_content(answer, TOKEN_LIMIT))
            return f"Bearer {found.get('token') or found['access_token']}"
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, AttributeError) as error:
            raise OSError(errno.EACCES, "the registry gives no token") from error

    def _done(self, answer: urllib3.BaseHTTPResponse, status: int) -> None:
        answer.drain_conn()
        if answer.status != status:
            raise OSError(errno.EIO, f"the registry answers with status {answer.status}")


def _descriptor(digest: str, size: int, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


def _content(answer: urllib3.BaseHTTPResponse, limit: int) -> bytes:
    """The content of an answer, which may be of any length. Raises OSError."""
    socket = getattr(answer.connection, "sock", None)
    deadline = Deadline.after(ANSWER_SECONDS, "the answer of a registry")
    try:
        with ExitStack() as stack:
            if socket is not None:
                # A registry that sends a byte now and then does not stretch the limit.
                stack.enter_context(cut_off(socket, deadline))
            data = answer.read(limit + 1)
        answer.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise OSError(errno.EIO, f"the registry ends its answer: {_brief(error)}") from error
    if len(data) > limit:
        answer.close()
        raise OSError(errno.EFBIG, f"the answer is larger than {limit} bytes")
    return data


def _context(host: str) -> ssl.SSLContext:
    """The trust in servers: the system's, and the certificates of this registry."""
    context = ssl.create_default_context()
    for directory in CERTIFICATES:
        for path in sorted((directory / host).glob("*.crt")):
            context.load_verify_locations(path)
    return context


def _brief(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
