"""The credentials for registries that `skopeo login` has stored (containers-auth.json(5))."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from particle_os.system.regular_file import read_regular

LIMIT = 1 << 20
DOCKER_HUB = "docker.io"
# The name under which `docker login` stores the credentials for Docker Hub.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"


def basic(host: str, repository: str) -> str | None:
    """The header of HTTP's basic authentication for a repository; None without credentials.

    Those for a part of a registry, such as HOST/TEAM, come before those for all of it.
    """
    for path in _files():
        try:
            known = json.loads(read_regular(path, LIMIT))["auths"]
            for name in _names(host, repository):
                if found := known.get(name, {}).get("auth"):
                    return f"Basic {found}"
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            continue
    return None


def _names(host: str, repository: str) -> Iterator[str]:
    """The names of the credentials for a repository, the closest one first."""
    parts = repository.split("/")
    for count in range(len(parts), -1, -1):
        yield "/".join([host, *parts[:count]])
    if host == DOCKER_HUB:
        yield DOCKER_HUB_KEY


def _files() -> Iterator[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    yield Path(runtime) / "containers/auth.json"
    yield Path(runtime) / "auth.json"
    home = Path(os.environ.get("HOME") or "/nonexistent")
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    yield Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
