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
