"""HTTP with a registry: credentials, tokens, certificates, time limits and new attempts."""

from __future__ import annotations

import errno
import json
import os
import re
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import tenacity
import urllib3
from urllib3.util import Retry, Timeout

from particle_os import __version__
from particle_os.errors import DeadlineExceeded, InfrastructureError, printable
from particle_os.registry import credentials
from particle_os.registry.limited import limited
from particle_os.system.deadline import Deadline, cut_off

# Bytes of a file that are sent at a time.
SEND_BYTES = 1 << 17
TOKEN_LIMIT, ERROR_LIMIT = 1 << 20, 1 << 16
CERTIFICATES = ("/etc/docker/certs.d", "/etc/containers/certs.d", "~/.config/containers/certs.d")
# The name of a registry, and the host that answers for it.
HOSTS = {credentials.DOCKER_HUB: "registry-1.docker.io"}
LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|\[::1\]")
# A registry that hangs costs so many seconds at most, for each of few attempts.
TIMEOUT = Timeout(connect=10, read=60)
# What is transferred has to come so many bytes further in so many seconds.
BLOCK, BLOCK_SECONDS = 1 << 20, 60.0
# All of a document, which is small.
ANSWER_SECONDS = 300.0
PASSING = (408, 429, 500, 502, 503, 504)
# Attempts in a row that come less than STEP bytes further.
ATTEMPTS, STEP = 4, 1 << 20
WAIT: tenacity.wait.wait_base = tenacity.wait_random_exponential(multiplier=0.5, max=8)
# A registry that asks for more time (Retry-After) gets so many seconds.
AFTER_SECONDS = 30.0
# Redirections lead to the storage of a registry. The credentials stay with the registry.
REDIRECTS = Retry(
    total=5, connect=0, read=0, status=0, other=0, redirect=5, respect_retry_after_header=False
)
NO_REDIRECTS = Retry(total=0, redirect=0, raise_on_redirect=False)


class Temporary(OSError):
    """A failure that may pass, after so many seconds if the registry says so."""

    after: float | None = None


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Turns the OSError of a registry into an error for the user, which begins with `what`."""
    try:
        yield
    except OSError as error:
        # Only an error of this host names a file.
        if error.filename is not None or error.errno == errno.ENOSPC:
            raise
        raise InfrastructureError(f"{what}: {error.strerror or error}") from error


def attempts(place: Callable[[], int] = lambda: 0) -> tenacity.Retrying:
    """Attempts for as long as `Temporary` is raised, and the number `place` grows."""
    return tenacity.Retrying(
        stop=_Stuck(place),
        wait=_wait,
        retry=tenacity.retry_if_exception_type(Temporary),
        reraise=True,
    )


def _wait(state: tenacity.RetryCallState) -> float:
    """The seconds until the next attempt: those that the registry asks for, within reason."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, Temporary) and error.after is not None:
        return min(error.after, AFTER_SECONDS)
    return WAIT(state)


