from dataclasses import fields
from pathlib import Path

from particle_os.cli.build import build_command
from particle_os.errors import UsageError
from particle_os.jobs.plan import BuildOptions

from .command_line import run


def test_every_option_of_a_build_can_be_given_on_the_command_line():
    declared = {parameter.name for parameter in build_command.params}
    assert {field.name for field in fields(BuildOptions)} <= declared


def test_the_options_of_a_build_become_one_value(tmp_path, monkeypatch):
    seen = []

    def refuse(path, options, **more):
        seen.append(options)
        raise UsageError("seen")

    monkeypatch.setattr("particle_os.cli.build.make_plan", refuse)
    for name in ("SOURCE_DATE_EPOCH", "PARTICLE_OS_MIRROR", "PARTICLE_OS_APT_PROXY"):
        monkeypatch.delenv(name, raising=False)
    run("build", "recipe.yml")
    run(
        "build", "recipe.yml", "--output", tmp_path, "--no-cache", "--no-boot-test",
        "--max-age", "2", "--scratch-size", "1G", "--memory", "3G", "--set", "a=b",
    )  # fmt: skip
    usual, given = seen
    assert usual == BuildOptions(output_directory=Path("out"))
    assert given == BuildOptions(
        output_directory=tmp_path, cache=False, boot_test=False, max_age=7200, scratch=1 << 30,
        memory=3 << 30, variables={"a": "b"},
    )  # fmt: skip
