"""The index of the kernel modules that a helper VM loads on demand: those of netfilter.

nft(8) and iptables(8) check rules by loading them into the kernel, which calls guest/modprobe.sh
for a module that it lacks. Debian's kernel package has no index of modules; depmod(8) makes it
when the package is installed. This index is made without the VM, and has nothing but netfilter: a
stage cannot make the kernel load anything else.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable, Collection, Iterator

# The section .modinfo of a module (linux/module.h: MODULE_INFO).
DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
ALIAS = re.compile(rb"\0alias=(?=([^\0]*)\0)")
NETFILTER = re.compile(r"/kernel/net/(.*/)?netfilter/")


def index(paths: Collection[str], read: Callable[[str], bytes]) -> str:
    """The lines `ALIAS NAME FILE...`: the modules to load for an alias, in their order.

    `paths` are those of all modules, and `read` gives the content of a file, which xz may have
    compressed. Aliases and names of modules have `_` for each `-`, as modprobe(8) treats them.
    """
    by_name = {_name(path): path for path in sorted(paths)}
    contents: dict[str, bytes] = {}

    def content(name: str) -> bytes:
        if name not in contents:
            path = by_name[name]
            data = read(path)
            contents[name] = lzma.decompress(data) if path.endswith(".xz") else data
        return contents[name]

    def needed(name: str, before: tuple[str, ...] = ()) -> Iterator[str]:
        """A module and its dependencies, the lowest first."""
        found = DEPENDS.search(content(name))
        for other in found.group(1).decode("ascii").split(",") if found else ():
            other = _normal(other)
            if other in by_name and other not in before:
                yield from needed(other, (*before, name))
        yield f"{name} {by_name[name]}"

    lines = []
    for name, path in by_name.items():
        if NETFILTER.search(path):
            loaded = " ".join(dict.fromkeys(needed(name)))
            aliases = [_normal(alias.decode("ascii")) for alias in ALIAS.findall(content(name))]
            lines += [f"{alias} {loaded}\n" for alias in dict.fromkeys((name, *aliases))]
    return "".join(lines)


def _name(path: str) -> str:
    return _normal(path.rpartition("/")[2].partition(".ko")[0])


def _normal(name: str) -> str:
    return name.replace("-", "_")
