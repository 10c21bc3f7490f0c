"""Finds packages of architectures that no stage has declared."""

from __future__ import annotations

from particle_agent.stages.software.apt import Apt

from particle_os.recipe.dependencies import PREFIX
from particle_os.recipe.passes.reading import Reading

# apt-get(8): these need no declaration.
NATIVE = ("", "all", "any", "native")


def check(reading: Reading) -> None:
    """Notes each package NAME:ARCH whose architecture is neither the image's nor declared.

    Other bases than those that particle-os makes may know more architectures.
    """
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    base = recipe.base_image if reading.base is None else reading.base
    if not base.startswith(PREFIX):
        return
    known = {*NATIVE, recipe.architecture}
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, Apt) or not stage.applies(recipe.architecture):
            continue
        known.update(stage.architectures)
        for number, name in enumerate(stage.packages):
            architecture = name.partition("=")[0].partition("/")[0].partition(":")[2]
            if architecture not in known:
                mark = source.mark(("stages", index, "packages", number))
                message = f"'{name}': the image knows no packages of '{architecture}'"
                hint = f"add 'architectures: [{architecture}]' to the stage"
                source.problem(mark, "missing-need", message, hint)
