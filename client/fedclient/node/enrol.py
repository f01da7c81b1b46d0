"""The plant's side of enrolment: join with a token, come back with the key, fetch the base model, report,
leave.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedclient.node.home import Membership, PlantHome
from fedclient.node.trust import check_server, find_authority
from fedspect import files
from fedspect.console import version
from fedspect.errors import (
    ConnectionLostError,
    DamagedFileError,
    EnrolmentError,
    storage_error,
)
from fedspect.protocol.enrolment_pb2 import (
    Admission,
    AuthenticateRequest,
    ChallengeReply,
    ChallengeRequest,
    EnrolRequest,
    FetchBaseRequest,
    FileEntry,
    LeaveRequest,
    ReportRequest,
)
from fedspect.protocol.limits import (
    LARGEST_BASE_MODEL,
    LARGEST_ENROLMENT_MESSAGE,
    LARGEST_REPORT,
    MOST_BASE_FILES,
    MOST_CLASSES,
    PROTOCOL,
    grpc_options,
)
from fedspect.protocol.names import checked_name, join_address, split_address
from fedspect.protocol.proof import authentication_statement, enrolment_statement
from fedspect.protocol.services import ENROLMENT, Stub
from fedspect.protocol.token import JoinToken

CALL_TIMEOUT = 20.0  # seconds
DOWNLOAD_TIMEOUT = 3600.0
MOST_BREAKS = 5
Progress = Callable[[int, int], None]


class Session:
    """An open conversation with headquarters' enrolment service; made by ``joined`` and ``returned``."""

    def __init__(self, stub: Stub, admission: Admission, clock_offset: float) -> None:
        self._stub = stub
        self.admission = admission
        self.clock_offset = clock_offset
        """Seconds to add to this device's clock to get headquarters'."""

    def fetch_base(self, home: PlantHome, progress: Progress = lambda done, total: None) -> Path:
        """The base model's folder; what is there and right already is not fetched again.

        Raises:
            EnrolmentError: headquarters offers something that cannot be a base model.
            DamagedFileError: what came is not what was announced.
            StorageError: it cannot be kept.

        """
        entries = list(self.admission.base_files)
        total = sum(entry.size for entry in entries)
        if len(entries) > MOST_BASE_FILES or total > LARGEST_BASE_MODEL:
            raise EnrolmentError("the base model offered is too large", seen=f"{total} bytes")
        folder = home.base_folder(_hash_name(self.admission.base_hash))
        before = 0
        for entry in entries:
            path = folder / _plain_name(entry.name)
            if not _holds(path, entry.sha256):
                self._fetch_file(path, entry, partial(_advance, progress, before, total))
            before += entry.size
            progress(before, total)
        return folder

    def _fetch_file(self, path: Path, entry: FileEntry, progress: Callable[[int], None]) -> None:
        """One file; a broken download goes on where it broke."""
        digest, received, breaks = hashlib.sha256(), 0, 0
        with files.replacing(path) as file:
            while received < entry.size:
                request = FetchBaseRequest(
                    session=self.admission.session,
                    base_hash=self.admission.base_hash,
                    name=entry.name,
                    offset=received,
                )
                try:
                    for chunk in self._stub.fetch_base(request, timeout=DOWNLOAD_TIMEOUT):
                        received += len(chunk.data)
                        if received > entry.size:
                            break
                        digest.update(chunk.data)
                        file.write(chunk.data)
                        progress(received)
                    break
                except ConnectionLostError:
                    breaks += 1
                    if breaks > MOST_BREAKS:
                        raise
                    time.sleep(breaks)
            if received != entry.size or digest.digest() != entry.sha256:
                raise DamagedFileError(
                    "the base model did not come as it was announced",
                    seen=f"{path.name}: {received} of {entry.size} bytes, SHA-256 {digest.hexdigest()[:12]}",
                    accepted=entry.sha256.hex()[:12],
                    remedy="join again",
                )

    def report(self, report: dict[str, object]) -> None:
        """Send the site report."""
        text = json.dumps(report)
        if len(text) > LARGEST_REPORT:
            raise EnrolmentError("the site report is too long", seen=f"{len(text)} characters")
        self._stub.report(
            ReportRequest(session=self.admission.session, report_json=text), timeout=CALL_TIMEOUT
        )

    def leave(self) -> None:
        """Have this device forgotten."""
        self._stub.leave(LeaveRequest(session=self.admission.session), timeout=CALL_TIMEOUT)

    def membership(self, addresses: Sequence[str], fingerprint: bytes, **kept: object) -> Membership:
        """What to remember, checked: headquarters is trusted to prescribe, not to break names and bounds."""
        admission = self.admission
        if not 0 < len(admission.classes) <= MOST_CLASSES:
            raise EnrolmentError("the federation has no classes", seen=len(admission.classes))
        for address in admission.fleet_addresses:
            split_address(address)
        return Membership.model_validate(
            {
                "plant": checked_name(admission.plant),
                "federation": checked_name(admission.federation, "federation"),
                "fingerprint": fingerprint.hex(),
                "enrolment_addresses": list(addresses),
                "fleet_addresses": list(admission.fleet_addresses),
                "classes": list(admission.classes),
                "aliases": dict(admission.aliases),
                "base_hash": _hash_name(admission.base_hash),
                "settings": json.loads(admission.settings_json or "{}"),
                **kept,
            }
        )


