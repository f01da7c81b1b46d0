"""The ServerApp that a workspace's run is submitted with; it lives in a process of its own below the
SuperLink.

It is ``fedserver.flower.serverapp`` with two things that only a real federation has: whole messages, and plants that
must be who their keys say, by the list of nodes that headquarters writes.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fedserver.flower.node_register import NODES_FILE, read_nodes
from fedserver.flower.serverapp import build_server_app, folder_from_configuration
from fedserver.flower.superlink import MARK_VARIABLE
from fedserver.flower.transport import SuperLinkTransport
from fedspect.errors import EnrolmentError
from fedspect.graceful_shutdown import stop_event
from fedspect.update.round_messages import PlantDescription


def admit_registered(node: int, description: PlantDescription) -> None:
    """Keep a node out whose key was not registered for the plant that it says it is.

    Raises:
        EnrolmentError: it was not.

    """
    nodes = read_nodes(Path(os.environ[MARK_VARIABLE]) / NODES_FILE)
    plant = nodes.get(node)
    if plant != description.plant:
        raise EnrolmentError(
            "a node says that it is a plant that it is not",
            seen=f"{description.plant}, by its key {plant or 'nobody'}",
            remedy="look at that device: `fedserver plants revoke` shuts it out",
        )


# In place of Flower's handler, which leaves in the middle of whatever is being done.
stopping = stop_event(signal.SIGTERM)
app = build_server_app(
    folder_from_configuration,
    should_stop=stopping.is_set,
    admit=admit_registered,
    transport_for=SuperLinkTransport,
)
