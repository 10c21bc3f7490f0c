import os

from particle_agent import runner


def test_reading_ahead_opens_files_only(tmp_path, monkeypatch):
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/file").write_text("x")
    (tmp_path / "link").symlink_to("directory/file")
    (tmp_path / "elsewhere").symlink_to("/")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").write_text("x")
    opened = []
    open_file = os.open

    def note(path, flags):
        if path.endswith("gone"):
            raise FileNotFoundError(path)
        opened.append(path)
        return open_file(path, flags)

    monkeypatch.setattr(runner.os, "open", note)
    before = len(os.listdir("/proc/self/fd"))
    runner.read_ahead(tmp_path)
    assert opened == [str(tmp_path / "directory/file")]
    assert len(os.listdir("/proc/self/fd")) == before
