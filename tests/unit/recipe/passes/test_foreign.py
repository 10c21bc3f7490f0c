import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

RECIPE = """\
name: test
base-image: {base}
stages:
{stages}
  - {{type: apt, packages: [linux-image-cloud-amd64, systemd-sysv]}}
  - {{type: qemu}}
"""


def problems(tmp_path, *stages, base="mmdebstrap:trixie"):
    text = RECIPE.format(base=base, stages="\n".join(f"  - {stage}" for stage in stages))
    (tmp_path / "r.yml").write_text(text)
    try:
        loading.load(tmp_path / "r.yml")
    except InvalidDocument as invalid:
        return [(p.line, p.code, p.hint) for p in invalid.problems]
    return []


def test_a_package_of_another_architecture_needs_its_declaration(tmp_path):
    stage = "{type: apt, packages: ['libc6:i386=2.41-1']}"
    found = problems(tmp_path, stage)
    assert found == [(4, "missing-need", "add 'architectures: [i386]' to the stage")]
    assert problems(tmp_path, stage, base="tar:base.tar") == []


@pytest.mark.parametrize(
    "stages",
    [
        ("{type: apt, packages: ['libc6:i386'], architectures: [i386]}",),
        ("{type: apt, architectures: [i386]}", "{type: apt, packages: ['libc6:i386']}"),
        ("{type: apt, packages: ['libc6:amd64', 'bash:any', 'vim:all', 'less:native']}",),
    ],
)
def test_declared_and_native_architectures_are_fine(tmp_path, stages):
    assert problems(tmp_path, *stages) == []
