import inspect
import json
from pathlib import Path

import pytest
from particle_agent.stages import RECIPE_STAGES
from particle_os import __version__
from particle_os.recipe.checks.kinds import KINDS
from particle_os.report.results import ArtifactResult, HelperResult, Result
from particle_os.system import host_packages

from .command_line import run


def test_version():
    assert run("version").stdout == f"{__version__}\n"
    assert json.loads(run("version", "--json").stdout) == {"version": __version__}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPE_STAGES, ids=lambda kind: kind.type)
def test_every_stage_and_option_is_explained(kind):
    shown = run("explain", kind.type).stdout
    told = json.loads(run("explain", kind.type, "--json").stdout)
    assert told["description"] == inspect.getdoc(kind)
    for option in told["options"]:
        assert f"  {option['name']}: " in shown
        one = run("explain", f"{kind.type}.{option['name']}")
        assert one.exit_code == 0
        assert option["name"] in one.stdout


def test_what_is_within_an_option_is_explained():
    assert "The login name." in run("explain", "users.users.name").stdout
    assert "ssh-authorized-keys" in run("explain", "users.users").stdout
    assert "mmdebstrap:SUITE" in run("explain", "recipe.base-image").stdout
    assert run("explain", "run.timeout").stdout.startswith("  timeout: integer or string, default")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_check_is_explained(kind):
    assert f"  {kind.kind}: check\n" in run("explain", "check").stdout
    told = json.loads(run("explain", f"check.{kind.kind}", "--json").stdout)
    assert told["name"] == f"check.{kind.kind}"
    assert told["description"] == inspect.getdoc(kind)
    for option in told["options"]:
        assert option["name"] in run("explain", f"check.{kind.kind}.{option['name']}").stdout


def test_what_is_gone_when_a_recipe_is_put_together_is_explained():
    assert "${NAME}" in run("explain", "recipe.variables").stdout
    assert "  variables: mapping" in run("explain", "recipe").stdout
    assert "relative to this one" in run("explain", "include").stdout


def test_what_is_no_stage_is_explained_without_a_word_before_it():
    for key in json.loads(run("schema").stdout)["properties"]:
        assert run("explain", key).stdout == run("explain", f"recipe.{key}").stdout != ""
    for kind in {kind.kind for kind in KINDS} - {kind.type for kind in RECIPE_STAGES}:
        assert run("explain", kind).stdout == run("explain", f"check.{kind}").stdout != ""
    assert run("explain", "unit.unit").stdout == run("explain", "check.unit.unit").stdout
    assert run("explain", "boot-test.firmware").stdout.startswith("  firmware: list of")
    assert run("explain", "when").stdout == run("explain", "apt.when").stdout != ""


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("check.comand", "did you mean 'command'?"),
        ("check.", "allowed: "),
        ("check.command.expected", None),
        ("usres", "did you mean 'users'?"),
        ("base", "did you mean 'base-image'?"),
        ("users.user", "did you mean 'users'?"),
        ("users.users.uuid", "did you mean 'uid'?"),
        ("users.users.uid.x", None),
        ("apt.", None),
        ("", None),
    ],
)
def test_what_cannot_be_explained_has_its_nearest_name(path, hint):
    result = run("explain", path)
    assert result.exit_code == 2
    assert "there is no" in result.stderr
    assert hint is None or hint in result.stderr


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("stages", "timezone"),
        ("checks", "kernel-argument"),
        ("templates", "debian-trixie"),
        ("recipes", "server"),
        ("recipes", "minimal-test"),
    ],
)
def test_list(what, name):
    result = run("list", what)
    assert result.exit_code == 0
    assert name in result.stdout
    rows = json.loads(run("list", what, "--json").stdout)
    assert name in [row["name"] for row in rows]
    assert all(row["description"] for row in rows)


def test_list_shows_the_images_that_are_there(tmp_path):
    helper = HelperResult(
        template="t", key="k", qemu="10", accelerator="tcg", acceleration_reason="",
        security_note=None,
    )  # fmt: skip
    for number, name in enumerate(("old", "new", "gone")):
        artifact = ArtifactResult(
            path=f"{name}.raw", format="raw", bytes=5 << 30, virtual_bytes=5 << 30,
            allocated_bytes=7 << 20, sha256="", tree_sha256="",
        )  # fmt: skip
        result = Result(
            particle_os="0", status="passed", build_key="", created=number * 86400.0, recipe=name,
            recipe_sha256="", base="b", base_digest="", architecture="amd64", helper=helper,
            stages=(), artifacts=(artifact,), boot=(), phases={}, controller_peak_rss_bytes=0,
            notes=(),
        )  # fmt: skip
        (tmp_path / f"{name}.result.json").write_text(result.model_dump_json())
        if name != "gone":
            (tmp_path / f"{name}.raw").touch()
    (tmp_path / "damaged.result.json").write_text("{")
    rows = json.loads(run("list", "images", "--output", str(tmp_path), "--json").stdout)
    assert [Path(row["name"]).name for row in rows] == ["new.raw", "old.raw"]
    assert rows[0]["description"].endswith(", passed, raw 7 MiB")


def test_only_the_default_directory_of_the_images_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("list", "images").exit_code == 0
    missing = run("list", "images", "--output", "none")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "there is no directory none" in missing.stderr


def test_list_shows_recipes_by_itself():
    assert run("list").stdout == run("list", "recipes").stdout


def test_the_schema_is_printed_as_it_lies_in_the_tree():
    written = Path(__file__).parents[3] / "recipes/schema.json"
    assert run("schema").stdout == written.read_text()


@pytest.mark.slow
def test_doctor_ends_with_one_command_for_all_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host_packages, "family", lambda: "debian")
    last = run("doctor").stdout.splitlines()[-1]
    assert last.startswith("all that is missing: sudo apt install qemu-system-x86 qemu-utils ")


def test_without_a_home_doctor_says_what_to_do(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    result = run("doctor")
    assert result.exit_code == 5
    assert "the cache directory /dev/null/particle-os cannot be made" in result.stdout
    assert "XDG_CACHE_HOME" in result.stdout


def test_the_own_stages_of_a_recipe_are_explained(tmp_path, monkeypatch):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/web.yml").write_text(
        "description: A site of ours\n"
        "variables:\n"
        "  domain: {type: string, description: Its name}\n"
        "  port: 8080\n"
        '  "bad\\e[31m": {default: [a], description: "x\\e[2J"}\n'
        "stages: []\n"
    )
    monkeypatch.chdir(tmp_path)
    shown = run("explain", "web").output
    for words in (
        "A site of ours",
        "domain: string, required",
        "Its name",
        "port: integer, default 8080",
    ):
        assert words in shown
    assert "\x1b" not in shown
    assert run("explain", "web.port").output.startswith("  port: integer")
    assert "did you mean 'domain'?" in run("explain", "web.domian").output
    assert "did you mean 'web'?" in run("explain", "wbe").output
    (tmp_path / "stages/web.yml").write_text("- [\n")
    assert run("explain", "web").exit_code == 2
    # The program's own stages come first.
    (tmp_path / "stages/apt.yml").write_text("description: Another\n")
    assert "Another" not in run("explain", "apt").output
