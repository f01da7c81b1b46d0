"""Sizes and times that both ends of a connection hold each other to; nothing larger is read, whatever it
claims.
"""

from __future__ import annotations

from typing import Final, List, Tuple

PROTOCOL: Final = 1
"""Version of the enrolment protocol; a plant and a server with different ones refuse each other by name."""

LARGEST_ENROLMENT_MESSAGE: Final = 256 << 10
"""Bytes of one enrolment message (the admission with its classes is the largest; a site report comes next).
"""

CHUNK: Final = 128 << 10
"""Bytes of the base model per streamed message."""

LARGEST_BASE_MODEL: Final = 1 << 30
"""Bytes of all files of a base model together."""

MOST_BASE_FILES: Final = 16
MOST_CLASSES: Final = 1000
LONGEST_NAME: Final = 64
"""Characters in the name of a plant or a federation."""

LARGEST_REPORT: Final = 128 << 10
"""Characters of a site report as JSON."""

LARGEST_DEPLOYMENT_REPORT: Final = 32 << 10
"""Characters of what a plant reports of one version, as JSON."""

LARGEST_FLEET_MESSAGE: Final = 64 << 20
"""Bytes of one call of Flower's Fleet API; the whole of model C as float32 is 25 MB."""

LARGEST_WORKER_MESSAGE: Final = 192 << 20
"""Bytes of one message between node and worker; the whole of model C as float32 is 25 MB."""

CLOCK_TOLERANCE: Final = 60.0
"""Seconds that a plant's clock may differ from headquarters' before the plant is told."""


LEAST_PING: Final = 10.0
"""Seconds between two of a connection's keepalive pings; a server ends connections that ask more often."""


def ping_options() -> List[Tuple[str, int]]:
    """Options of a server that lets silent connections be kept alive."""
    return [("grpc.http2.min_ping_interval_without_data_ms", int(1000 * LEAST_PING))]


def grpc_options(largest: int) -> List[Tuple[str, int]]:
    """Channel and server options that bound a message in both directions."""
    return [("grpc.max_send_message_length", largest), ("grpc.max_receive_message_length", largest)]
