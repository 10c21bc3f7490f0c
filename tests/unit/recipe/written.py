"""Recipes that tests write and load."""

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

MINIMAL = "name: test\nstages:\n  - type: qemu\n"


def load(tmp_path, text):
    path = tmp_path / "recipe.yml"
    path.write_text(text, encoding="utf-8")
    # A recipe without a kernel is valid only on a base whose content is unknown.
    return loading.load(path, base="tar:base.tar")


def problems(tmp_path, text):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, text)
    assert raised.value.exit_code == 2
    return list(raised.value.problems)


def with_stages(text):
    return f"name: test\nstages:\n{text}  - type: qemu\n"
