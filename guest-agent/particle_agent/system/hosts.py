"""The entry of a system's own name in /etc/hosts."""

from __future__ import annotations

import re

from particle_agent.target.target import Target

# hosts(5): Debian's address for the system's own name.
OWN_ADDRESS = "127.0.1.1"
OWN_LINE = re.compile(rf"^{re.escape(OWN_ADDRESS)}\s.*\n?", re.MULTILINE)
DEFAULT_HOSTS = (
    "127.0.0.1 localhost\n"
    "::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
)


def hosts(target: Target, name: str) -> str:
    """The text of the target's hosts(5) with a line for its own name."""
    short = name.partition(".")[0]
    names = name if name == short else f"{name} {short}"
    text = target.read("/etc/hosts") if target.exists("/etc/hosts") else DEFAULT_HOSTS
    return f"{OWN_ADDRESS} {names}\n" + OWN_LINE.sub("", text)
