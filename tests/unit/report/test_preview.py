import pytest
from particle_os.errors import Problem
from particle_os.report.preview import Preview, Step

STEPS = (Step("base", "suite:\x1b", ready=True), Step("1. run", "echo"))
NOTES = (Problem(path="x.yml", line=3, column=2, code="unknown-key", message="odd"),)


@pytest.mark.parametrize(
    ("plain_note", "more"), [(None, []), ("no shortcuts", ["note: no shortcuts"])]
)
def test_a_preview_as_lines(plain_note, more):
    preview = Preview("x", None, STEPS, NOTES, plain_note)
    assert list(preview.lines()) == [
        "base         suite:\\x1b (cached)",
        "1. run       echo",
        f"note: {NOTES[0]}",
        *more,
    ]


@pytest.mark.parametrize("plain_note", [None, "no shortcuts"])
def test_a_preview_as_data(plain_note):
    data = Preview("x", "sha256:1", STEPS, NOTES, plain_note).data()
    notes = data.pop("notes")
    assert notes[0]["message"] == "odd"
    assert data == {
        "recipe": "x",
        "base_digest": "sha256:1",
        "plain": plain_note is not None,
        "steps": [
            {"step": "base", "detail": "suite:\x1b", "ready": True},
            {"step": "1. run", "detail": "echo", "ready": False},
        ],
    }
