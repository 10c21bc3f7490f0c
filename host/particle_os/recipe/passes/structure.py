"""Passes over the untyped document; they find their problems independently of all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from particle_agent.stages.output.qemu import Qemu

from particle_os.architecture import ARCHITECTURES, Architecture, BootFirmware
from particle_os.documents import validation
from particle_os.documents.document import Key, Node, Source
from particle_os.documents.words import unlike_a_path
from particle_os.recipe.checks import questions
from particle_os.recipe.files.inside import outside
from particle_os.recipe.model import BootTest, Recipe, stage_kinds
from particle_os.recipe.passes import conditions
from particle_os.recipe.passes.reading import Reading
from particle_os.system.regular_file import read_regular

GOSS_BYTES = 1 << 16


def check_order(reading: Reading) -> None:
    """Notes stages in a wrong order."""
    source, data = reading.source, reading.source.data
    stages = data.get("stages") if isinstance(data, dict) else None
    if not isinstance(stages, list) or not (stages or source.left_out) or source.incomplete:
        return
    wanted = data.get("architecture", Recipe.architecture)
    kinds = {
        index: stage.get("type") if isinstance(stage, dict) else None
        for index, stage in enumerate(stages)
        if may_apply(stage, wanted)
    }
    for index, kind in list(kinds.items())[:-1]:
        if kind == "qemu":
            message = "the stage 'qemu' must be the last one, and only once"
            reading.complain(("stages", index), "bad-order", message)
    # A commit is published without a disk. A stage with an unknown type may be a misspelt `qemu`.
    if not {"qemu", "ostree"} & set(map(str, kinds.values())) and stage_kinds().keys() >= set(
        map(str, kinds.values())
    ):
        _miss_disk(source, stages, wanted)
    # That there is no stage at all only follows from what is left out.
    source.incomplete = not stages


def _miss_disk(source: Source, stages: list[Any], wanted: object) -> None:
    """Notes that the recipe ends without a disk, with the reason."""
    key: Key = ("stages", len(stages) - 1) if stages else ("stages",)
    why = ""
    hint = "add '- type: qemu' as the last stage"
    # An included file, or a type of the recipe's own, may bring the disk.
    others = [node for node in source.left_out if _kind(node) not in stage_kinds()]
    disks = [node for node in source.left_out if _kind(node) == Qemu.type]
    for node in (disks or others)[:1]:
        message = f"the recipe ends without a disk: 'when' leaves out {conditions.label(node)}"
        source.problem(node.mark, "bad-order", message, f"remove its 'when', or {hint}")
        return
    for index, stage in enumerate(stages):
        if isinstance(stage, dict) and stage.get("type") == "qemu":
            key, why = ("stages", index, "when"), f": 'when' leaves it out for {wanted}"
            hint = f"remove 'when' from the stage 'qemu', or add {wanted} to it"
    message = f"the recipe ends without a disk{why}"
    source.problem(source.mark(key, of_key=True), "bad-order", message, hint)


def _kind(node: Node) -> object:
    kind = node.child("type")
    return None if kind is None else kind.value


def may_apply(stage: Any, architecture: object) -> bool:
    """Whether a stage, which may be wrong in other ways, is for images of this architecture."""
    when = stage.get("when") if isinstance(stage, dict) else None
    meant = when.get("architecture") if isinstance(when, dict) else None
    return not meant or architecture == meant or (isinstance(meant, list) and architecture in meant)


def check_firmware(reading: Reading) -> None:
    """Notes the firmwares of the boot test that cannot boot the image."""
    source = reading.source
    stages, named = source.node(("stages",)), source.node(("boot-test", "firmware"))
    if stages is None or named is None or not isinstance(named.value, list):
        return
    last = stages.value[-1].plain() if isinstance(stages.value, list) and stages.value else None
    given = last if isinstance(last, dict) else {}
    architecture = architecture_of(source)
    # Only these options decide which firmwares boot the disk; others may be wrong.
    asked = ("type", "boot-loader", "unified-kernel-image")
    disk = validation.valid(Qemu, {name: given[name] for name in asked if name in given})
    for node in named.value if given.get("type") == "qemu" and disk is not None else ():
        firmware = validation.valid(BootFirmware, node.plain())
        if firmware is not None and (reason := disk.refusal(firmware, architecture)):
            source.problem(node.mark, "bad-value", f"firmware: {reason}")


def architecture_of(source: Source) -> Architecture:
    """The architecture of the recipe, or the usual one if the recipe names no known one."""
    named = source.node(("architecture",))
    found = named.value if named is not None else Recipe.architecture
    known = ARCHITECTURES.get(found) if isinstance(found, str) else None
    return known or ARCHITECTURES[Recipe.architecture]


def check_length(source: Source, place: Key) -> None:
    """Notes the first of the checks at `place` that exceeds the limit of an image."""
    node = source.node(place)
    found = validation.valid(BootTest, {"checks": node.plain()}) if node is not None else None
    index = questions.first_beyond_limit(found.checks) if found is not None else None
    if index is not None:
        mark = source.mark((*place, index))
        source.problem(mark, "bad-value", f"checks: {questions.TOO_LONG}", questions.TOO_LONG_HINT)


def read_goss(source: Source, key: Key, inside: Path | None) -> bytes | None:
    """Returns the content of the goss file that the document names at `key`, if it names one.

    The file must be in the directory `inside`, unless it is None. Notes a file that cannot be read.
    """
    node = source.node(key)
    if node is None or not isinstance(node.value, str) or node.unknown:
        return None
    path = node.mark.path.parent / node.value
    try:
        if fault := outside(path, inside):
            raise ValueError(fault)
        content = read_regular(path, GOSS_BYTES)
        content.decode()
        return content
    except UnicodeDecodeError:
        source.problem(node.mark, "bad-file", f"{node.value}: is no UTF-8 text")
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        shown = unlike_a_path(node.value) or node.value
        source.problem(node.mark, "no-file", f"{shown}: {why}")
        return None
