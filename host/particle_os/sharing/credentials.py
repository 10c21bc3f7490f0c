"""The credentials for registries that `skopeo login` has stored (containers-auth.json(5))."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from particle_os.system.regular_file import read_regular

LIMIT = 1 << 20


def basic(host: str) -> str | None:
    """The header of HTTP's basic authentication for a registry; None without credentials."""
    for path in _files():
        try:
            known = json.loads(read_regular(path, LIMIT))["auths"]
            if found := known.get(host, {}).get("auth"):
                return f"Basic {found}"
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            continue
    return None


def _files() -> Iterator[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    yield Path(runtime) / "containers/auth.json"
    yield Path(runtime) / "auth.json"
    home = Path(os.environ.get("HOME") or "/nonexistent")
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    yield Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
