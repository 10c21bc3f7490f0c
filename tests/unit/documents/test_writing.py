"""YAML that is written is read as the same data, also after it has passed a CI system."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from particle_os.documents import parsing
from particle_os.documents.writing import as_yaml
from particle_os.errors import printable, whole_line

TEXTS = [
    "", "~", "null", "yes", "no", "true", "0", "010", "0o755", "0x1f", "1e5", "1.5", "1_000",
    "12:30", "- a", "a: b", "a #b", "#", "'", '"', "a\n", "a\n\n", "\na", " a", "a ", "a\n  b\n",
    "a \nb", "\t", "a\tb\nc", "ä", "\u202e", "\u0085x", "a\u2028b", "##[group]", "a\n##[x]\n",
    "::error::x", "a\n ::stop-commands::x\n", "é::x", "x" * 500, "x y " * 100, "${a}", "%", "@a",
    "---", "...", "=", "9" * 30, "\ufeff", "\U0001f600", "\x07", "\r", "a\r\nb",
]  # fmt: skip
PLAIN = st.one_of(
    st.sampled_from(TEXTS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.booleans(),
    st.integers(-(10**15), 10**15),
    st.none(),
)
DATA = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(TEXTS), st.text("a:#- ", max_size=4)), inner),
    ),
    max_leaves=10,
)


def read(tmp_path, lines):
    path = tmp_path / "x.yml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = parsing.load(path)
    assert source.problems == []
    return source.data


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_as_it_was(tmp_path, text):
    data = {"key": text, "list": [text, {text: text}], "in": {"deep": text}}
    lines = as_yaml(data)
    assert [printable(line, len(line)) for line in lines] == [whole_line(line) for line in lines]
    assert read(tmp_path, map(whole_line, lines)) == data


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(data=DATA)
def test_all_data_is_read_as_it_was(tmp_path_factory, data):
    lines = as_yaml({"key": data})
    assert "".join(lines).isascii()
    assert read(tmp_path_factory.mktemp("x"), map(whole_line, lines)) == {"key": data}


def test_a_script_stays_readable():
    assert as_yaml({"script": "set -e\necho a\n"}) == ["script: |", "  set -e", "  echo a"]


def test_the_order_of_a_mapping_stays():
    """A later pattern of a recipe outweighs an earlier one."""
    assert as_yaml({"b": 1, "a": {"d": 2, "c": 3}}) == ["b: 1", "a:", "  d: 2", "  c: 3"]
