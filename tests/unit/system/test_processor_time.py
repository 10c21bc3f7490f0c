"""The processor time of a process, with a real one."""

import os
import threading

from particle_os.system import process


def test_a_process_uses_processor_time():
    before = process.processor_seconds(os.getpid())
    while (now := process.processor_seconds(os.getpid())) == before:
        pass
    assert now > before > 0


def test_each_thread_has_waited_for_a_processor():
    """A new thread waits for a moment, and the kernel counts nanoseconds."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    waits = list(process.waits(os.getpid()))
    assert len(waits) >= 2
    assert process.waited(os.getpid()) >= sum(waits) > 0
    done.set()
    thread.join()


def test_a_process_that_has_ended_has_waited_for_nothing():
    assert list(process.waits(1 << 30)) == []
