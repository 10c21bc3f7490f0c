"""Each message about a recipe names its file, line and column, and what to do."""

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.recipe.passes.advice import ADVICE

from ..test_guide import codes
from ..written import MINIMAL, with_stages
from .test_mistakes import SEVERAL, WRONG

BAD = [
    *(wrong[0] for wrong in WRONG),
    *(with_stages(stages) for stages, _ in SEVERAL),
    "", "a: [b\n", "\tname: x\n", "name: \"\\ud800\"\nstages: []\n", "- a\n--- b\n",
    MINIMAL + "description: ${nonesuch}\n",
    "variables: {pw: {type: string}}\nname: ${pw}\nstages: [{type: qemu}]\n",
    with_stages("  - include: nonesuch.yml\n"), with_stages("  - include: recipe.yml\n"),
    with_stages("  - {type: files, files: [{path: /a, source: nonesuch}]}\n"),
    with_stages("  - {type: services, enable: [nonesuch.service]}\n"),
    with_stages("  - {type: files, files: [{path: /etc/fstab, content: x}]}\n"),
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_no_message_lacks_its_place_or_what_to_do(tmp_path, text):
    path = tmp_path / "recipe.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    for problem in raised.value.problems:
        assert problem.path == str(path)
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.hint, problem
        assert list(problem.lines())[-1] == f"  do:    {problem.hint}"


@pytest.mark.parametrize("content", [None, b"\xff", b"x" * (2 << 20)])
def test_a_file_that_is_no_text_has_advice_too(tmp_path, content):
    path = tmp_path / "recipe.yml"
    if content is not None:
        path.write_bytes(content)
    for load in (loading.load, loading.load_boot_test):
        with pytest.raises(InvalidDocument) as raised:
            load(path)
        assert all(problem.hint for problem in raised.value.problems)


def test_every_code_has_its_advice():
    assert set(ADVICE) == set(codes("problem", "complain")) | {"unknown-stage"}


def test_the_advice_names_the_stage_that_the_mistake_is_in(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text(
        "name: X\nstages:\n  - {type: apt, packages: [BAD]}\n  - {type: qemu, size: x}\n"
        "boot-test: {checks: [{unit: a, state: 5}]}\n"
    )
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path)
    hints = [p.hint for p in raised.value.problems if p.hint and "explain" in p.hint]
    assert hints[:3] == [f"see 'particle-os explain {t}'" for t in ("recipe", "apt", "qemu")]
