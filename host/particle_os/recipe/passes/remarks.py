"""Notes about what is valid, but hardly meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from particle_agent.contract import commands, debian_components
from particle_agent.stages import RecipeStage
from particle_agent.stages.accounts.users import Users
from particle_agent.stages.contents.files import Files
from particle_agent.stages.contents.run import Run
from particle_agent.stages.settings.services import Services
from particle_agent.stages.software.apt import Apt
from particle_agent.stages.software.sources import Sources

from particle_os.documents.document import Key
from particle_os.recipe import dependencies
from particle_os.recipe.checks.contents import CommandCheck
from particle_os.recipe.passes.reading import Reading

# Stands for all components.
ANY = ("any",)
# A part of the keys in our recipes and templates. No key of a person contains these words.
PLACEHOLDER = "YourOwnPublicKey"


def check_keys(reading: Reading) -> None:
    """Notes SSH keys that are placeholders of a template, which open no login."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    for number, stage in enumerate(recipe.stages):
        for index, user in enumerate(stage.users if isinstance(stage, Users) else ()):
            for place, key in enumerate(user.ssh_authorized_keys):
                if PLACEHOLDER in key:
                    where = ("stages", number, "users", index, "ssh-authorized-keys", place)
                    why = f"user {user.name}: the key is a placeholder, which opens no login"
                    source.note(source.mark(where), "placeholder", why)


def check_components(reading: Reading) -> None:
    """Notes packages of components that no stage before adds to the sources of a Debian base."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    base = recipe.base_image if reading.base is None else reading.base
    added = set[str]()
    for number, stage in enumerate(recipe.stages if dependencies.is_released(base) else ()):
        if isinstance(stage, Sources):
            added.update(stage.components, *(each.components for each in stage.repositories))
        elif not isinstance(stage, Apt) and not stage.only_configures:
            # Scripts and files may bring sources.
            added.update(ANY if _may_bring_sources(stage) else ())
        for index, name in enumerate(stage.packages if isinstance(stage, Apt) else ()):
            wanted = debian_components.of(re.split("[:=/]", name)[0])
            if wanted and not added & {*wanted, *ANY}:
                missing = ", ".join(wanted)
                message = (
                    f"'{name}' seems to be in {' or '.join(wanted)}, which the base does not have: "
                    f"put '- {{type: sources, components: [{missing}]}}' before this stage"
                )
                mark = source.mark(("stages", number, "packages", index))
                source.note(mark, "missing-component", message)


def _may_bring_sources(stage: RecipeStage) -> bool:
    return not isinstance(stage, Files) or stage.may_write_below("/etc/apt")


def check_commands(reading: Reading) -> None:
    """Notes arguments of commands that look like operators of a shell, which reads none of them."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    given: list[tuple[Key, Sequence[str]]] = [
        (("stages", index), stage.command)
        for index, stage in enumerate(recipe.stages)
        if isinstance(stage, Run) and stage.command is not None
    ]
    given += [
        (("stages", index, "timers", number), timer.command)
        for index, stage in enumerate(recipe.stages)
        if isinstance(stage, Services)
        for number, timer in enumerate(stage.timers)
    ]
    given += [
        (("boot-test", "checks", index), check.command)
        for index, check in enumerate(recipe.boot_test.checks)
        if isinstance(check, CommandCheck)
    ]
    for key, command in given:
        for index, word in commands.shell_words(command):
            message = f"'{word}' is an argument of the program, because no shell reads the command"
            source.note(source.mark((*key, "command", index)), "no-shell", message)
