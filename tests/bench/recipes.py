"""The recipes that the benchmark makes of shipped ones."""

from __future__ import annotations

from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"
COMMIT = '  - type: ostree\n    ref: debian/13/amd64/edge\n    version: "1"\n'
SERVER = '    remote: {url: "https://updates.example.org/edge", verify: false}\n'
PARENT = "    parent: edge/edge.ostree.tar\n"
UPGRADE = "boot-test:\n  firmware: [bios]\n  upgrade: {from: parent}\n"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def edge(content: str, *, commit: bool = True) -> str:
    """recipes/edge.yml with a file of this content, without its boot test."""
    stages = _part(_text("edge"), "boot-test:\n")[0]
    before, after = _part(stages, COMMIT)
    file = f"  - type: files\n    files: [{{path: /usr/share/edge, content: '{content}'}}]\n"
    return before + file + (COMMIT + SERVER if commit else "") + after


def next_edge(content: str) -> str:
    """The version after `edge`, which a machine with that one updates to and returns from."""
    before, after = _part(edge(content), COMMIT)
    return before + COMMIT.replace('"1"', '"2"') + PARENT + after + UPGRADE


def for_architecture(name: str) -> str:
    """recipes/arm64.yml for `amd64` or `arm64`."""
    text = _text("arm64").replace("architecture: arm64", f"architecture: {name}")
    text = text.replace("linux-image-cloud-arm64", f"linux-image-cloud-{name}")
    return text.replace(MACHINES["arm64"], MACHINES[name])


def _text(name: str) -> str:
    return (RECIPES / f"{name}.yml").read_text()


def _part(text: str, middle: str) -> tuple[str, str]:
    """The text before and after a part that is there once."""
    before, after = text.split(middle)
    return before, after
