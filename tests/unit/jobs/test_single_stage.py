"""A stage that runs alone: its options are read as in a recipe, and errors name their lines."""

import pytest
from particle_agent.stages import RECIPE_STAGES
from particle_os.errors import InvalidDocument, StageFailed, UsageError
from particle_os.jobs.execution.stage_results import Stages
from particle_os.jobs.plan import BuildOptions
from particle_os.jobs.planning import make_stage_plan
from particle_os.recipe import loading
from particle_os.records import AptProxyResult
from particle_os.report.progress import Progress
from particle_os.report.results import HelperResult, SingleResult, StageResult
from particle_os.report.table import print_single
from rich.console import Console

from ..base.test_lookup import AMD64, tar

BASE = "tar:base.tar"


def load(tmp_path, kind, text, base=BASE, **variables):
    path = tmp_path / "options.yml"
    path.write_text(text)
    return loading.load_stage(kind, path, variables, base=base, allow_outside=False)


def test_the_options_are_written_as_in_a_recipe(tmp_path):
    (tmp_path / "motd").write_text("hello")
    text = "variables: {where: /etc/motd}\nfiles: [{path: '${where}', source: motd}]\nname: Say\n"
    loaded = load(tmp_path, "files", text, where="/etc/issue")
    (stage,) = loaded.recipe.stages
    assert (stage.type, stage.name, stage.files[0].path) == ("files", "Say", "/etc/issue")
    (attached,) = loaded.attachments[0]
    assert attached.path == tmp_path / "motd"
    assert load(tmp_path, "apt", "type: apt\n").recipe.stages[0].type == "apt"


@pytest.mark.parametrize("kind", ["apt", "org.osbuild.debian.apt"])
@pytest.mark.parametrize("first", ["", "type: apt\n", "type: org.osbuild.debian.apt\n"])
def test_older_forms_are_understood_and_noted(tmp_path, kind, first):
    loaded = load(tmp_path, kind, f"{first}options: {{packages: [curl]}}\n")
    (stage,) = loaded.recipe.stages
    assert (stage.type, stage.packages) == ("apt", ("curl",))
    assert {note.code for note in loaded.notes} == {"older-form"}


@pytest.mark.parametrize(
    ("kind", "text", "line", "column", "code", "message"),
    [
        ("apt", "update: true\npakages: [a]\n", 2, 1, "unknown-key", "unknown key 'pakages'"),
        ("locale", "generate: []\n", 1, 1, "missing-key", "'default'"),
        ("locale", "type: apt\ndefault: C\n", 1, 7, "bad-value", "type: expected 'locale'"),
        ("locale", "- default: C\n", 1, 1, "bad-type", "as a mapping"),
        ("timezone", "zone: ${x}\n", 1, 7, "unknown-variable", "no variable 'x'"),
        ("files", "files:\n  - {path: /a, source: gone}\n", 2, 24, "no-file", "gone"),
    ],
)
def test_errors_name_the_lines_of_the_file(tmp_path, kind, text, line, column, code, message):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, kind, text)
    problem = raised.value.problems[0]
    assert (problem.line, problem.column, problem.code) == (line, column, code)
    assert message in problem.message


def test_a_base_without_the_needs_of_the_stage_is_refused(tmp_path):
    with pytest.raises(InvalidDocument) as raised:
        load(tmp_path, "locale", "default: de_DE.UTF-8\n", base="mmdebstrap:trixie")
    (problem,) = raised.value.problems
    assert (problem.column, problem.code) == (10, "missing-need")
    assert "use a base that has it" in problem.hint


@pytest.mark.parametrize(
    ("kind", "hint"), [("local", "'locale'"), ("qemu", "build"), ("export", "allowed: ")]
)
def test_only_stages_of_recipes_run_alone(tmp_path, kind, hint):
    with pytest.raises(UsageError, match="no stage") as raised:
        load(tmp_path, kind, "{}\n")
    assert hint in raised.value.hint


def test_a_stage_for_another_architecture_does_not_run(tmp_path):
    with pytest.raises(UsageError, match="it is for arm64, not amd64"):
        load(tmp_path, "timezone", "{zone: UTC, when: {architecture: arm64}}\n")


def test_every_other_stage_runs_alone(tmp_path):
    for kind in RECIPE_STAGES:
        if kind.type != "qemu":
            with pytest.raises((InvalidDocument, UsageError)) as raised:
                load(tmp_path, kind.type, "type: nothing\n")
            assert f"type: expected '{kind.type}'" in str(raised.value.problems)


def test_the_stage_always_runs_and_is_then_exported(tmp_path):
    (tmp_path / "base.tar").write_bytes(tar(usr__bin__ls=AMD64))
    options_path = tmp_path / "options.yml"
    options_path.write_text("zone: UTC\n")
    options, base = BuildOptions(output_directory=tmp_path), f"tar:{tmp_path}/base.tar"
    plan = make_stage_plan("timezone", options_path, options, base=base, export=True)
    assert [stage.type for stage in plan.stages] == ["timezone", "export"]
    assert plan.refresh_from == 0
    plain = make_stage_plan("timezone", options_path, options, base=base, export=False)
    assert [stage.type for stage in plain.stages] == ["timezone"]
    stages = Stages(plan, Progress([]))
    error = StageFailed("it failed")
    stages.start(0)
    stages.place(error)
    assert error.where == f"stage 1 (timezone), {options_path}:1"


@pytest.mark.parametrize("proxy", [True, False])
def test_the_summary_names_the_proxy_as_the_summary_of_a_build_does(capsys, proxy):
    used = AptProxyResult(url="http://127.0.0.1:3142", gone=False, hits=7, misses=1)
    result = SingleResult(
        particle_os="1",
        stage=StageResult(index=0, type="apt", status="done", seconds=4.5),
        options_sha256="0",
        base="mmdebstrap:trixie",
        base_digest="sha256:0",
        helper=HelperResult(
            template="t", key="k", qemu="q", accelerator="tcg", acceleration_reason="",
            security_note=None,
        ),
        apt_proxy=used if proxy else None,
        archive=None,
        phases={},
    )  # fmt: skip
    print_single(result, Console())
    shown = capsys.readouterr().out
    assert "apt on mmdebstrap:trixie in 4.5 s" in shown
    shown_proxy = "http://127.0.0.1:3142: 7 of 8 requests from its cache"
    assert (shown_proxy in shown) is proxy
