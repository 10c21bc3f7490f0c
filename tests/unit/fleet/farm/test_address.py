"""`--on` names a farm, and TCP without TLS is for loopback only."""

import pytest
from particle_os.errors import UsageError
from particle_os.fleet.farm.address import FarmAddress, dashboard_address, scheduler_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("tls://farm.example.org:1234", "tls://farm.example.org:1234"),
        ("tls://farm", "tls://farm:8786"),
        ("tls://[2001:db8::1]:1", "tls://[2001:db8::1]:1"),
        ("tcp://127.0.0.1:5", "tcp://127.0.0.1:5"),
        ("tcp://127.9.9.9", "tcp://127.9.9.9:8786"),
        ("tcp://[::1]:5", "tcp://[::1]:5"),
        ("tcp://localhost:5", "tcp://localhost:5"),
    ],
)
def test_a_scheduler_is_named_by_its_url(text, url):
    assert FarmAddress.parse(text) == FarmAddress(url=url)


def test_a_farm_on_this_machine_is_named_by_its_workers():
    assert FarmAddress.parse("local:2") == FarmAddress(workers=2)
    assert FarmAddress.parse("local:2").is_local


@pytest.mark.parametrize(
    "text",
    [
        "tcp://farm.example.org:8786", "tcp://10.0.0.1:8786", "tcp://0.0.0.0:8786",
        "tcp://127.0.0.1.example.org:1", "tcp://[::]:1", "tcp://localhost.example.org",
    ],
)  # fmt: skip
def test_tcp_elsewhere_is_refused_with_what_to_do(text):
    with pytest.raises(UsageError, match="for loopback only") as caught:
        scheduler_url(text)
    assert "tls://" in caught.value.hint and "farm keys" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "local", "local:0", "local:65", "local:2 ", "farm:8786", "http://farm:8786", "tls://",
     "tls://farm:99999", "tls://farm:1/x", "tls://a b", "tls://user@farm:1", "tls://farm:1\n"],
)  # fmt: skip
def test_anything_else_is_no_farm(text):
    with pytest.raises(UsageError) as caught:
        FarmAddress.parse(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["127.0.0.1:8787", "localhost:0", "[::1]:8787"])
def test_a_dashboard_is_on_loopback(text):
    assert dashboard_address(text) == text


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0:8787", ":8787", "8787", "[::]:8787", "farm.example.org:8787", "10.0.0.1:8787",
     "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", "127.0.0.1:1,0.0.0.0:2", ""],
)  # fmt: skip
def test_a_dashboard_that_others_could_reach_is_refused(text):
    with pytest.raises(UsageError, match="for loopback only") as caught:
        dashboard_address(text)
    assert "SSH" in caught.value.hint
