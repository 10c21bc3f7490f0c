import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from particle_agent.stages.contents.files import File, Files
from particle_agent.stages.software.apt import Apt
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.recipe.files import attachments
from particle_os.recipe.files.attachments import NotAttachable, Origin, attach

RECIPE = """\
name: test
stages:
  - type: files
    files:
      - path: /etc/motd
        content: hello
      - path: /srv/site
        source: {source}
  - type: qemu
"""


def attached(directory, source):
    stage = Files(files=(File(path="/a", content="x"), File(path="/b", source=source)))
    complaints = []
    changed, found = attach(
        stage,
        Origin(directory, directory),
        ("stages", 0),
        lambda k, c, m: complaints.append((k, m)),
    )
    return changed, found, complaints


def test_a_file_is_named_by_its_mode_and_content(tmp_path):
    (tmp_path / "motd").write_bytes(b"\xff hello")
    (tmp_path / "motd").chmod(0o4750)
    stage, (found,), complaints = attached(tmp_path, "motd")
    sha256 = hashlib.sha256(b"\xff hello").hexdigest()
    assert complaints == []
    assert stage.files[1].source == found.reference == f"mode-4750:{sha256}"
    assert stage.files[0] == File(path="/a", content="x")
    assert found.size == 7
    with found.open(tmp_path) as data:
        assert data.read() == b"\xff hello"


def make_tree(directory):
    (directory / "css").mkdir(parents=True)
    (directory / "index.html").write_text("hi")
    (directory / "css/style.css").write_text("")
    (directory / "run.sh").write_text("#!/bin/sh\n")
    (directory / "index.html").chmod(0o600)
    (directory / "run.sh").chmod(0o4711)
    (directory / "css/style.css").chmod(0o640)
    (directory / "css").chmod(0o2750)
    directory.chmod(0o711)
    (directory / "home").symlink_to("index.html")


def test_a_directory_is_named_by_what_is_in_it_and_not_by_times_or_owners(tmp_path):
    make_tree(tmp_path / "one/site")
    make_tree(tmp_path / "two/site")
    os.utime(tmp_path / "two/site/index.html", (0, 0))
    first, (found,), _ = attached(tmp_path / "one", "site")
    second, _, _ = attached(tmp_path / "two", "./site/")
    assert first.files[1].source == second.files[1].source == found.reference
    with found.open(tmp_path) as data, tarfile.open(fileobj=data) as archive:
        assert data.seek(0, 2) == found.size
        data.seek(0)
        assert f"tree:{hashlib.sha256(data.read()).hexdigest()}" == found.reference
        data.seek(0)
        modes = {m.name: (m.mode, m.isdir(), m.linkname) for m in archive}
    assert modes == {
        ".": (0o711, True, ""),
        "css": (0o2750, True, ""),
        "css/style.css": (0o640, False, ""),
        "home": (0o777, False, "index.html"),
        "index.html": (0o600, False, ""),
        "run.sh": (0o4711, False, ""),
    }
    (tmp_path / "two/site/run.sh").chmod(0o711)
    assert attached(tmp_path / "two", "site")[1][0].reference != found.reference


def test_options_that_do_not_fit_the_source_are_reported_with_their_place(tmp_path):
    make_tree(tmp_path / "site")
    stage = Files(files=(File(path="/a", source="site", mode="0700"),))
    complaints = []
    origin = Origin(tmp_path, tmp_path)
    attach(stage, origin, ("stages", 3), lambda *complaint: complaints.append(complaint))
    ((key, code, message),) = complaints
    assert (key, code) == (("stages", 3, "files", 0, "mode"), "bad-value")
    assert "'modes'" in message


