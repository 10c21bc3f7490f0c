import pytest
from particle_os.base.container import ImageReference
from particle_os.base.model import ImageBase, TarBase
from particle_os.base.oci import ContainerImage, Layer
from particle_os.cli.inspect import _container

from .command_line import run


def test_what_a_container_image_says_of_itself_is_told(tmp_path):
    layer = Layer("sha256:1", 10, "sha256:2")
    image = ContainerImage("docker://x", "sha256:3", "amd64", (layer,), {"Env": ["A=b"]})
    found = _container(ImageBase(image, ImageReference("docker", "//x"), tmp_path))
    assert found == {
        "digest": "sha256:3",
        "architecture": "amd64",
        "layers": [{"digest": "sha256:1", "size": 10}],
        "config": {"Env": ["A=b"]},
    }
    assert _container(TarBase("tar:x", tmp_path, "sha256:4")) == {}


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
