from pathlib import Path

from particle_os.cli import verdicts
from particle_os.errors import StageFailed


def test_a_file_that_can_be_written_is_left_as_it_was(tmp_path):
    there, missing = tmp_path / "there.xml", tmp_path / "missing.xml"
    there.write_text("of last time")
    for file in (there, missing, Path("/dev/stdout")):
        verdicts.check_writable(file)
    assert there.read_text() == "of last time"
    assert not missing.exists()
    verdicts.make_writable(tmp_path / "a/b")
    assert list((tmp_path / "a/b").iterdir()) == []


def test_an_open_file_of_this_process_is_written_to(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        for name in ("/dev/fd", "/proc/self/fd"):
            verdicts.check_writable(Path(name, str(file.fileno())))
            verdicts.hand_over_failure(
                "x", StageFailed("it failed"), Path(name, str(file.fileno()))
            )
    text = (tmp_path / "out").read_text()
    assert text.startswith("before\n<?xml")
    assert text.count('message="it failed"') == 2
