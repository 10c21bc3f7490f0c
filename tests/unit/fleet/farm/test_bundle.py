"""A recipe travels with all of its files, or is refused before anything starts."""

import os
from pathlib import Path

import pytest
from particle_os.errors import UsageError
from particle_os.fleet.farm import parcel
from particle_os.fleet.farm.client import bundle
from particle_os.fleet.order import Order
from particle_os.jobs.plan import BuildOptions
from particle_os.recipe import loading

RECIPE = """\
name: server-${kind}
base-image: mmdebstrap:trixie
variables: {kind: a}
stages:
  - {type: apt, packages: [linux-image-cloud-amd64, systemd-sysv]}
  - include: common/files.yml
  - {type: qemu}
"""
FILES = """\
- type: files
  files:
    - {path: /etc/motd, source: motd}
    - {path: /usr/share/tree, source: tree}
"""


@pytest.fixture
def place(tmp_path):
    top = tmp_path / "recipes"
    (top / "common/tree/inner").mkdir(parents=True)
    (top / "server.yml").write_text(RECIPE)
    (top / "common/files.yml").write_text(FILES)
    (top / "common/motd").write_text("hello")
    (top / "common/motd").chmod(0o640)
    (top / "common/tree/inner/x").write_text("x")
    (top / "common/tree/link").symlink_to("inner/x")
    (top / "common/tree/inner").chmod(0o750)
    (top / "unused").write_text("a file that no stage names")
    return top


def order(place, **options):
    return Order("server-b", place / "server.yml", BuildOptions(variables={"kind": "b"}, **options))


def unpacked(found, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    parcel.unpack(found.text, there)
    return there


def test_the_recipe_makes_the_same_image_elsewhere(place, tmp_path):
    found = bundle.of_order(order(place), tmp_path)
    there = unpacked(found, tmp_path)
    one, other = (
        loading.load(path, {"kind": "b"}) for path in (place / "server.yml", there / found.recipe)
    )
    assert one.recipe == other.recipe
    assert [a.reference for s in one.attachments for a in s] == [
        a.reference for s in other.attachments for a in s
    ]
    assert os.readlink(there / "common/tree/link") == "inner/x"
    assert not (there / "unused").exists()


def test_a_relative_path_and_a_link_to_the_recipe_do_as_well(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    (place / "common/motd").rename(place / "common/real")
    (place / "common/motd").symlink_to("real")
    found = bundle.of_order(
        Order("server-b", Path("server.yml"), BuildOptions(variables={"kind": "b"})), tmp_path
    )
    there = unpacked(found, tmp_path)
    assert (there / "common/motd").read_text() == "hello"
    assert not (there / "common/motd").is_symlink()


def test_the_assignment_has_the_options_of_the_build_and_none_of_the_worker(place, tmp_path):
    given = order(
        place, output_directory=Path("/o"), memory=3 << 30, cache_from=("file:///c",),
        cache_keys=(Path("/k"),), allow_outside=True, keep_on_failure=True,
    )  # fmt: skip
    made = bundle.of_order(given, tmp_path).assignment(given, "k" * 32, lines=False)
    assert {"--memory", "3072M", "--set=-"} <= set(made.arguments)
    assert made.variables == {"kind": "b"}
    own = ("--output", "--cache", "--allow", "--keep")
    assert not [word for word in made.arguments if word.startswith(own)]
    assert made.command == () and made.recipe == "server.yml"


FOREIGN = """\
name: server-${kind}
base-image: mmdebstrap:trixie
variables: {kind: a}
stages:
  - {type: apt, packages: [KERNEL, systemd-sysv, systemd-boot]}
  - include: common/files.yml
  - {type: qemu, boot-loader: systemd-boot}
"""


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_option_for_the_architecture_travels(place, tmp_path, architecture):
    """Without it, a kernel of arm64 is an error in a recipe for amd64."""
    kernel = f"linux-image-cloud-{architecture}"
    (place / "server.yml").write_text(FOREIGN.replace("KERNEL", kernel))
    given = order(place, architecture=architecture)
    made = bundle.of_order(given, tmp_path).assignment(given, "k" * 32, lines=False)
    assert made.arguments[made.arguments.index("--architecture") + 1] == architecture


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_files_of_a_stage_for_one_architecture_travel(place, tmp_path, architecture):
    line = "  - {type: apt, packages: [KERNEL, systemd-sysv, systemd-boot]}\n"
    kernels = [
        line.replace("type", f"when: {{architecture: {each}}}, type").replace(
            "KERNEL", f"linux-image-cloud-{each}"
        )
        for each in ("amd64", "arm64")
    ]
    assert line in FOREIGN
    (place / "server.yml").write_text(FOREIGN.replace(line, "".join(kernels)))
    condition = "- when: {architecture: arm64}\n  type: files"
    (place / "common/files.yml").write_text(FILES.replace("- type: files", condition))
    there = unpacked(bundle.of_order(order(place, architecture=architecture), tmp_path), tmp_path)
    assert (there / "common/motd").exists() == (architecture == "arm64")


def test_secrets_are_refused(place, tmp_path):
    (place / "common/files.yml").write_text(
        "- {type: run, command: [x], secrets: [{name: token, env: TOKEN}]}\n"
    )
    with pytest.raises(UsageError, match="secrets, which do not travel") as caught:
        bundle.of_order(order(place), tmp_path)
    assert "local:1" in caught.value.hint


def test_files_outside_are_refused_even_with_allow_outside(place, tmp_path):
    (tmp_path / "outside").write_text("x")
    (place / "common/motd").unlink()
    (place / "common/files.yml").write_text(FILES.replace("source: motd", "source: ../../outside"))
    with pytest.raises(UsageError, match="lies outside") as caught:
        bundle.of_order(order(place, allow_outside=True), tmp_path)
    assert str(place) in caught.value.hint


def test_large_files_are_refused_with_what_to_do(place, tmp_path):
    with (place / "common/motd").open("wb") as file:
        file.truncate(parcel.LIMIT + 1)
    with pytest.raises(UsageError, match="too large to travel") as caught:
        bundle.of_order(order(place), tmp_path)
    assert "download" in caught.value.hint


def test_a_base_that_is_a_file_travels_with_its_recipe_only(place, tmp_path):
    with pytest.raises(UsageError, match="a file of this machine"):
        bundle.of_order(order(place, base="tar:base.tar"), tmp_path)


def test_goss_tests_travel(place, tmp_path):
    text = (place / "server.yml").read_text()
    (place / "server.yml").write_text(f"{text}boot-test: {{goss: goss.yml}}\n")
    (place / "goss.yml").write_text("file: {/etc/passwd: {exists: true}}\n")
    there = unpacked(bundle.of_order(order(place), tmp_path), tmp_path)
    assert (there / "goss.yml").exists()


def test_a_file_that_the_farm_does_not_know_of_is_noticed(place, tmp_path, monkeypatch):
    """A positive control: the recipe is read again, from the parcel alone."""
    files = bundle._files
    monkeypatch.setattr(
        bundle, "_files", lambda *given: [pair for pair in files(*given) if "motd" not in pair[0]]
    )
    with pytest.raises(UsageError, match="cannot travel"):
        bundle.of_order(order(place), tmp_path)
