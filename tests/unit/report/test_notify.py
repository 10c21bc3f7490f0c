import io

from particle_os.report.notify import NotifySink
from particle_os.report.progress import Line, StageStarted


def test_the_terminal_learns_the_progress_and_rings_once():
    stream = io.StringIO()
    sink = NotifySink(stream)
    for event in (StageStarted(0, 4, "apt"), Line("x"), StageStarted(3, 4, "qemu")):
        sink.emit(event)
    sink.close()
    sink.close()
    states = ("3", "1;0", "1;75", "0")
    assert stream.getvalue() == "".join(f"\x1b]9;4;{state}\x1b\\" for state in states) + "\a"
