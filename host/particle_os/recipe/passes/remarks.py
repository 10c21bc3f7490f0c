"""Notes about what is valid, but hardly meant."""

from __future__ import annotations

from collections.abc import Sequence

from particle_agent.contract import commands
from particle_agent.stages.accounts.users import Users
from particle_agent.stages.contents.run import Run
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.services import Services

from particle_os.documents.document import Key
from particle_os.recipe import components, dependencies
from particle_os.recipe.checks.contents import CommandCheck
from particle_os.recipe.checks.needs import of_boot_test
from particle_os.recipe.passes.reading import Reading

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
    """Notes packages of components of Debian that the sources of the image do not have."""
    assert reading.recipe is not None
    base = reading.recipe.base_image if reading.base is None else reading.base
    components.check(reading.source, reading.recipe, base)


def check_later_needs(reading: Reading) -> None:
    """Notes what neither the base nor any stage brings for later, as for the boot test."""
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    test = recipe.boot_test
    boots = bool(recipe.stages) and isinstance(recipe.stages[-1], Qemu)
    needed = of_boot_test(test.checks, goss=test.goss is not None, user_data=bool(test.user_data))
    dependencies.check_later(
        source,
        recipe.stages,
        needed if boots else (),
        architecture=recipe.architecture,
        base=recipe.base_image if reading.base is None else reading.base,
    )


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
