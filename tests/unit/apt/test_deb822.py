import pytest
from particle_os.apt.deb822 import Malformed, paragraphs

from ...limited import limited


def test_fields_are_found_by_their_names_in_lower_case():
    text = "Package: curl\nVERSION:1:2\n\n \nPackage:  vim \r\nEmpty:\n"
    assert list(paragraphs(text)) == [
        {"package": "curl", "version": "1:2"},
        {"package": "vim", "empty": ""},
    ]


def test_a_field_goes_on_in_indented_lines_whatever_they_hold():
    text = "Signed-By:\n -----BEGIN-----\n .\n\tKey: a\n# a comment\n end\nTypes: deb"
    assert list(paragraphs(text)) == [
        {"signed-by": "\n -----BEGIN-----\n .\n\tKey: a\n end", "types": "deb"}
    ]


def test_empty_text_has_no_paragraph():
    assert list(paragraphs("\n\n# only a comment\n\n")) == []


@pytest.mark.parametrize("text", ["words alone\n", " begins with more\n", "A: b\n\n more\n", ": x"])
def test_text_that_is_no_paragraph_is_an_error(text):
    with pytest.raises(Malformed, match="no field"):
        list(paragraphs(text))


@pytest.mark.slow
def test_a_field_of_very_many_lines_is_read_in_bounds():
    setup = "from particle_os.apt.deb822 import paragraphs"
    action = "print(len(list(paragraphs('A: b\\n' + ' a\\n' * 500_000))))"
    assert limited(setup, action) == "1\n"


@pytest.mark.slow
def test_a_text_of_many_empty_lines_takes_little_memory():
    setup = "from particle_os.apt.deb822 import paragraphs"
    action = "print(len(list(paragraphs('A: b' + '\\n' * (8 << 20) + 'C: d'))))"
    assert limited(setup, action) == "2\n"
