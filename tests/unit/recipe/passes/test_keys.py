import pytest
from particle_os.recipe import loading

from ....fuzz.seeds import TOP

RECIPE = """\
name: test
base-image: tar:base.tar
stages:
  - {{type: users, users: [{{name: ann, ssh-authorized-keys: ["{key}"]}}]}}
  - {{type: qemu}}
"""
OURS = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPutTheContentsOfYourOwnPublicKeyInThisPlace admin"
ANOTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ann"


@pytest.mark.parametrize(("key", "expected"), [(OURS, ["placeholder"]), (ANOTHER, [])])
def test_a_placeholder_among_the_keys_is_noted(tmp_path, key, expected):
    (tmp_path / "r.yml").write_text(RECIPE.format(key=key))
    notes = loading.load(tmp_path / "r.yml").notes
    assert [note.code for note in notes] == expected
    assert all(note.line == 4 and "ann" in note.message for note in notes)


def test_the_keys_of_our_recipes_are_placeholders():
    written = [p for p in TOP.glob("recipes/**/*.yml") if "ssh-ed25519 AAAAC" in p.read_text()]
    assert written
    assert all(OURS.partition(" admin")[0] in path.read_text() for path in written)
