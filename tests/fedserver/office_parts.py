"""A workspace with a running enrolment service, and a plant's way in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import grpc

from fedclient.node.enrolment.enrol import joined
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedserver.enrolment.plant_registry import RegisteredPlant
from fedserver.enrolment.server import EnrolmentServer
from fedserver.enrolment.service import EnrolmentService, Offer
from fedserver.enrolment.tokens import invite
from fedserver.registry.base_files import BaseFiles
from fedserver.workspace import Workspace, create
from fedspect.protocol.grpc_services import ENROLMENT, Stub
from fedspect.protocol.join_token import JoinToken

HASH = "ab" * 32


class Office:
    """A workspace with a running enrolment service and nothing else."""

    def __init__(self, folder: Path) -> None:
        create(folder / "hq", ["localhost"], name="steel", classes=["pit", "scratch"])
        self.workspace = Workspace.open(folder / "hq")
        self.base = folder / "base"
        self.base.mkdir()
        (self.base / "card.json").write_text(json.dumps({"content_hash": HASH}))
        (self.base / "model.safetensors").write_bytes(os.urandom(700_000))
        self.admitted: list[str] = []
        self.left: list[str] = []
        self.said: list[str] = []
        self.deployed: list[tuple[str, str]] = []
        self.start()

    def start(self, port: int = 0) -> None:
        self.service = EnrolmentService(
            self.workspace.registry,
            self.workspace.authority.fingerprint(),
            Offer(
                federation="steel",
                fleet_addresses=("localhost:9092",),
                classes=("pit", "scratch"),
                aliases={"hole": "pit"},
                base=BaseFiles.read(self.base),
                settings={"batch_size": 8},
            ),
            self.workspace.models,
            self.workspace.deployments,
            on_admitted=lambda plant: self.admitted.append(plant.name),
            on_clone=self.said.append,
            on_left=lambda plant: self.left.append(plant.name),
            on_deployed=lambda plant, report: self.deployed.append((plant, report.outcome)),
        )
        self.server = EnrolmentServer(self.service, self.workspace.authority, "127.0.0.1", port)
        self.server.start()

    def token(self, plant: str = "plant-a", **more: Any) -> JoinToken:
        given = {"lifetime": 3600, "addresses": [("localhost", self.server.port)], **more}
        return invite(
            self.workspace.registry, plant, fingerprint=self.workspace.authority.fingerprint(), **given
        )

    def plant(self, name: str = "plant-a") -> RegisteredPlant:
        return self.workspace.registry.read().plants[name]

    def stub(self) -> Stub:
        credentials = grpc.ssl_channel_credentials(self.workspace.authority.certificate_path.read_bytes())
        return Stub(grpc.secure_channel(f"localhost:{self.server.port}", credentials), ENROLMENT)


def join(home: PlantHome, token: JoinToken) -> Membership:
    with joined(home, token) as (session, authority):
        session.fetch_base(home)
        session.report({"counts": {"pit": 3}})
        addresses = [f"{host}:{port}" for host, port in token.addresses]
        membership = session.membership(addresses, token.fingerprint, data="/pictures")
        home.remember(membership, authority)
    return membership
