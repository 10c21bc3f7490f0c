from pathlib import Path

import pytest
from particle_os.base import container
from particle_os.system.workspace import cache_directory, workspace

from ...image_layout import Layout
from .containers import describe


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


@pytest.fixture
def fetch(soon):
    def fetch(reference):
        image = describe(reference)
        with workspace() as work:
            container.fetch(
                image, container.parse(reference, Path()), cache=cache_directory(), work=work,
                deadline=soon, log=print,
            )  # fmt: skip
        return image

    return fetch
