"""Enrolment endpoint: the port where plants join, what they are offered there, and the server's certificate."""

from __future__ import annotations

import time
from collections.abc import Callable

from fedserver.enrolment.server import EnrolmentServer
from fedserver.enrolment.service import EnrolmentService, Offer
from fedserver.flower.superlink import check_port
from fedserver.registry.base_files import BaseFiles
from fedserver.settings import ServerSettings
from fedserver.storage.runs import begins_closed
from fedserver.workspace import Workspace
from fedspect.protocol.names import join_address

LOOK_CERTIFICATE = 86_400.0  # seconds between two looks at the certificate's age


class EnrolmentEndpoint:
    """The enrolment service on its port; ``say`` takes sentences for the operator."""

    def __init__(
        self,
        workspace: Workspace,
        settings: ServerSettings,
        service: EnrolmentService,
        say: Callable[[str], None],
    ) -> None:
        self._workspace = workspace
        self._network = settings.network
        self._service = service
        self._say = say
        self._server: EnrolmentServer | None = None
        self._next_look = 0.0

    def certify(self) -> bool:
        """Renew the server certificate if needed, checked once a day; answers whether there is a new one.

        Listeners go on with the one that they were opened with.
        """
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK_CERTIFICATE
        reason = self._workspace.ensure_server_certificate(self._network.hosts)
        if reason is not None:
            self._say(f"a new server certificate was issued: {reason}")
        return reason is not None

    def open(self) -> int:
        """Bind the port and return its number; no call is answered yet.

        Raises:
            FederationError: it cannot be had.

        """
        network = self._network
        check_port(network.bind, network.enrolment_port, "enrolment_port")
        self._server = EnrolmentServer(
            self._service, self._workspace.authority, network.bind, network.enrolment_port
        )
        return self._server.port

    def answer(self) -> None:
        """Begin to answer calls."""
        assert self._server is not None
        self._server.start()

    def close(self) -> None:
        """Release the port; harmless where it was never bound."""
        if self._server is not None:
            self._server.stop()
            self._server = None


def offer_of(settings: ServerSettings, base: BaseFiles) -> Offer:
    """What a joining plant is told of a federation with these settings."""
    network = settings.network
    return Offer(
        federation=settings.federation.name,
        fleet_addresses=tuple(join_address(host, network.fleet_port) for host in network.hosts),
        classes=tuple(settings.ready_classes()),
        aliases=dict(settings.federation.aliases),
        base=base,
        settings={
            "training": settings.training.model_dump(mode="json"),
            "freeze_levels": settings.model.freeze_levels,
            "seed": settings.run.seed,
            "closed_form": begins_closed(settings, base),
        },
    )
