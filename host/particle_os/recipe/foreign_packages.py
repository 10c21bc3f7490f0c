"""Finds packages of architectures that no stage has declared."""

from __future__ import annotations

from particle_agent.stages import RECIPE_STAGES, RecipeStage
from particle_agent.stages.base import StageOptions
from particle_agent.stages.contents.files import Files
from particle_agent.stages.contents.run import Run
from particle_agent.stages.software.apt import Apt

from particle_os.recipe.dependencies import PREFIX
from particle_os.recipe.passes.reading import Reading

# apt-get(8): these need no declaration.
NATIVE = ("", "all", "any", "native")
# dpkg(1) keeps the architectures here.
DPKG = "/var/lib/dpkg"


def check(reading: Reading) -> None:
    """Notes each package NAME:ARCH whose architecture is neither the image's nor declared.

    It is an error unless an earlier stage may declare architectures in another way. Other bases
    than those that particle-os makes may know more architectures.
    """
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    base = recipe.base_image if reading.base is None else reading.base
    if not base.startswith(PREFIX):
        return
    known = {*NATIVE, recipe.architecture}
    certain = True
    for index, stage in enumerate(recipe.stages):
        if not stage.applies(recipe.architecture):
            continue
        if not isinstance(stage, Apt):
            certain = certain and not _may_declare(stage)
            continue
        known.update(stage.architectures)
        for number, name in enumerate(stage.packages):
            architecture = name.partition("=")[0].partition("/")[0].partition(":")[2]
            if architecture not in known:
                mark = source.mark(("stages", index, "packages", number))
                message = f"'{name}': the image knows no packages of '{architecture}'"
                hint = f"add 'architectures: [{architecture}]' to the stage"
                if certain:
                    source.problem(mark, "missing-need", message, hint)
                else:
                    source.note(mark, "missing-need", f"{message}, it seems: {hint}")


def _may_declare(stage: RecipeStage | StageOptions) -> bool:
    """Whether a stage may run `dpkg --add-architecture`, or write what that writes."""
    if isinstance(stage, Files):
        return stage.may_write_below(DPKG)
    # A wrong stage stands for any.
    return isinstance(stage, Run) or not isinstance(stage, RECIPE_STAGES)