def _refused(answer: urllib3.BaseHTTPResponse) -> Temporary:
    """The failure of an answer that another attempt may not get (RFC 9110, section 10.2.3)."""
    found = Temporary(errno.EIO, f"the registry answers with status {answer.status}")
    with suppress(urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        found.after = REDIRECTS.get_retry_after(answer)
    finish(answer)
    return found


class _Stuck:
    """Stops after ATTEMPTS attempts in a row that did not come STEP bytes further."""

    def __init__(self, place: Callable[[], int]) -> None:
        self._place = place
        self._furthest, self._count = 0, 0

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        place = self._place()
        if place >= self._furthest + STEP:
            self._furthest, self._count = place, 0
        self._count += 1
        return self._count >= ATTEMPTS


class RegistryLink:
    """Requests about one repository. Only loopback is reached without TLS.

    All methods raise OSError, with a `strerror` for the user.
    """

    def __init__(self, host: str, repository: str) -> None:
        self._name, self._repository = host, repository
        host = HOSTS.get(host, host)
        plain = LOOPBACK.fullmatch(host.rpartition(":")[0] or host) is not None
        self.top = f"{'http' if plain else 'https'}://{host}"
        self._pool = _plain_pool() if plain else _pool(host, _context(self._name))
        self._header = credentials.basic(self._name, repository)

    def ask(
        self,
        verb: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """The answer to a request; `path` is one of the repository, or a URL of the registry.

        A failure that may pass raises `Temporary`. Any other status from 300 on is an error, except
        for 404 and 416.
        """
        url = path if path.startswith(f"{self.top}/") else self._url(path)
        answer = self._send(verb, url, headers or {}, body)
        if answer.status == 401:
            before, self._header = self._header, self._token(answer)
            if isinstance(body, bytes | None):
                answer = self._send(verb, url, headers or {}, body)
            elif before != self._header:
                raise Temporary(errno.EACCES, "the registry wants a new token")
        if answer.status in (401, 403):
            why = _reason(answer)
            raise OSError(
                errno.EACCES, f"the registry refuses{why}: run 'skopeo login {self._name}'"
            )
        if answer.status in PASSING:
            raise _refused(answer)
        if answer.status >= 300 and answer.status not in (404, 416):
            why = _reason(answer)
            raise OSError(errno.EIO, f"the registry answers with status {answer.status}{why}")
        return answer

    def repeated(
        self,
        verb: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """The answer to a request that is sent again after a failure that may pass."""
        answer: urllib3.BaseHTTPResponse = attempts()(
            self.ask, verb, path, headers=headers, body=body
        )
        return answer

    def document(
        self, path: str, limit: int, headers: dict[str, str] | None = None
    ) -> tuple[bytes, str] | None:
        """A document of at most `limit` bytes, and its media type; None if there is none."""

        def once() -> tuple[bytes, str] | None:
            answer = self.ask("GET", path, headers=headers)
            data = content(answer, limit)
            kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
            if answer.status == 416:
                raise OSError(errno.EIO, "the registry answers with status 416")
            return None if answer.status == 404 else (data, kind)

        found: tuple[bytes, str] | None = attempts()(once)
        return found

    def location(self, answer: urllib3.BaseHTTPResponse, before: str) -> str:
        """The URL that an answer names for an upload, or `before`. It is on the same host."""
        place = urllib.parse.urljoin(f"{self.top}/", answer.headers.get("Location") or before)
        if not place.startswith(f"{self.top}/"):
            raise OSError(errno.EBADMSG, "the registry names another host for an upload")
        return place

    def _url(self, path: str) -> str:
        return f"{self.top}/v2/{self._repository}/{path}"

    def _send(
        self, verb: str, url: str, headers: dict[str, str], body: bytes | IO[bytes] | None
    ) -> urllib3.BaseHTTPResponse:
        given = {"User-Agent": f"particle-os/{__version__}", "Accept-Encoding": "identity"}
        if self._header is not None:
            given["Authorization"] = self._header
        try:
            return self._pool.request(
                verb, url, headers=given | headers, body=body or None, preload_content=False,
                retries=REDIRECTS if verb in ("GET", "HEAD") else NO_REDIRECTS,
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError) as error:
            text = f"the registry does not answer: {_brief(error)}"
            raise Temporary(errno.EIO, text) from error

    def _token(self, refusal: urllib3.BaseHTTPResponse) -> str | None:
        """The header with a token (https://distribution.github.io/distribution/spec/auth/token/)."""
        finish(refusal)
        scheme, _, rest = refusal.headers.get("WWW-Authenticate", "").partition(" ")
        asked = dict(re.findall(r'([a-z]+)="([^"]*)"', rest))
        realm = asked.get("realm", "")
        if scheme.lower() != "bearer" or not realm.startswith(("https://", f"{self.top}/")):
            return self._header
        query = {k: asked[k] for k in ("service", "scope") if k in asked}
        basic = credentials.basic(self._name, self._repository)
        joint = "&" if urllib.parse.urlsplit(realm).query else "?"
        try:
            answer = self._pool.request(
                "GET", f"{realm}{joint}{urllib.parse.urlencode(query)}", retries=NO_REDIRECTS,
                headers={"Authorization": basic} if basic else {}, preload_content=False,
            )  # fmt: skip
            found = json.loads(content(answer, TOKEN_LIMIT))
            return f"Bearer {found.get('token') or found['access_token']}"
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, AttributeError) as error:
            raise OSError(errno.EACCES, "the registry gives no token") from error


def blocks(answer: urllib3.BaseHTTPResponse, limit: int) -> Iterator[bytes]:
    """The content of an answer, at most `limit` bytes; each block has a time limit."""
    left = limit
    while left > 0:
        data = _read(answer, min(BLOCK, left), BLOCK_SECONDS)
        if not data:
            break
        left -= len(data)
        yield data
    if left == 0 and _read(answer, 1, BLOCK_SECONDS):
        answer.close()
        raise OSError(errno.EFBIG, f"the answer is larger than {limit} bytes")
    answer.release_conn()


def content(answer: urllib3.BaseHTTPResponse, limit: int) -> bytes:
    """The whole content of an answer, which may be of any length."""
    ends = time.monotonic() + ANSWER_SECONDS
    data = b""
    while len(data) <= limit and (
        more := _read(answer, min(BLOCK, limit + 1 - len(data)), ends - time.monotonic())
    ):
        data += more
    if len(data) > limit:
        answer.close()
        raise OSError(errno.EFBIG, f"the answer is larger than {limit} bytes")
    answer.release_conn()
    return data


def finish(answer: urllib3.BaseHTTPResponse) -> None:
    """Reads the rest of an answer that does not matter, so that its connection can be used."""
    try:
        content(answer, ERROR_LIMIT)
    except OSError:
        answer.close()


def _read(answer: urllib3.BaseHTTPResponse, size: int, seconds: float) -> bytes:
    """The next `size` bytes, fewer at the end. Raises Temporary when they take too long."""
    # A registry that sends a byte now and then does not stretch the limit.
    deadline = Deadline.after(max(seconds, 0.001), "the answer of a registry")
    socket = getattr(answer.connection, "heard", None)
    try:
        with ExitStack() as stack:
            if socket is not None:
                stack.enter_context(cut_off(socket, deadline))
            data = answer.read(size, decode_content=False)
        # The end of a connection may look like the end of the content.
        deadline.remaining()
        return data
    except (urllib3.exceptions.HTTPError, OSError, ValueError, DeadlineExceeded) as error:
        answer.close()
        text = f"the registry ends its answer: {_brief(error)}"
        raise Temporary(errno.EIO, text) from error


def _reason(answer: urllib3.BaseHTTPResponse) -> str:
    """The reason that a registry gives for a failure (distribution-spec, "Error Codes")."""
    try:
        first = json.loads(content(answer, ERROR_LIMIT))["errors"][0]
        return printable(f" ({first['code']}: {first.get('message', '')})", 200)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return ""


def _plain_pool() -> urllib3.PoolManager:
    """Connections without TLS, to loopback only."""
    return limited(urllib3.PoolManager(timeout=TIMEOUT, blocksize=SEND_BYTES))


def _pool(host: str, context: ssl.SSLContext) -> urllib3.PoolManager:
    """Connections with TLS, through the proxy that the environment names for a host."""
    proxy = urllib.request.getproxies().get("https")
    if proxy is None or urllib.request.proxy_bypass(host):
        return limited(
            urllib3.PoolManager(timeout=TIMEOUT, blocksize=SEND_BYTES, ssl_context=context)
        )
    user = urllib.parse.unquote(urllib.parse.urlsplit(proxy).netloc.rpartition("@")[0])
    manager = urllib3.ProxyManager(
        proxy,
        proxy_headers=urllib3.make_headers(proxy_basic_auth=user) if user else None,
        timeout=TIMEOUT,
        blocksize=SEND_BYTES,
        ssl_context=context,
    )
    return limited(manager)


def _context(host: str) -> ssl.SSLContext:
    """The trust in servers: the system's, and the certificates of this registry.

    containers-certs.d(5): *.crt are authorities, *.cert and *.key those of the client.
    """
    context = ssl.create_default_context()
    for name in CERTIFICATES:
        directory = Path(os.path.expanduser(name)) / host  # noqa: PTH111 - without a home, no error
        for path in sorted(directory.glob("*.crt")):
            context.load_verify_locations(path)
        for path in sorted(directory.glob("*.cert")):
            context.load_cert_chain(path, path.with_suffix(".key"))
    return context


def _brief(error: BaseException) -> str:
    """The innermost reason of an error, without the names of urllib3's objects."""
    while isinstance(reason := getattr(error, "reason", None), Exception):
        error = reason
    return printable(str(error).partition("\n")[0].rpartition("): ")[2], 200)
