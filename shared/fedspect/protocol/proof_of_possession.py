"""Proof of possession: the statements that a device signs to prove that it holds its private key.

Each is bound to its purpose, to the nonce that headquarters gave and to the authority that the plant
believes it talks to: a signature made for one server, call or time is worth nothing elsewhere. No library
is needed here; the node signs and the server verifies with the same bytes (ECDSA over SHA-256).
"""

from __future__ import annotations

import hashlib


def enrolment_statement(*, nonce: bytes, fingerprint: bytes, token_id: bytes, public_key: bytes) -> bytes:
    """What a device signs when it enrols with a token."""
    return _statement(b"enrol", nonce, fingerprint, token_id, public_key)


def authentication_statement(*, nonce: bytes, fingerprint: bytes, public_key: bytes) -> bytes:
    """What a device signs when it comes back."""
    return _statement(b"authenticate", nonce, fingerprint, public_key)


def _statement(purpose: bytes, *parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (b"fedspect enrolment v1", purpose, *parts):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return b"fedspect enrolment v1 " + purpose + b" " + digest.digest()
