import pytest
import tenacity
from particle_os.registry import connection


@pytest.fixture(autouse=True)
def quickly(monkeypatch, tmp_path):
    """Tries again at once, and finds no credentials of the user."""
    monkeypatch.setattr(connection, "WAIT", tenacity.wait_none())
    monkeypatch.setattr(connection, "STEP", 1 << 10)
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_RUNTIME_DIR", "HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
