"""Reads the systems of a file system: one at its root, or OSTree's deployments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from particle_agent.disk.reading import Tree, system_in
from particle_agent.ostree.image.layout import DATABASE, ETC, OLD_DATABASE

DEPLOYMENTS_LIMIT = 20
STATEROOTS = "/ostree/deploy"


class DeployedTree(Tree):
    """A deployment, as the system that runs it sees its files, or the tree of a commit.

    The physical root brings /boot, and the stateroot /var.
    """

    def __init__(self, root: Path, physical: Tree | None = None) -> None:
        super().__init__(root)
        self._physical = physical

    def place(self, path: str, *, follow: bool = True) -> Path | None:
        if _is_below(path, OLD_DATABASE):
            path = DATABASE + path.removeprefix(OLD_DATABASE)
        elif self._physical is None and _is_below(path, "/etc"):
            path = ETC + path.removeprefix("/etc")
        elif self._physical is not None and _is_below(path, "/boot"):
            return self._physical.place(path, follow=follow)
        elif self._physical is not None and _is_below(path, "/var"):
            # The directory of the stateroot is two levels above that of the deployment.
            return Tree(self.root.parent.parent).place(path, follow=follow)
        return super().place(path, follow=follow)


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def systems(tree: Tree, kind: str) -> Iterator[Tree]:
    """The systems of a file system of this kind: one, or its deployments by name."""
    if found := system_in(tree, kind):
        yield found
        return
    if tree.names("/usr") and tree.names(ETC):
        yield DeployedTree(tree.root)
        return
    for place in islice(_deployments(tree), DEPLOYMENTS_LIMIT):
        yield DeployedTree(place, tree)


def _deployments(tree: Tree) -> Iterator[Path]:
    for stateroot in tree.names(STATEROOTS):
        directory = f"{STATEROOTS}/{stateroot}/deploy"
        for name in tree.names(directory):
            place = tree.place(f"{directory}/{name}", follow=False)
            # A damaged file system has directories that cannot be asked.
            if place is not None and os.path.isdir(place) and not os.path.islink(place):  # noqa: PTH112, PTH114
                yield place
