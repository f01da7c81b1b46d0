"""Version announcer: publishes at the end of a run, and tells operators and the log what changed about versions.

Versions are published and retired by other processes too, and plants report theirs to the enrolment service's
threads; here both become sentences of the server's own loop.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from queue import Queue

from fedserver.registry.publishing import publish
from fedserver.registry.versions import PublishedVersion, VersionRegistry
from fedserver.workspace import Workspace
from fedspect.errors import FedspectError
from fedspect.protocol.versions import DeploymentReport

NOTHING = "no version of the model is published"


class VersionAnnouncer:
    """Announces the versions of a running server.

    Args:
        models: the registry.
        base_hash: the base model that plants are given; a version of another one is not for them.
        say: hears sentences for the operator.

    """

    def __init__(self, models: VersionRegistry, base_hash: str, say: Callable[[str], None]) -> None:
        self._models = models
        self._base_hash = base_hash
        self._say = say
        self._said = NOTHING
        self._reports: Queue[str] = Queue()

    def publish(self, workspace: Workspace, run: Path) -> None:
        """Publish what the run has reached; a failure is logged and ends nothing."""
        try:
            version, new = publish(workspace, run)
        except FedspectError as error:
            self._say(f"the model could not be published: {error}")
            return
        if new:
            self._say(f"published version {version.name} of {version.card.run}, round {version.card.rounds}")

    def deployed(self, plant: str, report: DeploymentReport) -> None:
        """Queue a plant's deployment report; from any thread."""
        self._reports.put(became(plant, report))

    def look(self) -> None:
        """Log what plants reported, and whether another version is offered than at the last call."""
        while not self._reports.empty():
            self._say(self._reports.get())
        try:
            offered = self._sentence(self._models.published())
        except FedspectError as error:
            offered = str(error)
        if offered != self._said:
            self._said = offered
            self._say(offered)

    def _sentence(self, version: PublishedVersion | None) -> str:
        if version is None:
            return NOTHING
        if version.card.base_hash != self._base_hash:
            return f"plants are not given version {version.name}: it is of another base model"
        return f"plants are given version {version.name}"


def became(plant: str, report: DeploymentReport) -> str:
    """What became of a version at a plant, as a sentence."""
    sentence = {
        "activated": f"{plant}: the line runs version {report.number}",
        "rolled-back": f"{plant}: the line went back to version {report.number}",
        "refused": f"{plant}: version {report.number} was refused",
        "failed": f"{plant}: version {report.number} could not be deployed",
        "drifting": f"{plant}: the line's pictures are others than version {report.number} learned from",
        "as-learned": f"{plant}: the line's pictures are again such as version {report.number} learned from",
    }[report.outcome]
    return f"{sentence}: {'; '.join(report.reasons)}" if report.reasons else sentence
