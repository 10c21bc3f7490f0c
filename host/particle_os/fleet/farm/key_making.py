"""Makes the keys of a farm."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from particle_os.errors import UsageError
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.system.workspace import failed_call

VALID = timedelta(days=3650)
# The clock of another machine may be behind.
BEFORE = timedelta(days=2)
NAME = "particle-os-farm"


def make(directory: Path) -> FarmKeys:
    """Makes the keys of a new farm. Raises UsageError when the directory has some already.

    The private key of the CA is not kept: nothing else can be signed later.
    """
    keys = FarmKeys(directory)
    if found := next((path for path in keys.files if path.exists()), None):
        raise UsageError(
            f"{found} exists: these are the keys of a farm",
            hint="Name another directory, or remove the files.",
        )
    authority, own = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    root = _certificate(f"{NAME}-ca", authority, authority, is_authority=True)
    leaf = _certificate(NAME, own, authority, is_authority=False)
    private = own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    contents = (_pem(root), _pem(leaf), private)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in zip(keys.files, contents, strict=True):
            _write(path, content)
    except OSError as error:
        raise UsageError(
            f"the keys cannot be written: {failed_call(error).brief}",
            hint="Name another directory.",
        ) from error
    return keys


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    """A certificate of `key` (RFC 5280), with what OpenSSL's strict checks ask for."""
    now = datetime.now(UTC)
    issuer = _named(f"{NAME}-ca")
    usage = {
        "digital_signature": True, "key_cert_sign": is_authority, "crl_sign": is_authority,
        "content_commitment": False, "key_encipherment": False, "data_encipherment": False,
        "key_agreement": False, "encipher_only": False, "decipher_only": False,
    }  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
            critical=False,
        )
    )
    if not is_authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = made.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    return made.sign(authority, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
