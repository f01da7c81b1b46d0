"""Central evaluation on a fixed test set, which only a simulation has: after a round the model is measured in one
place.

No plant holds these pictures. What the model reaches on them is what all ways of training are compared by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fedsim.config import SimulationSettings
from fedsim.heat_maps import write_heat_map
from fedsim.prepare import fixed_test_set
from fedsim.run_folder import Prepared, RunFolder
from fedspect.data.pictures import CheckedPicture
from fedspect.files import write_json
from fedspect.model import BaseNetwork, LevelledNetwork, load_base, load_head_state, save_base
from fedspect.training.metrics import Evaluation, evaluate
from fedspect.training.reports import Predictions
from fedspect.training.trainer import Trainer

MOST_HEAT_MAPS = 12  # as many mistakes as a report shows


class CentralTest:
    """The run's network and test set, ready to measure one head after another, or to train in one place.

    ``seed`` is that of the training in one place; the network always starts from the run's own, or (where
    ``closed_form`` is False) with a new classifier in place of the closed form.
    """

    def __init__(
        self,
        folder: RunFolder,
        prepared: Prepared,
        settings: SimulationSettings,
        *,
        seed: int | None = None,
        closed_form: bool | None = None,
    ) -> None:
        self.base: BaseNetwork = load_base(folder.base)
        self.classes = prepared.classes
        self.pictures: list[CheckedPicture] = fixed_test_set(folder, prepared)
        self.network: LevelledNetwork = self.base.starting_network(
            prepared.classes,
            seed=settings.seed,
            freeze_levels=prepared.freeze_levels,
            closed_form=prepared.closed_form if closed_form is None else closed_form,
        )
        self._data = settings.data
        self.preprocessing = self.base.preprocessing.of_camera(prepared.bit_depth)
        self.trainer = Trainer(
            self.network,
            self.preprocessing,
            prepared.classes,
            settings.training,
            freeze_levels=prepared.freeze_levels,
            base_hash=prepared.base_hash,
            cache_folder=settings.cache_folder or folder.cache,
            seed=settings.seed if seed is None else seed,
        )

    def load(self, head: Mapping[str, Any]) -> None:
        """Put a head (numpy arrays by full name; FedBN leaves statistics out) into the network."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in head.items()}
        load_head_state(self.network, tensors)

    def predict(self) -> Predictions:
        """What the network answers for the test set."""
        return self.trainer.predict(self.pictures)

    def evaluate(self, predictions: Predictions) -> Evaluation:
        """All figures of these answers."""
        return evaluate(
            predictions,
            self.classes,
            good_classes=self._data.good_classes,
            threshold=self._data.threshold,
        )


def save_model(
    folder: RunFolder, test: CentralTest, evaluation: Evaluation, provenance: Mapping[str, Any]
) -> BaseNetwork:
    """Write the network that came out, as a folder that ``--base`` takes again."""
    card = test.base.card
    reached = {"accuracy": evaluation.accuracy, "test_pictures": evaluation.num_examples}
    return save_base(
        folder.model,
        test.network.cpu(),
        classes=test.classes,
        input_size=card.input_size,
        mean=card.mean,
        std=card.std,
        provenance={**provenance, "base": card.content_hash, "reached": reached},
    )


def write_evaluation(
    folder: RunFolder, evaluation: Evaluation, predictions: Predictions, test: CentralTest | None = None
) -> None:
    """Write what the model does on the test set: the figures and every answer.

    With ``test`` also where its network looked in the worst mistakes.
    """
    rows = answers(predictions, [each.name for each in evaluation.classes])
    if test is not None:
        paths = {picture.name: picture.path for picture in test.pictures}
        wrong = [row for row in rows if row["true"] != row["predicted"] and row["name"] in paths]
        for row in sorted(wrong, key=lambda row: (-row["confidence"], row["name"]))[:MOST_HEAT_MAPS]:
            row["heat_map"] = write_heat_map(
                folder.path,
                row["name"],
                paths[row["name"]],
                list(test.classes).index(row["predicted"]),
                test.network,
                test.preprocessing,
            )
    write_json(folder.evaluation, {"evaluation": evaluation.model_dump(mode="json"), "predictions": rows})


def answers(predictions: Predictions, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each picture: its class, the answer and how sure the model was."""
    called = predictions.probabilities.argmax(1)
    return [
        {
            "name": name,
            "true": classes[int(label)],
            "predicted": classes[int(answer)],
            "confidence": round(float(row[answer]), 6),
        }
        for name, label, answer, row in zip(
            predictions.names, predictions.labels, called, predictions.probabilities, strict=True
        )
    ]
