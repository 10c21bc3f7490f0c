"""Users and groups of the target."""

from __future__ import annotations

from particle_agent.target.target import Target


def entries(target: Target, database: str) -> dict[str, list[str]]:
    """The entries of passwd(5) or group(5): name to fields. Empty when the file is missing."""
    path = f"/etc/{database}"
    lines = target.read(path).splitlines() if target.exists(path) else []
    return {line.split(":")[0]: line.split(":") for line in lines if line.count(":") >= 3}
