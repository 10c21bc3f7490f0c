"""Each program that the host runs is known, confined and tested.

The tests read the sources and run nothing but the parser of Python.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..sources import ROOTS, calls
from .test_confined_children import PROGRAMS

PROMISES = Path(__file__).parents[2] / "docs/promises.md"
# The ways to start a program, by the module that has them.
WAYS = {
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput"},
    "pexpect": {"spawn", "run"},
    "os": {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"},
    "pty": {"spawn", "fork"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
}
WAYS["os"] |= {f"{kind}{end}" for kind in ("exec", "spawn") for end in
               ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}  # fmt: skip
# The functions that start programs in these ways.
STARTERS = {
    ("system/process", "started"): "confines each program",
    ("vm/console", "Console._spawn"): "confines QEMU",
    ("system/terminal", "_guarded"): "stty and a shell of the user's terminal, with fixed texts",
    ("fleet/build_process", "BuildProcess.__init__"): "particle-os itself",
    ("fleet/farm/member/task", "kept"): "particle-os itself",
    ("fleet/farm/client/local", "_started"): "particle-os itself",
}
OURS, USERS = "particle-os", "the user's own tests"
# The programs that each function starts with `system.process`.
STARTED = {
    ("apt/depot", "Depot._add_local"): "dpkg-deb",
    ("apt/download", "_fetch"): "apt-helper",
    ("apt/host", "apt_get"): "apt-get",
    ("apt/mmdebstrap", "_extracting"): "mmdebstrap",
    ("apt/package_disk", "write_disk"): "gensquashfs",
    ("apt/package_disk", "_control_archive"): "dpkg-deb",
    ("apt/package_disk", "_decompress"): "dpkg-deb",
    ("apt/proxy", "_named"): "apt-config",
    ("base/container", "_Look._inspect"): "skopeo",
    ("base/container", "fetch"): "skopeo",
    ("base/suite", "_compress"): "zstd",
    ("boot/contents", "_head"): "qemu-img",
    ("boot/frameworks/testinfra", "results"): USERS,
    ("egress/gateway", "gateway"): OURS,
    ("jobs/artifact", "convert"): "qemu-img",
    ("jobs/artifact", "compress"): "zstd",
    ("publishing/containerdisk", "pack"): "zstd",
    ("publishing/export", "_pack"): "tar",
    ("publishing/export", "_convert"): "qemu-img",
    ("publishing/export", "_size"): "qemu-img",
    ("sandbox/helper", "_write_kernel"): "zstd",
    ("sandbox/helper", "_write_root"): "tar2sqfs",
    ("sharing/shared_cache", "_filter"): "zstd",
    ("system/checksum", "unpacked_sha256"): "tar zstd",
    ("system/tar_archive", "_decompressed"): "zstd lz4",
    ("vm/devices/tpm", "running_tpm"): "swtpm",
    ("vm/image_format", "check_readable"): "qemu-img",
    ("vm/overlay", "copy_disk"): "qemu-img",
    ("vm/overlay", "_create"): "qemu-img",
    ("vm/overlay", "described"): "qemu-img",
}  # fmt: skip
# apt-config reads the configuration of the host's apt, and no bytes of others.
HARMLESS = {"apt-config", OURS, USERS}


def starters(source: str) -> Iterator[str]:
    """The functions that start a program in a way of `WAYS`, under any name."""
    names = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {(a.asname or a.name): a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
    for function, call in calls(source):
        written = ast.unparse(call.func)
        first, _, rest = written.partition(".")
        module, _, name = ".".join(filter(None, (names.get(first, first), rest))).rpartition(".")
        if name in WAYS.get(module, ()):
            yield function


@cache
def sources() -> dict[str, str]:
    root = ROOTS["particle_os"]
    return {
        str(path.relative_to(root).with_suffix("")): path.read_text()
        for path in sorted(root.rglob("*.py"))
    }


def with_process(source: str) -> Iterator[str]:
    for function, call in calls(source):
        if re.fullmatch(r"process\.(run|started|begun|capture)", ast.unparse(call.func)):
            yield function


def test_only_known_functions_start_programs():
    found = {(module, name) for module, text in sources().items() for name in starters(text)}
    assert found == STARTERS.keys()


def test_each_program_is_known():
    found = {(module, name) for module, text in sources().items() for name in with_process(text)}
    assert found == STARTED.keys()
    # No module calls these functions under another name.
    for text in sources().values():
        assert not re.search(r"system\.process import .*\b(run|started|begun|capture)\b", text)


def test_each_program_that_meets_hostile_bytes_is_tested_and_promised():
    names = set(" ".join(set(STARTED.values()) - HARMLESS).split())
    tested = {name.removesuffix("-system-x86_64") for name in PROGRAMS}
    assert names <= tested, "add these to PROGRAMS, with a step"
    promise = PROMISES.read_text().partition("### 10.")[2].partition("**It does not mean:**")[0]
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", promise)] == []


def test_another_way_to_start_a_program_is_noticed():
    for source in (
        "import subprocess as s\ndef f(): s.Popen([])",
        "from subprocess import check_output as c\ndef f(): c([])",
        "import os\ndef f(): os.execvp('a', [])",
    ):
        assert list(starters(source)) == ["f"]
    assert list(starters("import os\ndef f(): os.stat('a')")) == []
