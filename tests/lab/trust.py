"""The lab's keys: for SSH, a certificate authority, S3 and the example apps. Made once, and kept until `down`."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import secrets
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.lab import settings
from tests.lab.engine import exclusive

LIFETIME = timedelta(days=3650)


def ensure_keys() -> None:
    with exclusive("keys"):
        _ensure_ssh_key()
        _ensure_authority()
        _ensure_s3_keys()
        _ensure_app_secrets()


def public_ssh_key() -> str:
    return settings.SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8")


def fingerprint() -> str:
    """Of what a droplet is given at its start, and must still match to be of use later."""
    return hashlib.sha256(public_ssh_key().encode() + settings.CA_CERTIFICATE.read_bytes()).hexdigest()[:16]


def authorities() -> dict[str, bytes]:
    """The certificates a droplet must trust, by file name: the lab's own and those the controller trusts on top."""
    found = {"lab.crt": settings.CA_CERTIFICATE.read_bytes()}
    for path in sorted(settings.EXTRA_AUTHORITIES.rglob("*.crt")):
        found[f"controller-{path.name}"] = path.read_bytes()
    return found


def s3_keys() -> dict[str, str]:
    keys: dict[str, str] = json.loads(settings.S3_KEYS.read_text(encoding="utf-8"))
    return keys


def certificate(name: str) -> tuple[bytes, bytes]:
    """One for a name or an address, with its key, by the lab's authority, which every droplet trusts."""
    authority = x509.load_pem_x509_certificate(settings.CA_CERTIFICATE.read_bytes())
    signer = serialization.load_pem_private_key(settings.CA_KEY.read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), encoded


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _ensure_ssh_key() -> None:
    if settings.SSH_KEY.exists():
        return
    settings.SSH_KEY.parent.mkdir(mode=0o700, exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "shipshape-lab", "-f", str(settings.SSH_KEY)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _ensure_authority() -> None:
    if settings.CA_KEY.exists() and settings.CA_CERTIFICATE.exists():
        return
    settings.CA_CERTIFICATE.parent.mkdir(mode=0o700, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Shipshape lab root")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_certificate_signing(), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    write_secret(settings.CA_KEY, encoded_key)
    settings.CA_CERTIFICATE.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _certificate_signing() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _ensure_s3_keys() -> None:
    if settings.S3_KEYS.exists():
        return
    keys = {
        "endpoint": "https://s3.test",
        "access_key": secrets.token_hex(10).upper(),
        "secret_key": secrets.token_urlsafe(30),
    }
    write_secret(settings.S3_KEYS, json.dumps(keys, indent=2).encode() + b"\n")


def _ensure_app_secrets() -> None:
    """What a real inventory has in its vault file."""
    if not settings.APP_SECRETS.exists():
        made_up = {name: secrets.token_urlsafe(32) for name in ("backup_password", "jwt_secret_key")}
        write_secret(settings.APP_SECRETS, json.dumps(made_up, indent=2).encode() + b"\n")


def write_secret(path: Path, content: bytes) -> None:
    """A file for this user's eyes alone."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
