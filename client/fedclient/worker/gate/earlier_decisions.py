"""Earlier decisions of the gate: versions that need no build and no test."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Dict, List, Optional, Tuple

from fedclient.engine_files import fault_of
from fedclient.worker.deployments import Deployments
from fedclient.worker.engines import EngineStore
from fedspect.errors import DamagedFileError
from fedspect.protocol.versions import Outcome, VersionCard

Decision = Tuple[Outcome, List[str], Dict[str, Any]]
"""What became of a version, the reasons and the figures."""


def earlier_decision(deployments: Deployments, store: EngineStore, card: VersionCard) -> Optional[Decision]:
    """The decision on a version that runs, that this plant rolled back, or that is retired here; else ``None``.

    None for one that the line is to run and could not: its engines are gone or damaged, and are built again.
    """
    with suppress(DamagedFileError):
        current = deployments.current()
        if current is not None and current.version == card.content_hash:
            if fault_of(store.folder, current.engines.values()) is not None:
                return None
            return "activated", ["the line runs it already"], current.figures
    left = deployments.left_behind(card.content_hash)
    if left is not None:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(left.at))
        return "refused", [f"this plant went back from it at {when} ({left.who}: {left.why})"], {}
    for each in deployments.list():
        if each.version == card.content_hash and each.state == "retired":
            return "refused", [f"it is retired: {'; '.join(each.reasons)}"], {}
    return None


def gone_back(
    deployments: Deployments, store: EngineStore, card: VersionCard, who: str
) -> Optional[Decision]:
    """Headquarters retired what the line runs: a version before it that passed here needs no second gate,
    where it might fail for not being as good as the one that was taken back. The line runs it at once.
    """
    with suppress(DamagedFileError):
        current = deployments.current()
        if current is None or card.number >= current.number:
            return None
        for each in deployments.list():
            usable = each.state == "passed" and fault_of(store.folder, each.engines.values()) is None
            if each.version == card.content_hash and usable:
                why = f"headquarters went back to version {card.number}"
                deployments.activate(each.id, who=who, why=why)
                return "activated", [f"{why}, which passed the gate here before"], each.figures
    return None
