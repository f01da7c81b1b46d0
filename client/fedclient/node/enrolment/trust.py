"""Certificate pinning: the authority of headquarters by the fingerprint in the token, and the server's certificate.

Before the plant says anything, it completes a TLS handshake, looks at the certificates that the server
shows, and takes the one whose SHA-256 is the token's fingerprint as its only root. A second handshake then
checks chain and host name against that root the ordinary way. Only after that is anything sent. From then
on the root is a file.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Sequence
from typing import Any

from cryptography import x509

from fedclient.node.channels import connect, way
from fedspect.errors import ConnectionLostError, EnrolmentError
from fedspect.protocol.names import join_address

HANDSHAKE_TIMEOUT = 10.0  # seconds
MOST_CERTIFICATES = 10


def find_authority(
    addresses: Sequence[tuple[str, int]], fingerprint: bytes, *, proxy: str = "none"
) -> tuple[bytes, tuple[str, int]]:
    """The authority's certificate (PEM), and the first of the addresses whose server it has signed.

    Raises:
        EnrolmentError: somebody answers who is not the headquarters of the token.
        ConnectionLostError: nobody answers.

    """
    problems: list[ConnectionLostError] = []
    for address in addresses:
        try:
            authority = _authority_at(address, fingerprint, proxy)
            check_server(address, authority, proxy=proxy)
            return authority, address
        except ConnectionLostError as error:
            problems.append(error)
    tried = "; ".join(str(problem.seen) for problem in problems)
    raise ConnectionLostError(
        "headquarters does not answer",
        seen=tried,
        remedy="see that `fedserver start` runs there and that no firewall is in between",
    )


def check_server(address: tuple[str, int], authority: bytes, *, proxy: str = "none") -> float:
    """Verify that the server at ``address`` has a certificate of ``authority`` for the name that was called.

    Answers when its certificate ends, in seconds since 1970.

    Raises:
        EnrolmentError: it is not.
        ConnectionLostError: nobody answers.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    try:
        shown = _handshake(address, context, proxy)
        return x509.load_der_x509_certificate(shown[0]).not_valid_after_utc.timestamp()
    except ssl.SSLCertVerificationError as error:
        raise EnrolmentError(
            "the server's certificate is not in order",
            seen=f"{join_address(*address)}: {error.verify_message}; {_of_whom(address, proxy)}",
            accepted="one that is issued by the token's authority for this name, and valid now",
            remedy="check this device's clock, and who else may answer at this address: a portal for guests, or a"
            " firewall that inspects TLS, whose operator must exempt this address; a new name belongs to hosts in"
            " fedserver.toml at headquarters",
        ) from error


def _authority_at(address: tuple[str, int], fingerprint: bytes, proxy: str) -> bytes:
    shown = _unverified(address, proxy)
    for certificate in shown[:MOST_CERTIFICATES]:
        if hmac.compare_digest(hashlib.sha256(certificate).digest(), fingerprint):
            return ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")
    raise EnrolmentError(
        "this is not the headquarters that the token names",
        seen=f"{join_address(*address)}: fingerprint {_shown_fingerprint(shown)}; {_issuer(shown)}",
        accepted=f"fingerprint {fingerprint.hex()}",
        remedy="nothing was sent. A firewall that inspects TLS shows a certificate of its own: ask its operator to"
        " exempt this address. Otherwise ask headquarters for a new token by a way that nobody can change",
    )


def _unverified(address: tuple[str, int], proxy: str) -> list[bytes]:
    """The certificates that whoever answers shows; nothing is believed or sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return _handshake(address, context, proxy)


def _of_whom(address: tuple[str, int], proxy: str) -> str:
    """Who issued the certificate that is shown in place of the right one."""
    try:
        return _issuer(_unverified(address, proxy))
    except ConnectionLostError as error:
        return str(error.seen)


def _issuer(shown: list[bytes]) -> str:
    """Who issued the certificate, in its own words, cut short: it is a stranger's text."""
    if not shown:
        return "no certificate was shown"
    try:
        name = x509.load_der_x509_certificate(shown[0]).issuer.rfc4514_string()
    except ValueError:
        return "the certificate that was shown cannot be read"
    return f"the certificate that was shown was issued by {name[:200]!r}"


def _handshake(address: tuple[str, int], context: ssl.SSLContext, proxy: str) -> list[bytes]:
    """TLS handshake only; returns the certificates that the server sent (DER)."""
    try:
        with connect(address, proxy=proxy, timeout=HANDSHAKE_TIMEOUT) as raw:
            raw.settimeout(HANDSHAKE_TIMEOUT)
            with context.wrap_socket(raw, server_hostname=address[0]) as connection:
                return _shown(connection)
    except ssl.SSLCertVerificationError:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        text = join_address(*address)
        told = ", ".join(filter(None, [f"{text}: {reason}", way(text, proxy)]))
        raise ConnectionLostError("headquarters does not answer", seen=told) from error


def _shown(connection: ssl.SSLSocket) -> list[bytes]:
    """The certificate chain as the server sent it. Public from Python 3.13 on, there since 3.10."""
    if hasattr(connection, "get_unverified_chain"):
        return [bytes(certificate) for certificate in connection.get_unverified_chain()]
    inner: Any = connection._sslobj  # type: ignore[attr-defined]
    encoding_der = 2  # _ssl.ENCODING_DER
    return [certificate.public_bytes(encoding_der) for certificate in inner.get_unverified_chain() or []]


def _shown_fingerprint(shown: list[bytes]) -> str:
    return hashlib.sha256(shown[-1]).hexdigest() if shown else "none"
