"""The enrolment service: gRPC over TLS, the second of headquarters' two open ports.

It admits a device that shows an invitation and proves that it holds its private key, hands out what the
federation prescribes, the base model and the published version, and takes what plants report. Everything that a
stranger can send is bounded before it is looked at: the size of a message and the number of calls at once
(``enrolment_server``), how long an unfinished call is waited for (``open_service``), and how often one address
may try.

A refusal is an error that ``fedspect.protocol.grpc_services`` carries over to the plant: an ``EnrolmentError``
is final, a ``ConnectionLostError`` means later.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from fedserver.enrolment.clone_detector import CloneDetector
from fedserver.enrolment.device_keys import proved_key
from fedserver.enrolment.plant_registry import PlantRegistry, RegisteredPlant
from fedserver.enrolment.plant_reports import deployment_report, site_report
from fedserver.enrolment.rate_limits import ConcurrencyLimit, RateLimit, TTLCache, address_of
from fedserver.enrolment.tokens import redeem
from fedserver.registry.base_files import BaseFiles
from fedserver.registry.deployment_reports import DeploymentReports
from fedserver.registry.served_files import ServedFiles
from fedserver.registry.versions import VersionRegistry
from fedspect.errors import ConnectionLostError, EnrolmentError, FederationError
from fedspect.protocol.enrolment_pb2 import (
    Admission,
    AuthenticateRequest,
    BaseChunk,
    ChallengeReply,
    ChallengeRequest,
    EnrolRequest,
    FetchBaseRequest,
    FetchVersionRequest,
    LeaveReply,
    LeaveRequest,
    PublishedReply,
    PublishedRequest,
    ReportDeploymentReply,
    ReportDeploymentRequest,
    ReportReply,
    ReportRequest,
)
from fedspect.protocol.limits import PROTOCOL
from fedspect.protocol.proof_of_possession import authentication_statement, enrolment_statement
from fedspect.protocol.versions import DeploymentReport

logger = logging.getLogger("fedserver.enrolment.service")

NONCE_BYTES = 32
NONCE_LIFE = 60.0  # seconds
SESSION_LIFE = 3600.0
SEEN_EVERY = 60.0  # seconds within which another visit is not worth writing the registry
TRIES = 30  # per address, at once ...
TRIES_PER_SECOND = 1.0  # ... and from then on
TRIES_OF_ALL = 600  # together
TRIES_OF_ALL_PER_SECOND = 50.0
DOWNLOADS = 4  # per plant, at once
_NOT_JOINED = {
    "invited": "this plant is invited and has not joined",
    "left": "this plant left the federation",
    "revoked": "this plant was revoked",
}


@dataclass(frozen=True)
class Offer:
    """What every plant of the federation is given."""

    federation: str
    fleet_addresses: tuple[str, ...]
    classes: tuple[str, ...]
    aliases: dict[str, str]
    base: BaseFiles
    settings: dict[str, Any]
    """What is prescribed for training at a plant."""


class EnrolmentService:
    """The methods of ``enrolment.proto``.

    ``on_admitted`` and ``on_left`` let the SuperLink know a device's key or forget it; both may raise.
    ``on_deployed`` hears what plants report of versions, after it is on disk; ``on_clone`` that two devices use one
    key.
    """

    def __init__(
        self,
        registry: PlantRegistry,
        fingerprint: bytes,
        offer: Offer,
        models: VersionRegistry,
        deployments: DeploymentReports,
        *,
        on_admitted: Callable[[RegisteredPlant], None] = lambda plant: None,
        on_left: Callable[[RegisteredPlant], None] = lambda plant: None,
        on_deployed: Callable[[str, DeploymentReport], None] = lambda plant, report: None,
        on_clone: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._fingerprint = fingerprint
        self._offer = offer
        self._models = models
        self._deployments = deployments
        self._on_admitted = on_admitted
        self._on_left = on_left
        self._on_deployed = on_deployed
        self._clock = clock
        self._nonces: TTLCache[bool] = TTLCache(NONCE_LIFE)
        self._sessions: TTLCache[tuple[str, bytes]] = TTLCache(
            SESSION_LIFE
        )  # key and start of who opened them
        self._clones = CloneDetector(on_clone)
        self._tries = RateLimit(TRIES, TRIES_PER_SECOND)
        self._tries_of_all = RateLimit(TRIES_OF_ALL, TRIES_OF_ALL_PER_SECOND)
        self._questions = RateLimit(TRIES, TRIES_PER_SECOND)
        self._downloads = ConcurrencyLimit(DOWNLOADS)

    # -- methods of the service ----------------------------------------------------------------------------

    def challenge(self, request: ChallengeRequest, context: grpc.ServicerContext) -> ChallengeReply:
        """A nonce to sign, and the time."""
        self._limit(context)
        if request.protocol != PROTOCOL:
            raise EnrolmentError(
                "plant and headquarters speak different versions of the enrolment protocol",
                seen=request.protocol,
                accepted=str(PROTOCOL),
                remedy="install the version of Fedspect that headquarters runs",
            )
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._nonces.put(nonce, True)
        return ChallengeReply(protocol=PROTOCOL, nonce=nonce, server_time=self._clock())

    def enrol(self, request: EnrolRequest, context: grpc.ServicerContext) -> Admission:
        """Admit a device with a token."""
        self._limit(context)
        statement = enrolment_statement(
            nonce=request.nonce,
            fingerprint=self._fingerprint,
            token_id=request.token_id,
            public_key=request.public_key,
        )
        key = self._proved(request.public_key, request.nonce, request.signature, statement)
        plant = redeem(self._registry, request.token_id, request.secret, key, now=self._clock())
        logger.info("%s was admitted from %s", plant.name, context.peer())
        return self._admission(plant, request, context)

    def authenticate(self, request: AuthenticateRequest, context: grpc.ServicerContext) -> Admission:
        """Open a session for a device that was admitted before."""
        self._limit(context)
        statement = authentication_statement(
            nonce=request.nonce, fingerprint=self._fingerprint, public_key=request.public_key
        )
        key = self._proved(request.public_key, request.nonce, request.signature, statement)
        plant = self._registry.read().by_key(key)
        if plant is None or plant.state != "joined":
            raise EnrolmentError(
                "headquarters does not know this device" if plant is None else _NOT_JOINED[plant.state],
                seen=None if plant is None else plant.name,
                remedy="ask headquarters for a new join token (`fedserver invite`)",
            )
        return self._admission(plant, request, context)

    def fetch_base(self, request: FetchBaseRequest, context: grpc.ServicerContext) -> Iterator[BaseChunk]:
        """Stream one file of the base model."""
        name = self._plant_of(request.session, context)
        if request.base_hash != self._offer.base.content_hash:
            raise EnrolmentError(
                "headquarters has another base model by now",
                seen=request.base_hash[:12],
                accepted=self._offer.base.content_hash[:12],
                remedy="join again",
            )
        yield from self._download(name, self._offer.base.served, request)

    def report(self, request: ReportRequest, context: grpc.ServicerContext) -> ReportReply:
        """Store a plant's site report."""
        name = self._plant_of(request.session, context)
        report = site_report(request.report_json)
        with self._registry.change() as records:
            records.named(name).report = report
            records.named(name).seen = self._clock()
        return ReportReply()

    def leave(self, request: LeaveRequest, context: grpc.ServicerContext) -> LeaveReply:
        """Forget a plant's key at the plant's own request."""
        name = self._plant_of(request.session, context)
        with self._registry.change() as records:
            plant = records.named(name)
            if plant.state == "joined":
                plant.state = "left"
        self._on_left(plant)
        logger.info("%s left the federation", name)
        return LeaveReply()

    def published(self, request: PublishedRequest, context: grpc.ServicerContext) -> PublishedReply:
        """The published version, if it belongs to the base model that plants are given."""
        self._asking(request.session, context)
        version = self._models.published()
        if version is None or version.card.base_hash != self._offer.base.content_hash:
            return PublishedReply()
        return PublishedReply(
            number=version.card.number,
            version_hash=version.card.content_hash,
            base_hash=version.card.base_hash,
            files=self._models.served(version).entries(),
        )

    def fetch_version(
        self, request: FetchVersionRequest, context: grpc.ServicerContext
    ) -> Iterator[BaseChunk]:
        """Stream one file of a version that is not retired."""
        name = self._asking(request.session, context)
        version = self._models.by_hash(request.version_hash)
        if version is None or version.retired is not None:
            raise FederationError(
                "headquarters does not offer this version" + (" any more" if version else ""),
                seen=request.version_hash[:12],
                remedy="ask again for the published one",
            )
        yield from self._download(name, self._models.served(version), request)

    def report_deployment(
        self, request: ReportDeploymentRequest, context: grpc.ServicerContext
    ) -> ReportDeploymentReply:
        """Store what became of a version at a plant."""
        name = self._asking(request.session, context)
        report = deployment_report(request.report_json)
        self._deployments.add(name, report, at=self._clock())
        logger.info("%s: version %d was %s", name, report.number, report.outcome)
        self._on_deployed(name, report)
        return ReportDeploymentReply()

    # -- parts ---------------------------------------------------------------------------------------------

    def _download(
        self, plant: str, served: ServedFiles, request: FetchBaseRequest | FetchVersionRequest
    ) -> Iterator[BaseChunk]:
        with self._downloads.one(plant) as allowed:
            if not allowed:
                raise ConnectionLostError(
                    "too many downloads of this plant at once", remedy="try again later"
                )
            for piece in served.pieces(request.name, request.offset):
                yield BaseChunk(data=piece)

    def _limit(self, context: grpc.ServicerContext) -> None:
        if not self._tries.allow(address_of(context.peer())):
            raise ConnectionLostError(
                "too many tries from this address", remedy="wait a minute and try again"
            )
        if not self._tries_of_all.allow("all"):
            raise ConnectionLostError(
                "headquarters is asked by too many at once", remedy="wait a minute and try again"
            )

    def _proved(self, public_key: bytes, nonce: bytes, signature: bytes, statement: bytes) -> str:
        """The key in canonical form, when the signature shows that the caller holds the private one."""
        if self._nonces.take(nonce) is None:
            raise ConnectionLostError("the answer to the challenge came too late", remedy="try again")
        return proved_key(public_key, signature, statement)

    def _admission(
        self,
        plant: RegisteredPlant,
        request: EnrolRequest | AuthenticateRequest,
        context: grpc.ServicerContext,
    ) -> Admission:
        self._on_admitted(plant)
        now, software, start = self._clock(), request.software[:64], request.start[:16]
        self._clones.heard(plant.name, start, address_of(context.peer()))
        if plant.software != software or plant.seen is None or abs(now - plant.seen) > SEEN_EVERY:
            with self._registry.change() as records:
                entry = records.named(plant.name)
                entry.seen, entry.software = now, software
        offer = self._offer
        session = secrets.token_bytes(32)
        self._sessions.put(session, (plant.public_key or "", start))
        return Admission(
            federation=offer.federation,
            plant=plant.name,
            session=session,
            fleet_addresses=offer.fleet_addresses,
            classes=offer.classes,
            aliases=offer.aliases,
            base_hash=offer.base.content_hash,
            base_files=offer.base.served.entries(),
            settings_json=json.dumps(offer.settings),
        )

    def _plant_of(self, session: bytes, context: grpc.ServicerContext) -> str:
        """The plant that the session belongs to, while the key is still that plant's."""
        key, start = self._sessions.get(session) or ("", b"")
        plant = self._registry.read().by_key(key) if key else None
        if plant is None or plant.state != "joined":
            raise EnrolmentError("this session is over", remedy="join again")
        self._clones.heard(plant.name, start, address_of(context.peer()))
        return plant.name

    def _asking(self, session: bytes, context: grpc.ServicerContext) -> str:
        """The plant of a session, within its rate limit; many plants may share one address."""
        name = self._plant_of(session, context)
        if not self._questions.allow(name):
            raise ConnectionLostError("too many questions from this plant", remedy="ask again in a minute")
        return name
