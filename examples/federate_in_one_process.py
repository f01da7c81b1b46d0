"""A federation in one process: plants with pictures of their own, rounds, one model, a report.

python examples/federate_in_one_process.py work
"""

from __future__ import annotations

import sys
from pathlib import Path

import fedspect


def main(folder: Path, *, per_class: int = 40, rounds: int = 3) -> float:
    """Let three plants train together on drawn surfaces; the accuracy of their model."""
    settings = fedspect.SimulationSettings.model_validate(
        {
            "seed": 1,
            "data": {"synthetic_per_class": per_class},
            "plants": {"count": 3, "partition": "dirichlet", "alpha": 0.5},
            "federation": {"rounds": rounds, "local_epochs": 2, "strategy": "fedavg"},
            "training": {"device": "cpu", "threads": 1, "batch_size": 8, "learning_rate": 0.003},
        }
    )
    result = fedspect.start_run(folder / "run", settings)
    print(f"{result.evaluation.accuracy:.1%} after {result.rounds} rounds; the report is {result.report}")
    model = fedspect.load_base(folder / "run" / "model")
    print(f"{model.card.architecture} for {', '.join(model.card.classes)}")
    return result.evaluation.accuracy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
