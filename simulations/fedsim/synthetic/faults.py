"""Defects of materials: each changes height and reflectance where it lies.

A defect is darker as often as lighter and lies anywhere but at the very rim. Which materials can have it is in
``FAULTS``: no thread is missing in glass. Lengths are given for a picture of 128 pixels and grow with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

from fedsim.synthetic.lattice import cell_borders
from fedsim.synthetic.materials import MATERIALS, Material
from fedsim.synthetic.noise import Field, cloudy_noise, frame, smooth_noise


@dataclass(frozen=True)
class Spot:
    """Coordinates about the middle of a defect, in pixels of a picture of 128, turned its own way."""

    along: Field
    across: Field
    ragged: Field
    """Smooth noise that roughens its edge."""
    sign: float
    """1 lighter, -1 darker."""
    strength: float

    def blob(self, length: float, width: float, rough: float) -> Field:
        """About 1 inside an ellipse with a rough edge, 0 outside."""
        inside = 1 - (self.along / length) ** 2 - (self.across / width) ** 2 + rough * self.ragged
        return np.asarray(np.clip(3 * inside, 0, 1), dtype=np.float32)


def spot(size: int, rng: np.random.Generator, angle: float) -> Spot:
    """A place for a defect whose own direction is ``angle``."""
    unit = size / 128
    turned = frame(size, angle)
    along = (turned.along - rng.uniform(-0.32, 0.32) * size) / unit
    across = (turned.across - rng.uniform(-0.32, 0.32) * size) / unit
    ragged = smooth_noise(size, rng, length=float(rng.uniform(2, 6)) * unit)
    return Spot(along, across, ragged, float(rng.choice([-1.0, 1.0])), float(rng.uniform(0.35, 1.0)))


Fault = Callable[[Material, np.random.Generator], None]


def scratch(material: Material, rng: np.random.Generator) -> None:
    """One to three thin long grooves, slightly bent."""
    for _ in range(int(rng.integers(1, 4))):
        at = _anywhere(material, rng)
        bent = at.across - rng.normal(0, 0.003) * at.along**2
        line = np.exp(-((bent / rng.uniform(0.6, 1.5)) ** 2))
        line *= np.clip((rng.uniform(15, 70) - np.abs(at.along)) / 6, 0, 1) * np.clip(
            0.8 + 0.3 * at.ragged, 0, 1
        )
        material.height -= 1.5 * at.strength * line
        material.tone += 0.4 * at.sign * at.strength * line


def pit(material: Material, rng: np.random.Generator) -> None:
    """A few to many small round holes in one region."""
    for _ in range(int(rng.integers(2, 12))):
        at, radius = _anywhere(material, rng), float(rng.uniform(1.2, 4.5))
        hole = np.exp(-(((at.along**2 + at.across**2) / radius**2) ** 2))
        material.height -= 2.5 * at.strength * hole
        material.tone -= 0.25 * at.strength * hole


def crack(material: Material, rng: np.random.Generator) -> None:
    """A thin dark line that wanders and forks."""
    size = len(material.tone)
    unit = size / 128
    at = _anywhere(material, rng)
    bend = 6 * unit * smooth_noise(size, rng, length=float(rng.uniform(8, 20)) * unit)
    cell = float(rng.uniform(45, 110))
    x = (at.along * unit + bend) / (cell * unit) + rng.uniform(0, 9)
    y = (at.across * unit + bend) / (cell * unit) + rng.uniform(0, 9)
    width = float(rng.uniform(0.5, 1.8)) / cell
    line = np.clip(1.3 - cell_borders(x, y, rng) / width, 0, 1)
    line *= np.clip((rng.uniform(25, 80) - np.abs(at.along)) / 8, 0, 1)
    material.height -= 1.5 * line
    material.tone -= 0.5 * (0.3 + 0.7 * at.strength) * line


def stain(material: Material, rng: np.random.Generator) -> None:
    """A flat spot of another tone, often with a rim where it dried."""
    at = _anywhere(material, rng)
    length = float(rng.uniform(8, 36))
    inside = at.blob(length, length * float(rng.uniform(0.5, 1)), 0.3)
    rim = 4 * inside * (1 - inside) * rng.uniform(0, 1)
    material.tone += at.sign * at.strength * (0.25 * inside + 0.2 * rim)


def dent(material: Material, rng: np.random.Generator) -> None:
    """A smooth hollow or bump that shows by light alone."""
    at, length = _anywhere(material, rng), float(rng.uniform(6, 22))
    bell = np.exp(-((at.along / length) ** 2) - (at.across / (length * rng.uniform(0.5, 1))) ** 2)
    material.height += 8 * at.sign * at.strength * bell


def inclusion(material: Material, rng: np.random.Generator) -> None:
    """Foreign matter: one to four ragged lenses along the material's direction."""
    for _ in range(int(rng.integers(1, 5))):
        at = spot(len(material.tone), rng, material.angle + float(rng.normal(0, 0.1)))
        lens = at.blob(float(rng.uniform(6, 26)), float(rng.uniform(1.5, 5)), 0.4)
        material.tone += 0.4 * at.sign * at.strength * lens
        material.height += 0.3 * at.strength * lens * at.ragged


