"""Worst misclassifications as small pictures: wrong answers with the highest confidence."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from PIL import Image

from fedsim.report.model import ReportedPrediction, RunSummary
from fedspect.data.decode import read_picture
from fedspect.errors import FedspectError

SIDE = 160  # pixels of a thumbnail's longer side


@dataclass(frozen=True)
class MistakeImage:
    """A wrong answer and, where the file is still there, what the picture looks like."""

    prediction: ReportedPrediction
    thumbnail: Optional[Image.Image]
    heat_map: Optional[Image.Image] = None


def worst_mistakes(run: RunSummary, most: int = 12) -> list[MistakeImage]:
    """The wrong answers with the highest confidence, at most ``most``; ties by name."""
    wrong = sorted((p for p in run.predictions if p.wrong), key=lambda p: (-p.confidence, p.name))
    return [
        MistakeImage(
            prediction,
            _thumbnail(run.picture_root, prediction.name),
            _thumbnail(run.folder, prediction.heat_map) if prediction.heat_map else None,
        )
        for prediction in wrong[:most]
    ]


def data_uri(image: Image.Image) -> str:
    """The picture inside a page, as PNG."""
    target = io.BytesIO()
    image.save(target, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode("ascii")


def _thumbnail(root: Optional[Path], name: str) -> Optional[Image.Image]:
    """The picture ``name`` below ``root``, small; None where it is gone, damaged or lies elsewhere."""
    if root is None:
        return None
    path = root / name
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            return None
        image = Image.fromarray(read_picture(path, channels=3))
    except (FedspectError, OSError, ValueError):
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return image if _coloured(image) else image.convert("L")


def _coloured(image: Image.Image) -> bool:
    red, green, blue = image.split()
    return red.tobytes() != green.tobytes() or green.tobytes() != blue.tobytes()
