"""Errors of a file that do not depend on its subject."""

import pytest
import yaml
from particle_os.documents import document, parsing
from particle_os.errors import InvalidDocument


@pytest.fixture(autouse=True, params=["libyaml", "PyYAML"])
def _parser(request, monkeypatch):
    """The same comes out with and without libyaml."""
    if request.param == "PyYAML":
        monkeypatch.setattr(parsing, "CParser", yaml.SafeLoader)
        monkeypatch.setattr(document, "CParser", yaml.SafeLoader)
    elif parsing.CParser is yaml.SafeLoader:
        pytest.skip("this PyYAML comes without libyaml")


def load(tmp_path, content):
    path = tmp_path / "document.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return parsing.load(path)


def problems(tmp_path, content):
    """Everything wrong, as (line, column, code)."""
    try:
        source = load(tmp_path, content)
    except InvalidDocument as invalid:
        found = invalid.problems
    else:
        found = source.problems
    return [(p.line, p.column, p.code) for p in found]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", [(1, 1, "empty")]),
        ("# only a comment\n", [(1, 1, "empty")]),
        ("a: &anchor x\n", [(1, 4, "anchor")]),
        ("a: x\nb: *anchor\n", [(2, 4, "anchor")]),
        ("a: 1\n---\nb: 2\n", [(2, 1, "yaml")]),
        ("a:\n\tb: 1\n", [(2, 1, "yaml")]),
        ("a: [x\n", [(2, 1, "yaml")]),
        ("a: b: c\n", [(1, 5, "yaml")]),
        (b"a: x\nb: caf\xe9\n", [(2, 7, "not-utf-8")]),
        ("a: x\n".encode("utf-16"), [(1, 1, "not-utf-8")]),
        (b"\x00\x01\x02", [(1, 1, "yaml")]),
        (b"\x7fELF" + bytes(range(256)), [(2, 118, "not-utf-8")]),
        ("x" * (1 << 20) + "y", [(1, 1, "too-large")]),
        ("[" * 5000, [(1, 52, "too-complex")]),
        ("[" * 60 + "]" * 60, [(1, 52, "too-complex")]),
        ("a: 1\nb: 2\na: 3\nb: 4\n", [(3, 1, "repeated-key"), (4, 1, "repeated-key")]),
        ("a: {b: 1, b: 2}\n", [(1, 11, "repeated-key")]),
        ("? [a]\n: b\n", [(1, 3, "bad-key")]),
        ("a: !run x\n", [(1, 4, "bad-tag")]),
        ("a: !run [x]\nb: &c x\nd: *c\n", [(1, 4, "bad-tag"), (2, 4, "anchor"), (3, 4, "anchor")]),
        ('a: x\nb: "\\U00110000"\n', [(2, 7, "yaml")]),
        ('a: "\\UFFFFFFFF"\n', [(1, 7, "yaml")]),
        ('a: x\nb: "\\ud83d"\n', [(2, 4, "bad-text")]),
        ("a: !!str 5\n", [(1, 4, "bad-tag")]),
        ("a: !!python/object/apply:os.system [x]\n", [(1, 4, "bad-tag")]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_wrong_is_told_by_line_and_column(tmp_path, content, expected):
    assert problems(tmp_path, content) == expected


@pytest.mark.parametrize("content", ["---\n", "~\n", "null\n", "--- \n...\n"])
def test_a_document_that_says_nothing_is_told(tmp_path, content):
    with pytest.raises(InvalidDocument) as told:
        load(tmp_path, content)
    assert told.value.problems


def test_a_document_of_too_many_nodes_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parsing, "NODE_LIMIT", 100)
    assert problems(tmp_path, "[" + "x," * 300 + "]") == [(1, 200, "too-complex")]


def test_files_that_cannot_be_read_are_told(tmp_path):
    for path in (tmp_path / "missing.yml", tmp_path):
        with pytest.raises(InvalidDocument) as told:
            parsing.load(path)
        assert told.value.problems[0].code == "unreadable"


def test_a_repeated_key_names_the_first(tmp_path):
    source = load(tmp_path, "a: 1\n\nb: 2\na: 3\n")
    assert source.problems[0].hint == "remove one; the first is at line 1"
    assert source.data["a"] == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("12", 12),
        ("0x1f", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("'12'", "12"),
        ('"true"', "true"),
        ("0777", "0777"),
        ("1e3", 1000.0),
        ("0e1", "0e1"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_plain_words_are_what_yaml_1_2_says(tmp_path, text, value):
    found = load(tmp_path, f"key: {text}\n").data["key"]
    assert found == value
    assert isinstance(found, type(value))


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    source = load(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    assert source.data == {"a": 1, "b": "x"}
    assert source.line(("b",)) == 2


def test_a_value_that_is_absent_stands_where_its_parent_does(tmp_path):
    source = load(tmp_path, "a: 1\nb:\n  c: [x]\n")
    assert source.line(("b", "c", 0)) == 3
    assert source.line(("b", "nothing")) == 3
    assert source.line(("nothing",)) == 1


def test_a_withheld_text_is_in_no_part_of_a_message(tmp_path):
    source = load(tmp_path, "a: x\n")
    source.problem(None, "early", "before canary", "hint canary")
    source.withhold(["canary"])
    source.problem(None, "late", "after canary", "hint canary")
    source.note(source.root.mark, "noted", "a note on canary")
    shown = [(one.message, one.hint) for one in (*source.problems, *source.notes)]
    assert shown == [("before ***", "hint ***"), ("after ***", "hint ***"), ("a note on ***", None)]


def test_a_short_text_is_not_withheld(tmp_path):
    """A text of three characters occurs in ordinary words, and would make messages unreadable."""
    source = load(tmp_path, "a: x\n")
    source.withhold(["abc", "abcd"])
    source.problem(None, "late", "abc abcd", "abcd abc")
    (problem,) = source.problems
    assert (problem.message, problem.hint) == ("abc ***", "*** abc")


def test_a_value_and_its_key_have_their_own_places(tmp_path):
    source = load(tmp_path, "a:\n  b: 1\n")
    assert source.mark(("a",))[1:] == (2, 3)
    assert source.mark(("a",), of_key=True)[1:] == (1, 1)
    assert document.Source(tmp_path).mark(())[1:] == (1, 1)


@pytest.mark.parametrize(("opening", "closing"), [("{a: ", "}"), ("[", "]")])
def test_a_document_may_be_as_deep_as_its_limit(tmp_path, opening, closing):
    most = parsing.DEPTH_LIMIT
    assert problems(tmp_path, opening * most + "1" + closing * most) == []
    ((line, _, code),) = problems(tmp_path, opening * (most + 1) + "1" + closing * (most + 1))
    assert (line, code) == (1, "too-complex")


def test_as_many_values_as_the_limit_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parsing, "NODE_LIMIT", 4)
    assert problems(tmp_path, "[1, 2, 3]") == []
    assert problems(tmp_path, "[1, 2, 3, 4]") == [(1, 11, "too-complex")]
