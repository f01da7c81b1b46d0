"""Train in one place: pictures, the shipped base model, a trainer, figures, and a model folder to keep.

python examples/train_in_one_place.py work
"""

from __future__ import annotations

import sys
from pathlib import Path

import fedspect


def main(folder: Path, *, per_class: int = 40, size: int = 128, epochs: int = 6) -> float:
    """Draw surfaces, train on four fifths of them, measure on the rest; the accuracy."""
    fedspect.draw_dataset(folder / "pictures", per_class=per_class, size=size, seed=1)
    listing = fedspect.find_pictures(folder / "pictures")
    pictures = fedspect.inspect_pictures(listing).pictures
    sides = fedspect.split_pictures(pictures, {"training": 0.8, "test": 0.2}, seed=1)

    base = fedspect.default_base()
    classes = list(listing.classes.names)
    trainer = fedspect.Trainer(
        base.network(classes, seed=1),
        base.preprocessing,
        classes,
        fedspect.TrainingSettings(device="cpu", threads=1),
        freeze_levels=base.card.default_freeze_levels,
        base_hash=base.content_hash,
        cache_folder=folder / "cache",
        seed=1,
    )
    trainer.fit(sides["training"], epochs=epochs)
    figures = fedspect.evaluate(trainer.predict(sides["test"]), classes)
    fedspect.save_base(
        folder / "model",
        trainer.network,
        classes=classes,
        input_size=base.card.input_size,
        mean=base.card.mean,
        std=base.card.std,
        provenance={"trained": "examples/train_in_one_place.py"},
    )
    print(
        f"{figures.accuracy:.1%} of {figures.num_examples} pictures right; the model is in {folder / 'model'}"
    )
    return figures.accuracy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
