import errno
import os

import pytest
from particle_os.errors import VmError
from particle_os.system.gate import Gate
from particle_os.vm.console import ConsoleLog, QemuEnded, Transcript


def test_the_end_is_kept_in_however_small_pieces_it_comes(tmp_path):
    transcript = Transcript(ConsoleLog(tmp_path / "console.log", Gate()))
    said = b"".join(b"line %d of what the firmware says\r\n" % i for i in range(20))
    for byte in said:
        transcript.write(bytes([byte]))
    assert transcript.tail(5) == [f"line {i} of what the firmware says" for i in range(15, 20)]
    transcript.close()
    assert (tmp_path / "console.log").read_bytes() == said


def test_what_is_kept_in_memory_of_a_flood_is_bounded(tmp_path):
    transcript = Transcript(ConsoleLog(tmp_path / "console.log", Gate()))
    for i in range(100):
        transcript.write(b"%d\n" % i * 10000)
    tail = transcript.tail(1_000_000)
    assert (tail[-1], len(tail) < 10000) == ("99", True)
    transcript.close()


def test_a_secret_is_in_neither_the_file_nor_the_end(tmp_path):
    log = ConsoleLog(tmp_path / "console.log", Gate([b"hunter2-and-more"]))
    transcript = Transcript(log)
    for byte in b"one hunter2-\r\n[    1.234567] and-more\r\ntwo hunter2-and-":
        transcript.write(bytes([byte]))
    assert transcript.tail() == ["one ***", "***", "two ***"]
    assert b"hunter" not in log.path.read_bytes()
    transcript.close()
    assert log.path.read_bytes() == b"one ***\r\n***\r\ntwo ***"


def test_a_log_that_cannot_be_written_is_named_and_not_the_console(tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    transcript = Transcript(ConsoleLog(tmp_path / "console.log", Gate()))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(VmError, match="log of the VM's console cannot be written: No space left"):
        transcript.write(b"a line\n")


def test_the_end_of_qemu_is_a_status_or_a_signal():
    assert QemuEnded(-9, []).brief == "the VM died: QEMU was killed by signal 9"
    assert QemuEnded(3, []).brief == "the VM died: QEMU ended with status 3"
    assert QemuEnded(0, []).brief == "the VM died: QEMU ended with status 0"
