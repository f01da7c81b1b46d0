"""Join token: one line that an operator hands to a plant.

It carries where headquarters is, the fingerprint of its authority (so that the plant knows whom it talks to
before it says anything) and a one-time secret (so that headquarters knows that the plant was invited).
Form::

    fedspect1.<base64url of payload and checksum, without padding>

    payload   version u8 | plant string | expires u64 (seconds since 1970) | token id 8 bytes |
              secret 24 bytes | fingerprint 32 bytes | count u8 | count times (host string, port u16)
    string    length u8, then UTF-8
    checksum  the first 4 bytes of the payload's SHA-256: it finds a slip of the copying hand, no more

Whoever holds an unused token can join under the plant's name until it expires: it is handed over as a
password is.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import Final, Tuple

from fedspect.errors import EnrolmentError, SettingsError
from fedspect.protocol.names import checked_host, checked_name, join_address

PREFIX: Final = "fedspect1."
VERSION: Final = 1
ID_BYTES: Final = 8
SECRET_BYTES: Final = 24
FINGERPRINT_BYTES: Final = 32
LONGEST: Final = 4096  # characters
_CHECKSUM: Final = 4


@dataclass(frozen=True)
class JoinToken:
    """What a token says; ``expires`` in seconds since 1970, ``addresses`` as (host, port) in the order to
    try.
    """

    plant: str
    expires: int
    token_id: bytes
    secret: bytes
    fingerprint: bytes
    addresses: Tuple[Tuple[str, int], ...]

    def __str__(self) -> str:
        return encode(self)

    def __repr__(self) -> str:
        # The secret stays out of logs and tracebacks.
        where = ", ".join(join_address(*address) for address in self.addresses)
        return f"JoinToken(plant={self.plant!r}, id={self.token_id.hex()}, addresses={where})"


def encode(token: JoinToken) -> str:
    """The line to paste."""
    if not 0 < len(token.addresses) < 256:
        raise ValueError("a token needs between 1 and 255 addresses")
    payload = bytearray([VERSION])
    payload += _string(token.plant)
    payload += struct.pack(">Q", token.expires)
    payload += token.token_id + token.secret + token.fingerprint
    payload.append(len(token.addresses))
    for host, port in token.addresses:
        payload += _string(host) + struct.pack(">H", port)
    checksum = hashlib.sha256(payload).digest()[:_CHECKSUM]
    return PREFIX + base64.urlsafe_b64encode(bytes(payload) + checksum).rstrip(b"=").decode("ascii")


def decode(line: str) -> JoinToken:
    """Read a pasted token; blanks and line breaks that a terminal put into it do not matter.

    Raises:
        EnrolmentError: it is no token, is damaged, or is of another version.

    """
    text = "".join(line.split())
    if len(text) > LONGEST or not text.isascii() or not text.startswith("fedspect"):
        raise _not_a_token(text, "this is not a join token")
    if not text.startswith(PREFIX):
        raise EnrolmentError(
            "this join token is of another version of Fedspect",
            seen=text.split(".", 1)[0][:20],
            accepted=PREFIX + "...",
            remedy="install the version of Fedspect that headquarters runs",
        )
    encoded = text[len(PREFIX) :]
    try:
        content = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise _not_a_token(text, "this join token is damaged") from None
    payload, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    if hashlib.sha256(payload).digest()[:_CHECKSUM] != checksum:
        raise _not_a_token(text, "this join token is damaged: a character is missing or changed")
    try:
        return _parse(payload)
    except (ValueError, SettingsError, struct.error) as error:
        raise _not_a_token(text, f"this join token cannot be read: {error}") from None


def _parse(payload: bytes) -> JoinToken:
    reader = _Reader(payload)
    version = reader.take(1)[0]
    if version != VERSION:
        raise ValueError(f"its version is {version}, this program reads {VERSION}")
    plant = checked_name(reader.string())
    (expires,) = struct.unpack(">Q", reader.take(8))
    token_id = reader.take(ID_BYTES)
    secret = reader.take(SECRET_BYTES)
    fingerprint = reader.take(FINGERPRINT_BYTES)
    addresses = []
    for _ in range(reader.take(1)[0]):
        host = checked_host(reader.string())
        (port,) = struct.unpack(">H", reader.take(2))
        addresses.append((host, port))
    if not addresses or reader.left:
        raise ValueError("its parts do not add up")
    return JoinToken(plant, expires, token_id, secret, fingerprint, tuple(addresses))


class _Reader:
    """Takes bytes off the front; never more than there are."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._content) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError("it ends too early")
        piece = self._content[self._at : self._at + count]
        self._at += count
        return piece

    def string(self) -> str:
        return self.take(self.take(1)[0]).decode("utf-8")


def _string(text: str) -> bytes:
    encoded = text.encode("utf-8")
    if len(encoded) > 255:
        raise ValueError("longer than 255 bytes")
    return bytes([len(encoded)]) + encoded


def _not_a_token(text: str, what: str) -> EnrolmentError:
    return EnrolmentError(
        what,
        seen=f"{len(text)} characters, starting with {text[:12]!r}",
        accepted=f"one line starting with {PREFIX}",
        remedy="copy the whole line that `fedserver invite` printed, or ask headquarters for a new one",
    )
