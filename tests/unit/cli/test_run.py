import pytest
from particle_os.jobs import run_image
from particle_os.vm.devices import seed

from .command_line import run


def test_an_image_runs_on_a_terminal_only(tmp_path):
    image = tmp_path / "image.raw"
    image.write_bytes(bytes(1024))
    result = run("run", image, "--accel", "tcg")
    assert result.exit_code == 2
    assert "boot-test" in result.stderr
    image.write_bytes(b"QFI\xfb\0\0\0\x03" + (104).to_bytes(8, "big") + bytes(500))
    result = run("run", image, "--accel", "tcg")
    assert (result.exit_code, "refers to another file" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--forward", "80"], "no pair HOST:GUEST"),
        (["--forward", "8080:0"], "no pair HOST:GUEST"),
        (["--forward", "65536:80"], "no pair HOST:GUEST"),
        (["--forward", "127.0.0.1:80:80"], "no pair HOST:GUEST"),
        (["--forward", "8080:80", "--forward", "8080:81"], "already forwarded"),
        (["--forward", "0:80", "--forward", "0:80"], "already forwarded"),
        (["--forward", "0:22", "--ssh"], "the same port"),
    ],
)
def test_a_port_that_cannot_be_forwarded_is_refused(tmp_path, monkeypatch, given, words):
    monkeypatch.setattr(run_image, "check_terminal", lambda: None)
    image = tmp_path / "image.raw"
    image.write_bytes(bytes(1024))
    result = run("run", image, *given)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_user_data_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_image, "check_terminal", lambda: None)
    image, user_data = tmp_path / "image.raw", tmp_path / "user-data"
    image.write_bytes(bytes(1024))
    user_data.write_bytes(bytes(seed.LIMIT + 1))
    result = run("run", image, "--user-data", user_data)
    assert (result.exit_code, "larger than" in result.stderr) == (2, True)
