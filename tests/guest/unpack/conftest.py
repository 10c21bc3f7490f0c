import os

import pytest
from particle_agent.unpack import layers, lowest

from . import archives


@pytest.fixture(scope="module", params=["all by ourselves", "the lowest by tar"])
def both_ways(request):
    """Runs each test twice: the lowest layer is applied by our own code, and by tar(1)."""
    ways = {"all by ourselves": layers.apply, "the lowest by tar": lowest.apply}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "lowest_layer", ways[request.param])
        yield


@pytest.fixture
def place(tmp_path):
    """An empty root, with a neighbour that must not change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("untouched")
    os.utime(tmp_path / "outside/file", (1, 1))
    (tmp_path / "root").mkdir()
    return tmp_path
