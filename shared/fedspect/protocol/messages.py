"""Message kinds between the round loop and a plant's node, and how Flower carries a body of bytes.

A body is one array of bytes in one record. Its ``stype`` is our own: the bytes are no ``.npy`` file, because numpy
would believe the length that such a file claims.
"""

from __future__ import annotations

TRAIN = "train"
"""One exchange of a round: the body is a ``RoundTask``, the answer's a ``RoundReply``."""
DESCRIBE = "query.describe"
"""The answer's body is a ``PlantDescription``."""
NOTICE = "query.notice"
"""A sentence for the plant's engineer, such as why an update was refused."""

BODY = "body"
BYTES = "bytes"
BYTES_STYPE = "fedspect.bytes"
