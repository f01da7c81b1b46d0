"""Yielding work: between any two batches it asks the yield policy, and waits or gives the round back.

The trainer tells its progress after every batch, so that is where it is asked. Giving up is no ordinary
error: ``PlantWorker`` would answer an error of its own with a reply, and headquarters would try again with a
larger message. It passes through the training as an interrupt does, which leaves the network as it was.
"""

from __future__ import annotations

from typing import Callable

from fedclient.yield_policy import Blocker, YieldPolicy
from fedspect.errors import YieldedError

WAITING = "waits for the line"

Report = Callable[[str, int, int], None]


class TaskYielded(BaseException):
    """A round that is given back to headquarters; ``error`` says why, ``memory`` whether for lack of memory."""

    def __init__(self, error: YieldedError, *, memory: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.memory = memory


def polite(yield_policy: YieldPolicy, report: Report) -> Report:
    """A progress callback that first waits until the yield policy allows the work to go on.

    It raises ``TaskYielded`` when that takes longer than the plant's patience.
    """

    def reporting(stage: str, done: int, total: int) -> None:
        try:
            yield_policy.between_batches(lambda blocker: _waits(report, blocker))
        except YieldedError as error:
            blocker = yield_policy.blocker()
            memory = blocker is not None and blocker.kind == "memory"
            raise TaskYielded(error, memory=memory) from error
        report(stage, done, total)

    return reporting


def _waits(report: Report, blocker: Blocker) -> None:
    report(f"{WAITING}: {blocker.reason}", 0, 0)
