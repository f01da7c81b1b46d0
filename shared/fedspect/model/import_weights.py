"""Weight import: from the authors' CondenseNetV2 checkpoint to a base model's folder.

What comes out is in the form that plants get: learned groups are condensed, which changes no answer. The
classes of the checkpoint (a thousand of ImageNet) are numbered when nobody names them; a federation with
classes of its own replaces the classifier anyway.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

from fedspect.errors import CheckpointError, SettingsError
from fedspect.files import file_hash
from fedspect.model.authors_checkpoints import import_authors, read_checkpoint
from fedspect.model.base import BaseNetwork, save_base
from fedspect.model.condense import condense

COLOUR_MEAN, COLOUR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What ImageNet's pictures are normalised with, and so what the authors trained with."""
GREY_MEAN, GREY_STD = (0.449,), (0.226,)
"""The means of the three channels."""


def import_weights(
    path: Path,
    folder: Path,
    *,
    made_by: str,
    classes: Optional[Sequence[str]] = None,
    size: int = 224,
    channels: int = 3,
) -> BaseNetwork:
    """Write the base model that the authors' checkpoint in ``path`` makes into ``folder``.

    Args:
        path: a ``.pth.tar`` or ``.pth`` file, as trained or as converted; averaged weights are preferred.
        folder: a new folder.
        made_by: the command, for the card.
        classes: names of the classifier's outputs, in order; not given: ``class-0000`` and so on.
        size: height and width at which plants use it, in pixels.
        channels: 3, or 1 for grey pictures, which then get the answer that three equal channels would get.

    Raises:
        CheckpointError: the file is no such checkpoint; the message names the key or the shape.
        BaseModelError, StorageError: it cannot be saved.

    """
    if channels not in (1, 3):
        raise SettingsError("pictures have one channel or three", seen=channels, accepted="1 or 3")
    network = import_authors(read_checkpoint(path), channels=channels)
    if classes is not None and len(classes) != network.num_classes:
        raise CheckpointError(
            "the list of classes does not fit the weights",
            seen=f"{len(classes)} classes",
            accepted=str(network.num_classes),
            remedy="leave the classes out: a federation's own classes get a classifier of their own",
        )
    form = network.form
    if form == "learned":
        network = condense(network)
    names = classes or [f"class-{number:04d}" for number in range(network.num_classes)]
    return save_base(
        folder,
        network,
        classes=names,
        input_size=size,
        mean=COLOUR_MEAN if channels == 3 else GREY_MEAN,
        std=COLOUR_STD if channels == 3 else GREY_STD,
        provenance={
            "made_by": made_by,
            "file": path.name,
            "sha256": file_hash(path),
            "layout": "as trained" if form == "learned" else "as converted",
        },
    )