def missing_thread(material: Material, rng: np.random.Generator) -> None:
    """A gap along the threads where one or two are not there."""
    line = _along_a_thread(material, rng, float(rng.uniform(0.5, 1.1)))
    material.height *= 1 - line
    material.tone += (rng.uniform(-0.4, -0.15) if rng.random() < 0.7 else 0.3) * line


def extra_thread(material: Material, rng: np.random.Generator) -> None:
    """A thick or doubled thread on top of the others."""
    line = _along_a_thread(material, rng, float(rng.uniform(0.5, 1.2)))
    material.height += 1.5 * line
    material.tone += rng.choice([-0.3, 0.3]) * line


def hole(material: Material, rng: np.random.Generator) -> None:
    """An opening with torn edges: what is behind shows, darker or lighter, without texture."""
    at = _anywhere(material, rng)
    length = float(rng.uniform(4, 16))
    inside = at.blob(length, length * float(rng.uniform(0.4, 1)), 0.5)
    behind = 0.02 if at.sign < 0 else 0.95
    material.tone += (behind - material.tone) * inside
    material.height *= 1 - inside
    material.height -= inside


def burr(material: Material, rng: np.random.Generator) -> None:
    """A raised, bright, torn ridge along a machined direction."""
    at = spot(len(material.tone), rng, material.angle)
    ridge = np.exp(-(((at.across + 1.5 * at.ragged) / rng.uniform(1.5, 3)) ** 2))
    ridge *= np.clip((rng.uniform(10, 50) - np.abs(at.along)) / 4, 0, 1) * np.clip(
        0.6 + 0.6 * at.ragged, 0, 1
    )
    material.height += 3 * ridge
    material.tone += 0.3 * at.strength * ridge


def bubble(material: Material, rng: np.random.Generator) -> None:
    """One to six round domes with a bright edge."""
    for _ in range(int(rng.integers(1, 7))):
        at, radius = _anywhere(material, rng), float(rng.uniform(2, 9))
        way = np.hypot(at.along, at.across) / radius
        material.height += 0.5 * radius * np.sqrt(np.clip(1 - way**2, 0, 1))
        material.tone += 0.3 * at.sign * at.strength * np.exp(-(((way - 1) * radius / 1.2) ** 2))


def rust(material: Material, rng: np.random.Generator) -> None:
    """Spots that run together, mottled, rough, and red where there is colour."""
    size = len(material.tone)
    spread = smooth_noise(size, rng, length=float(rng.uniform(6, 20)) * size / 128)
    spread += 0.5 * cloudy_noise(size, rng, exponent=0.8)
    inside = np.clip(2 * (spread - np.quantile(spread, 1 - rng.uniform(0.05, 0.3))), 0, 1)
    rough = cloudy_noise(size, rng, exponent=0.4)
    material.tone += inside * (0.12 * rough - 0.3)
    material.height += 0.3 * inside * rough
    material.colours[0] = (1 - 0.7) * material.colours[0] + 0.7 * np.asarray([0.35, 0.15, 0.05], np.float32)


