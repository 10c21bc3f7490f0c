from pathlib import Path

import pytest
from particle_agent.contract import wire
from particle_agent.contract.findings import ERRORS, WARNINGS
from particle_os.errors import VmError
from particle_os.sandbox.verification import FINDINGS_LIMIT, FindingCollector, defective, lines

PAGE = Path(__file__).parents[3] / "docs/verification.md"


def finding(code, place="/etc/x", message="is wrong"):
    return wire.Finding(code=code, place=place, message=message)


def heard(*events):
    listener = FindingCollector()
    for event in (*events, wire.Verified(seconds=1.5)):
        assert listener.hear(event)
    return listener.result()


def test_errors_come_first_and_nothing_reaches_the_terminal():
    found = heard(finding("log"), finding("root-missing", "menu\x1b[31m", "no\nroot \u202e"))
    assert [f.severity for f in found.findings] == ["error", "warning"]
    assert found.seconds == 1.5
    shown = dict(lines(found))
    assert shown == {
        "error": "menu\\x1b[31m: no\\nroot \\u202e [root-missing]",
        "warning": "/etc/x: is wrong [log]",
    }


def test_only_errors_make_an_image_defective():
    found = heard(finding("log"), finding("root-missing"), finding("init-missing", place=""))
    error = defective(found, None)
    assert error.exit_code == 4
    assert error.brief == "the image has 2 errors"
    assert error.tail == ("/etc/x: is wrong [root-missing]", "is wrong [init-missing]")
    assert heard(finding("log")).errors == ()


def test_a_recipe_may_accept_errors():
    found = heard(finding("log"), finding("root-missing"), finding("init-missing"))
    accepted = found.accepting(["root-missing"])
    assert [f.code for f in accepted.errors] == ["init-missing"]
    assert "error" in dict(lines(accepted)), "an accepted error is still listed"
    assert any(text.endswith("(accepted)") for _, text in lines(accepted))
    assert accepted.accepting(ERRORS).errors == ()


def test_impossible_findings_of_the_agent_are_refused():
    with pytest.raises(VmError, match=r"evil\\x1b"):
        FindingCollector().hear(finding("evil\x1b"))
    with pytest.raises(VmError):
        heard(*[finding("log")] * (FINDINGS_LIMIT + 1))
    long = heard(finding("log", "x" * 5000, "\x1b" * 5000)).findings[0]
    assert len(long.place) <= 1000
    with pytest.raises(VmError, match="before it had verified"):
        FindingCollector().result()


def test_other_events_are_for_others():
    assert not FindingCollector().hear(wire.OutputLine(text="x"))


def test_every_code_is_explained_in_the_documentation():
    text = PAGE.read_text()
    for kinds in (ERRORS, WARNINGS):
        for code, meaning in kinds.items():
            assert f"| `{code}` | {meaning} |" in text
