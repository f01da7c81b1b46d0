"""An authority, a server's certificate for localhost and a client's, for tests of TLS."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Dict, Optional, Tuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Pair = Tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def make_certificates(folder: Path) -> Dict[str, str]:
    """PEM files by name."""
    folder.mkdir()
    authority = _issue("authority", None)
    files = {}
    for name, pair in (
        ("ca", authority),
        ("server", _issue("localhost", authority)),
        ("client", _issue("client", authority)),
    ):
        pem = folder / f"{name}.pem"
        pem.write_bytes(pair[0].public_bytes(serialization.Encoding.PEM))
        key = folder / f"{name}.key"
        key.write_bytes(
            pair[1].private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        files[pem.name], files[key.name] = str(pem), str(key)
    return files


def _issue(name: str, issuer: Optional[Pair]) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(key if issuer is None else issuer[1], hashes.SHA256()), key
