"""The summaries of CI jobs: plain text whatever a guest says."""

import pytest
from markdown_it import MarkdownIt
from particle_os.boot.observation.verdict import CheckResult, Verdict
from particle_os.errors import StageFailed
from particle_os.report.ci import markdown

PASSED = Verdict(status="passed", seconds=12.5, message="it is up")
HOSTILE = (
    "a | b", "[x](https://example.org)", "<img src=x>", "`code` *em* _em_ ~~s~~", "# heading",
    "https://example.org", "www.example.org", "@everyone", "::error::x", "- item", "&lt;", "\\|",
    "![i](j)", "a\nb", "\x1b[31m", "| --- |",
)  # fmt: skip
# Plain text in cells, headings and items of lists, and fenced text.
OURS = {
    "heading_open", "heading_close", "inline", "paragraph_open", "paragraph_close", "fence",
    "table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close",
    "tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close", "bullet_list_open",
    "bullet_list_close", "list_item_open", "list_item_close",
}  # fmt: skip


def parsed(text):
    """The tokens of a document, as GitHub and GitLab parse it."""
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable("table").parse(text)


def shown(text):
    """The texts of all cells and lines."""
    inline = [token for token in parsed(text) if token.type == "inline"]
    kinds = {child.type for token in inline for child in token.children}
    assert kinds <= {"text", "text_special"}, "a text became markup"
    return ["".join(child.content for child in token.children) for token in inline]


def test_each_boot_is_a_line_of_the_table():
    panic = Verdict(status="kernel-panic", firmware="uefi", seconds=3, message="it says so")
    text = markdown.document("web.qcow2", [PASSED, panic])
    assert shown(text) == [
        "web.qcow2: kernel-panic",
        *("boot", "verdict", "seconds", ""),
        *("bios", "passed", "12.5", "it is up"),
        *("uefi", "kernel-panic", "3.0", "it says so"),
    ]


def test_the_end_of_a_build_that_was_not_booted_is_told():
    assert shown(markdown.document("web", [])) == ["web: not booted"]
    assert shown(markdown.document("web", [PASSED]))[0] == "web: passed"


def test_the_checks_that_failed_are_listed():
    checks = (
        CheckResult(name="unit a", passed=True, detail="it is active"),
        CheckResult(name="unit b", passed=False, detail="it is inactive"),
    )
    failed = Verdict(status="checks-failed", seconds=1, message="unit b: …", checks=checks)
    assert shown(markdown.document("x", [failed]))[-1] == "bios: unit b: it is inactive"


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_guest_is_markup(text):
    check = CheckResult(name=text, passed=False, detail=text)
    verdict = Verdict(
        status="timed-out",
        seconds=1,
        message=text,
        checks=(check,),
        console_tail=(text, "```", text),
        screen=(text, "````"),
    )
    found = markdown.document(text, [verdict])
    assert {token.type for token in parsed(found)} <= OURS
    plain = text.replace("\n", "\\n").replace("\x1b", "\\x1b").replace("::error", "\\x3a:error")
    assert plain in shown(found)
    console, screen = [token for token in parsed(found) if token.type == "fence"]
    assert console.content == f"{plain}\n```\n{plain}\n"
    assert screen.content == f"{plain}\n````\n"


def test_a_boot_that_passed_shows_neither_console_nor_screen():
    given = {"seconds": 1, "message": "m", "console_tail": ("one",), "screen": ("two",)}
    bad, good = (Verdict(status=status, **given) for status in ("timed-out", "passed"))
    fences = [t.content for t in parsed(markdown.document("x", [bad, good])) if t.type == "fence"]
    assert fences == ["one\n", "two\n"]
    assert "The screen under bios" in markdown.document("x", [bad])


def test_a_build_that_failed_shows_its_error_and_the_last_lines():
    error = StageFailed("stage 2 (apt) failed", hint="Look at it.", tail=("one", "````", "two"))
    found = markdown.failed_build("web", error)
    lines = shown(found)
    assert lines[:3] == ["web: failed", "stage 2 (apt) failed", "Look at it."]
    (block,) = [token for token in parsed(found) if token.type == "fence"]
    assert block.content == "one\n````\ntwo\n"


def test_the_page_is_bounded():
    tail = tuple(["x" * 10_000] * 10_000)
    verdict = Verdict(
        status="timed-out", seconds=1, message="m" * 10_000, console_tail=tail, screen=tail
    )
    assert len(markdown.document("x", [verdict])) < 50_000
