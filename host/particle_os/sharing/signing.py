"""Signatures of cache entries: DSSE envelopes with Ed25519 (https://github.com/secure-systems-lab/dsse).

The signature covers the type of the content and the content, so no text of another kind passes for
an entry.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from particle_os.errors import UsageError
from particle_os.system.regular_file import read_regular

TYPE = "application/vnd.particle-os.cache-entry.v1+json"
KEY_LIMIT = 1 << 16
MAKE = (
    "Make a pair: openssl genpkey -algorithm ed25519 -out cache.key; "
    "openssl pkey -in cache.key -pubout -out cache.pub"
)
_END = b"-----END PUBLIC KEY-----"


class NotSigned(Exception):
    """An envelope is malformed, or no trusted key has signed it."""


@dataclass(frozen=True)
class PublicKeys:
    """The keys that are trusted, by their names: the SHA-256 of the key."""

    by_name: dict[str, Ed25519PublicKey]

    @classmethod
    def read(cls, paths: Iterable[Path]) -> PublicKeys:
        """Reads files with keys in PEM. Raises UsageError."""
        found = {}
        for path in paths:
            blocks = _content(path).split(_END)[:-1]
            if not blocks:
                raise UsageError(f"{path} has no public key in PEM", hint=f"{MAKE}.")
            for block in blocks:
                key = _public(path, block + _END + b"\n")
                found[name_of(key)] = key
        return cls(found)

    def opened(self, envelope: bytes) -> bytes:
        """The content of an envelope that one of the keys has signed. Raises NotSigned."""
        try:
            document = json.loads(envelope)
            kind, content = document["payloadType"], _decoded(document["payload"])
            signatures = [(str(s["keyid"]), _decoded(s["sig"])) for s in document["signatures"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise NotSigned("it is no signed entry") from error
        if kind != TYPE:
            raise NotSigned("it is an entry of another kind")
        for name, signature in signatures:
            if (key := self.by_name.get(name)) is not None:
                try:
                    key.verify(signature, _signed(content))
                except InvalidSignature as error:
                    raise NotSigned("its signature is wrong") from error
                return content
        raise NotSigned("no trusted key has signed it")


class Signer:
    """The private key that signs entries."""

    def __init__(self, path: Path) -> None:
        """Reads a key in PEM, without a password. Raises UsageError."""
        try:
            key = serialization.load_pem_private_key(_content(path), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(
                f"{path} has no private key in PEM without a password", hint=f"{MAKE}."
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{path} has a key of another kind than Ed25519", hint=f"{MAKE}.")
        self._key = key

    @property
    def public(self) -> PublicKeys:
        """The public key."""
        key = self._key.public_key()
        return PublicKeys({name_of(key): key})

    def envelope(self, content: bytes) -> bytes:
        """The signed content."""
        signature = self._key.sign(_signed(content))
        (name,) = self.public.by_name
        return json.dumps({
            "payloadType": TYPE,
            "payload": base64.b64encode(content).decode(),
            "signatures": [{"keyid": name, "sig": base64.b64encode(signature).decode()}],
        }).encode()  # fmt: skip


def name_of(key: Ed25519PublicKey) -> str:
    """The name of a key: the SHA-256 of its raw bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _signed(content: bytes) -> bytes:
    """The bytes that a signature covers (PAE of DSSE)."""
    parts: Sequence[bytes] = (TYPE.encode(), content)
    return b"DSSEv1 " + b" ".join(b"%d %s" % (len(part), part) for part in parts)


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("no text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("no Base64") from error


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, KEY_LIMIT)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=f"{MAKE}.") from error


def _public(path: Path, pem: bytes) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} has no public key in PEM", hint=f"{MAKE}.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path} has a key of another kind than Ed25519", hint=f"{MAKE}.")
    return key
