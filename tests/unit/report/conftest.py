import pytest
from particle_os.boot import files
from particle_os.boot.evidence import SCREEN

from .pages import PICTURE


@pytest.fixture
def evidence(tmp_path):
    """As a guest may have filled it; the console and the picture are what they are."""
    for firmware in ("bios", "uefi"):
        place = tmp_path / firmware
        place.mkdir()
        (place / SCREEN).write_bytes(PICTURE)
        (place / files.BLAME).write_text("    62.500s slow.service\n     0.678s quick.service\n")
        (place / files.PLOT).write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return tmp_path
