"""Input validation: a frame that shows no surface such as the plant's own is a person's to see.

Light off, lens cap on, cable out, another camera: a classifier answers for such a frame too, and may let it
pass. Some things are told of any frame: a constant or almost black picture, a few pixels, a depth that nobody
knows. The rest by plain figures of the plant's own pictures (brightness, contrast, sharpness): what lies further
outside their range than that range is wide gets the verdict "ask", with the reason. The bounds lie beside the
drift reference and depend on the camera only, so that the next version of the model keeps them.

A guard answers for each picture why no sure verdict may be given; ``Judge`` takes any number of them.

Shapes: N pictures, C channels, S the input size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Protocol, Sequence, Tuple

import numpy as np

from fedclient.worker.engines.model import LineAnswer
from fedspect.data.depth import levels_of
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import DamagedFileError
from fedspect.files import read_json, write_json

BOUNDS_FILE = "bounds.json"
FORMAT = 1
FEWEST = 10  # pictures that bounds are drawn from
CONSTANT = 0.5  # grey levels: a smaller standard deviation is a constant picture
BLACK, WHITE = 16, 239  # grey levels: a frame that is all below, or above, shows nothing
SMALLEST_SIDE = 4  # pixels

Doubts = Tuple[str, ...]
"""Why no sure verdict may be given on a picture; none: it may."""


@dataclass(frozen=True)
class InputBatch:
    """Pictures as a network takes them, uint8 (N, C, S, S), and what was doubtful when they were read."""

    pixels: np.ndarray
    doubts: Sequence[Doubts]

    def __len__(self) -> int:
        return len(self.pixels)


class Guard(Protocol):
    """Tells which pictures a person must see."""

    def doubts(self, batch: InputBatch, answer: LineAnswer) -> Sequence[Doubts]:
        """For each picture why no sure verdict may be given."""


@dataclass(frozen=True)
class Figure:
    """A plain figure of a picture: how wide a range is taken to be at least, and what lies beyond its ends."""

    margin: float
    below: str
    above: str


FIGURES: Mapping[str, Figure] = {
    "brightness": Figure(0.1, "darker", "brighter"),
    "contrast": Figure(0.5, "lower in contrast", "higher in contrast"),
    "sharpness": Figure(0.5, "less sharp", "sharper"),
}


def plain_figures(pixels: np.ndarray) -> np.ndarray:
    """Brightness and contrast (0 to 1), and sharpness (a logarithm) of uint8 (N, C, S, S): float32 (N, 3)."""
    grey = pixels.mean(axis=1, dtype=np.float32) / np.float32(255)
    across = np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    down = np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2))
    return np.stack([grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), np.log(across + down + 1e-4)], axis=1)


@dataclass(frozen=True)
class InputGuard:
    """What a frame must be like: bounds by figure (contrast as a logarithm), none where they are not known."""

    bounds: Mapping[str, Tuple[float, float]]
    black: int = BLACK
    white: int = WHITE

    @classmethod
    def of(cls, pixels: np.ndarray) -> InputGuard:
        """From the plant's own pictures, uint8 (N, C, S, S); without bounds from too few of them."""
        if len(pixels) < FEWEST:
            return cls({})
        figures = _compared(pixels)
        low, high = figures.min(axis=0), figures.max(axis=0)
        bounds: Dict[str, Tuple[float, float]] = {}
        for (name, figure), least, most in zip(FIGURES.items(), low.tolist(), high.tolist()):
            margin = max(most - least, figure.margin)
            bounds[name] = (least - margin, most + margin)
        levels = [levels_of(each, 8) for each in pixels]
        return cls(
            bounds,
            min(BLACK, min(each.brightest for each in levels) // 2),
            max(WHITE, 255 - (255 - max(each.darkest for each in levels)) // 2),
        )

    def doubts(self, batch: InputBatch, answer: LineAnswer) -> Sequence[Doubts]:
        """For each picture why no sure verdict may be given."""
        return [(*read, *self.seen(pixels)) for read, pixels in zip(batch.doubts, batch.pixels)]

    def seen(self, pixels: np.ndarray) -> Doubts:
        """What is wrong with one picture, uint8 (C, S, S)."""
        levels = levels_of(pixels, 8)
        if levels.brightest < self.black:
            return ("the picture is almost black",)
        if levels.darkest > self.white:
            return ("the picture is almost white",)
        if float(pixels.std()) < CONSTANT:
            return ("the picture is all of one grey",)
        found = []
        for (name, figure), value in zip(FIGURES.items(), _compared(pixels[None])[0].tolist()):
            low, high = self.bounds.get(name, (-np.inf, np.inf))
            if not low <= value <= high:
                words = figure.below if value < low else figure.above
                found.append(f"the picture is far {words} than any of this plant's")
        return tuple(found)

    def save(self, folder: Path, preprocessing: Preprocessing) -> None:
        """Write ``bounds.json``; raises ``StorageError``."""
        content = {
            "format": FORMAT,
            "preprocessing": preprocessing.key,
            "bounds": {name: list(pair) for name, pair in self.bounds.items()},
            "black": self.black,
            "white": self.white,
        }
        write_json(folder / BOUNDS_FILE, content)

    @classmethod
    def load(cls, folder: Path, preprocessing: Preprocessing) -> InputGuard:
        """The guard with the plant's bounds; without them where there are none for pictures prepared so.

        Raises:
            DamagedFileError: the file is not what was written.

        """
        try:
            content = read_json(folder / BOUNDS_FILE)
            if content["format"] != FORMAT or content["preprocessing"] != preprocessing.key:
                return cls({})
            bounds = {
                name: (float(content["bounds"][name][0]), float(content["bounds"][name][1]))
                for name in FIGURES
                if name in content["bounds"]
            }
            return cls(bounds, int(content["black"]), int(content["white"]))
        except FileNotFoundError:
            return cls({})
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DamagedFileError(
                "the bounds of the plant's pictures cannot be read",
                seen=f"{folder / BOUNDS_FILE}: {error}",
                remedy="make them again with `fedclient drift init`",
            ) from error


def _compared(pixels: np.ndarray) -> np.ndarray:
    """The figures as they are compared: contrast by its ratio."""
    figures = plain_figures(pixels).astype(np.float64)
    figures[:, 1] = np.log(figures[:, 1] + 1e-3)
    return figures
