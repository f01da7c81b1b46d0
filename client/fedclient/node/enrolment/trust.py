"""Certificate pinning: the authority of headquarters by the fingerprint in the token, and the server's certificate.

Before the plant says anything, it completes a TLS handshake, looks at the certificates that the server
shows, and takes the one whose SHA-256 is the token's fingerprint as its only root. A second handshake then
checks chain and host name against that root the ordinary way. Only after that is anything sent. From then
on the root is a file.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from cryptography import x509

from fedspect.errors import ConnectionLostError, EnrolmentError
from fedspect.protocol.names import join_address

HANDSHAKE_TIMEOUT = 10.0  # seconds
MOST_CERTIFICATES = 10


def find_authority(addresses: Sequence[tuple[str, int]], fingerprint: bytes) -> tuple[bytes, tuple[str, int]]:
    """The authority's certificate (PEM), and the first of the addresses whose server it has signed.

    Raises:
        EnrolmentError: somebody answers who is not the headquarters of the token.
        ConnectionLostError: nobody answers.

    """
    problems: list[ConnectionLostError] = []
    for address in addresses:
        try:
            authority = _authority_at(address, fingerprint)
            check_server(address, authority)
            return authority, address
        except ConnectionLostError as error:
            problems.append(error)
    tried = "; ".join(str(problem.seen) for problem in problems)
    raise ConnectionLostError(
        "headquarters does not answer",
        seen=tried,
        remedy="see that `fedserver start` runs there and that no firewall is in between",
    )


def check_server(address: tuple[str, int], authority: bytes) -> float:
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
        shown = _handshake(address, context)
        return x509.load_der_x509_certificate(shown[0]).not_valid_after_utc.timestamp()
    except ssl.SSLCertVerificationError as error:
        raise EnrolmentError(
            "the server's certificate is not in order",
            seen=f"{join_address(*address)}: {error.verify_message}",
            accepted="one that is issued by the token's authority for this name, and valid now",
            remedy="check this device's clock, and who else may answer at this address (a portal for guests);"
            " a new name belongs to hosts in fedserver.toml at headquarters",
        ) from error


def _authority_at(address: tuple[str, int], fingerprint: bytes) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is believed or sent yet; the fingerprint decides
    context.set_alpn_protocols(["h2"])
    shown = _handshake(address, context)
    for certificate in shown[:MOST_CERTIFICATES]:
        if hmac.compare_digest(hashlib.sha256(certificate).digest(), fingerprint):
            return ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")
    raise EnrolmentError(
        "this is not the headquarters that the token names",
        seen=f"{join_address(*address)}: fingerprint {_shown_fingerprint(shown)}",
        accepted=f"fingerprint {fingerprint.hex()}",
        remedy="nothing was sent. Ask headquarters for a new token by a way that nobody can change, "
        "and who else may answer at this address",
    )


def _handshake(address: tuple[str, int], context: ssl.SSLContext) -> list[bytes]:
    """TLS handshake only; returns the certificates that the server sent (DER)."""
    try:
        with socket.create_connection(address, timeout=HANDSHAKE_TIMEOUT) as raw:
            raw.settimeout(HANDSHAKE_TIMEOUT)
            with context.wrap_socket(raw, server_hostname=address[0]) as connection:
                return _shown(connection)
    except ssl.SSLCertVerificationError:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ConnectionLostError(
            "headquarters does not answer", seen=f"{join_address(*address)}: {reason}"
        ) from error


def _shown(connection: ssl.SSLSocket) -> list[bytes]:
    """The certificate chain as the server sent it. Public from Python 3.13 on, there since 3.10."""
    if hasattr(connection, "get_unverified_chain"):
        return [bytes(certificate) for certificate in connection.get_unverified_chain()]
    inner: Any = connection._sslobj  # type: ignore[attr-defined]
    encoding_der = 2  # _ssl.ENCODING_DER
    return [certificate.public_bytes(encoding_der) for certificate in inner.get_unverified_chain() or []]


def _shown_fingerprint(shown: list[bytes]) -> str:
    return hashlib.sha256(shown[-1]).hexdigest() if shown else "none"
