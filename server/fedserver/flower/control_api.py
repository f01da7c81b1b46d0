"""Control API client: the calls that we make of a running SuperLink, and the bundle that a run is started with.

Flower's Control API lets devices in and out and starts, watches and ends runs. A run's bundle is thin: it
imports what is installed here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.common.typing import Fab
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.control_pb2_grpc import ControlStub

from fedspect.errors import ConnectionLostError, DiskFullError, FederationError
from fedspect.toml_writer import toml_value

SECRET_HEADER = "fedspect-control-secret"
CALL_TIMEOUT = 15.0  # seconds
NO_PROXY = ("grpc.enable_http_proxy", 0)  # whatever the environment says: it is this machine


@dataclass(frozen=True)
class ControlAddress:
    """How to reach a running SuperLink's Control API; the secret is kept in a file 0600."""

    address: str
    secret: str


@dataclass(frozen=True)
class FlowerRun:
    """A run as Flower sees it: pending, starting, running or finished, and how it finished."""

    status: str
    sub_status: str
    details: str

    @property
    def over(self) -> bool:
        """Whether nothing will happen any more."""
        return self.status == "finished"


class Control:
    """The calls of Flower's Control API that we need.

    Every call raises ``ConnectionLostError`` when the SuperLink does not answer, ``DiskFullError`` when it has no
    space left, and ``FederationError`` when it refuses.
    """

    def __init__(self, where: ControlAddress, authority_pem: bytes) -> None:
        credentials = grpc.ssl_channel_credentials(authority_pem)
        self._channel = grpc.secure_channel(where.address, credentials, options=[NO_PROXY])
        self._stub = ControlStub(self._channel)
        self._metadata = ((SECRET_HEADER, where.secret),)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def register(self, public_key: str) -> int:
        """Let a device's key in; answers the node's number. A key that is in already keeps its number."""
        key = public_key.encode("ascii")
        try:
            return int(self._call("RegisterNode", RegisterNodeRequest(public_key=key)).node_id)
        except FederationError as error:
            if "already in use" not in str(error.seen):
                raise
        nodes = self._call("ListNodes", ListNodesRequest()).nodes_info
        return next(int(n.node_id) for n in nodes if n.public_key == key and n.status != "unregistered")

    def unregister(self, node_id: int) -> None:
        """Shut a node out, at once; one that is not there is fine."""
        with _refusal_is_fine():
            self._call("UnregisterNode", UnregisterNodeRequest(node_id=node_id))

    def online(self) -> set[int]:
        """The numbers of the nodes that are connected now."""
        nodes = self._call("ListNodes", ListNodesRequest()).nodes_info
        return {int(node.node_id) for node in nodes if node.status == "online"}

    def submit(self, bundle: bytes, config: Mapping[str, str | int | float | bool]) -> int:
        """Start a run of the bundle; answers its number."""
        request = StartRunRequest(
            fab=fab_to_proto(Fab("", bundle, {})), override_config=user_config_to_proto(dict(config))
        )
        run_id = int(self._call("StartRun", request).run_id)
        if not run_id:
            raise FederationError("Flower refused the run")
        return run_id

    def state(self, run_id: int) -> FlowerRun:
        """How the run stands."""
        runs = self._call("ListRuns", ListRunsRequest(run_id=run_id)).run_dict
        status = runs[run_id].status
        return FlowerRun(status.status, status.sub_status, status.details)

    def stop(self, run_id: int) -> None:
        """End a run; one that is over is fine."""
        with _refusal_is_fine():
            self._call("StopRun", StopRunRequest(run_id=run_id))

    def _call(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=CALL_TIMEOUT, metadata=self._metadata)
        except grpc.RpcError as error:
            details = f"{method}: {error.code().name.lower()}: {error.details()}"
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ConnectionLostError("Flower's SuperLink does not answer", seen=details) from error
            if "disk is full" in details:  # SQLite's words
                raise DiskFullError(
                    "no space left for Flower's SuperLink",
                    seen=method,
                    remedy="free some space on the workspace's disk; no round that was closed is lost",
                ) from error
            raise FederationError("Flower's SuperLink refused a call", seen=details) from error


@contextlib.contextmanager
def _refusal_is_fine() -> Iterator[None]:
    """What is asked for is so already; a SuperLink that does not answer has not even refused."""
    try:
        yield
    except ConnectionLostError:
        raise
    except FederationError:
        pass


def thin_bundle(module: str, config: Mapping[str, str | int | float | bool]) -> bytes:
    """Flower's app bundle around an installed module that has a ServerApp named ``app``.

    The bundle holds an import and the names of the settings; the code is what is installed here. Plants never
    fetch it; for a stock SuperNode its ClientApp does nothing.
    """
    settings = "\n".join(f"{key} = {toml_value(value)}" for key, value in config.items())
    project = f"""[project]
name = "fedspect-run"
version = "1.0.0"
description = "Rounds of a federation"
license = "Apache-2.0"
dependencies = ["flwr"]

[tool.flwr.app]
publisher = "fedspect"

[tool.flwr.app.components]
serverapp = "fedspect_run.server:app"
clientapp = "fedspect_run.client:app"

[tool.flwr.app.config]
{settings}
"""
    files: dict[str, bytes | Path] = {
        "pyproject.toml": project.encode(),
        "fedspect_run/__init__.py": b"",
        "fedspect_run/server.py": f"import {module} as installed\n\napp = installed.app\n".encode(),
        "fedspect_run/client.py": b"from flwr.clientapp import ClientApp\n\napp = ClientApp()\n",
    }
    return build_fab_from_files(files)[0]
