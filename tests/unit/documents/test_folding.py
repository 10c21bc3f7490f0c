import pytest
from particle_os.documents import folding
from particle_os.errors import Problem


def problem(line, message, code="bad", path="r.yml", hint=None):
    return Problem(path, line, 1, code, message, hint)


def shown(*found):
    return [(p.line, more) for p, more in folding.problems(found)]


def test_problems_of_one_kind_are_folded_after_the_third_with_their_lines():
    found = [problem(n, f"'k{n}' is no key") for n in range(1, 11)]
    assert shown(*found) == [(1, None), (2, None), (3, "and 7 more like it, in lines "
                                                      "4, 5, 6, 7, 8, 9, 10")]  # fmt: skip
    found = [problem(n, f"'k{n}' is no key") for n in range(1, 21)]
    assert shown(*found)[-1][1] == "and 17 more like it, in lines 4, 5, 6, 7, 8, 9, 10, 11, …"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_single_text_is_not_worth_folding(count):
    found = [problem(n, f"expected {n} bytes") for n in range(count)]
    assert shown(*found) == [(n, None) for n in range(count)]


def test_problems_of_other_kinds_between_them_stay_in_their_places():
    found = [problem(n, "no good") for n in range(1, 7)]
    found.insert(4, problem(9, "missing"))
    assert shown(*found) == [
        (1, None),
        (2, None),
        (3, "and 3 more like it, in lines 4, 5, 6"),
        (9, None),
    ]


@pytest.mark.parametrize(
    "other",
    [
        lambda n: problem(n, "no good", code="worse"),
        lambda n: problem(n, "no good", path="other.yml"),
        lambda n: problem(n, "another message"),
        lambda n: problem(n, "no good", hint="write it so"),
    ],
)
def test_another_code_file_message_or_hint_is_another_kind(other):
    found = [problem(n, "no good") for n in range(3)] + [other(n) for n in range(3)]
    assert len(shown(*found)) == 6


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("unknown key 'a'", "unknown key 'b c'", True),
        ("a.deb: No such file", "b_1.0.deb: No such file", True),
        ("/etc/a: wrong mode 0644", "/etc/b: wrong mode 0600", True),
        ("Err:1 http://a/x", "Err:22 http://b/y", True),
        ("no such file", "not a file", False),
        ("unknown key 'a'", "unknown value 'a'", False),
    ],
)
def test_messages_of_a_kind_differ_in_names_and_numbers_only(one, two, same):
    assert (folding.kind_of(one) == folding.kind_of(two)) is same


def test_only_lines_that_follow_each_other_are_folded():
    lines = [f"W: skipping {n}" for n in range(10)]
    assert list(folding.lines([*lines, "E: end", *lines[:2]])) == [
        *lines[:3],
        "… and 7 more lines like it",
        "E: end",
        *lines[:2],
    ]
    mixed = ["a", "b"] * 10
    assert list(folding.lines(mixed)) == mixed


def test_notes_are_folded_like_problems():
    found = [problem(n, f"stage {n} is left out") for n in range(1, 7)]
    assert list(folding.notes(found)) == [
        *map(str, found[:3]),
        "and 3 more like it, in lines 4, 5, 6",
    ]


def test_a_line_is_named_once():
    found = [problem(6, f"'k{n}' is no key") for n in range(12)]
    assert shown(*found)[-1][1] == "and 9 more like it, in line 6"
