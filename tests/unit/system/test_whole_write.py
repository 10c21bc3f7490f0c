"""A write without a buffer writes everything, or is an error that names the file."""

import ast
import errno
import os
from pathlib import Path

import particle_os
import pytest
from particle_os.system.regular_file import write_whole

TOP = Path(particle_os.__file__).parent
# A message for the terminal, in a child or at the end, about which nothing can be done.
WITHOUT_COUNT = {"system/process.py", "system/terminal.py"}


@pytest.fixture
def slow(monkeypatch):
    """Lets each call write 100 bytes at most, and a disk become full after 1000."""
    written, real = [], os.write

    def write(descriptor, data):
        if sum(written) >= 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(real(descriptor, data[:100]))
        return written[-1]

    monkeypatch.setattr(os, "write", write)


def test_short_writes_are_continued(slow, tmp_path):
    data = os.urandom(950)
    with (tmp_path / "x").open("wb", buffering=0) as file:
        write_whole(file.fileno(), data, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data


def test_a_disk_that_becomes_full_is_an_error_with_the_name_of_the_file(slow, tmp_path):
    with (tmp_path / "x").open("wb", buffering=0) as file:
        with pytest.raises(OSError) as caught:
            write_whole(file.fileno(), bytes(1001), tmp_path / "x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))


def test_no_code_forgets_how_much_a_call_has_written():
    """os.write and os.pwrite return a number, and a file without a buffer does, too."""
    calls = {
        (str(path.relative_to(TOP)), ast.unparse(node.value.func))
        for path in TOP.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    }
    found = {name for name, called in calls if called in ("os.write", "os.pwrite", "os.writev")}
    assert found == WITHOUT_COUNT


def test_files_without_a_buffer_are_known():
    """Each of these modules writes with `write_whole`."""
    texts = {path: path.read_text() for path in TOP.rglob("*.py")}
    found = {path for path, text in texts.items() if "buffering=0" in text}
    assert {path.name for path in found} == {"console.py", "layout.py", "shared_cache.py"}
    assert all("write_whole(" in texts[path] for path in found)
