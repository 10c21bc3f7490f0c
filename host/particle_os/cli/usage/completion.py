"""The words that a shell completes: recipes, stages and their options, templates, commands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete
from particle_agent.stages import RECIPE_STAGES

from particle_os.errors import ParticleError
from particle_os.recipe import loading
from particle_os.recipe.description import reference
from particle_os.recipe.description.entries import ReferenceEntry
from particle_os.recipe.model import stage_name
from particle_os.recipe.passes import include
from particle_os.recipe.shipped import USUAL, found_recipe, shipped
from particle_os.sandbox.template import templates

PROGRAM = "particle-os"
SHELLS = ("bash", "zsh", "fish")
# `explain` takes these words, too.
ROOTS = ("recipe", "include", "check")


class _Bash(BashComplete):
    """The script of click inserts words as they are, so that a file's name can be a command."""

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' response line type value
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
        %(complete_var)s=bash_complete "$1")
    while read -r line; do
        type=${line%%%%,*} value=${line#*,}
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            # 'compopt -o filenames' does not quote '$' in the names of missing files.
            plain) COMPREPLY+=("$(printf %%q "$value")") ;;
        esac
    done <<< "$response"
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Fish(FishComplete):
    """The script of click cuts words at a comma. fish itself quotes the words."""

    source_template = """\
function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \\
        COMP_CWORD=(commandline -t) %(prog_name)s)
    for line in $response
        set -l item (string split -m 1 "," -- $line)
        switch $item[1]
            case dir
                __fish_complete_directories $item[2]
            case file
                __fish_complete_path $item[2]
            case plain
                printf '%%s\\n' $item[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Zsh(ZshComplete):
    """The script of click differs from one version to the next, and this one is a shipped file."""

    source_template = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a response words_found
    local type value description
    (( $+commands[%(prog_name)s] )) || return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete %(prog_name)s)}")
    for type value description in ${response}; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain) words_found+=("$value") ;;
        esac
    done
    (( $#words_found )) && compadd -U -V unsorted -a words_found
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    # zsh calls the function when it reads the file from a directory of its path.
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""


_KINDS = MappingProxyType({"bash": _Bash, "zsh": _Zsh, "fish": _Fish})


def recipes(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The recipes of the current directory and the shipped ones; else any file."""
    here = [path.name for suffix in ("*.yml", "*.yaml") for path in sorted(Path().glob(suffix))]
    found = _beginning([*here, *shipped()], incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def shipped_recipes(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of the shipped recipes."""
    return _beginning(shipped(), incomplete)


def stages(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of all stages, with those of the directory's own types."""
    own = include.own_stages(Path(), Path())
    return _beginning([*map(stage_name, RECIPE_STAGES), *own], incomplete)


def explained(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names that `explain` takes; after a '.', the options of what stands before it."""
    above, dot, _ = incomplete.rpartition(".")
    if not dot:
        roots = _beginning(ROOTS, incomplete)
        return [*stages(context, parameter, incomplete), *roots]
    try:
        found = reference.find(above, Path())
    except ParticleError:
        return []
    names = [o.name for o in found.options] if isinstance(found, ReferenceEntry) else []
    return _beginning([f"{above}.{name}" for name in names], incomplete)


def stages_of_recipe(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The stages of the recipe that the command line names, or of particle-os.yml."""
    # click keeps the words when the option before the cursor has no value yet.
    named = [Path(word) for word in context.args if not word.startswith("-")]
    try:
        path = found_recipe(context.params.get("recipe_path") or next(iter(named), USUAL))
        found = loading.load(path, allow_outside=True).recipe.stages
    except ParticleError:
        return []
    names = [stage.name for stage in found if stage.name]
    return _beginning([*names, *(stage_name(type(stage)) for stage in found)], incomplete)


def helper_templates(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of the templates of helper VMs."""
    return _beginning([path.stem for path in templates()], incomplete)


def commands(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The commands within the command that the words before name."""
    named = context.params.get("words")
    found = named if isinstance(named, click.Context) else context.find_root()
    group = found.command
    words = group.list_commands(found) if isinstance(group, click.Group) else ()
    return _beginning(words, incomplete)


def script(command: click.Command, shell: str) -> str:
    """The script of a shell that asks the program for the words."""
    return _KINDS[shell](
        command, {}, PROGRAM, f"_{PROGRAM}_COMPLETE".replace("-", "_").upper()
    ).source()


def _beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    # The answer to the shell has one word a line.
    return [CompletionItem(w) for w in words if w.startswith(incomplete) and w.isprintable()]
