"""The goss file of the boot test: it is read with its document, and from its directory only."""

import pytest
from particle_os.errors import InvalidDocument
from particle_os.jobs.boot_tests.wanted import BootTestJob
from particle_os.recipe import loading
from particle_os.recipe.passes.structure import GOSS_BYTES

RECIPE = "name: x\nstages: [{type: qemu}]\nboot-test:\n  goss: '%s'\n"


@pytest.fixture
def directory(tmp_path):
    """A directory with goss files, below a directory with another one."""
    inner = tmp_path / "recipes"
    inner.mkdir()
    (tmp_path / "other.yaml").write_text("file: {}\n")
    (inner / "goss.yaml").write_bytes(b"file: {}\n")
    (inner / "linked.yaml").symlink_to(tmp_path / "other.yaml")
    (inner / "long.yaml").write_bytes(bytes(GOSS_BYTES + 1))
    return inner


def of_recipe(directory, name, **options):
    path = directory / "x.yml"
    path.write_text(RECIPE % name)
    return loading.load(path, base="tar:base.tar", **options).goss


def of_checks(directory, name):
    path = directory / "checks.yml"
    path.write_text(f"checks: []\ngoss: '{name}'\n")
    return loading.load_boot_test(path)[1]


def problem(read, *arguments):
    with pytest.raises(InvalidDocument) as raised:
        read(*arguments)
    (found,) = raised.value.problems
    return found


@pytest.mark.parametrize("read", [of_recipe, of_checks])
def test_its_bytes_are_read(directory, read):
    assert read(directory, "goss.yaml") == b"file: {}\n"


@pytest.mark.parametrize("read", [of_recipe, of_checks])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../other.yaml", "lies outside"),
        ("linked.yaml", "lies outside"),
        ("/etc/passwd", "lies outside"),
        ("none.yaml", "No such file"),
        (".", "not a regular file"),
        ("long.yaml", "larger than 65536 bytes"),
        ("a" * 300, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_taken_is_told_with_its_place(directory, read, name, words):
    found = problem(read, directory, name)
    assert words in found.message
    assert (found.code, found.line > 1, found.hint is not None) == ("no-file", True, True)


def test_the_user_may_allow_other_files(directory):
    assert of_recipe(directory, "../other.yaml", allow_outside=True) == b"file: {}\n"


def test_a_key_in_place_of_the_name_is_not_shown(directory):
    assert "1CANARY" not in str(problem(of_checks, directory, "AGE-SECRET-KEY-1CANARY"))


@pytest.mark.parametrize("name", ["", "a\\0b"])
def test_a_name_that_is_no_path_is_refused(directory, name):
    path = directory / "x.yml"
    path.write_text(RECIPE.replace("'%s'", f'"{name}"'))
    with pytest.raises(InvalidDocument):
        loading.load(path, base="tar:base.tar")


def test_a_document_without_a_goss_file_has_none(directory):
    path = directory / "x.yml"
    path.write_text("name: x\nstages: [{type: qemu}]\n")
    assert loading.load(path, base="tar:base.tar").goss is None
    assert loading.load_boot_test(None)[1] is None


@pytest.mark.parametrize(
    ("load", "text"),
    [
        (loading.load, RECIPE.replace("goss: '%s'", "testinfra: tests")),
        (loading.load_boot_test, "testinfra: tests\n"),
    ],
)
def test_no_document_runs_python_on_the_host(directory, load, text):
    path = directory / "x.yml"
    path.write_text(text)
    with pytest.raises(InvalidDocument) as raised:
        load(path)
    (hint,) = (each.hint for each in raised.value.problems if each.code == "unknown-key")
    assert "a recipe cannot run Python on the host" in hint
    assert BootTestJob.__dataclass_fields__["testinfra"].default is None


def test_a_goss_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "goss.yaml").write_bytes(b"\xff\xfe")
    recipe = tmp_path / "r.yml"
    recipe.write_text("name: x\nstages: [{type: qemu}]\nboot-test: {goss: goss.yaml}\n")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(recipe)
    assert "bad-file" in [problem.code for problem in raised.value.problems]
