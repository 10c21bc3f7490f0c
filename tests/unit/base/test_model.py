from particle_os.base.container import ImageReference
from particle_os.base.model import ImageBase, TarBase
from particle_os.base.oci import ContainerImage, Layer


def test_a_container_image_describes_itself(tmp_path):
    layer = Layer("sha256:1", 10, "sha256:2")
    image = ContainerImage("docker://x", "sha256:3", "amd64", (layer,), {"Env": ["A=b"]})
    assert ImageBase(image, ImageReference("docker", "//x"), tmp_path).description() == {
        "digest": "sha256:3",
        "architecture": "amd64",
        "layers": [{"digest": "sha256:1", "size": 10}],
        "config": {"Env": ["A=b"]},
    }
    assert TarBase("tar:x", tmp_path, "sha256:4").description() == {}
