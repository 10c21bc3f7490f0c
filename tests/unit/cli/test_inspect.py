import pytest

from .command_line import run


def test_a_recipe_is_inspected_without_its_secrets(tmp_path, monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    path = tmp_path / "r.yml"
    path.write_text(
        "name: r\nvariables: {zone: {type: string}}\nstages:\n"
        "  - type: apt\n    packages: [linux-image-amd64, systemd-sysv, tzdata]\n"
        "  - {type: timezone, zone: '${zone}', secrets: [{name: t, env: TOKEN}]}\n"
        "  - type: qemu\n"
    )
    result = run("inspect", path, "--set", "zone=Asia/Tokyo")
    assert result.exit_code == 0, result.stderr
    assert "timezone" in result.stdout


@pytest.mark.parametrize("what", ["tar:base.tar", "docker://debian", "recipe.yml", "recipe.yaml"])
@pytest.mark.parametrize("option", [["--verify"], ["--format", "raw"]])
def test_only_disk_images_are_verified_and_have_a_format(what, option):
    result = run("inspect", *option, what)
    assert result.exit_code == 2
    assert f"{option[0]} is for disk images, and {what} is none" in result.stderr


def test_an_image_that_is_not_there_is_named(tmp_path):
    result = run("inspect", tmp_path / "x.raw")
    assert result.exit_code == 2
    assert f"there is no image {tmp_path}/x.raw" in result.stderr
    assert "Name a disk image" in result.stderr


@pytest.mark.parametrize("what", ["nbd:x", "tar:x"])
@pytest.mark.parametrize("options", [[], ["--verify"], ["--format", "raw"]])
def test_a_file_that_is_called_like_a_base_has_a_way_to_be_named(
    tmp_path, monkeypatch, what, options
):
    monkeypatch.chdir(tmp_path)
    advice = f"For the file of this name, write ./{what}."
    assert advice not in run("inspect", what, *options).stderr
    (tmp_path / what).write_text("no image")
    assert advice in run("inspect", what, *options).stderr
    assert (
        "is not an image of the format qcow2"
        in run("inspect", f"./{what}", "--format", "qcow2").stderr
    )


@pytest.mark.usefixtures("nothing_starts")
def test_the_name_of_a_shipped_recipe_is_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "hostname" in run("inspect", "server").stdout
    assert run("inspect", "server").stdout == run("build", "server", "--dry-run").stdout
    assert run("inspect", "server", "--resolved").stdout.startswith("name: server\n")
    (tmp_path / "server").touch()
    assert "hostname" not in run("inspect", "server", "--format", "qcow2").stdout


def test_a_base_that_is_not_made_yet_is_no_base_to_inspect():
    result = run("inspect", "mmdebstrap:trixie")
    assert result.exit_code == 2
    assert "has not been made yet" in result.stderr
