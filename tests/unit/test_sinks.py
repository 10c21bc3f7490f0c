"""Every place of the host's code that writes text or files is known, and so is its gate.

Text of a guest may contain secrets and commands. A function that begins to write fails this test
until it is in the table below, under the way in which its text is made safe.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from ..sources import ROOTS, calls

GATE = "Text of a guest: the gate has taken the secrets out, and control characters are escaped"
OURS = "Our own words, or the text of a recipe, made printable"
TERMINAL = "The bytes of a guest, unchanged, to the terminal of a user who asked for that (docs)"
PICTURE = "A picture; no gate reads pictures, and docs/security.md says so"
PRIVATE = "A file in the private working directory or in the cache (0700), for programs only"
REGISTRY = "Bytes of a registry, which have the digest that was asked for"
PEER = "A message to QEMU, the VM, a proxy or another process of ours"

# Modules, and the functions in them that write.
SINKS = {
    GATE: {
        "boot/files": "keep_tests write",
        "cli/several": "SeveralBuilds.build",
        "cli/command": "say say_json",
        "documents/writing": "as_yaml",
        "fleet/summary": "show",
        "fleet/views": "PlainView._print JsonView._print TerminalView.event TerminalView.ended",
        "cli/verdicts": "_write",
        "jobs/build_result": "write_result",
        "jobs/delivery": "Delivery.write",
        "report/live_view": "TerminalSink.emit TerminalSink._done TerminalSink._line",
        "report/progress": "PlainSink.emit JsonSink.emit LogSink.__init__ LogSink.emit",
        "report/table": "print_single print_result _print_commit",
        "system/publication": "replace _unnamed_file",
        "vm/console": "Transcript.__init__ Transcript._keep",
    },
    OURS: {
        "__main__": "<module> _status",
        "boot/evidence": "Evidence.begin",
        "cli/command": "_workflow",
        "cli/init": "init_command",
        "cli/usage/commands": "Command.format_options",
        "cli/validate": "_show",
        "report/notify": "NotifySink._show",
        "fleet/farm/member/scheduler": "_show",
        "system/process": "child_of_ours.prepare",
        "system/publication": "_write",
        "system/terminal": "reset",
    },
    TERMINAL: {"jobs/shell": "_show_output", "vm/console": "Console.converse"},
    PICTURE: {"boot/evidence": "Evidence.take_screen"},
    PRIVATE: {
        "apt/depot": "Depot._fetch_all",
        "apt/download": "_fetch",
        "apt/directory": "write _write_keyrings _write_inline_key",
        "apt/package_disk": "write_disk _decompress",
        "base/commit": "CommitBase.write_disk",
        "base/container": "_Look._kept",
        "base/layout": "Layout.of_one_image Layout._extract _written _written.write",
        "base/suite": "_keep",
        "ostree/deployable": "Deployable.pack",
        "fleet/farm/client/here": "FarmHere.__init__",
        "fleet/farm/key_making": "_write",
        "fleet/farm/parcel": "unpack",
        "fleet/farm/returned": "give _drop_active",
        "jobs/checkpoints": "Checkpoints._write",
        "jobs/execution/claims": "Claims.__init__",
        "jobs/execution/input_disk": "_copy",
        "publishing/containerdisk": "pack",
        "publishing/gpt": "move_second_table _protect",
        "recipe/files/attachments": "Attachment.open _pack",
        "recipe/parameters/secrets": "_key",
        "sandbox/helper": "_make _write_kernel",
        "sandbox/root": "split",
        "sandbox/running": "_make_empty",
        "sandbox/starting": "_with_agent",
        "sharing/shared_cache": "_fetch _filter _packed",
        "shortcuts/dpkg_database": "write write_loose",
        "shortcuts/saved_memory": "save",
        "system/checksum": "copied",
        "system/regular_file": "write_whole",
        "system/workspace": "Workspace.adopt_directory",
        "vm/cpio": "append",
        "vm/firmware": "prepare",
        "vm/machine": "running",
        "vm/overlay": "make_disk make_overlay copy_disk",
        "boot/machines/extras": "seed_disk",
        "boot/frameworks/testinfra": "results",
        "vm/smbios": "write",
    },
    REGISTRY: {
        "publishing/pull": "pull",
        "publishing/pulled_set": "PulledSet.write_record",
        "publishing/pulled_disk": "_fetch_artifact _fetch_containerdisk _unpack write_sparsely",
        "registry/transfer": "BlobDownload.run",
    },
    PEER: {
        "publishing/containerdisk": "_give",
        "boot/files": "fetch",
        "boot/frameworks/boot_test_link": "BootTestLink.tell",
        "boot/frameworks/testinfra": "_send",
        "egress/gateway": "_Link._copy",
        "egress/proxy": "Proxy._exchange _copy _refuse _print",
        "fleet/build_process": "_in_memory",
        "fleet/farm/member/keeper": "say",
        "fleet/farm/member/task": "_KeeperPipes.follow",
        "ostree/server": "_Handler._answer",
        "system/standard_streams": "_Lenient.write prepare discard_output",
        "vm/chardev": "Chardev.send",
        "vm/monitor": "Monitor.execute",
        "vm/ssh": "Connection.send",
    },
}
KNOWN = {
    (module, function)
    for places in SINKS.values()
    for module, functions in places.items()
    for function in functions.split()
}
# Functions and methods that write, whatever their object is.
WRITE = {
    "copy", "copy2", "copyfile", "copyfileobj", "dump", "echo", "move", "print", "secho", "sendall",
    "sendfile", "touch", "write", "write_bytes", "write_text", "write_whole", "writelines",
    "writev",
}  # fmt: skip
# With the compression of tarfile.
WRITE_MODE = re.compile(r"([wxa][bt]?\+?|[bt]?[wxa]|r[bt]?\+[bt]?)([:|]\w*)?")
OPEN = {"NamedTemporaryFile", "GzipFile", "fdopen", "open"}


def sinks(source: str) -> Iterator[tuple[str, str]]:
    """The functions of a module that write, and the calls by which they do so."""
    for function, call in calls(source):
        if _writes(call):
            yield function or "<module>", ast.unparse(call.func)


def _writes(call: ast.Call) -> bool:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in WRITE or (name in OPEN and _opens_to_write(call))
    return False


def _opens_to_write(call: ast.Call) -> bool:
    """Whether a mode such as "w", "xb" or "r+", or a flag of open(2), is among the arguments."""
    for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
        for node in ast.walk(argument):
            match node:
                case ast.Constant(value=str(text)) if WRITE_MODE.fullmatch(text):
                    return True
                case ast.Attribute(attr="O_WRONLY" | "O_RDWR" | "O_CREAT"):
                    return True
    return False


@cache
def found() -> dict[tuple[str, str], str]:
    """All sinks of the host's code: module and function, and the last call."""
    places = {}
    root = ROOTS["particle_os"]
    for path in sorted(root.rglob("*.py")):
        module = str(path.relative_to(root).with_suffix(""))
        places |= {(module, function): call for function, call in sinks(path.read_text())}
    return places