def misprint(material: Material, rng: np.random.Generator) -> None:
    """A part of the print shifted, missing, or filled."""
    at = _anywhere(material, rng)
    inside = at.blob(float(rng.uniform(6, 30)), float(rng.uniform(3, 10)), 0.1) > 0.5
    kind = int(rng.integers(3))
    shift = tuple(int(step) for step in rng.integers(3, 9, 2) * len(material.tone) // 128)
    other = (np.roll(material.tone, shift, (0, 1)), material.tone.max(), material.tone.min())[kind]
    material.tone[:] = np.where(inside, other, material.tone)


def chipped_edge(material: Material, rng: np.random.Generator) -> None:
    """The piece ends in the picture, and a bite is missing from its edge."""
    at = _anywhere(material, rng)
    edge = at.across + rng.uniform(8, 24)
    bite = np.exp(-((at.along / rng.uniform(4, 14)) ** 2)) * rng.uniform(6, 20) * (1 + 0.25 * at.ragged)
    _cut_off(material, edge - bite, rng)
    material.tone += 0.25 * at.sign * np.exp(-(((edge - bite) / 2.5) ** 2)) * (bite > 1)


def piece_edge(material: Material, rng: np.random.Generator) -> None:
    """A sound edge of the piece: no defect, drawn so that an edge alone does not mean one."""
    _cut_off(material, _anywhere(material, rng).across + rng.uniform(8, 24), rng)


def _cut_off(material: Material, edge: Field, rng: np.random.Generator) -> None:
    beyond = np.clip(0.5 - edge, 0, 1)
    material.tone += (float(rng.choice([0.02, 0.5, 0.95])) - material.tone) * beyond
    material.height *= 1 - beyond


def _anywhere(material: Material, rng: np.random.Generator) -> Spot:
    return spot(len(material.tone), rng, float(rng.uniform(0, np.pi)))


def _along_a_thread(material: Material, rng: np.random.Generator, width: float) -> Field:
    at = spot(len(material.tone), rng, material.angle + float(rng.choice([0.0, np.pi / 2])))
    pitch = material.pitch * 128 / len(material.tone)
    line = np.clip(2 - 2 * np.abs(at.across) / (width * pitch), 0, 1)
    return np.asarray(line * np.clip((rng.uniform(25, 120) - np.abs(at.along)) / 4, 0, 1), dtype=np.float32)


METALS = ("brushed", "ground", "cast", "rings")
FABRICS = ("woven", "knitted")
BRITTLE = ("glass", "tiles", "concrete")

FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "bubble": (bubble, ("glass", "printed", "tiles", "leather")),
    "burr": (burr, ("rings", "ground", "brushed")),
    "chipped-edge": (chipped_edge, (*BRITTLE, "wood", "cast")),
    "crack": (crack, (*BRITTLE, "cast", "wood", "leather")),
    "dent": (dent, (*METALS, "leather", "wood")),
    "extra-thread": (extra_thread, FABRICS),
    "hole": (hole, (*FABRICS, "leather")),
    "inclusion": (inclusion, (*METALS, "glass", "wood", "concrete")),
    "missing-thread": (missing_thread, FABRICS),
    "misprint": (misprint, ("printed",)),
    "pit": (pit, (*METALS, "concrete", "tiles", "leather")),
    "rust": (rust, METALS),
    "scratch": (scratch, tuple(name for name in MATERIALS if name not in ("concrete", "knitted"))),
    "stain": (stain, tuple(MATERIALS)),
}
"""By name: how it is drawn, and on which materials."""
