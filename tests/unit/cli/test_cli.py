import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from particle_agent.stages import RECIPE_STAGES
from particle_os import __version__
from particle_os.base import layers
from particle_os.boot import session
from particle_os.cli import cli, verdicts
from particle_os.errors import StageFailed
from particle_os.recipe.checks.kinds import KINDS
from particle_os.report.results import ArtifactResult, HelperResult, Result
from particle_os.system import process
from particle_os.system.workspace import data_directory

from ...image_layout import Layout
from ...waiting import HANG_SECONDS

KERNEL = "{type: apt, packages: [linux-image-cloud-amd64, systemd-sysv]}"
MINIMAL = f"name: test\nstages:\n  - {KERNEL}\n  - type: qemu\n    formats: [raw, qcow2]\n"
COMMANDS = [
    "boot-test", "build", "doctor", "explain", "help", "init", "list", "schema", "validate",
    "version",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _signals(signals_restored):
    """The commands take over the signal handlers."""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "test.yml"
    path.write_text(MINIMAL)
    return path


@pytest.fixture
def bad_recipe(tmp_path):
    path = tmp_path / "bad.yml"
    path.write_text("nam: x\nstages: []\n")
    return path


def run(*arguments, **options):
    return CliRunner().invoke(cli, [str(a) for a in arguments], **options)


def test_the_installed_program_runs():
    program = Path(sys.executable).with_name("particle-os")
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n"
    assert done.stderr == ""


def test_version():
    assert run("version").stdout == f"{__version__}\n"
    assert json.loads(run("version", "--json").stdout) == {"version": __version__}


def test_help_names_every_command():
    for arguments in (["help"], ["--help"], ["-h"]):
        result = run(*arguments)
        assert result.exit_code == 0
        assert [name for name in COMMANDS if name not in result.stdout] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(command):
    result = run("help", command)
    assert result.exit_code == 0
    assert command in result.stdout.splitlines()[0]
    assert run(command, "--help").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["help", "no-such-command"],
        ["build"],
        ["validate"],
        ["list", "nonsense"],
        ["build", "x.yml", "--no-such-option"],
        ["build", "x.yml", "--accel", "xen"],
        ["build", "x.yml", "--memory", "lots"],
        ["build", "x.yml", "--cpus", "0"],
        ["build", "missing.yml"],
        ["boot-test", "missing.raw"],
        ["version", "--progress", "loud"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_says_nothing_on_standard_output(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


def test_validate_tells_how_many_are_valid(recipe):
    result = run("validate", recipe, recipe)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 valid\n", "")
    assert run("validate", "-q", recipe).stdout == ""


def test_validate_tells_the_errors_of_several_files(recipe, bad_recipe, tmp_path):
    result = run("validate", bad_recipe, recipe, tmp_path / "missing.yml")
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.rpartition("[")[2] for line in lines] == [
        "missing-key]",
        "unknown-key]",
        "bad-value]",
        "unreadable]",
    ]
    assert lines[1] == f"{bad_recipe}:1:1: unknown key 'nam' (did you mean 'name'?) [unknown-key]"


def test_a_value_is_for_the_recipes_that_declare_it(recipe, tmp_path):
    other = tmp_path / "other.yml"
    other.write_text("name: other\nvariables: {port: 80}\nstages: [{type: nonsense}]\n")
    result = run("validate", recipe, other, "--set", "port=81")
    assert result.exit_code == 2
    assert "no stage 'nonsense'" in result.stderr
    assert "port" not in result.stderr
    result = run("validate", recipe, other, "--set", "prot=81")
    assert (result.exit_code, "no variable 'prot'" in result.stderr) == (2, True)


def test_a_recipe_is_inspected_without_its_secrets(tmp_path, monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    path = tmp_path / "r.yml"
    path.write_text(
        "name: r\nvariables: {zone: {type: string}}\nstages:\n"
        "  - type: apt\n    packages: [linux-image-amd64, systemd-sysv, tzdata]\n"
        "  - {type: timezone, zone: '${zone}', secrets: [{name: t, env: TOKEN}]}\n"
        "  - type: qemu\n"
    )
    result = run("inspect", path, "--set", "zone=Asia/Tokyo")
    assert result.exit_code == 0, result.stderr
    assert "timezone" in result.stdout


def test_validate_tells_the_errors_as_json(bad_recipe):
    result = run("validate", "--json", bad_recipe)
    assert result.exit_code == 2
    problems = json.loads(result.stdout)["problems"]
    assert problems[1] == {
        "path": str(bad_recipe),
        "line": 1,
        "column": 1,
        "code": "unknown-key",
        "message": "unknown key 'nam'",
        "hint": "did you mean 'name'?",
    }


def test_validate_tells_the_errors_as_annotations(tmp_path):
    path = tmp_path / "a,b:c%.yml"
    path.write_text("nam: x\nstages:\n  - {type: org.osbuild.debian.qemu, size: '%\\r'}\n")
    result = run("validate", "--format", "github", path)
    assert result.exit_code == 2
    file = f"{tmp_path}/a%2Cb%3Ac%25.yml"
    assert result.stdout.splitlines() == [
        f"::error file={file},line=1,col=1,title=missing-key::the key 'name' is missing",
        f"::error file={file},line=1,col=1,title=unknown-key::"
        "unknown key 'nam' (did you mean 'name'?)",
        f"::error file={file},line=3,col=43,title=bad-value::size: expected 'auto', 'minimal', or a"
        " size in M or G (powers of 1024) such as '800M' or '4G', found \"%25\\\\r\"",
        f"::notice file={file},line=3,col=6,title=older-form::'org.osbuild.debian.qemu' is called "
        "'qemu' now: write 'type: qemu'",
    ]


def test_validate_tells_notes_without_failing(tmp_path):
    path = tmp_path / "old.yml"
    path.write_text(f"name: x\nstages:\n  - {KERNEL}\n  - {{type: org.osbuild.debian.qemu}}\n")
    result = run("validate", path, path)
    assert result.exit_code == 0
    assert result.stdout == "2 valid\n"
    assert result.stderr.startswith(f"note: {path}:4:6: ")
    assert len(result.stderr.splitlines()) == 1
    assert run("validate", "-q", path).stderr == ""
    told = json.loads(run("validate", "--json", path).stdout)
    assert told["problems"] == []
    assert [note["code"] for note in told["notes"]] == ["older-form"]
    shown = run("validate", "--format", "github", path).stdout
    assert shown.startswith(f"::notice file={path},line=4,col=6,title=older-form::")


def test_an_error_in_a_file_that_several_recipes_include_is_told_once(tmp_path):
    (tmp_path / "common.yml").write_text("- {type: apt, pakages: []}\n")
    paths = [tmp_path / "a.yml", tmp_path / "b.yml"]
    for path in paths:
        path.write_text("name: x\nstages:\n  - include: common.yml\n  - type: qemu\n")
    result = run("validate", *paths)
    assert result.stderr.splitlines() == [
        f"{tmp_path}/common.yml:1:15: unknown key 'pakages' (did you mean 'packages'?)"
        " [unknown-key]"
    ]


def test_variables_are_set_on_the_command_line(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text(
        f"variables: {{n: {{type: integer}}}}\nname: x${{n}}\nstages: [{KERNEL}, {{type: qemu}}]\n"
    )
    assert run("validate", path).exit_code == 2
    assert run("validate", path, "--set", "n=5").exit_code == 0
    plan = json.loads(run("build", path, "--dry-run", "--json", "--set", "n=7").stdout)
    assert plan["recipe"] == "x7"
    for wrong in ("n", "=5", "n=x", "m=5"):
        result = run("validate", path, "--set", wrong)
        assert result.exit_code == 2
        assert "--set" in result.stderr
    assert run("validate", path, "--set", "n=1", "--set", "n=2").exit_code == 2


def test_a_dry_run_shows_names_and_what_is_left_out(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text(
        "name: x\nstages:\n"
        "  - {type: apt, name: Tools, packages: [linux-image-amd64, systemd-sysv]}\n"
        "  - {type: apt, when: {architecture: arm64}}\n  - {type: qemu}\n"
    )
    lines = run("build", path, "--dry-run").stdout.splitlines()
    assert "stage 1      Tools (apt)" in lines
    assert "stage 2      qemu" in lines
    assert lines[-1].endswith("left out: it is for arm64, not amd64 [left-out]")


TEMPLATES = sorted(path.stem for path in data_directory("recipes/templates").glob("*.yml"))


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_init_writes_is_valid(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("init", template).exit_code == 0
    written = tmp_path / f"{template}.yml"
    result = run("validate", written)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "1 valid\n", "")
    assert template in run("init", "--help").stdout


def test_init_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert TEMPLATES == ["container", "minimal", "server"]
    (tmp_path / "minimal.yml").write_text("mine")
    assert run("init").exit_code == 2
    assert (tmp_path / "minimal.yml").read_text() == "mine"
    (tmp_path / "link.yml").symlink_to("elsewhere.yml")
    assert run("init", "--output", "link.yml").exit_code == 2
    assert not (tmp_path / "elsewhere.yml").exists()
    assert run("init", "--output", "no-directory/x.yml").exit_code == 2
    assert run("init", "--output", "other.yml", "-q").stdout == ""
    assert (tmp_path / "other.yml").exists()


def test_init_can_print_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = (data_directory("recipes/templates") / "server.yml").read_text()
    assert run("init", "server", "--output", "-").stdout == written
    assert list(tmp_path.iterdir()) == []


def test_init_knows_its_templates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("init", "sever")
    assert result.exit_code == 2
    assert "did you mean 'server'?" in result.stderr
    assert list(tmp_path.iterdir()) == []


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


def test_a_build_of_an_invalid_recipe_tells_all_errors(bad_recipe, tmp_path):
    result = run("build", bad_recipe, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 3
    assert not (tmp_path / "out").exists()


def test_an_error_can_be_had_as_json(bad_recipe):
    result = run("build", bad_recipe, "--json")
    error = json.loads(result.stderr)
    assert error["exit_code"] == 2
    assert [p["code"] for p in error["problems"]] == ["missing-key", "unknown-key", "bad-value"]


@pytest.fixture
def nothing_starts(monkeypatch):
    """Starting any program is an error; the tools are taken to be installed."""
    monkeypatch.setattr(process, "identity", lambda program: f"{program} 1.0")

    def refuse(*arguments, **options):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr("pexpect.spawn", refuse)


@pytest.mark.usefixtures("nothing_starts")
def test_a_dry_run_prints_the_plan_and_starts_nothing(recipe, tmp_path):
    result = run("build", recipe, "--dry-run", "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["helper", "VM", "debian-trixie"],
        ["base", "image", "mmdebstrap:trixie"],
        ["stage", "1", "apt"],
        ["stage", "2", "qemu"],
        ["images", "raw,", "qcow2"],
        ["boot", "test", "bios"],
    ]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_whether_the_layers_of_the_base_are_here(recipe, tmp_path, monkeypatch):
    layout = Layout(tmp_path / "layout")
    base = layout.name(layout.image(bytes(1024)))
    for here in (False, True):
        lines = run("build", recipe, "--dry-run", "--base", base).stdout.splitlines()
        assert [f"base image   {base}{' (ready)' if here else ''}"] == lines[1:2]
        monkeypatch.setattr(layers, "is_fetched", lambda image, cache: True)


@pytest.mark.usefixtures("nothing_starts")
def test_a_dry_run_as_json(recipe):
    result = run("build", recipe, "--dry-run", "--json", "--no-boot-test")
    plan = json.loads(result.stdout)
    assert plan["recipe"] == "test"
    assert "boot test" not in [step["step"] for step in plan["steps"]]


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "nonsense"], "--base"),
        (["--base", "tar:missing.tar"], "does not exist"),
        (["--template", "nonsense"], "no helper template"),
        (["--mirror", "nonsense"], "--mirror"),
    ],
)
def test_options_are_checked_before_anything_starts(recipe, options, message):
    result = run("build", recipe, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_colours_only_where_they_are_wanted(recipe, monkeypatch):
    arguments = ("build", recipe, "--base", "tar:missing.tar")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in run(*arguments, color=True).stderr
    assert "\x1b[" not in run(*arguments).stderr
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b[" in run(*arguments, color=True).stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run(*arguments, color=True).stderr


def test_a_traceback_only_with_debug(recipe):
    arguments = ("build", recipe, "--base", "tar:missing.tar")
    assert "Traceback" not in run(*arguments).stderr
    assert "Traceback" in run(*arguments, "--debug").stderr


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("stages", "timezone"),
        ("checks", "kernel-argument"),
        ("templates", "debian-trixie"),
        ("templates", "server"),
        ("recipes", "minimal-test.yml"),
    ],
)
def test_list(what, name):
    result = run("list", what)
    assert result.exit_code == 0
    assert name in result.stdout
    rows = json.loads(run("list", what, "--json").stdout)
    assert any(row["name"].endswith(name) for row in rows)
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
    assert run("list", "images", "--output", str(tmp_path / "none")).stdout == ""


def test_list_shows_recipes_by_itself():
    assert run("list").stdout == run("list", "recipes").stdout


def test_the_schema_is_printed_as_it_lies_in_the_tree():
    written = Path(__file__).parents[3] / "recipes/schema.json"
    assert run("schema").stdout == written.read_text()


def test_an_image_that_names_other_files_is_refused(tmp_path):
    image = tmp_path / "image.qcow2"
    image.write_bytes(b"QFI\xfb\0\0\0\x03" + (104).to_bytes(8, "big") + bytes(500))
    result = run("boot-test", image, "--accel", "tcg")
    assert result.exit_code == 2
    assert "refers to another file" in result.stderr


def test_an_image_runs_on_a_terminal_only(tmp_path):
    image = tmp_path / "image.raw"
    image.write_bytes(bytes(1024))
    result = run("run", image, "--accel", "tcg")
    assert result.exit_code == 2
    assert "boot-test" in result.stderr
    image.write_bytes(b"QFI\xfb\0\0\0\x03" + (104).to_bytes(8, "big") + bytes(500))
    result = run("run", image, "--accel", "tcg")
    assert (result.exit_code, "refers to another file" in result.stderr) == (2, True)


@pytest.mark.parametrize("what", ["tar:base.tar", "docker://debian", "recipe.yml"])
def test_only_disk_images_are_verified(what):
    result = run("inspect", "--verify", what)
    assert result.exit_code == 2
    assert "disk images" in result.stderr


def test_a_hostile_file_name_plays_no_tricks(tmp_path):
    path = tmp_path / "x\x1b[31m.yml"
    path.write_text("nonsense: 1\n")
    for arguments in (("validate", path), ("build", path)):
        result = run(*arguments, color=True)
        assert result.exit_code == 2
        assert "\x1b[31m." not in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--base", "", "a base image"),
        ("--mirror", "", "a URL"),
        ("--mirror", "http://[::1", "a URL"),
        ("--mirror", "http://x/$(id)", "a URL"),
        ("--mirror", "http://user:secret@m.example/debian", "a URL"),
        ("--output", "", "the path is empty"),
        ("--template", "../vm-templates/debian-trixie", "no helper template"),
        ("--max-age", "nan", "--max-age"),
        ("--refresh", "nonesuch", "no stage 'nonesuch'"),
    ],
)
@pytest.mark.usefixtures("nothing_starts")
def test_an_option_that_cannot_be_is_refused(recipe, option, value, complaint):
    result = run("build", recipe, option, value, "--dry-run")
    assert result.exit_code == 2
    assert complaint in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["build", "x", "--nope"], ["boot-test", "/nonexistent"]])