def test_every_place_that_writes_is_known_with_its_gate():
    new = {place: call for place, call in found().items() if place not in KNOWN}
    assert new == {}, f"add each to SINKS, with the way in which its text is made safe: {new}"


def test_every_known_place_still_writes():
    gone = KNOWN - found().keys()
    assert gone == set(), f"remove these from SINKS: {gone}"


@pytest.mark.parametrize(
    "line",
    [
        "print(x)", "sys.stderr.write(x)", "click.echo(x)", "console.print(x)", "os.write(1, x)",
        "path.write_text(x)", "path.open('w')", "open(p, mode='xb')", "path.open('r+')",
        "os.open(p, os.O_WRONLY | os.O_CREAT)", "json.dump(x, f)", "shutil.move(a, b)",
        "tarfile.open(p, 'w:gz')", "tempfile.NamedTemporaryFile(mode='w')", "file.writelines(x)",
    ],
)  # fmt: skip
def test_a_new_sink_is_detected(line):
    source = f"class C:\n    def f(self):\n        return [{line} for x in y]\n"
    assert [place for place, _ in sinks(source)] == ["C.f"]
    assert [place for place, _ in sinks(line)] == ["<module>"]


@pytest.mark.parametrize(
    "line", ["path.open()", "open(p, 'rb')", "path.read_text()", "f(x, 'a b')"]
)
def test_reading_is_no_sink(line):
    assert list(sinks(line)) == []
