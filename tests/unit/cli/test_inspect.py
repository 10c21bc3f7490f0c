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


@pytest.mark.parametrize("what", ["tar:base.tar", "docker://debian", "recipe.yml"])
def test_only_disk_images_are_verified(what):
    result = run("inspect", "--verify", what)
    assert result.exit_code == 2
    assert "disk images" in result.stderr


def test_a_base_that_is_not_made_yet_is_no_base_to_inspect():
    result = run("inspect", "mmdebstrap:trixie")
    assert result.exit_code == 2
    assert "has not been made yet" in result.stderr
