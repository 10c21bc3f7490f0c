"""The network of a stage, as recipes write it: a word, or the hosts that the stage may reach."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from particle_agent.contract.options import AtLeastOne, Text

HOSTS_LIMIT = 64
# The port of the proxy on 127.0.0.1, in the VM and in the namespace of a stage.
PROXY_PORT = 3128
PROXY_URL = f"http://127.0.0.1:{PROXY_PORT}"
# The connections at once that the agent passes on.
CONNECTIONS = 32
# The ports of a host without a port: http and https.
DEFAULT_PORTS = (80, 443)
_LABEL = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
# No top-level domain begins with a digit: inet_aton(3) reads '127.1' and '0x7f.1' as addresses.
_NAME = rf"({_LABEL}\.)*[a-z]([a-z0-9-]{{0,61}}[a-z0-9])?"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
ADDRESS = rf"{_BYTE}(\.{_BYTE}){{3}}"
_PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
HOST = rf"{_NAME}|{ADDRESS}"
# A host with a port, as the request CONNECT names it (RFC 9110, 9.3.6).
AUTHORITY = rf"({HOST}):({_PORT})"
_WRITTEN = rf"((\*\.)?{_NAME}|{ADDRESS})(:{_PORT})?"


def meant(text: str) -> str | None:
    """The host of a URL, or the host in small letters."""
    found = re.sub(r"^[A-Za-z]+://|/.*$", "", text).lower()
    return found if found != text and re.fullmatch(_WRITTEN, found) else None


NetworkHost = Annotated[
    str,
    Text(
        "a host such as 'mirror.example.org', '*.example.org' or 'example.org:8443', or an IPv4 "
        "address",
        _WRITTEN,
        262,
        meant,
    ),
]


# pydantic adds one of them to the location of an error. No option has such a name.
WORD, LIST = "(word)", "(list)"


@dataclass(frozen=True)
class WordOrList:
    """Chooses between the two types of a union by the form of the value: a list or not."""

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> dict[str, Any]:
        word, several = handler(source)["choices"]
        return {
            "type": "tagged-union",
            "choices": {WORD: word, LIST: several},
            "discriminator": lambda value: LIST if isinstance(value, list | tuple) else WORD,
        }

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [handler(choice) for choice in core["choices"].values()]}


StageNetwork = Annotated[
    Literal["none", "packages"] | Annotated[tuple[NetworkHost, ...], AtLeastOne(HOSTS_LIMIT)],
    WordOrList(),
]


@dataclass(frozen=True)
class HostPattern:
    """A host that a stage may reach, and its ports. The name may begin with `*.`."""

    name: str
    ports: tuple[int, ...]

    @classmethod
    def written(cls, text: str) -> HostPattern:
        """The place of a `NetworkHost`."""
        name, _, port = text.partition(":")
        return cls(name, (int(port),) if port else DEFAULT_PORTS)

    def has(self, host: str, port: int) -> bool:
        """Whether the place includes this port of this host, which is in small letters."""
        if port not in self.ports:
            return False
        suffix = self.name.removeprefix("*")
        return host == self.name or (suffix != self.name and host.endswith(suffix))


def variables(hosts: Sequence[str]) -> dict[str, str]:
    """The environment variables that lead programs to the proxy, in both spellings."""
    names = {HostPattern.written(host).name for host in hosts}
    own = ",".join(name for name in ("localhost", "127.0.0.1", "::1") if name not in names)
    values = {"http_proxy": PROXY_URL, "https_proxy": PROXY_URL, "no_proxy": own}
    return {**values, **{name.upper(): value for name, value in values.items()}}
