"""The host checks keys in recipes, and in files that recipes name, before anything starts."""

import base64

import pytest
from particle_agent.contract import keys
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

from ...waiting import HANG_SECONDS

SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
# RFC 9580, 5.5.2: version 4, a time, EdDSA on the curve Ed25519, a point.
BODY = bytes.fromhex("046900000016092b06010401da470f01010740") + bytes(range(32))
BINARY = b"\x98" + bytes([len(BODY)]) + BODY


def armored(data, kind="PUBLIC"):
    """The armor that gpg writes, with a placeholder for the checksum."""
    text = base64.encodebytes(data).decode()
    label = f"PGP {kind} KEY BLOCK-----\n"
    return f"-----BEGIN {label}\n{text}=AAAA\n-----END {label}".encode()


def load(tmp_path, stage, **files):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "recipe.yml").write_text(f"name: x\nstages:\n{stage}  - type: qemu\n")
    try:
        loading.load(tmp_path / "recipe.yml", base="tar:base.tar")
    except InvalidDocument as raised:
        return [(p.line, p.code, p.message) for p in raised.problems]
    return []


SOURCES = "  - type: sources\n    repositories:\n      - name: a\n"
SOURCES += "        mirrors: ['http://a.example.org']\n        suites: [b]\n        "
USERS = "  - type: users\n    users:\n      - name: a\n        "


@pytest.mark.parametrize(
    "data",
    [
        BINARY,
        b"\xc6" + BINARY[1:],
        b"\x99\0" + BINARY[1:],
        b"\xc6\xff\0\0\0" + BINARY[1:],
        # With a user id of 200 bytes.
        BINARY + b"\xcd\xc0\x08" + bytes(200),
        armored(BINARY),
        armored(BINARY) + b"\n" + armored(BINARY),
        armored(BINARY).replace(b"\n\n", b"\nVersion: GnuPG v2\nComment: a b\n\n"),
        armored(BINARY).replace(b"\n", b"\r\n"),
        armored(BINARY).replace(b"=AAAA\n", b""),
    ],
)
def test_keys_that_sign_packages(tmp_path, data):
    assert load(tmp_path, f"{SOURCES}key-file: key\n", key=data) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no OpenPGP public key"),
        (b"<html>not found</html>\n", "is no OpenPGP public key"),
        (f"{SSH}\n".encode(), "is no OpenPGP public key"),
        (b"\0\0\0\x20\1\1\0\2KBXf" + bytes(20), "is no OpenPGP public key"),
        # A signature, then a secret key.
        (b"\x88\x02ab", "is no OpenPGP public key"),
        (b"\x94" + BINARY[1:], "holds a private key, which no image may have"),
        (armored(b"\x94" + BINARY[1:], "PRIVATE"), "holds a private key"),
        (armored(BINARY) + armored(BINARY, "PRIVATE"), "holds a private key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "holds a private key"),
        (BINARY[:-1], "is cut off: copy all of it"),
        (armored(BINARY[:-1]), "is cut off: copy all of it"),
        (armored(BINARY)[:-40], "or it is cut off"),
        (armored(BINARY).replace(b"mDM", b"mM"), "has a damaged armor"),
    ],
)
def test_files_that_hold_no_key_that_signs_packages(tmp_path, data, message):
    (found,) = load(tmp_path, f"{SOURCES}key-file: key\n", key=data)
    assert found[:2] == (8, "bad-file")
    assert found[2].startswith(f"key: {message}") or message in found[2]


def test_a_key_in_the_recipe_is_looked_at_alike(tmp_path):
    def inline(data):
        lines = "".join(f"          {line}\n" for line in data.decode().splitlines())
        return load(tmp_path, f"{SOURCES}key: |\n{lines}")

    assert inline(armored(BINARY)) == []
    assert inline(armored(BINARY[:-1])) == [(8, "bad-value", "a: key: is cut off: copy all of it")]
    ((_, _, message),) = inline(armored(b"\x94" + BINARY[1:], "PRIVATE"))
    assert message.endswith("found a private key")


@pytest.mark.parametrize(
    "text",
    [
        f"{SSH}\n",
        f"# mine\n\n  # and\n{SSH} me@example.org\n",
        f'restrict,command="ls -l" {SSH} me\r\n',
        f'command="echo ssh-rsa AAAA" {SSH}\n',
    ],
)
def test_files_of_ssh_keys(tmp_path, text):
    stage = f"{USERS}ssh-authorized-keys-file: keys\n"
    assert load(tmp_path, stage, keys=text.encode()) == []


PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNza\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["holds no SSH public key"]),
        ("# none yet\n", ["holds no SSH public key"]),
        (PRIVATE, ["holds a private key"]),
        (f"{SSH}\n{PRIVATE}", ["holds a private key"]),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", ["holds a private key"]),
        (
            f"{SSH}\nhello world\n{SSH[:-4]}\n",
            ["line 2: there is no SSH public key", f"line 3: the SSH key '{SSH[:40]}' is inc"],
        ),
        ("ssh-rsa\n", ["line 1: there is no SSH public key"]),
        (SSH.replace("ssh-ed25519", "ssh-rsa"), ["line 1: the SSH key 'ssh-rsa AAAA"]),
        ("x\n" * 30, [*(f"line {n}: " for n in range(1, 11)), "20 more lines"]),
    ],
)
def test_each_line_that_is_no_ssh_key_is_reported(tmp_path, text, messages):
    found = load(tmp_path, f"{USERS}ssh-authorized-keys-file: keys\n", keys=text.encode())
    assert len(found) == len(messages)
    for (line, code, shown), message in zip(sorted(found), sorted(messages), strict=True):
        assert (line, code) == (6, "bad-file")
        assert shown.startswith(f"keys: {message}")


def test_a_private_key_in_the_recipe_is_not_shown(tmp_path):
    stage = f"{USERS}ssh-authorized-keys: ['{PRIVATE.splitlines()[0]} b3BlbnNza']\n"
    ((line, code, message),) = load(tmp_path, stage)
    assert (line, code) == (6, "bad-value")
    assert message.endswith("found a private key")


def test_a_mistake_in_the_stage_hides_no_file_that_is_wrong(tmp_path):
    stage = f"{USERS}ssh-authorized-keys-file: keys\n        shel: /bin/sh\n"
    found = load(tmp_path, stage, keys=b"x\n")
    assert [code for _, code, _ in found] == ["bad-file", "unknown-key"]


def test_what_is_too_large_for_keys_is_not_read(tmp_path):
    (found,) = load(tmp_path, f"{SOURCES}key-file: key\n", key=bytes((1 << 20) + 1))
    assert found == (8, "no-file", "key: is larger than 1048576 bytes")


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        b" " * (1 << 20),
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" * 25_000,
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" + b"\n=AAAA" * 150_000,
        b"\xc6\0" * (1 << 19),
    ],
)
@pytest.mark.timeout(HANG_SECONDS)
def test_no_file_takes_long(data):
    """A check that scans the rest of the file for each line takes hours for these files."""
    assert len(list(keys.signing_key_faults(data))) <= keys.MOST + 1
    assert 1 <= len(list(keys.authorized_keys_faults(data))) <= keys.MOST + 1
