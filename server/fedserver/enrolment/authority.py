"""Certificate authority of the federation, and the server's TLS certificate, both made and kept at headquarters.

Plants trust exactly one authority, named by the fingerprint in their join token; no public one is involved.
The authority's certificate lasts twenty years and never changes. The server's lasts two and is issued anew
when it grows old or when the names in ``fedserver.toml`` change: plants notice nothing.

Every certificate starts two days in the past, because a device without a battery clock may lag behind.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedspect import files
from fedspect.errors import DamagedFileError, WorkspaceError

AUTHORITY_DAYS = 20 * 365
SERVER_DAYS = 2 * 365
RENEW_DAYS = 60
SLOW_CLOCK = dt.timedelta(days=2)
ALWAYS_NAMED = ("localhost", "127.0.0.1", "::1")


class Authority:
    """Keys and certificates in ``folder``: ``authority.key``, ``authority.pem``, ``server.key`` and ``server.pem``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key_path = folder / "authority.key"
        self.certificate_path = folder / "authority.pem"
        self.server_key_path = folder / "server.key"
        self.server_certificate_path = folder / "server.pem"

    @property
    def exists(self) -> bool:
        """Whether the authority was made; its certificate is written last."""
        return self.certificate_path.exists()

    def create(self, name: str) -> None:
        """Make key and certificate; secrets 0600, the folder 0700.

        Raises:
            WorkspaceError: there is one already: replacing it would lock out every plant that joined.

        """
        if self.exists:
            raise WorkspaceError("this workspace has an authority already", seen=self.certificate_path)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP384R1())
        subject = _name(f"Fedspect authority of {name}")
        certificate = (
            _builder(subject, subject, key.public_key(), days=AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA384())
        )
        _write_key(self.key_path, key)
        files.write_bytes(self.certificate_path, certificate.public_bytes(serialization.Encoding.PEM))

    def certificate(self) -> x509.Certificate:
        """The authority's certificate."""
        return _read_certificate(self.certificate_path)

    def fingerprint(self) -> bytes:
        """SHA-256 of the authority's certificate: 32 bytes, what a join token carries."""
        return self.certificate().fingerprint(hashes.SHA256())

    def issue_server_certificate(self, hosts: Sequence[str]) -> None:
        """A new key and certificate for the server, valid for ``hosts`` and for this machine's own
        loopback.
        """
        authority = self.certificate()
        authority_key = _read_key(self.key_path)
        key = ec.generate_private_key(ec.SECP384R1())
        names = [_general_name(host) for host in dict.fromkeys([*hosts, *ALWAYS_NAMED])]
        certificate = (
            _builder(_name(f"Fedspect server {hosts[0]}"), authority.subject, key.public_key(), SERVER_DAYS)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
            .sign(authority_key, hashes.SHA384())
        )
        # The whole chain is sent in a handshake, so that a plant can compare the authority with its token.
        chain = [certificate, authority]
        _write_key(self.server_key_path, key)
        files.write_bytes(
            self.server_certificate_path,
            b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain),
        )

    def renewal_reason(self, hosts: Sequence[str]) -> str | None:
        """Why the server certificate must be renewed for ``hosts``; ``None`` when it need not."""
        if not self.server_certificate_path.exists() or not self.server_key_path.exists():
            return "there is none yet"
        try:
            certificate = _read_certificate(self.server_certificate_path)
            key = _read_key(self.server_key_path)
        except DamagedFileError:
            return "the old one cannot be read"
        if certificate.public_key() != key.public_key():
            return "certificate and key do not belong together"
        if certificate.issuer != self.certificate().subject:
            return "the old one is of another authority"
        if certificate.not_valid_after_utc - dt.datetime.now(dt.timezone.utc) < dt.timedelta(days=RENEW_DAYS):
            return "the old one is about to expire"
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        missing = [host for host in hosts if _general_name(host) not in named]
        return f"the old one does not name {', '.join(missing)}" if missing else None


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLOW_CLOCK)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.write_bytes(path, content, mode=0o600)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, OSError) as error:
        raise _damaged(path, error) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(path, "not an elliptic-curve key")
    return key


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (ValueError, IndexError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: object) -> DamagedFileError:
    return DamagedFileError(
        "a key or certificate cannot be read",
        seen=f"{path}: {error}",
        remedy="restore the authority folder from a backup of the workspace",
    )
