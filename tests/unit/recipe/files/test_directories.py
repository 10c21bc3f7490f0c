"""The host looks at a bounded part of the directories that a recipe names."""

import os
from pathlib import Path

import pytest
from particle_agent.stages.software.apt import Apt
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.recipe.files import directories
from particle_os.recipe.files.attachments import Origin, attach

from ....limited import limited

TREE = "  - {type: files, files: [{path: %s, source: tree}]}\n"


@pytest.fixture
def problems(tmp_path):
    def problems(stages):
        (tmp_path / "r.yml").write_text(f"name: x\nstages:\n{stages}  - type: qemu\n")
        with pytest.raises(InvalidDocument) as raised:
            loading.load(tmp_path / "r.yml", base="tar:base.tar")
        return [(p.code, p.message) for p in raised.value.problems]

    return problems


def test_all_of_a_tree_comes_in_order_and_links_are_not_followed(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "b.d").mkdir()
    (tmp_path / "a").write_text("")
    found = list(directories.walk(tmp_path))
    assert found == [
        ("a", False), ("b", True), ("b/up", False), ("b/x", False), ("b.d", True)
    ]  # fmt: skip


def test_empty_directories_count_too(tmp_path, problems, monkeypatch):
    monkeypatch.setattr(directories, "ENTRIES_LIMIT", 10)
    for number in range(11):
        (tmp_path / "tree" / f"d{number}").mkdir(parents=True)
    assert problems(TREE % "/etc") == [("no-file", "tree: holds more than 10 files")]
    found = problems("  - {type: apt, debs: ['tree/*/*.deb']}\n")
    assert found == [("no-file", "tree/*/*.deb: holds more than 10 files")]


def test_a_tree_is_not_read_further_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(directories, "ENTRIES_LIMIT", 10)
    for name in "abcdef":
        (tmp_path / name).mkdir()
        for number in range(5):
            (tmp_path / name / str(number)).touch()
    read = []
    with pytest.raises(OSError, match="holds more than 10 files"):
        read.extend(directories.walk(tmp_path))
    with pytest.raises(OSError, match="holds more than 10 files"):
        directories.matching(tmp_path, ["*", "*"], None)
    assert len(directories.matching(tmp_path / "a", ["*"], None)) == 5
    assert [name for name, _ in read] == ["a", "a/0", "a/1", "a/2", "a/3", "a/4"][: len(read)]


def test_many_files_of_one_tree_or_pattern_are_one_summary(tmp_path, problems):
    for number in range(30):
        (tmp_path / "tree" / f"{number:02}").mkdir(parents=True)
        (tmp_path / "tree" / f"{number:02}" / "x").write_text("")
        os.mkfifo(tmp_path / f"{number:02}.deb")
    lost = problems(TREE % "/tmp")
    assert len(lost) == directories.NAMED + 1
    assert ("overwritten", "10 more files would be lost") in lost
    faults = problems("  - {type: apt, debs: ['*.deb']}\n")
    assert len(faults) == directories.NAMED + 1
    assert ("no-file", "and more files") in faults


@pytest.fixture
def deep(tmp_path, monkeypatch):
    """Makes a directory `tree` with 1100 levels below it."""
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path / "tree")
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    yield
    # shutil's recursion does not remove so many.
    for _ in range(1100):
        os.chdir("..")
        Path("d").rmdir()


@pytest.mark.slow
@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize("stage", [TREE % "/etc", "  - {type: apt, debs: ['*/*/*/*.deb']}\n"])
def test_a_deep_tree_takes_little_time(tmp_path, stage):
    (tmp_path / "r.yml").write_text(f"name: x\nstages:\n{stage}  - type: qemu\n")
    setup = "from pathlib import Path\nfrom particle_os.recipe import loading"
    action = "loading.load(Path(sys.argv[1]), base='tar:base.tar')"
    assert "no-file" in limited(setup, action, tmp_path / "r.yml")


def test_the_files_of_a_wrong_stage_are_found_as_those_of_a_right_one(tmp_path, problems):
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs" / "a.deb").write_text("")
    found = problems("  - {type: apt, pakages: [vim], debs: [debs/, 'debs/*.deb', 'no/*.deb']}\n")
    assert found == [
        ("unknown-key", "unknown key 'pakages'"),
        ("no-file", "no/*.deb: no file '*.deb' there"),
    ]


def test_a_file_named_like_a_pattern_is_taken(tmp_path):
    (tmp_path / "[a].deb").write_text("")
    _, found = attach(Apt(debs=("[a].deb",)), Origin(tmp_path, tmp_path), (), print)
    assert [each.path.name for each in found] == ["[a].deb"]
