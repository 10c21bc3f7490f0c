"""An order: one image of one recipe, with the command that builds it.

A build is a process of its own. It can run twice without harm, and a build waits for a stage that
another one makes at the same time (`jobs/execution/claims.py`). So any engine can run orders, on
this machine or on another one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from particle_os.architecture import BuildArchitecture
from particle_os.fleet.build_process import PROGRAM
from particle_os.jobs.plan import BuildOptions
from particle_os.recipe.loading import CONFIDENTIAL
from particle_os.recipe.parameters.variables import ADD, FROM_INPUT

# The options of the command that take the value of a field of BuildOptions as it is.
_PLAIN = {
    "base": "--base", "accel": "--accel", "cpus": "--cpus", "template": "--template",
    "architecture": "--architecture",
    "mirror": "--mirror", "apt_proxy": "--apt-proxy", "refresh": "--refresh",
    "source_date": "--source-date", "network": "--network", "cache_to": "--cache-to",
}  # fmt: skip
# Sizes in bytes, which the command takes in MiB.
_SIZES = {"memory": "--memory", "scratch": "--scratch-size"}
# The options without a value, and the value of the field that asks for each.
_FLAGS = {
    "allow_outside": ("--allow-outside", True), "cache": ("--no-cache", False),
    "boot_test": ("--no-boot-test", False), "keep_on_failure": ("--keep-on-failure", True),
    "plain": ("--plain", True), "save_memory": ("--no-save-memory", False),
}  # fmt: skip


@dataclass(frozen=True)
class Order:
    """One image to build: `name`, of the recipe in the file `recipe`.

    `options.variables` has the values that choose it from the matrix of the recipe. `stem` is equal
    for images that begin with the same stage. `seconds` is the time that its last build took, if
    its result is still there. `architecture` is that of the image. `hidden` names the variables
    with parts of confidential values.
    """

    name: str
    recipe: Path
    options: BuildOptions
    stem: str = ""
    seconds: float | None = None
    architecture: BuildArchitecture = "amd64"
    hidden: frozenset[str] = frozenset()

    @property
    def shown_variables(self) -> dict[str, str]:
        """The variables without confidential values."""
        given = self.options.variables.items()
        return {name: CONFIDENTIAL if self._is_hidden(name) else text for name, text in given}

    def _is_hidden(self, name: str) -> bool:
        return name.removesuffix(ADD) in self.hidden

    def command(self, *more: str) -> list[str]:
        """The command that builds the image with this installation of particle-os.

        The variables are its standard input.
        """
        recipe = str(self.recipe.absolute())
        return [*PROGRAM, "build", recipe, *arguments(self.options), *more]


def arguments(options: BuildOptions, without: Collection[str] = ()) -> list[str]:
    """The arguments of `build` that stand for these options, except for some fields.

    Other users can see arguments, so the variables are not among them: `build` reads those from its
    standard input, where `BuildProcess` writes them.
    """
    names = [field.name for field in fields(options) if field.name not in without]
    return [word for name in names for word in _words(options, name)]


def _words(options: BuildOptions, name: str) -> Iterator[str]:
    value = getattr(options, name)
    if value is None:
        return
    if name in _PLAIN:
        yield from (_PLAIN[name], str(value))
    elif name in _SIZES:
        yield from (_SIZES[name], f"{value >> 20}M")
    elif name in _FLAGS:
        flag, wanted = _FLAGS[name]
        if value == wanted:
            yield flag
    elif name == "output_directory":
        yield from ("--output", str(value.absolute()))
    elif name == "max_age":
        yield from ("--max-age", str(int(value // 3600)))
    elif name in ("allow_env", "cache_from"):
        yield from (f"--{name.replace('_', '-')}={each}" for each in value)
    elif name == "cache_keys":
        yield from (f"--cache-keys={each.absolute()}" for each in value)
    elif name == "cache_sign":
        yield f"--cache-sign={value.absolute()}"
    elif name == "variables":
        if value:
            yield f"--set={FROM_INPUT}"
    else:
        raise AssertionError(f"no argument stands for {name}")
