import errno
import json
import os

import pytest
from particle_os.base import layers
from particle_os.errors import StageFailed

from ...image_layout import Layout
from .command_line import MINIMAL, run


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


def test_a_build_of_an_invalid_recipe_tells_all_errors(bad_recipe, tmp_path):
    result = run("build", bad_recipe, "--output", tmp_path / "out")
    assert result.exit_code == 2
    problems = [line for line in result.stderr.splitlines() if line.startswith(str(bad_recipe))]
    assert len(problems) == 3
    assert result.stderr.count("\n  do:    ") == 3
    assert not (tmp_path / "out").exists()


def test_an_error_can_be_had_as_json(bad_recipe):
    result = run("build", bad_recipe, "--json")
    error = json.loads(result.stderr)
    assert error["exit_code"] == 2
    assert [p["code"] for p in error["problems"]] == ["missing-key", "unknown-key", "bad-value"]


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
        assert [f"base image   {base}{' (cached)' if here else ''}"] == lines[1:2]
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


@pytest.mark.parametrize(
    ("number", "brief"), [(errno.ENOSPC, "no space left in"), (errno.EIO, "Input/output error: ")]
)
def test_an_error_of_the_build_is_shown_also_if_its_junit_file_cannot_be_written(
    recipe, tmp_path, monkeypatch, number, brief
):
    def fail(*arguments):
        raise StageFailed("stage apt failed", hint="Try another.")

    def refuse(place, data):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("particle_os.jobs.build.build", fail)
    monkeypatch.setattr("particle_os.system.publication.replace", refuse)
    junit = tmp_path / "boot.xml"
    result = run("build", recipe, "--output", tmp_path / "out", "--junit", junit)
    assert result.exit_code == 3
    for text in ("stage apt failed", "Try another.", brief):
        assert text in result.stderr
