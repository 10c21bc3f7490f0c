import pytest
from particle_os.errors import InvalidDocument, UsageError
from particle_os.sandbox.template import load_template, memory_bytes, templates, with_mirror

from .conftest import TEMPLATE


@pytest.mark.parametrize("path", templates(), ids=lambda p: p.stem)
def test_the_templates_are_valid(path):
    loaded = load_template(path.stem)
    assert loaded.name == path.stem
    assert loaded.description
    assert memory_bytes(loaded) >= 256 << 20


def test_what_is_not_said_has_a_default(template):
    assert template.kernel is None
    assert template.mirror is None
    assert memory_bytes(template) == 2 << 30


def test_a_template_that_does_not_exist_is_reported_with_those_that_do():
    with pytest.raises(UsageError, match="no helper template 'nonsense'") as raised:
        load_template("nonsense")
    assert "debian-trixie" in raised.value.hint


def test_all_that_is_wrong_with_a_template_is_reported(tmp_path):
    path = tmp_path / "bad.yml"
    path.write_text(TEMPLATE + "memroy: 1G\ncpus: 0\nmirror: ftp://example\n")
    with pytest.raises(InvalidDocument) as raised:
        load_template(str(path))
    found = [(p.line, p.column, p.code) for p in raised.value.problems]
    assert found == [(4, 1, "unknown-key"), (5, 7, "bad-value"), (6, 9, "bad-value")]
    assert raised.value.problems[0].hint == "did you mean 'memory'?"


def test_another_mirror_can_be_given(template):
    assert with_mirror(template, "http://mirror.example/debian").mirror
    for text in ("mirror.example", "file:///etc", "http://a b", "http://a'b", "-x", ""):
        with pytest.raises(UsageError, match="--mirror"):
            with_mirror(template, text)
