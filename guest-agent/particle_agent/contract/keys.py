"""Checks of the public keys in recipes: OpenSSH keys, and OpenPGP keys that sign packages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

# sshd(8), AUTHORIZED_KEYS FILE FORMAT: optional options, then a key.
SSH_KEY = re.compile(
    r"(?:^|\s)((?:ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+) (AAAA[A-Za-z0-9+/]*={0,3})(?=\s|$)"
)
SSH_HINT = "write a line such as the one in ~/.ssh/id_ed25519.pub"
# The private keys of OpenSSH, OpenPGP, PKCS 1 and PKCS 8; then those of PuTTY and age. The last
# pattern is "openssh-key-v1" in base64, which begins a key of OpenSSH without its first line.
PRIVATE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|PuTTY-User-Key-File|AGE-SECRET-KEY-|b3BlbnNzaC1rZXk"
)
# RFC 9580, 6.2. Lines may end with CR and LF.
ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n"
    rb"(?:[!-~]+: [^\n]*\n)*"
    rb"(?P<data>[A-Za-z0-9+/=\s]*?)"
    rb"(?:\n=[A-Za-z0-9+/]{4}\s*)?"
    rb"-----END PGP PUBLIC KEY BLOCK-----"
)
# RFC 9580, 5: the type IDs of packets.
SECRET_KEYS = (5, 7)
PUBLIC_KEY = 6
KEY_HINT = "export the public key with 'gpg --export', with or without --armor"
# The number of faulty lines that are reported. In a file of another kind, every line is faulty.
MOST = 10


def is_private(text: str) -> bool:
    """Whether the text contains a private key."""
    return PRIVATE.search(text) is not None


def ssh_key_fault(line: str) -> str | None:
    """The fault of a line of authorized_keys, or None. The line must not be a comment."""
    if is_private(line):
        return "this is a private key: use the public key, whose file ends with .pub"
    found = [match.groups() for match in SSH_KEY.finditer(line)]
    if not found:
        return f"there is no SSH public key: {SSH_HINT}"
    if not any(_is_whole(kind, text) for kind, text in found):
        return f"the SSH key '{' '.join(found[-1])[:40]}' is incomplete: copy the whole line"
    return None


def authorized_keys_faults(data: bytes) -> Iterator[str]:
    """The faults of an authorized_keys file. Line numbers start at 1."""
    text = data.decode("utf-8", "replace")
    if is_private(text):
        yield "holds a private key: name the file of the public key, which ends with .pub"
        return
    lines = ssh_key_lines(text)
    if not lines:
        yield f"holds no SSH public key: {SSH_HINT}"
    faults = [(number, fault) for number, line in lines if (fault := ssh_key_fault(line))]
    yield from (f"line {number}: {fault}" for number, fault in faults[:MOST])
    if len(faults) > MOST:
        yield f"{len(faults) - MOST} more lines are no SSH public keys"


def ssh_key_lines(text: str) -> list[tuple[int, str]]:
    """The lines of authorized_keys that are neither empty nor comments, with their numbers."""
    numbered = enumerate(text.splitlines(), start=1)
    return [(n, line) for n, line in numbered if line.strip() and not line.lstrip().startswith("#")]


def _is_whole(kind: str, text: str) -> bool:
    """Whether a public key is complete and has the type `kind` (RFC 4253, 6.6).

    The decoded key is a list of fields, each preceded by its size in four bytes. The first field
    is the type.
    """
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
    """The fault of a file of OpenPGP public keys for apt, armored or binary."""
    if fault := _signing_key_fault(data):
        yield fault


def _signing_key_fault(data: bytes) -> str | None:
    if is_private(data.decode("latin-1")):
        return f"holds a private key, which no image may have: {KEY_HINT}"
    if is_armored(data):
        blocks = list(ARMOR.finditer(data))
        if len(blocks) < data.count(b"-----BEGIN "):
            return f"is no OpenPGP public key, or it is cut off: {KEY_HINT}"
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
    """Whether the data is an armored OpenPGP block (RFC 9580, 6.2)."""
    return data.lstrip().startswith(b"-----BEGIN ")


def _packets(data: bytes) -> Iterator[int | None]:
    """The type IDs of the packets (RFC 9580, 4.2), and None where the data is malformed.

    A None is last: it says that a packet is cut off, or that the data is no packet.
    """
    place = 0
    while place < len(data):
        first, head = data[place], data[place + 1 : place + 9]
        kind, length = first & 0x3F, head[:1]
        if first & 0xC0 == 0xC0 and length < b"\xe0":
            count = 1 if length < b"\xc0" else 2
            size = int.from_bytes(head[:count]) - (0 if count == 1 else 0xC000 - 0xC0)
        elif first & 0xC0 == 0xC0:
            # No key has partial body lengths (RFC 9580, 4.2.1.4): count such data as cut off.
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
