"""A parent that is none is found before anything is built."""

import io
import tarfile

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

from .sample import archive

RECIPE = """\
name: edge
base-image: tar:base.tar
stages:
  - type: ostree
    ref: {ref}
    stateroot: {stateroot}
    parent: parent
"""


@pytest.fixture
def load(tmp_path):
    """A function that loads a recipe with this parent."""

    def loaded(data, *, ref="debian/edge", stateroot="debian"):
        (tmp_path / "parent").write_bytes(data)
        (tmp_path / "edge.yml").write_text(RECIPE.format(ref=ref, stateroot=stateroot))
        return loading.load(tmp_path / "edge.yml")

    return loaded


def with_config(text):
    """The sample with another configuration, or without one."""
    made = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive())) as old,
        tarfile.open(fileobj=made, mode="w") as new,
    ):
        for member in old:
            data = old.extractfile(member).read() if member.isfile() else b""
            if member.name == "./config":
                if text is None:
                    continue
                data = text
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return made.getvalue()


def test_a_good_parent_is_read_from_a_disk(load):
    loaded = load(archive())
    (stage,) = loaded.recipe.stages
    assert stage.input_disk == loaded.attachments[0][0].reference
    assert loaded.attached_bytes == 0, "it takes no memory of the VM"


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (archive(), {"ref": "debian/other"}, "has no ref 'debian/other', but debian/edge"),
        (
            archive(),
            {"stateroot": "fedora"},
            "for the stateroot 'debian', and this commit for 'fed",
        ),
        (b"no archive" * 100, {}, "cannot be read as a tar archive"),
        (with_config(None), {}, "it has no file 'config'"),
        (with_config(b"[core]\nmode=bare\n"), {}, "no repository of the mode 'archive'"),
        (archive().replace(b"stateroot", b"stateroof"), {}, "is damaged"),
    ],
)
def test_another_file_is_refused_with_its_place(load, data, changes, message):
    with pytest.raises(InvalidDocument) as raised:
        load(data, **changes)
    (problem,) = raised.value.problems
    assert (problem.code, problem.line) == ("bad-file", 7)
    assert message in problem.message
