"""Heat maps of the pictures in the review queue: what a person who labels wants to see first. Used from one thread.

The graph is opened when the first one is wanted; an engine that has no such map is named once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from fedclient.worker.deployments import Deployment
from fedclient.worker.engines import EngineStore
from fedclient.worker.line.serving.model_leases import ServedModel
from fedspect.errors import FedspectError

if TYPE_CHECKING:
    from fedclient.worker.line.explain.class_activation import Explainer

logger = logging.getLogger("fedclient.line")


class HeatMaps:
    """Draws for the deployment that it was turned to."""

    def __init__(self, store: EngineStore) -> None:
        self._store = store
        self._deployment: Optional[Deployment] = None
        self._explainer: Optional[Explainer] = None
        self._tried = False

    def turn_to(self, deployment: Deployment) -> None:
        """Draw for this one from now on."""
        self._deployment, self._explainer, self._tried = deployment, None, False

    def draw(self, path: Path, model: ServedModel, pixels: np.ndarray, label: str) -> None:
        """Write what speaks for ``label`` over what the model saw, uint8 (C, S, S); nothing where that is unknown.

        Raises:
            EngineError: the graph does not answer.
            StorageError: it cannot be written.

        """
        explainer = self._opened()
        deployment = self._deployment
        if explainer is None or deployment is None or deployment.version != model.version:
            return  # an answer of the version before
        from fedclient.worker.line.explain.overlay import save_overlay

        save_overlay(path, pixels, explainer.heat(pixels, model.classes.index(label)))

    def _opened(self) -> Optional[Explainer]:
        if not self._tried and self._deployment is not None:
            self._tried = True
            from fedclient.worker.line.explain.class_activation import Explainer

            try:
                self._explainer = Explainer(self._deployment, self._store)
            except FedspectError as error:
                logger.warning("pictures for review are kept without heat maps: %s", error)
        return self._explainer
