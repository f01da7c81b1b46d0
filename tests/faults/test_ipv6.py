"""A network with IPv6 only: the server listens there alone, and a plant joins and takes part."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tiny_parts import TinyFederation

pytestmark = [pytest.mark.slow]


def test_a_plant_joins_and_takes_part_where_there_is_ipv6_only(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    federation = TinyFederation(tmp_path, hosts=("::1",), bind="::1", quorum=1)
    try:
        federation.begin("plant-a")
        federation.wait_for_rounds(2)
        with pytest.raises(OSError):
            socket.create_connection(
                ("127.0.0.1", federation.opened.settings().network.fleet_port), timeout=5.0
            )
        federation.server.end()
        federation.check_history()
    finally:
        federation.close()