def test_a_file_that_cannot_be_attached_is_reported(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree/pipe")
    for source, why in (
        ("missing", "missing: No such file or directory"),
        ("pipe", "pipe: is no regular file"),
        ("tree", "tree: holds pipe, which is no file, directory or link"),
    ):
        _, found, complaints = attached(tmp_path, source)
        assert (found, complaints) == ([], [(("stages", 0, "files", 1, "source"), why)])


def test_a_tree_that_changes_under_way_is_no_tree(tmp_path):
    make_tree(tmp_path / "site")
    _, (found,), _ = attached(tmp_path, "site")
    os.mkfifo(tmp_path / "site/pipe")
    with pytest.raises(NotAttachable):
        found.open(tmp_path)


def test_a_recipe_knows_its_files_from_its_own_directory(tmp_path, monkeypatch):
    make_tree(tmp_path / "site")
    path = tmp_path / "r.yml"
    path.write_text(RECIPE.format(source="site"))
    monkeypatch.chdir("/")
    loaded = loading.load(path, base="tar:base.tar")
    ((attachment,), disk) = loaded.attachments
    assert loaded.recipe.stages[0].files[1].source == attachment.reference
    assert disk == ()


def test_a_missing_file_is_an_error_with_its_place(tmp_path):
    path = tmp_path / "r.yml"
    path.write_text(RECIPE.format(source="nothing"))
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path, base="tar:base.tar")
    (problem,) = raised.value.problems
    assert (problem.line, problem.column, problem.code) == (8, 17, "no-file")
    assert "nothing: No such file" in problem.message


def test_content_and_source_exclude_each_other(tmp_path):
    path = tmp_path / "r.yml"
    (tmp_path / "x").touch()
    (tmp_path / "site").mkdir()
    both = RECIPE.replace("content: hello", "content: hello\n        source: x")
    for text in (both, RECIPE.replace("        content: hello\n", "")):
        path.write_text(text.format(source="site"))
        with pytest.raises(InvalidDocument) as raised:
            loading.load(path, base="tar:base.tar")
        (problem,) = raised.value.problems
        assert "write one of 'content', 'source' and 'download'" in problem.message
        assert problem.line == 5


def attached_debs(directory, *debs):
    complaints = []
    changed, found = attach(
        Apt(debs=debs), Origin(directory, directory), ("stages", 0), lambda *c: complaints.append(c)
    )
    return [a.path.name for a in found], changed.debs, complaints


def test_package_files_are_named_by_patterns_and_directories(tmp_path):
    for name in ("build/b.deb", "build/a.deb", "build/notes.txt", "one.deb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    names, references, complaints = attached_debs(tmp_path, "one.deb", "build", "b*/b*.deb")
    assert complaints == []
    assert names == ["one.deb", "a.deb", "b.deb", "b.deb"]
    assert all(reference.startswith("sha256:") for reference in references)


@pytest.mark.parametrize("name", ["build", "x*.deb", "missing.deb", "/x*.deb", "x" * 300 + "*"])
def test_a_pattern_or_directory_without_package_files_is_an_error(tmp_path, name):
    (tmp_path / "build").mkdir()
    _, _, complaints = attached_debs(tmp_path, name)
    assert [(key, code) for key, code, _ in complaints] == [(("stages", 0, "debs", 0), "no-file")]


def test_a_pattern_does_not_lead_out_of_the_recipes_directory(tmp_path):
    (tmp_path / "x.deb").write_text("")
    (tmp_path / "inner").mkdir()
    _, _, complaints = attached_debs(tmp_path / "inner", "../*.deb")
    assert [code for _, code, _ in complaints] == ["no-file"]


@pytest.mark.slow
def test_a_tree_of_too_many_levels_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path / "tree")
    for _ in range(1500):
        Path("d").mkdir()
        os.chdir("d")
    _, found, complaints = attached(tmp_path, "tree")
    assert not found
    assert complaints == [
        (("stages", 0, "files", 1, "source"), "tree: has too many levels of directories")
    ]
    # shutil's recursion does not remove so many.
    for _ in range(1500):
        os.chdir("..")
        Path("d").rmdir()


def test_of_a_directory_that_is_not_there_nothing_else_is_reported(tmp_path):
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        "name: x\nstages:\n  - type: files\n    files:\n"
        "      - {path: /, source: tree, modes: {/a: '0644'}}\n  - type: qemu\n"
    )
    with pytest.raises(InvalidDocument) as raised:
        loading.load(recipe, base="tar:base.tar")
    assert [problem.code for problem in raised.value.problems] == ["no-file"]


def test_a_file_of_a_directory_that_becomes_a_link_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "private").write_text("private")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("public")
    plain = attachments.open_regular

    def replaced(path, **options):
        path.unlink()
        path.symlink_to(tmp_path / "private")
        return plain(path, **options)

    monkeypatch.setattr(attachments, "open_regular", replaced)
    sink = io.BytesIO()
    with pytest.raises(OSError, match="link"):
        attachments._pack(tmp_path / "tree", sink)
    assert b"private" not in sink.getvalue()
