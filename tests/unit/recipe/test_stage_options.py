"""The options of every stage: how recipes spell them, and their effect on a build."""

import dataclasses

import pytest
from particle_agent.contract.decode import decode_any, encode
from particle_agent.contract.options import duration
from particle_agent.stages import ALL_STAGES, RECIPE_STAGES
from particle_agent.stages.base import StageOptions
from particle_agent.stages.contents.run import Run
from particle_agent.stages.software.apt import Apt
from particle_os.errors import InvalidDocument
from particle_os.jobs import checkpoints
from particle_os.recipe import loading
from particle_os.recipe.description import schema

COMMON = "    name: Say so\n    when: {architecture: [amd64, arm64]}\n    timeout: 20m\n"


def load(tmp_path, stages, top="name: test\n"):
    path = tmp_path / "recipe.yml"
    path.write_text(f"{top}stages:\n{stages}  - type: qemu\n")
    # A recipe without a kernel is valid only on a base whose content is unknown.
    return loading.load(path, base="tar:base.tar")


def problem(tmp_path, stages):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, stages)
    (found,) = raised.value.problems
    return found


def test_every_stage_has_them():
    for kind in RECIPE_STAGES:
        assert issubclass(kind, StageOptions)
    assert {"name", "when", "timeout", "network"} <= set(schema.common_options())


def test_they_are_read_and_go_over_the_wire(tmp_path):
    loaded = load(tmp_path, f"  - type: apt\n{COMMON}    network: none\n")
    stage = loaded.recipe.stages[0]
    assert (stage.name, stage.timeout, stage.network) == ("Say so", 1200, "none")
    assert stage.when.architecture == ("amd64", "arm64")
    assert stage.label == "Say so (apt)"
    assert decode_any(ALL_STAGES, encode(stage)) == stage


@pytest.mark.parametrize(
    ("stage", "hint"),
    [
        ("type: apt, update: false", "'upgrade' or 'remove'"),
        ("type: apt, update: false, recommends: true", "without 'packages', "),
        ("type: files", "without 'directories', 'files' or 'links'"),
        ("type: files, files: []", "without 'directories', 'files' or 'links'"),
        ("type: kernel", "without 'command-line', "),
        ("type: services, name: None yet", "without 'enable', 'disable', 'mask', "),
        ("type: sources", "without 'repositories', 'replace' or 'components'"),
    ],
)
def test_a_stage_without_anything_to_do_is_an_error(tmp_path, stage, hint):
    found = problem(tmp_path, f"  - {{{stage}}}\n")
    assert (found.line, found.column, found.code) == (3, 5, "bad-value")
    kind = stage.split(",")[0].removeprefix("type: ")
    assert found.message.startswith(f"{kind}: there is nothing to do without '")
    assert hint in found.message


@pytest.mark.parametrize(
    "stage",
    [
        # The indexes of apt are there for later stages.
        "type: apt",
        "type: apt, update: false, hold: [vim]",
        "type: cleanup",
        "type: kernel, compression: xz",
    ],
)
def test_a_stage_may_have_little_to_do(tmp_path, stage):
    assert len(load(tmp_path, f"  - {{{stage}}}\n").recipe.stages) == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("45", 45), ("24h", 86400)]
)
def test_durations(tmp_path, text, seconds):
    loaded = load(tmp_path, f"  - {{type: apt, timeout: {text}}}\n")
    assert loaded.recipe.stages[0].timeout == seconds
    again = load(tmp_path, f"  - {{type: apt, timeout: {duration(seconds)}}}\n")
    assert again.recipe == loaded.recipe


@pytest.mark.parametrize(
    "text", ["0", "-5", "0s", "25h", "1.5h", "20 m", "20M", "true", "'45'", "1d", "[1]", "9999999s"]
)
def test_what_is_no_duration(tmp_path, text):
    found = problem(tmp_path, f"  - {{type: apt, timeout: {text}}}\n")
    assert (found.line, found.code) == (3, "bad-value")
    assert "expected a duration from 1s to 24h, such as '90s'" in found.message


def test_a_name_is_one_line(tmp_path):
    for text in ('"a\\nb"', "''", "' a'", f"'{'x' * 81}'"):
        assert problem(tmp_path, f"  - {{type: apt, name: {text}}}\n").code == "bad-value"


def test_a_network_is_none_or_not_mentioned(tmp_path):
    found = problem(tmp_path, "  - {type: apt, network: no}\n")
    assert "expected 'none'" in found.message


def test_an_architecture_that_does_not_exist_is_an_error(tmp_path):
    found = problem(tmp_path, "  - {type: apt, when: {architecture: amd46}}\n")
    assert found.hint == "did you mean 'amd64'?"
    assert problem(tmp_path, "  - {type: apt, when: {}}\n").code == "bad-value"


def test_a_stage_for_another_architecture_is_left_out_and_said_so(tmp_path):
    stages = (
        "  - {type: apt, name: Firmware, when: {architecture: arm64}}\n"
        "  - {type: timezone, zone: UTC}\n"
        "  - {type: qemu, when: {architecture: [arm64, i386]}}\n"
    )
    loaded = load(tmp_path, stages)
    assert [stage.type for stage in loaded.recipe.stages] == ["timezone", "qemu"]
    assert [place.line for place in loaded.places] == [4, 6]
    assert [(note.line, note.code, note.message) for note in loaded.notes] == [
        (3, "left-out", "the stage Firmware (apt) is left out: it is for arm64, not amd64"),
        (5, "left-out", "the stage qemu is left out: it is for arm64 and i386, not amd64"),
    ]


def keys(*stages):
    return checkpoints.keys(["root"], "recipe", stages)


def test_what_cannot_change_the_result_is_in_no_key(tmp_path):
    plain = Apt(packages=("curl",))
    (stage, _) = load(tmp_path, f"  - type: apt\n    packages: [curl]\n{COMMON}").recipe.stages
    assert keys(stage) == keys(plain)
    assert keys(dataclasses.replace(plain, network="none")) != keys(plain)
    assert keys(dataclasses.replace(plain, packages=())) != keys(plain)


def test_a_stage_that_does_not_apply_is_in_no_key_either(tmp_path):
    left_out = "  - {type: apt, packages: [nano], when: {architecture: arm64}}\n"
    zone = "  - {type: timezone, zone: UTC}\n"
    assert keys(*load(tmp_path, left_out + zone).recipe.stages) == keys(
        *load(tmp_path, zone).recipe.stages
    )


def test_without_a_network_a_result_does_not_grow_old():
    assert Run(command=("true",)).asks_network
    assert not Run(command=("true",), network="none").asks_network
