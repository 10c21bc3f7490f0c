"""The faults of an image that keep it from becoming a commit."""

from __future__ import annotations

from particle_agent.ostree import account_rules, machine_files
from particle_agent.ostree.image import features, lints
from particle_agent.ostree.image.choices import Choices
from particle_agent.target.target import Target


def check(target: Target, choices: Choices, kernel: str) -> None:
    """Reports the faults of the image, whose commit boots the `kernel` of this version.

    Raises StageError.
    """
    features.check(target, choices.root)
    with target.mounted(target.root, "--bind") as place:
        found = [*lints.files(target, place, kernel), *account_rules.flaws(target, choices.users)]
        if choices.var == "refuse":
            found += lints.of_machine(place, machine_files.paths_with_rules(target))
    lints.report(target, found)
