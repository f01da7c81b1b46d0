"""Evidence of the gate: answers of the trained model, the candidate's engines and the current ones on the same
pictures.

Beside the golden pictures a few are drawn (black, white, slopes, noise): they show an answer that is no number
even at a plant without golden pictures. Time is taken in turns, so that a busy device is as busy for both.

Shapes: N pictures, C channels, S the input size, K classes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Callable, List, Optional, Tuple

import numpy as np
import torch

from fedclient.worker.engines import LineModel
from fedclient.worker.golden.pictures import GoldenPixels
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import EngineError
from fedspect.model.levels import LevelledNetwork

BATCH = 8  # the largest that an engine is built for by default
WARM_UP = 3

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Answers:
    """What one model answered: logits (N, K) of the golden pictures, then of the drawn ones."""

    classes: Tuple[str, ...]
    logits: np.ndarray
    fault: str = ""
    """Why there are none: the model failed."""
    seconds: Tuple[float, ...] = ()
    """Of one picture, each run."""


@dataclass(frozen=True)
class Evidence:
    """Everything that ``decide`` decides on."""

    labels: Tuple[str, ...]
    """The golden pictures' classes; the drawn ones come after them and have none."""
    names: Tuple[str, ...]
    trained: Answers
    candidate: Answers
    current: Optional[Answers]
    kind: str
    precision: str
    remarks: Tuple[str, ...] = field(default=())


def drawn_pictures(preprocessing: Preprocessing) -> np.ndarray:
    """Black, white, a slope each way and two kinds of noise: uint8 (6, C, S, S), always the same."""
    size, channels = preprocessing.size, preprocessing.channels
    slope = np.linspace(0, 255, size).astype(np.uint8)
    random = np.random.default_rng(0)
    planes = [
        np.zeros((size, size), np.uint8),
        np.full((size, size), 255, np.uint8),
        np.broadcast_to(slope[None, :], (size, size)),
        np.broadcast_to(slope[:, None], (size, size)),
        random.integers(0, 256, (size, size), dtype=np.uint8),
        np.clip(random.normal(128, 20, (size, size)), 0, 255).astype(np.uint8),
    ]
    return np.stack([np.broadcast_to(plane, (channels, size, size)) for plane in planes])


def gather(
    network: LevelledNetwork,
    preprocessing: Preprocessing,
    golden: GoldenPixels,
    classes: Tuple[str, ...],
    candidate: LineModel,
    current: Optional[LineModel],
    *,
    runs: int,
    report: Report = lambda stage, done, total: None,
    remarks: Tuple[str, ...] = (),
) -> Evidence:
    """Run all three, and time the two engines in turns.

    A model that fails is evidence too: its answers say why.

    """
    pixels = np.concatenate([golden.pixels, drawn_pictures(preprocessing)])
    steps = 3 * len(pixels) + runs

    def told(before: int) -> Callable[[int], None]:
        return lambda done: report("gate", before + done, steps)

    trained = _asked(classes, pixels, lambda batch: trained_logits(network, preprocessing, batch), told(0))
    answers = _asked(classes, pixels, lambda batch: candidate.answer(batch).logits, told(len(pixels)))
    before: Optional[Answers] = None
    if current is not None:
        ours, theirs = preprocessing, current.preprocessing
        if (ours.size, ours.channels) != (theirs.size, theirs.channels):
            remarks = (*remarks, "the current engine takes pictures of another size and is not compared")
            current = None
        else:
            ask = current
            before = _asked(
                ask.classes, pixels, lambda batch: ask.answer(batch).logits, told(2 * len(pixels))
            )
    one = golden.pixels[:1] if len(golden.pixels) else pixels[-1:]
    times = _timed(one, [candidate, current], runs)
    report("gate", steps, steps)
    engine = candidate.engines[0]
    return Evidence(
        labels=golden.labels,
        names=golden.names,
        trained=trained,
        candidate=Answers(answers.classes, answers.logits, answers.fault, times[0]),
        current=None if before is None else Answers(before.classes, before.logits, before.fault, times[1]),
        kind=engine.kind,
        precision=engine.precision,
        remarks=remarks,
    )


def trained_logits(network: LevelledNetwork, preprocessing: Preprocessing, pixels: np.ndarray) -> np.ndarray:
    """What the trained network answers to uint8 (N, C, S, S): float32 (N, K)."""
    device = next(network.parameters()).device
    with torch.no_grad():
        images = torch.from_numpy(preprocessing.normalise(pixels)).to(device)
        answer: np.ndarray = network.eval()(images).cpu().numpy()
    return answer.astype(np.float32)


def _asked(
    classes: Tuple[str, ...],
    pixels: np.ndarray,
    ask: Callable[[np.ndarray], np.ndarray],
    told: Callable[[int], None],
) -> Answers:
    rows: List[np.ndarray] = []
    for first in range(0, len(pixels), BATCH):
        try:
            rows.append(ask(pixels[first : first + BATCH]))
        except EngineError as error:
            return Answers(classes, np.zeros((0, len(classes)), np.float32), str(error))
        told(min(first + BATCH, len(pixels)))
    return Answers(classes, np.concatenate(rows))


def _timed(one: np.ndarray, models: List[Optional[LineModel]], runs: int) -> List[Tuple[float, ...]]:
    times: List[List[float]] = [[] for _ in models]
    for turn in range(-WARM_UP, runs):
        for model, taken in zip(models, times):
            if model is None:
                continue
            begun = time.perf_counter()
            try:
                model.answer(one)
            except EngineError:
                continue
            if turn >= 0:
                taken.append(time.perf_counter() - begun)
    return [tuple(taken) for taken in times]