def test_json_errors_come_for_wrong_arguments_too(arguments):
    argv = [sys.executable, "-m", "particle_os", *arguments, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 2
    assert json.loads(done.stderr)["exit_code"] == 2


def test_without_a_home_doctor_says_what_to_do(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    result = run("doctor")
    assert result.exit_code == 5
    assert "the cache directory /dev/null/particle-os cannot be made" in result.stdout
    assert "XDG_CACHE_HOME" in result.stdout


@pytest.mark.parametrize(
    ("option", "place", "why"),
    [
        ("--junit", "/proc/x.xml", "No such file"),
        ("--report", "/proc/x.html", "No such file"),
        ("--junit", "missing/x.xml", "there is no such directory"),
        ("--evidence", "/proc/x", "No such file"),
        ("--evidence", "file/x", "Not a directory"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_boot(
    tmp_path, monkeypatch, option, place, why
):
    monkeypatch.setattr(session, "boot", None)
    monkeypatch.chdir(tmp_path)
    for name in ("image.raw", "file"):
        (tmp_path / name).write_bytes(bytes(1024))
    result = run("boot-test", "image.raw", "--accel", "tcg", option, place)
    assert result.exit_code == 2
    assert f"{place} cannot be written: {why}" in result.stderr


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("--junit", "image.raw"), ("--report", "image.raw"), ("--evidence", "image.raw"),
        ("--junit", "symbolic"), ("--report", "hard"), ("--junit", "checks.yml"),
    ],
)  # fmt: skip
def test_a_boot_test_does_not_write_to_what_it_reads(tmp_path, monkeypatch, option, place):
    monkeypatch.setattr(session, "boot", None)
    monkeypatch.chdir(tmp_path)
    image, checks = tmp_path / "image.raw", tmp_path / "checks.yml"
    image.write_bytes(bytes(1024))
    checks.write_text("checks: []\n")
    (tmp_path / "symbolic").symlink_to(image)
    (tmp_path / "hard").hardlink_to(image)
    result = run("boot-test", image, "--accel", "tcg", "--checks", checks, option, place)
    assert result.exit_code == 2
    assert "needs it for something else" in result.stderr or "is a file" in result.stderr
    assert (image.read_bytes(), checks.read_text()) == (bytes(1024), "checks: []\n")


def test_a_boot_test_does_not_write_two_reports_to_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "boot", None)
    image, file = tmp_path / "image.raw", tmp_path / "x"
    image.write_bytes(bytes(1024))
    result = run("boot-test", image, "--accel", "tcg", "--junit", file, "--report", file)
    assert result.exit_code == 2
    assert "needs it for something else" in result.stderr


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("place", ["test.yml", "key", "out/test.raw", "out/test.result.json"])
def test_a_build_does_not_write_to_what_it_reads_and_leaves(tmp_path, place):
    files = "  - {type: files, files: [{path: /x, source: key}]}\n"
    texts = {"test.yml": MINIMAL.replace("  - type: qemu", f"{files}  - type: qemu"), "key": "k"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    arguments = ["--output", tmp_path / "out", "--junit", tmp_path / place]
    result = run("build", tmp_path / "test.yml", *arguments)
    assert result.exit_code == 2
    assert "needs it for something else" in result.stderr
    assert texts == {name: (tmp_path / name).read_text() for name in texts}


@pytest.mark.usefixtures("nothing_starts")
def test_a_build_whose_junit_file_cannot_be_written_does_not_start(recipe, tmp_path):
    result = run("build", recipe, "--output", tmp_path / "out", "--junit", "/proc/x.xml")
    assert result.exit_code == 2
    assert "/proc/x.xml cannot be written" in result.stderr
    # The output directory need not be there.
    result = run("build", recipe, "--output", tmp_path / "new", "--junit", tmp_path / "new/x.xml")
    assert "cannot be written" not in result.stderr


def test_the_junit_file_of_a_failed_build_is_not_that_of_the_last_one(
    recipe, tmp_path, monkeypatch
):
    def fail(plan, progress):
        raise StageFailed("stage apt failed")

    monkeypatch.setattr("particle_os.jobs.build.build", fail)
    junit = tmp_path / "boot.xml"
    junit.write_text("of last time")
    result = run("build", recipe, "--output", tmp_path / "out", "--junit", junit)
    assert result.exit_code == 3
    assert 'message="stage apt failed"' in junit.read_text()


def test_a_file_that_can_be_written_is_left_as_it_was(tmp_path):
    there, missing = tmp_path / "there.xml", tmp_path / "missing.xml"
    there.write_text("of last time")
    for file in (there, missing, Path("/dev/stdout")):
        verdicts.check_writable(file)
    assert there.read_text() == "of last time"
    assert not missing.exists()
    verdicts.make_writable(tmp_path / "a/b")
    assert list((tmp_path / "a/b").iterdir()) == []
