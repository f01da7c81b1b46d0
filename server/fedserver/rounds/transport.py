"""Transport protocol: how the round loop sends messages to nodes, receives their replies and knows who is there.

Flower's Grid is one (``fedserver.flower.grid``), the local engine of ``fedsim`` another, and tests have their own.
No call waits for a plant; how long to wait is the round loop's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Reply:
    """What became of a message: the reply's body, or why there is none."""

    message: str
    """The id that ``send`` gave."""
    body: bytes = b""
    failure: str | None = None


class Transport(Protocol):
    """A way to the nodes."""

    def nodes(self) -> set[int]:
        """The nodes that are online."""
        ...

    def send(
        self, nodes: Sequence[int], kind: str, body: bytes, *, lifetime: float, group: str
    ) -> Sequence[str | None]:
        """Hand over one message for each node; their ids, ``None`` for one that was not taken.

        Args:
            nodes: whom they are for; a node that is offline gets its message when it is back.
            kind: one of ``fedspect.protocol.messages``.
            body: what it carries.
            lifetime: seconds after which nobody wants a reply any more.
            group: messages that belong together, for the transport's own records.

        """
        ...

    def receive(self, messages: Sequence[str]) -> Iterable[Reply]:
        """Some of the replies to these messages that are here, each once; none when no reply is.

        At most as many as may be in memory at once.
        """
        ...
