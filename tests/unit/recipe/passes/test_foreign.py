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


@pytest.mark.parametrize(
    "stage",
    [
        "{type: run, command: [dpkg, --add-architecture, i386]}",
        "{type: files, files: [{path: /var/lib/dpkg/arch, content: i386}]}",
    ],
)
def test_an_architecture_that_another_stage_may_declare_is_only_a_question(tmp_path, stage):
    package = "{type: apt, packages: ['libc6:i386']}"
    assert problems(tmp_path, stage, package) == []
    message = "'libc6:i386': the image knows no packages of 'i386', it seems"
    assert message in notes(tmp_path, stage, package)
    assert len(problems(tmp_path, package, stage)) == 1


def test_a_wrong_stage_may_declare_an_architecture(tmp_path):
    wrong = "{type: apt, architectures: [i386], pakages: []}"
    found = problems(tmp_path, wrong, "{type: apt, packages: ['libc6:i386']}")
    assert [code for _, code, _ in found] == ["unknown-key"]
    other = "{type: files, files: [{path: /etc/motd, content: x}]}"
    assert len(problems(tmp_path, other, "{type: apt, packages: ['libc6:i386']}")) == 1


def notes(tmp_path, *stages):
    text = RECIPE.format(base="mmdebstrap:trixie", stages="\n".join(f"  - {s}" for s in stages))
    (tmp_path / "r.yml").write_text(text)
    return " ".join(note.message for note in loading.load(tmp_path / "r.yml").notes)
