import base64
import struct

import pytest
from particle_os.boot_test import SIGNS, _credentials, _facts, _judge, image_format
from particle_os.errors import UsageError

NONCE = "0123456789abcdef"
GOOD = {"state": "running", "failed": "", "system": "Debian GNU/Linux 13"}


def qcow2(path, *, version=3, backing=0, features=0):
    header = struct.pack(">4sIQIIQIIQQIIQQ", b"QFI\xfb", version, backing, 0, 16, 1 << 20,
                         0, 1, 1 << 16, 1 << 17, 1, 0, 0, features)  # fmt: skip
    path.write_bytes(header + bytes(512))
    return path


def answer(facts, nonce=NONCE):
    lines = [f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in facts.items()]
    return "\r\n".join(
        [f"PARTICLE-OS-PROBE {nonce}", *lines, f"PARTICLE-OS-PROBE-END {nonce}", ""]
    ).encode()


def test_formats_are_told_by_their_magic_number(tmp_path):
    raw = tmp_path / "image.qcow2"
    for content in (b"", b"QFI", bytes(1024), b"KDMV" + bytes(1024)):
        raw.write_bytes(content)
        assert image_format(raw) == "raw"
    for version in (2, 3):
        assert image_format(qcow2(tmp_path / "image.raw", version=version)) == "qcow2"


@pytest.mark.parametrize(
    "header",
    [
        {"version": 2, "backing": 104},
        {"version": 3, "backing": 104},
        {"version": 3, "features": 4},
        {"version": 3, "features": 4 | 1},
    ],
)
def test_an_image_that_names_another_file_is_refused(tmp_path, header):
    with pytest.raises(UsageError, match="refers to another file") as told:
        image_format(qcow2(tmp_path / "image", **header))
    assert "Flatten" in told.value.hint


def test_other_features_are_no_other_file(tmp_path):
    assert image_format(qcow2(tmp_path / "image", features=1 | 2)) == "qcow2"


def test_facts_come_decoded():
    facts = {"state": "running", "locale": "LANG=de_DE.UTF-8", "journal:x.service": "one\ntwo"}
    assert _facts(answer(facts), NONCE) == facts


def test_facts_of_another_run_are_not_believed():
    stale = answer({"state": "running", "failed": ""}, nonce="f" * 16)
    assert _facts(stale, NONCE) == {}
    fresh = answer({"state": "degraded"})
    assert _facts(stale + fresh + stale, NONCE) == {"state": "degraded"}


def test_facts_outside_of_the_markers_are_not_believed():
    line = b"state " + base64.b64encode(b"running") + b"\n"
    assert _facts(line + answer({"kernel": "6.12"}) + line, NONCE) == {"kernel": "6.12"}


def test_lines_that_are_no_facts_are_passed_over():
    noise = b"garbage\nname not-base64!\n\xff\xfe\n"
    data = answer({"state": "running"}).replace(b"state", noise + b"state", 1)
    assert _facts(data, NONCE)["state"] == "running"


def test_facts_play_no_tricks_with_the_terminal():
    facts = _facts(answer({"system": "\x1b[2JDebian\x07\nsecond\r"}), NONCE)
    assert facts == {"system": "\\x1b[2JDebian\\x07\nsecond"}


def test_a_settled_system_passes():
    assert _judge(GOOD, ())[0] == "passed"
    status, message = _judge({**GOOD, "unit:ssh.service": "active"}, ("ssh.service",))
    assert status == "passed"
    assert "Debian GNU/Linux 13" in message


@pytest.mark.parametrize(
    ("facts", "status", "message"),
    [
        ({}, "units-failed", "systemd says ''"),
        ({**GOOD, "state": "degraded"}, "units-failed", "degraded"),
        ({**GOOD, "state": "starting"}, "units-failed", "starting"),
        ({**GOOD, "failed": "a.service\nb.service"}, "units-failed", "a.service, b.service"),
        ({**GOOD, "unit:x.service": "inactive"}, "checks-failed", "x.service is inactive"),
        ({**GOOD, "unit:x.service": "activating"}, "checks-failed", "x.service is activating"),
        (GOOD, "checks-failed", "x.service is unknown"),
        ({**GOOD, "unit:y.service": "active"}, "checks-failed", "x.service is unknown"),
    ],
)
def test_anything_else_does_not_pass(facts, status, message):
    found, told = _judge(facts, ("x.service",))
    assert found == status
    assert message in told


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"ALERT!  UUID=1234 does not exist.  Dropping to a shell!", "root-not-found"),
        (b"(initramfs) ", "root-not-found"),
        (b"You are in emergency mode. After logging in", "emergency-mode"),
        (b"Missing operating system.", "boot-loader-failed"),
        (b"No bootable device.", "no-bootable-device"),
    ],
)
def test_what_the_console_says_is_told_apart(text, status):
    assert next(s for s, pattern in SIGNS if pattern.search(text)) == status


def test_the_probe_carries_the_nonce_and_the_units():
    credentials = _credentials(NONCE, ("ssh.service", "cron.service"))
    assert (
        f"probe {NONCE}\n".encode() in credentials["systemd.extra-unit.particle-os-probe.service"]
    )
    assert credentials["particle-os.units"] == b"ssh.service\ncron.service\n"
