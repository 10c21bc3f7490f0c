import json
import os
import typing

import pydantic
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.system.workspace import data_directory

from .written import MINIMAL, load, problems, with_stages


@pytest.mark.parametrize("path", sorted(data_directory("recipes").glob("*.yml")), ids=str)
def test_the_example_recipes_are_valid(path):
    loaded = loading.load(path)
    assert loaded.recipe.name == path.stem
    assert loaded.recipe.description
    assert path.read_text().startswith("# yaml-language-server: $schema=./schema.json\n")


def test_what_is_not_said_has_a_default(tmp_path):
    loaded = load(tmp_path, MINIMAL)
    assert loaded.recipe.base_image == "mmdebstrap:trixie"
    assert loaded.firmwares == ("bios",)
    assert loaded.disk.formats == ("raw",)
    assert loaded.disk.size == "auto"


@pytest.mark.parametrize(
    ("loader", "firmwares"),
    [("extlinux", ("bios",)), ("grub", ("bios", "uefi")), ("systemd-boot", ("uefi",))],
)
def test_the_firmwares_to_boot_under_follow_from_the_boot_loader(tmp_path, loader, firmwares):
    text = f"{MINIMAL}    boot-loader: {loader}\n"
    assert load(tmp_path, text).firmwares == firmwares
    text += f"boot-test: {{firmware: [{firmwares[-1]}]}}\n"
    assert load(tmp_path, text).firmwares == firmwares[-1:]


def test_the_lines_of_the_stages_are_known(tmp_path):
    text = with_stages("  - type: timezone\n    zone: UTC\n\n  -\n    type: apt\n")
    assert [place.line for place in load(tmp_path, text).places] == [3, 7, 8]


def test_what_is_slow_is_done_once_or_not_at_all(tmp_path, monkeypatch):
    """Validating many recipes stays fast: libyaml parses, and models are built only once."""
    if not yaml.__with_libyaml__:
        pytest.skip("this PyYAML comes without libyaml")
    text = with_stages("  - {type: apt, packages: [curl]}\n" * 29)
    load(tmp_path, text)

    def refuse(*arguments, **options):
        raise AssertionError("this takes long")

    monkeypatch.setattr(pydantic, "TypeAdapter", refuse)
    monkeypatch.setattr(yaml.SafeLoader, "__init__", refuse)
    monkeypatch.setattr(typing, "get_type_hints", refuse)
    assert len(load(tmp_path, text).recipe.stages) == 30


@given(name=st.text("abz019-", max_size=66) | st.text(max_size=70))
@example(name="a" * 63)
@example(name="a" * 64)
def test_a_recipes_name_is_accepted_exactly_when_it_is_safe_as_a_file_name(tmp_path_factory, name):
    path = tmp_path_factory.getbasetemp() / "named.yml"
    path.write_text(f"name: {json.dumps(name)}\nstages: [{{type: qemu}}]\n")
    safe = (
        1 <= len(name) <= 63
        and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        and not name.startswith("-")
        and not name.endswith("-")
    )
    try:
        found = loading.load(path, base="tar:base.tar").recipe.name
    except InvalidDocument:
        found = None
    assert found == (name if safe else None)


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe.yml"
    os.mkfifo(path)
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    (problem,) = raised.value.problems
    assert (problem.code, problem.message) == ("unreadable", "cannot be read: not a regular file")


def test_a_mode_without_quotes_is_understood_when_it_begins_with_a_zero(tmp_path):
    """As docs/recipes.md says: a value with a leading zero is a text, not a number."""
    stage = "  - {type: files, directories: [{path: /a, mode: %s}]}\n"
    for mode in ("0640", "'0640'"):
        loaded = load(tmp_path, with_stages(stage % mode))
        assert loaded.recipe.stages[0].directories[0].mode == "0640"
    for mode in ("640", "0o640"):
        (problem,) = problems(tmp_path, with_stages(stage % mode))
        assert problem.message.endswith(f"found {mode}")


def test_of_interfaces_the_special_ones_may_stand_before_the_others(tmp_path):
    entries = "".join(
        f"      - match: [{names}]\n"
        for names in ("ens3", "'enp[12]s0'", "'enp?s0', 'enp*'", "'en*', ens*", "'*'")
    )
    loaded = load(tmp_path, with_stages(f"  - type: network\n    interfaces:\n{entries}"))
    assert len(loaded.recipe.stages[0].interfaces) == 5
