from hypothesis import given
from hypothesis import strategies as st
from particle_agent.contract import wire
from particle_os.recipe import secrets
from particle_os.sandbox import redaction


@given(st.text(min_size=4), st.text(), st.text())
def test_no_event_of_the_agent_shows_a_secret(value, before, after):
    data = value.encode("utf-8", "surrogatepass")
    if len(data.strip()) < secrets.LEAST:
        return
    text = data.decode("utf-8", "replace")
    hidden = redaction.texts([data])
    message = before + text + after
    event = wire.Failed(kind="stage", index=1, message=message, hint=None, tail=(message, "x"))
    shown = redaction.hide(event, hidden)
    assert (shown.type, shown.kind, shown.index, shown.hint) == ("failed", "stage", 1, None)
    for part in (shown.message, shown.tail[0]):
        assert redaction.HIDDEN in part
        assert text not in part.replace(redaction.HIDDEN, "") or text in before + after


def test_words_of_the_protocol_are_no_secrets():
    event = wire.OutputLine(text="output text")
    assert redaction.hide(event, ["text", "output"]) == wire.OutputLine(text="*** ***")


def test_each_line_of_a_secret_is_hidden():
    hidden = redaction.texts([b"first line\nab\nsecond line\n"])
    assert redaction.hide("x second line y first line ab", hidden) == "x *** y *** ab"
