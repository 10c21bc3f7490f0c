from pathlib import Path

from particle_os.cli import verdicts


def test_a_file_that_can_be_written_is_left_as_it_was(tmp_path):
    there, missing = tmp_path / "there.xml", tmp_path / "missing.xml"
    there.write_text("of last time")
    for file in (there, missing, Path("/dev/stdout")):
        verdicts.check_writable(file)
    assert there.read_text() == "of last time"
    assert not missing.exists()
    verdicts.make_writable(tmp_path / "a/b")
    assert list((tmp_path / "a/b").iterdir()) == []
