"""The agent divides and cuts long lines; the gate hides a secret at every place of such a line."""

import pytest
from particle_agent.agent.failure import TAIL_CHARACTERS, failure
from particle_agent.contract.findings import TEXT_LIMIT, Findings
from particle_agent.errors import CommandFailed
from particle_agent.target import command
from particle_os.system.gate import EDGE, Gate

from .. import canary
from ..waiting import HANG_SECONDS

SECRETS = [canary.new_secret(), f"{canary.new_secret()} \u00e4\u00f6 \U0001f511\U0001f512  end"]


def parts(secret):
    """The parts of a secret that are longer than the gate lets out."""
    return {secret[i : i + EDGE + 1] for i in range(len(secret) - EDGE)}


def shown_parts(secret, text):
    return [part for part in parts(secret) if part in text]


def around(secret, width):
    """Lines in which the secret lies at each place around the column `width`."""
    for before in range(width - len(secret) - 2, width + 3):
        yield f"{'-' * before}{secret}{'=' * 20}"


@pytest.mark.parametrize("secret", SECRETS, ids=["ascii", "unicode"])
def test_a_secret_that_the_agent_divides_is_hidden_in_the_output(secret):
    printed = "\n".join(around(secret, command.LINE_CHARACTERS))
    events = []
    command.run(["cat"], stdin=printed.encode(), emit=events.append, timeout=HANG_SECONDS)
    assert max(map(len, events)) <= command.LINE_CHARACTERS
    assert shown_parts(secret, "\n".join(events)) != []
    lines = Gate([secret.encode()]).line_stream()
    shown = [line for event in events for line in lines.feed(event)] + lines.flush()
    assert shown_parts(secret, "\n".join(shown)) == []
    assert len(shown) == len(events)


@pytest.mark.parametrize("secret", SECRETS, ids=["ascii", "unicode"])
@pytest.mark.parametrize("more", [[], ["a further line"]])
def test_a_secret_that_the_agent_divides_is_hidden_in_an_error(secret, more):
    for line in around(secret, TAIL_CHARACTERS):
        event = failure(CommandFailed(["x"], 1, [line, *more]))
        assert max(map(len, event.tail)) <= TAIL_CHARACTERS
        tail = Gate([secret.encode()]).hide(event).tail
        assert shown_parts(secret, "\n".join(tail)) == []


@pytest.mark.parametrize("secret", SECRETS, ids=["ascii", "unicode"])
def test_a_secret_that_the_agent_cuts_is_hidden_in_a_finding(secret):
    for text in around(secret, TEXT_LIMIT):
        reported = []
        Findings(reported.append).add("fstab-type-wrong", text, text)
        shown = Gate([secret.encode()]).hide(reported[0])
        assert shown_parts(secret, f"{shown.place}\n{shown.message}") == []


def test_a_part_of_a_secret_is_detected():
    secret = SECRETS[0]
    assert shown_parts(secret, f"<{secret[3:30]}>")
    assert not shown_parts(secret, f"<{secret[:EDGE]}> <{secret[-EDGE:]}>")
