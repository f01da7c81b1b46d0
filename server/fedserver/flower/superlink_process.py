"""The process in which Flower's SuperLink runs: Flower's own program with a few things set before it starts.

* The Control API, through which a run is started, and a run is code, asks for a secret that only this workspace's
  owner can read. Flower 1.30 leaves it open to everybody who reaches the port.
* The Fleet API, which devices reach, has bounds (``fleet_port``). Flower accepts 2 GB from anybody who completes a
  TLS handshake, and a thousand calls of theirs.
* Messages are whole and stay until they are answered (``message_queue``).
* A ServerApp has two minutes to come up. Flower gives up after thirty seconds, which a busy machine needs for its
  imports alone. That one died is noticed by ``superlink``, which looks at the process.
* The process ends when the one that started it is gone.

Run as ``python -m fedserver.flower.superlink_process`` with Flower's arguments; see ``superlink``.
"""

from __future__ import annotations

import hmac
import os
import sys
from collections.abc import Sequence

from flwr.common.constant import AuthnType
from flwr.common.typing import AccountInfo
from flwr.server import app as flower
from flwr.server.superlink.linkstate import linkstate_factory
from flwr.server.superlink.serverappio import serverappio_grpc
from flwr.supercore.corestate import in_memory_corestate
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.auth_plugin.noop_auth_plugin import NOOP_ACCOUNT_INFO

from fedserver.flower.control_api import SECRET_HEADER
from fedserver.flower.fleet_port import bounded_server
from fedserver.flower.message_queue import MessageQueue
from fedserver.flower.message_servicers import FleetMessages, ServerAppMessages
from fedserver.flower.superlink import PARENT_VARIABLE, SECRET_VARIABLE
from fedspect.graceful_shutdown import exit_with_parent

SERVERAPP_PATIENCE = 120  # seconds without a sign of life from a ServerApp


class SecretAuthn(NoOpControlAuthnPlugin):
    """Lets in whoever sends the secret, as Flower's one nameless account."""

    secret = ""

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Whether the call carries the secret."""
        given = next((value for key, value in metadata if key == SECRET_HEADER), "")
        known = isinstance(given, str) and hmac.compare_digest(given.encode(), self.secret.encode())
        return (True, NOOP_ACCOUNT_INFO) if known else (False, None)

    def refresh_tokens(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[Sequence[tuple[str, str | bytes]] | None, AccountInfo | None]:
        """There is nothing to refresh: no."""
        return None, None


def main() -> None:
    """Flower's ``flower-superlink`` with the above in place."""
    SecretAuthn.secret = os.environ.pop(SECRET_VARIABLE)
    if not SecretAuthn.secret:
        sys.exit("no secret for the Control API")
    flower.get_control_authn_plugins = lambda: {AuthnType.NOOP: SecretAuthn}
    vars(flower)["generic_create_grpc_server"] = bounded_server
    vars(flower)["FleetServicer"] = FleetMessages
    vars(serverappio_grpc)["ServerAppIoServicer"] = ServerAppMessages
    vars(linkstate_factory)["InMemoryLinkState"] = MessageQueue
    vars(in_memory_corestate)["HEARTBEAT_DEFAULT_INTERVAL"] = SERVERAPP_PATIENCE
    exit_with_parent(int(os.environ.pop(PARENT_VARIABLE)))
    flower.run_superlink()


if __name__ == "__main__":
    main()
