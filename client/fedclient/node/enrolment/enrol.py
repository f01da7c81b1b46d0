"""Enrolment client: join with a token, or authenticate with the registered key, and open a session."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedclient.node.channels import secure_channel
from fedclient.node.enrolment.session import CALL_TIMEOUT, Session
from fedclient.node.enrolment.trust import check_server, find_authority
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedclient.plant_settings import SettingsFile
from fedspect.console import version
from fedspect.errors import ConnectionLostError, EnrolmentError, FederationError
from fedspect.protocol.enrolment_pb2 import (
    AuthenticateRequest,
    ChallengeReply,
    ChallengeRequest,
    EnrolRequest,
)
from fedspect.protocol.grpc_services import ENROLMENT, Stub
from fedspect.protocol.join_token import JoinToken
from fedspect.protocol.limits import LARGEST_ENROLMENT_MESSAGE, PROTOCOL
from fedspect.protocol.names import split_address
from fedspect.protocol.proof_of_possession import authentication_statement, enrolment_statement

START = secrets.token_bytes(16)
"""Another one in each process and on no disk: by it headquarters notices that two devices use one key."""


@contextmanager
def joined(home: PlantHome, token: JoinToken) -> Iterator[tuple[Session, bytes]]:
    """Enrol this device with a token; yields the session and the authority's certificate.

    Raises:
        EnrolmentError: headquarters is not the token's, or does not admit this device.
        ConnectionLostError: it does not answer.

    """
    proxy = SettingsFile(home.folder).current().network.proxy
    authority, address = find_authority(token.addresses, token.fingerprint, proxy=proxy)
    key = home.key()
    public_key = _public_bytes(key)
    with _stub(address, authority, proxy) as stub:
        challenge, offset = _challenge(stub)
        statement = enrolment_statement(
            nonce=challenge.nonce,
            fingerprint=token.fingerprint,
            token_id=token.token_id,
            public_key=public_key,
        )
        request = EnrolRequest(
            token_id=token.token_id,
            secret=token.secret,
            public_key=public_key,
            nonce=challenge.nonce,
            signature=_sign(key, statement),
            software=software(),
            start=START,
        )
        yield Session(stub, stub.enrol(request, timeout=CALL_TIMEOUT), offset), authority


@contextmanager
def returned(home: PlantHome, membership: Membership, *, stays: bool = True) -> Iterator[Session]:
    """Authenticate with the registered key; a command that asks beside the running plant does not stay.

    Raises:
        EnrolmentError: this device is not admitted any more, and why.
        ConnectionLostError: headquarters does not answer at any of its addresses, or somebody else does. Nothing was
            sent to him, and what he shows may pass: a portal for guests, a clock that is not set yet.

    """
    authority = home.authority_path.read_bytes()
    proxy = SettingsFile(home.folder).current().network.proxy
    problems: list[FederationError] = []
    for address in (split_address(each) for each in membership.enrolment_addresses):
        try:
            check_server(address, authority, proxy=proxy)
        except (ConnectionLostError, EnrolmentError) as error:
            problems.append(error)
            continue
        key = home.key()
        public_key = _public_bytes(key)
        with _stub(address, authority, proxy) as stub:
            challenge, offset = _challenge(stub)
            statement = authentication_statement(
                nonce=challenge.nonce,
                fingerprint=bytes.fromhex(membership.fingerprint),
                public_key=public_key,
            )
            request = AuthenticateRequest(
                public_key=public_key,
                nonce=challenge.nonce,
                signature=_sign(key, statement),
                software=software(),
                start=START if stays else b"",
            )
            yield Session(stub, stub.authenticate(request, timeout=CALL_TIMEOUT), offset)
            return
    stranger = next((error for error in problems if isinstance(error, EnrolmentError)), None)
    raise ConnectionLostError(
        "headquarters does not answer" if stranger is None else stranger.what,
        seen="; ".join(str(error.seen) for error in problems),
        remedy=None if stranger is None else stranger.remedy,
    )


def clock_offset(address: tuple[str, int], authority: bytes, *, proxy: str = "none") -> float:
    """Seconds to add to this device's clock to get headquarters'; errors as ``returned``."""
    with _stub(address, authority, proxy) as stub:
        return _challenge(stub)[1]


def software() -> str:
    """Software versions of this plant, for headquarters' list."""
    return f"fedspect {version()}"


@contextmanager
def _stub(address: tuple[str, int], authority: bytes, proxy: str) -> Iterator[Stub]:
    channel = secure_channel(address, authority, largest=LARGEST_ENROLMENT_MESSAGE, proxy=proxy)
    try:
        yield Stub(channel, ENROLMENT)
    finally:
        channel.close()


def _challenge(stub: Stub) -> tuple[ChallengeReply, float]:
    """A nonce, and how far this device's clock is from headquarters' (half of the call's time is its
    error).
    """
    before = time.time()
    reply = stub.challenge(ChallengeRequest(protocol=PROTOCOL), timeout=CALL_TIMEOUT)
    return reply, reply.server_time - (before + time.time()) / 2


def _public_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def _sign(key: ec.EllipticCurvePrivateKey, statement: bytes) -> bytes:
    return key.sign(statement, ec.ECDSA(hashes.SHA256()))
