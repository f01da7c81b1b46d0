"""Export a model to ONNX, build an engine of it, and ask that engine about a picture.

python examples/export_and_ask.py MODEL_FOLDER PICTURE work
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import fedspect


def main(model: Path, picture: Path, folder: Path) -> str:
    """Build the whole network as one engine; the class that it answers."""
    base = fedspect.load_base(model)
    classes = base.card.classes
    facts = fedspect.DeployFacts(base.content_hash, classes, base.preprocessing, base.content_hash)
    graphs = fedspect.deploy_graphs(base.network(classes, seed=0), facts, freeze_levels=0)
    fedspect.save_graphs(folder, graphs)

    store = fedspect.EngineStore(folder / "engines")
    stored = fedspect.build_engine(folder / "whole.onnx", store, kind="onnxruntime")
    with fedspect.open_engine(stored) as engine:
        logits = engine.run(base.preprocessing.load(picture)[None])[0]
    odds = np.exp(logits - logits.max())
    answer = classes[int(odds.argmax())]
    print(
        f"{picture.name}: {answer}, {odds.max() / odds.sum():.1%}; engines here: {fedspect.available_kinds()}"
    )
    return answer


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
