"""Included files: their stages replace the `include`, and errors name the included file."""

import hashlib
from pathlib import Path

import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.recipe.passes import include

TOP = "variables: {zone: UTC}\nname: test\nstages:\n"


@pytest.fixture
def write(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.yml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path / "main.yml"

    return write


def problems(path):
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path, base="tar:base.tar")
    return [(p.path.rpartition("/")[2], p.line, p.column, p.code) for p in raised.value.problems]


def test_stages_of_other_files_stand_where_they_are_included(write, tmp_path):
    path = write(
        main=TOP + "  - include: common/base.yml\n  - type: apt\n  - include: disk.yml\n",
        common__base="- {type: timezone, zone: '${zone}'}\n- include: more.yml\n",
        common__more="stages:\n  - {type: locale, default: C}\n",
        disk="- type: qemu\n",
    )
    loaded = loading.load(path, base="tar:base.tar")
    assert [s.type for s in loaded.recipe.stages] == ["timezone", "locale", "apt", "qemu"]
    assert loaded.recipe.stages[0].zone == "UTC"
    shown = [(str(p.path.relative_to(tmp_path)), p.line) for p in loaded.places]
    assert shown == [
        ("common/base.yml", 1),
        ("common/more.yml", 2),
        ("main.yml", 5),
        ("disk.yml", 1),
    ]
    digest = hashlib.sha256((tmp_path / "disk.yml").read_bytes()).hexdigest()
    assert loaded.included["disk.yml"] == digest
    assert set(loaded.included) == {"common/base.yml", "common/more.yml", "disk.yml"}
    assert loaded.files[path] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_variable_may_choose_the_file(write):
    path = write(main=TOP + "  - include: ${zone}.yml\n", UTC="- type: qemu\n")
    assert loading.load(path, base="tar:base.tar").recipe.stages[0].type == "qemu"


def test_a_variable_that_is_a_number_becomes_a_text_as_an_argument(write):
    path = write(
        main="variables: {port: 80}\nname: test\nstages:\n"
        '  - {include: a.yml, with: {text: "${port}"}}\n  - type: qemu\n',
        a='variables: {text: {type: string}}\nstages:\n  - {type: run, command: [a, "${text}"]}\n',
    )
    assert loading.load(path, base="tar:base.tar").recipe.stages[0].command == ("a", "80")


def test_files_of_the_host_are_relative_to_the_file_that_names_them(write, tmp_path):
    path = write(
        main=TOP + "  - include: common/base.yml\n  - type: qemu\n",
        common__base="- {type: files, files: [{path: /etc/motd, source: motd}]}\n",
    )
    (tmp_path / "common/motd").write_text("hello")
    (attached,) = loading.load(path, base="tar:base.tar").attachments[0]
    assert attached.path == tmp_path / "common/motd"


def test_errors_are_reported_in_the_file_that_has_them(write):
    path = write(
        main=TOP + "  - {type: apt, pakages: []}\n  - include: a.yml\n  - include: b.yml\n"
        "  - {type: qemu, size: 5}\n",
        a="- {type: apt, updat: true}\n- {type: locale, default: '${zon}'}\n",
        b="- [x\n",
    )
    assert problems(path) == [
        ("a.yml", 1, 15, "unknown-key"),
        ("a.yml", 2, 28, "unknown-variable"),
        ("b.yml", 2, 1, "yaml"),
        ("main.yml", 4, 17, "unknown-key"),
        ("main.yml", 7, 24, "bad-value"),
    ]


@pytest.mark.parametrize(
    ("item", "column", "code"),
    [
        ("include: missing.yml", 14, "no-file"),
        ("include: .", 14, "bad-value"),
        ("include: common", 14, "no-file"),
        ("include: /etc/passwd", 14, "bad-value"),
        ("include: 5", 14, "bad-value"),
        ("include: ''", 14, "bad-value"),
        ('include: "a\\0b"', 14, "bad-value"),
        ("{include: ok.yml, type: apt}", 23, "unknown-key"),
        ("include: main.yml", 14, "include-cycle"),
        ("include: ../HERE/main.yml", 14, "include-cycle"),
    ],
)
def test_an_include_that_is_wrong(write, tmp_path, item, column, code):
    path = write(main=TOP + f"  - {item.replace('HERE', tmp_path.name)}\n", ok="- type: qemu\n")
    (tmp_path / "common").mkdir()
    assert problems(path) == [("main.yml", 4, column, code)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5\n", (1, 1, "bad-type")),
        ("{}\n", (1, 1, "bad-type")),
        ("stages: x\n", (1, 9, "bad-type")),
        ("boot-test: {}\nstages: [{type: qemu}]\n", (1, 1, "unknown-key")),
        ("", (1, 1, "empty")),
    ],
)
def test_a_file_that_cannot_be_included(write, text, found):
    assert problems(write(main=TOP + "  - include: a.yml\n", a=text)) == [("a.yml", *found)]


@pytest.mark.parametrize("link", [False, True])
def test_a_file_of_another_directory_is_named_as_others_name_it(write, tmp_path, monkeypatch, link):
    """GitHub shows an annotation only if its path is the path in the repository."""
    write(recipes__main=TOP + "  - include: ../common/a.yml\n", common__a="- {type: nonsense}\n")
    if link:
        (tmp_path / "far").mkdir()
        (tmp_path / "recipes").rename(tmp_path / "far/recipes")
        (tmp_path / "common").rename(tmp_path / "far/common")
        (tmp_path / "recipes").symlink_to("far/recipes")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidDocument) as raised:
        loading.load(Path("recipes/main.yml"), base="tar:base.tar", allow_outside=True)
    (problem,) = raised.value.problems
    assert problem.path == ("recipes/../common/a.yml" if link else "common/a.yml")


def test_a_cycle_is_reported_with_its_chain(write):
    path = write(main=TOP + "  - include: a.yml\n", a="- include: b.yml\n", b="- include: a.yml\n")
    with pytest.raises(InvalidDocument) as raised:
        loading.load(path, base="tar:base.tar")
    (problem,) = raised.value.problems
    names = [step.rpartition("/")[2] for step in problem.message.split(" -> ")]
    assert names == ["main.yml", "a.yml", "b.yml", "a.yml"]
    assert problem.path.endswith("b.yml")


def test_the_same_file_may_come_twice(write):
    path = write(
        main=TOP + "  - include: a.yml\n  - include: a.yml\n  - type: qemu\n", a="- type: apt\n"
    )
    assert len(loading.load(path, base="tar:base.tar").recipe.stages) == 3


def test_depth_is_bounded(write):
    files = {f"f{i}": f"- include: f{i + 1}.yml\n" for i in range(20)}
    path = write(main=TOP + "  - include: f0.yml\n", **files, f20="- type: qemu\n")
    assert problems(path) == [("f9.yml", 1, 12, "too-complex")]


def test_files_that_multiply_each_other_are_bounded(write):
    files = {f"f{i}": f"- include: f{i + 1}.yml\n" * 5 for i in range(8)}
    path = write(main=TOP + "  - include: f0.yml\n", **files, f8="- type: apt\n" * 100)
    assert [p[3] for p in problems(path)] == ["too-complex"]


def test_what_is_included_is_bounded_as_a_whole(write, monkeypatch):
    monkeypatch.setattr(include, "NODE_LIMIT", 1000)
    path = write(main=TOP + "  - include: a.yml\n" * 20, a="- {type: apt, packages: [a, b]}\n" * 30)
    assert [p[3] for p in problems(path)] == ["too-complex"]
