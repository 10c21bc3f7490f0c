"""A proxy for apt while a build lasts: nothing of it is written into the image.

The host finds and checks it. Here apt is told of it, in the VM and on the host alike.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from particle_agent.apt.failure import NOT_FETCHED
from particle_agent.contract.wire import AptProxy
from particle_agent.target.target import Target

# What QEMU's user network calls the host's 127.0.0.1.
HOST_LOOPBACK = "10.0.2.2"
# Each machine has another one; a proxy elsewhere does not reach ours.
OWN = (HOST_LOOPBACK, "127.0.0.1", "localhost")
ANSWER_SECONDS = 5.0
SOURCES = "/run/particle-os-sources"
_OTHER_PORT = re.compile(r"http://([A-Za-z0-9.-]+):(?!80(?:[/\s]|$))[0-9]+")
_HTTPS = re.compile(r"\bhttps://([A-Za-z0-9.-]+)(?=[/\s]|$)")
_PIN_BY_HOST = re.compile(r"^\s*Pin:\s*origin\b", re.MULTILINE | re.IGNORECASE)


def settings(proxy: AptProxy, sources: str) -> dict[str, str]:
    """apt.conf(5) for packages of `sources`, the texts of sources.list(5), through the proxy."""
    https = proxy.url if proxy.https == "connect" else "DIRECT"
    hosts = set(OWN) | (set(_OTHER_PORT.findall(sources)) if proxy.caches else set())
    return {
        "Acquire::http::Proxy": proxy.url,
        "Acquire::https::Proxy": https,
        **{f"Acquire::http::Proxy::{host}": "DIRECT" for host in sorted(hosts)},
    }


def configuration(proxy: AptProxy) -> str:
    """The settings as a file of apt.conf(5), whatever the sources are."""
    return "".join(f'{key} "{value}";\n' for key, value in settings(proxy, "").items())


def may_rewrite(proxy: AptProxy, preferences: str) -> bool:
    """Whether https sources can be written in the proxy's way.

    Not where pins go by the host that packages come from: all would come from the host "HTTPS".
    """
    return proxy.https == "rewrite" and not _PIN_BY_HOST.search(preferences)


def rewritten(sources: str) -> str:
    """The sources with https as apt-cacher-ng takes it."""
    return _HTTPS.sub(r"http://HTTPS///\1", sources)


def answers(proxy: AptProxy) -> bool:
    """Whether somebody is there who speaks HTTP: one that hangs still takes connections."""
    place = urlsplit(proxy.url)
    try:
        with socket.create_connection((place.hostname, place.port), ANSWER_SECONDS) as there:
            there.sendall(b"GET / HTTP/1.0\r\nHost: %s\r\n\r\n" % place.netloc.encode())
            return there.recv(len(b"HTTP/")).startswith(b"HTTP")
    except OSError:
        return False


def hint(told: str | None, tail: Sequence[str]) -> str | None:
    """What to tell the user of a failure of apt, with its last lines, through a proxy."""
    if not NOT_FETCHED.search("\n".join(tail)):
        return told
    more = "Packages come through a proxy; to do without it, build with '--apt-proxy none'."
    return f"{told} {more}" if told else more


@contextmanager
def options(target: Target, proxy: AptProxy) -> Iterator[list[str]]:
    """What apt-get in the target is told so that it goes through the proxy."""
    files = _read(target, "/etc/apt/sources.list", "/etc/apt/sources.list.d")
    told = settings(proxy, "\n".join(files.values()))
    pins = _read(target, "/etc/apt/preferences", "/etc/apt/preferences.d")
    if may_rewrite(proxy, "\n".join(pins.values())):
        target.make_directory(f"{SOURCES}/sources.list.d")
        for path, text in files.items():
            target.write(f"{SOURCES}/{path.removeprefix('/etc/apt/')}", rewritten(text))
        told["Dir::Etc::sourcelist"] = f"{SOURCES}/sources.list"
        told["Dir::Etc::sourceparts"] = f"{SOURCES}/sources.list.d"
    try:
        yield [f"-o{key}={value}" for key, value in told.items()]
    finally:
        target.remove(SOURCES)


def _read(target: Target, single: str, directory: str) -> dict[str, str]:
    paths = [single, *(f"{directory}/{name}" for name in target.list(directory))]
    return {path: target.read(path) for path in paths if target.path(path).is_file()}