@contextmanager
def joined(home: PlantHome, token: JoinToken) -> Iterator[tuple[Session, bytes]]:
    """Enrol this device with a token; yields the session and the authority's certificate.

    Raises:
        EnrolmentError: headquarters is not the token's, or does not admit this device.
        ConnectionLostError: it does not answer.

    """
    authority, address = find_authority(token.addresses, token.fingerprint)
    key = home.key()
    public_key = _public_bytes(key)
    with _stub(address, authority) as stub:
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
        )
        yield Session(stub, stub.enrol(request, timeout=CALL_TIMEOUT), offset), authority


@contextmanager
def returned(home: PlantHome, membership: Membership) -> Iterator[Session]:
    """Come back with the registered key.

    Raises:
        EnrolmentError: this device is not admitted any more, and why.
        ConnectionLostError: headquarters does not answer at any of its addresses.

    """
    authority = home.authority_path.read_bytes()
    problems = []
    for address in (split_address(each) for each in membership.enrolment_addresses):
        try:
            check_server(address, authority)
        except ConnectionLostError as error:
            problems.append(str(error.seen))
            continue
        key = home.key()
        public_key = _public_bytes(key)
        with _stub(address, authority) as stub:
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
            )
            yield Session(stub, stub.authenticate(request, timeout=CALL_TIMEOUT), offset)
            return
    raise ConnectionLostError("headquarters does not answer", seen="; ".join(problems))


def clock_offset(address: tuple[str, int], authority: bytes) -> float:
    """Seconds to add to this device's clock to get headquarters'; errors as ``returned``."""
    with _stub(address, authority) as stub:
        return _challenge(stub)[1]


def software() -> str:
    """What this plant runs, for headquarters' list."""
    return f"fedspect {version()}"


@contextmanager
def _stub(address: tuple[str, int], authority: bytes) -> Iterator[Stub]:
    channel = grpc.secure_channel(
        join_address(*address),
        grpc.ssl_channel_credentials(authority),
        options=grpc_options(LARGEST_ENROLMENT_MESSAGE),
    )
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


def _holds(path: Path, sha256: bytes) -> bool:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, path, "reading the base model") from error
    return digest.digest() == sha256


def _advance(progress: Progress, before: int, total: int, received: int) -> None:
    progress(before + received, total)


def _plain_name(name: str) -> str:
    """A file name without folders, so that nothing is written elsewhere."""
    if name != Path(name).name or name.startswith(".") or not name or not name.isprintable():
        raise EnrolmentError("headquarters offers a file with a strange name", seen=repr(name[:100]))
    return name


def _hash_name(text: str) -> str:
    if len(text) != 64 or not all(character in "0123456789abcdef" for character in text):
        raise EnrolmentError("headquarters names a base model strangely", seen=repr(text[:100]))
    return text
