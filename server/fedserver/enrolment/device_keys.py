"""Proof of possession: whether a device holds the private key of the public one that it shows."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedspect.errors import EnrolmentError

LARGEST_KEY = 2048  # bytes of PEM


def proved_key(public_key: bytes, signature: bytes, statement: bytes) -> str:
    """The key in canonical form, when ``signature`` of ``statement`` shows that the caller holds the private one.

    Raises:
        EnrolmentError: it does not, or it is a key of another kind.

    """
    try:
        if len(public_key) > LARGEST_KEY:
            raise ValueError("too long")
        key = serialization.load_pem_public_key(public_key)
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise ValueError("not an EC P-384 key")
        key.verify(signature, statement, ec.ECDSA(hashes.SHA256()))
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise EnrolmentError(
            "the device did not prove that it holds its key",
            seen=type(error).__name__,
            accepted="an EC P-384 key and its signature of the challenge",
            remedy="if something reads and changes the traffic in between, it must let TLS through",
        ) from error
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode("ascii")
