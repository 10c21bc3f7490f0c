"""The vocabulary of recipes: the allowed keys and words at each place, and hints for some."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

from particle_agent.contract.findings import ERRORS
from particle_agent.contract.options import kebab_case
from particle_agent.stages.base import StageOptions

from particle_os.documents.annotations import field_types, options_class
from particle_os.documents.document import Key, Source
from particle_os.documents.explanation import Vocabulary
from particle_os.recipe.boot_options import kinds_of
from particle_os.recipe.checks import kinds
from particle_os.recipe.model import Recipe, stage_kinds
from particle_os.recipe.parameters import variables
from particle_os.recipe.passes import include

UNKNOWN_STAGE = "unknown-stage"
HINTS = {
    "password": "the password itself goes into a secret, see 'password-secret', or its hash into "
    "'password-hash'",
    "network": "a list names the hosts that the stage may reach, as in [mirror.example.org]",
}
# Words of other programs for the keys of stages and checks.
_SYNONYMS = {
    "service": "unit", "timer": "unit", "socket": "unit", "cmd": "command", "url": "http",
    "pkg": "package", "pkgs": "packages", "env": "environment", "contents": "content",
    "apt-keys": "key", "group-id": "gid", "user-id": "uid", "size-mib": "size", "steps": "stages",
    "actions": "stages", "filesystem": "file-system", "bootloader": "boot-loader",
}  # fmt: skip
# In the stage 'services', each of these words means the option 'enable'.
_ENABLED = ("service", "services", "unit", "units", "timer", "socket", "start", "enabled", "name")
SYNONYMS = {
    word: (*([_SYNONYMS[word]] if word in _SYNONYMS else []), *(["enable"] * (word in _ENABLED)))
    for word in (*_SYNONYMS, *_ENABLED)
}
# A part of the message about a broken rule, and what to do.
RULES = {
    "'gid' is for a new group": "remove 'gid', or remove 'group' to make a new group with this gid",
    "is a word of shells": "write 'script: …' in place of 'command: […]': a shell reads it",
    "the stage has no such secret": "add it to 'secrets' of the stage, or correct the name",
    "the stage has no secret of the name": "add it to 'secrets' of the stage, or correct the name",
    "is incomplete: copy the whole line": "copy the whole line of the .pub file again",
    "belong together": "write both, or none of the two",
    "each is named once": "remove one of the two",
}
# More stages than these have an option of this name in common: none of them is meant.
OWNERS_SHOWN = 2
KEY_HINTS = {
    "testinfra": "a recipe cannot run Python on the host; name the tests on the command line, by "
    "'boot-test --testinfra DIRECTORY'",
    "repository": "the build publishes the repository as NAME.ostree.tar",
    **dict.fromkeys(
        (
            "ostree-deploy",
            *(
                f"org.osbuild.ostree.{name}"
                for name in (
                    "aleph", "config", "deploy", "deploy.container", "fillvar", "grub2", "init-fs",
                    "os-init", "post-copy", "pull", "selinux",
                )
            ),
        ),
        "leave it out: the stage 'qemu' after a stage 'ostree' makes and fills the disk; "
        "docs/ostree.md has a table of the options",
    ),
    **dict.fromkeys(
        ("org.osbuild.ostree.passwd", "org.osbuild.ostree.preptree"),
        "leave it out: the stage 'ostree' does it",
    ),
    **dict.fromkeys(
        ("org.osbuild.ostree.genkey", "org.osbuild.ostree.sign"),
        "write 'sign' in the stage 'ostree'",
    ),
    "org.osbuild.ostree.remotes": "write 'remote' in the stage 'ostree'",
    "org.osbuild.ostree.encapsulate": "write 'publish: [oci-archive]' in the stage 'ostree'",
    "org.osbuild.bootc.install-to-filesystem": "write 'installer: bootc' in the stage 'qemu'",
}  # fmt: skip
# YAML turns an octal number into an integer, which a message shows in decimal digits.
NUMBER_HINTS = {
    "mode": "put it in quotes, in octal digits as in '0755'",
    "size": "add the unit, as in '4G' or '800M'",
    "swap": "add the unit, as in '2G' or '512M'",
}


def vocabulary(source: Source, place: Key = ()) -> Vocabulary:
    """The vocabulary of a document whose content a recipe has at `place`."""
    return Vocabulary(
        names=_names_in(source, place),
        item="stage",
        unknown_item=UNKNOWN_STAGE,
        is_item=lambda key: (*place, *key)[:1] == ("stages",) and len((*place, *key)) == 2,
        item_keys=("type", include.KEY),
        hints=HINTS,
        number_hints=NUMBER_HINTS,
        commands=("command",),
        synonyms=SYNONYMS,
        key_hints=KEY_HINTS,
        elsewhere=lambda key: _elsewhere((*place, *key)),
        container=lambda key, given: _devices_meant((*place, *key), given),
        rules=RULES,
    )


def owners(option: str) -> list[str]:
    """The stages that have an option of this name for themselves."""
    common = {kebab_case(field.name) for field in dataclasses.fields(StageOptions)}
    return [
        name
        for name, kind in sorted(stage_kinds().items())
        if option not in common and option in _names(("stages",), name)
    ]


def owners_hint(option: str) -> str | None:
    """The hint for an option that other stages have."""
    found = owners(option)
    if not 0 < len(found) <= OWNERS_SHOWN:
        return None
    named = " and ".join(f"'{name}'" for name in found)
    stages = "the stage" if len(found) == 1 else "the stages"
    return f"'{option}' is an option of {stages} {named}: see 'particle-os explain {found[0]}'"


def _elsewhere(key: Key) -> str | None:
    """The hint for an option of a stage that is one of another stage."""
    return owners_hint(str(key[-1])) if key[:1] == ("stages",) and len(key) == 3 else None


def _devices_meant(key: Key, given: Any) -> str | None:
    """The hint for the devices of the boot test without the names of their kinds."""
    words = [given] if isinstance(given, str) else given
    if key != ("boot-test", "devices") or not isinstance(words, list):
        return None
    texts = [word for word in words if isinstance(word, str)]
    disks = [word for word in texts if word in kinds_of("disk") and word != "virtio"]
    cards = [word for word in texts if word in kinds_of("network_card") and word not in disks]
    found = {"disk": disks or ([] if cards else ["virtio"]), "network-card": cards}
    written = ", ".join(f"{name}: [{', '.join(each)}]" for name, each in found.items() if each)
    return f"write 'devices: {{{written}}}'"


def _names_in(source: Source, place: Key) -> Callable[[Key], Iterable[str]]:
    """Returns `_names` for a document whose content a recipe has at `place`."""

    def names(key: Key) -> Iterable[str]:
        whole = (*place, *key)
        if whole[:1] == ("accepted-errors",):
            return ERRORS
        if whole[:2] == ("boot-test", "checks"):
            node = source.node(key)
            return kinds.keys(node.value if node and isinstance(node.value, dict) else {})
        kind = source.node((*key[:2], "type")) if whole[:1] == ("stages",) else None
        stage = kind.value if kind is not None and isinstance(kind.value, str) else None
        words = tuple(part for part in whole if isinstance(part, str))
        if words == ("stages", "type"):
            own = include.own_stages(source.path.parent, source.path.parent)
            return sorted({*stage_kinds(), *own})
        return _names(words, stage)

    return names


@functools.cache
def _names(key: tuple[str, ...], stage: str | None) -> tuple[str, ...]:
    """The allowed keys at a path of a recipe; for the `type` of a stage, the names of all stages.

    Within a stage, the options of its class are allowed; without a known class, of all stages.
    """
    if key and key[-1] == "type":
        return tuple(sorted(stage_kinds()))
    candidates: list[Any] = [Recipe]
    for part in key:
        found = []
        for kind in candidates:
            hints = field_types(kind)
            field = part.replace("-", "_")
            if field == "stages":
                own = stage_kinds().get(str(stage))
                found += [own] if own is not None else list(stage_kinds().values())
            elif field in hints and (inner := options_class(hints[field])):
                found.append(inner)
        candidates = found
    known = {kebab_case(f.name) for kind in candidates for f in dataclasses.fields(kind)}
    return tuple(sorted(known if key else known | {variables.KEY}))
