"""Fixtures for tests of recipes of several files."""

import pytest
from particle_os.recipe import loading

from .composed import DISK


@pytest.fixture
def load(tmp_path):
    """Loads a recipe with these stages; the other arguments are files beside it."""

    def loaded(stages, given=None, variables="outer: yes", **files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_", "-")
            path = path.with_suffix(".yml") if not path.suffix else path
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        top = f"variables: {{{variables}}}\nname: test\nbase-image: tar:base.tar\nstages:\n"
        (tmp_path / "r.yml").write_text(top + stages + DISK)
        return loading.load(tmp_path / "r.yml", given)

    return loaded
