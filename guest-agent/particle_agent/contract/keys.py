"""What is wrong with keys that recipes hold or name: OpenSSH's, and those that sign packages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

# sshd(8), AUTHORIZED_KEYS FILE FORMAT: a key, after options if there are any.
SSH_KEY = re.compile(
    r"(?:^|\s)((?:ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+) (AAAA[A-Za-z0-9+/]*={0,3})(?=\s|$)"
)
SSH_HINT = "write one as in ~/.ssh/id_ed25519.pub"
# Of OpenSSH, OpenPGP, PKCS 1 and 8; the last is PuTTY's.
PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|PuTTY-User-Key-File")
# RFC 9580, 6.2: the line breaks may be those of DOS.
ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n"
    rb"(?:[!-~]+: [^\n]*\n)*"
    rb"(?P<data>[A-Za-z0-9+/=\s]*?)"
    rb"(?:\n=[A-Za-z0-9+/]{4}\s*)?"
    rb"-----END PGP PUBLIC KEY BLOCK-----"
)
# RFC 9580, 5: the kinds of packets.
SECRET_KEYS = (5, 7)
PUBLIC_KEY = 6
KEY_HINT = "it takes what 'gpg --export' writes, with or without --armor"
# Of a file of something else each line is wrong.
MOST = 10


def is_private(text: str) -> bool:
    return PRIVATE.search(text) is not None


def ssh_key_fault(line: str) -> str | None:
    """What is wrong with a line of authorized_keys that is no comment."""
    if is_private(line):
        return "this is a private key: take the public one, whose file ends with .pub"
    found = [match.groups() for match in SSH_KEY.finditer(line)]
    if not found:
        return f"there is no SSH public key: {SSH_HINT}"
    if not any(_is_whole(kind, text) for kind, text in found):
        return f"the SSH key '{' '.join(found[-1])[:40]}' is not whole: copy all of its line"
    return None


def authorized_keys_faults(data: bytes) -> Iterator[str]:
    """What is wrong with a file of authorized_keys; lines count from 1."""
    text = data.decode("utf-8", "replace")
    if is_private(text):
        yield "holds a private key: name the file of the public one, which ends with .pub"
        return
    lines = ssh_key_lines(text)
    if not lines:
        yield f"holds no SSH public key: {SSH_HINT}"
    faults = [(number, fault) for number, line in lines if (fault := ssh_key_fault(line))]
    yield from (f"line {number}: {fault}" for number, fault in faults[:MOST])
    if len(faults) > MOST:
        yield f"{len(faults) - MOST} lines more are no SSH public keys"


def ssh_key_lines(text: str) -> list[tuple[int, str]]:
    """The lines of authorized_keys that are neither empty nor comments, with their numbers."""
    numbered = enumerate(text.splitlines(), start=1)
    return [(n, line) for n, line in numbered if line.strip() and not line.lstrip().startswith("#")]


def _is_whole(kind: str, text: str) -> bool:
    """Whether a public key is of the type that it says, and nothing is cut off (RFC 4253, 6.6)."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    fields = []
    while data:
        size = int.from_bytes(data[:4])
        fields.append(data[4 : 4 + size])
        if len(fields[-1]) != size or len(data) < 4:
            return False
        data = data[4 + size :]
    return len(fields) > 1 and fields[0] == kind.encode()


def signing_key_faults(data: bytes) -> Iterator[str]:
    """What is wrong with an OpenPGP public key, or several, armored or not, as apt takes them."""
    if fault := _signing_key_fault(data):
        yield fault


def _signing_key_fault(data: bytes) -> str | None:
    if is_private(data.decode("latin-1")):
        return f"holds a private key, which no image may have: {KEY_HINT}"
    if is_armored(data):
        blocks = list(ARMOR.finditer(data))
        if len(blocks) < data.count(b"-----BEGIN "):
            return f"is no OpenPGP public key, or one that is cut off: {KEY_HINT}"
        try:
            data = b"".join(
                base64.b64decode(b"".join(block["data"].split()), validate=True) for block in blocks
            )
        except ValueError:
            return "has a damaged armor: copy all of its lines"
    kinds = list(_packets(data))
    if kinds and kinds[0] in SECRET_KEYS:
        return f"holds a private key, which no image may have: {KEY_HINT}"
    if not kinds or kinds[0] != PUBLIC_KEY:
        return f"is no OpenPGP public key: {KEY_HINT}"
    if None in kinds:
        return "is cut off: copy all of it"
    return None


def is_armored(data: bytes) -> bool:
    return data.lstrip().startswith(b"-----BEGIN ")


def _packets(data: bytes) -> Iterator[int | None]:
    """The kinds of the packets (RFC 9580, 4.2); at last None when one is cut off, or none."""
    place = 0
    while place < len(data):
        first, head = data[place], data[place + 1 : place + 9]
        kind, length = first & 0x3F, head[:1]
        if first & 0xC0 == 0xC0 and length < b"\xe0":
            count = 1 if length < b"\xc0" else 2
            size = int.from_bytes(head[:count]) - (0 if count == 1 else 0xC000 - 0xC0)
        elif first & 0xC0 == 0xC0:
            # What comes in parts is no key.
            count = 5 if length == b"\xff" else len(data)
            size = int.from_bytes(head[1:5])
        else:
            kind, count = kind >> 2, 1 << (first & 3)
            size = int.from_bytes(head[:count])
        yield kind if first & 0x80 else None
        place += 1 + count + size
        if not first & 0x80 or place > len(data):
            yield None
            return
