"""Recipes of the predecessor of particle-os."""

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

OLD = """\
name: old
stages:
  - type: org.osbuild.debian.apt
    options:
      packages: [curl]
  - name: org.osbuild.debian.users
    options:
      users:
        - name: a
          shell: /bin/sh
  - type: org.osbuild.debian.qemu
    options: {size: 4G}
"""


def load(tmp_path, text):
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    return loading.load(path, base="tar:base.tar")


def problems(tmp_path, text):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, text)
    return [(p.line, p.column, p.code, p.hint) for p in raised.value.problems]


def test_long_names_and_options_are_understood_and_noted(tmp_path):
    loaded = load(tmp_path, OLD)
    assert [s.type for s in loaded.recipe.stages] == ["apt", "users", "qemu"]
    assert loaded.recipe.stages[0].packages == ("curl",)
    assert loaded.recipe.stages[1].name is None
    assert loaded.disk.size == "4G"
    found = [(n.line, n.column, n.code) for n in loaded.notes]
    assert found == [
        (3, 5, "older-form"),
        (4, 5, "older-form"),
        (6, 5, "older-form"),
        (7, 5, "older-form"),
        (11, 5, "older-form"),
        (12, 5, "older-form"),
    ]
    assert "write 'type: apt'" in loaded.notes[0].message


def test_todays_form_has_no_notes(tmp_path):
    text = "name: x\nstages:\n  - {type: hostname, name: Name it, hostname: web1}\n  - type: qemu\n"
    loaded = load(tmp_path, text)
    assert loaded.notes == ()
    assert (loaded.recipe.stages[0].name, loaded.recipe.stages[0].hostname) == ("Name it", "web1")


def test_errors_keep_their_places(tmp_path):
    text = OLD.replace("[curl]", "[Curl!]").replace("4G", "4X").replace("shell", "shel")
    assert [p[:3] for p in problems(tmp_path, text)] == [
        (5, 18, "bad-value"),
        (10, 11, "unknown-key"),
        (12, 21, "bad-value"),
    ]


def test_an_unknown_stage_is_reported(tmp_path):
    text = OLD.replace("debian.apt", "debian.locales")
    assert problems(tmp_path, text) == [(3, 11, "unknown-stage", "did you mean 'locale'?")]


def test_names_with_underscores_are_todays_in_older_options_only(tmp_path):
    old = (
        "name: x\nstages:\n  - type: run\n    options: {command: ['true'], working_directory: /}\n"
    )
    loaded = load(tmp_path, old + "  - type: qemu\n")
    assert "'working_directory' is called 'working-directory' now" in loaded.notes[1].message
    new = "name: x\nstages:\n  - {type: run, command: ['true'], working_directory: /}\n"
    (found,) = problems(tmp_path, new + "  - type: qemu\n")
    assert found[2] == "unknown-key"


def test_names_within_older_options_are_todays_too(tmp_path):
    old = (
        "name: x\nstages:\n  - type: org.osbuild.debian.users\n    options:\n      users:\n"
        "        - {name: a, password_hash: '*', ssh_authorized_keys: []}\n"
        "  - type: run\n    options: {script: 'true', environment: {A_B: c_d}}\n  - type: qemu\n"
    )
    loaded = load(tmp_path, old)
    assert loaded.recipe.stages[0].users[0].password_hash == "*"
    assert loaded.recipe.stages[1].environment == {"A_B": "c_d"}
    assert "'password_hash' is called 'password-hash' now" in [n.message for n in loaded.notes]
    assert problems(tmp_path, old.replace("password_hash", "passwd_hash")) == [
        (6, 21, "unknown-key", "did you mean 'password-hash'?")
    ]


def test_keys_of_the_recipe_with_underscores_are_todays(tmp_path):
    text = "name: x\nbase_image: tar:b.tar\nstages:\n  - type: qemu\n"
    loaded = load(tmp_path, text)
    assert loaded.recipe.base_image == "tar:b.tar"
    (note,) = loaded.notes
    assert (note.line, note.column) == (2, 1)
    assert "'base_image' is called 'base-image' now" in note.message
    twice = f"base-image: tar:c.tar\n{text}"
    assert problems(tmp_path, twice) == [
        (3, 1, "repeated-key", "remove one; the first is at line 1")
    ]
    assert [p[2] for p in problems(tmp_path, f"base_images: x\n{text}")] == ["unknown-key"]


def test_an_option_that_stands_twice_is_an_error(tmp_path):
    text = "name: x\nstages:\n  - {type: qemu, size: 4G, options: {size: 5G}}\n"
    assert problems(tmp_path, text) == [
        (3, 38, "repeated-key", "remove one; the first is at line 3")
    ]


def test_options_that_are_no_mapping_stay_wrong(tmp_path):
    text = "name: x\nstages:\n  - {type: qemu, options: [size]}\n"
    assert [p[2] for p in problems(tmp_path, text)] == ["unknown-key"]


def test_the_name_of_a_host_was_called_name(tmp_path):
    loaded = load(tmp_path, "name: x\nstages:\n  - {type: hostname, name: web1}\n  - type: qemu\n")
    assert loaded.recipe.stages[0].hostname == "web1"
    assert loaded.recipe.stages[0].name is None
    assert len(loaded.notes) == 1


@pytest.mark.parametrize(
    "stage",
    [
        "    packages: [vim]\n    options:\n      packages: [curl]\n",
        "    options:\n      packages: [curl]\n    packages: [vim]\n",
    ],
)
def test_the_second_of_two_equal_keys_is_reported(tmp_path, stage):
    text = f"name: x\nstages:\n  - type: apt\n{stage}  - type: qemu\n"
    first, second = (n for n, line in enumerate(text.splitlines(), 1) if "packages" in line)
    ((line, _, code, hint),) = problems(tmp_path, text)
    assert (line, code, hint) == (
        second,
        "repeated-key",
        f"remove one; the first is at line {first}",
    )
