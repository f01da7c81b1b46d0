"""Six kinds of defect, each a layer of shape (size, size) about 0 outside the defect and about 1 inside it.

A layer says where and how deep; whether it looks brighter or darker than the surface is decided by whoever
draws it. Lengths are given for a picture of 128 pixels and grow with the picture.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

from fedsim.synthetic.lattice import cell_borders
from fedsim.synthetic.noise import Field, cloudy_noise, frame, smooth_noise, splatted, streaky_noise

Layer = Callable[[int, float, np.random.Generator], Field]


def crazing(size: int, angle: float, rng: np.random.Generator) -> Field:
    """A net of fine cracks: the borders of the cells round scattered points, bent and broken in places."""
    unit = size / 128
    cell = float(rng.uniform(11, 26)) * unit
    stretch = float(rng.uniform(1.0, 1.7))
    turned = frame(size, angle)
    bend = float(rng.uniform(1.5, 4.0)) * unit
    x = (turned.along + bend * smooth_noise(size, rng, length=8 * unit)) / (cell * stretch)
    y = (turned.across + bend * smooth_noise(size, rng, length=8 * unit)) / cell
    width = float(rng.uniform(0.7, 1.5)) * unit / cell
    net = np.clip(1.2 - cell_borders(x, y, rng) / width, 0, 1)
    present = smooth_noise(size, rng, length=float(rng.uniform(12, 40)) * unit) + rng.uniform(0.2, 1.6)
    return np.asarray(net * np.clip(3 * present, 0, 1), dtype=np.float32)


def inclusion(size: int, angle: float, rng: np.random.Generator) -> Field:
    """A few slender, ragged lenses of foreign matter, drawn out in the direction of rolling."""
    unit = size / 128
    ragged = streaky_noise(size, rng, along=9 * unit, across=2.5 * unit, angle=angle)
    layer = np.zeros((size, size), dtype=np.float32)
    for number in range(int(rng.integers(1, 6))):
        reach = 0.42 * size if number else 0.25 * size  # the first one is well inside the picture
        turned = frame(size, angle + float(rng.normal(0, 0.06)))
        length, width = float(rng.uniform(8, 32)) * unit, float(rng.uniform(1.8, 5.5)) * unit
        along = turned.along - rng.uniform(-reach, reach)
        across = turned.across - rng.uniform(-reach, reach)
        inside = 1 - (along / length) ** 2 - (across / width) ** 2 + 0.38 * ragged
        layer = np.maximum(layer, np.clip(2.5 * inside, 0, 1) * np.float32(rng.uniform(0.65, 1.0)))
    return layer


def patches(size: int, angle: float, rng: np.random.Generator) -> Field:
    """Large irregular spots with soft or torn edges and a mottled inside."""
    unit = size / 128
    length = float(rng.uniform(22, 40)) * unit
    ground = streaky_noise(size, rng, along=length * float(rng.uniform(1, 1.8)), across=length, angle=angle)
    ground += rng.uniform(0.08, 0.3) * cloudy_noise(size, rng, exponent=1.2)
    share = float(rng.uniform(0.10, 0.45))  # of the picture that is covered
    inside = (ground - np.quantile(ground, 1 - share)) * rng.uniform(2.0, 7.0)
    mottled = 1 + 0.15 * cloudy_noise(size, rng, exponent=1.0)
    return np.asarray(np.clip(inside + 0.5, 0, 1) * mottled, dtype=np.float32)


def pitting(size: int, angle: float, rng: np.random.Generator) -> Field:
    """Many small round dents, scattered evenly or in clusters, lit from one side."""
    unit = size / 128
    where = smooth_noise(size, rng, length=float(rng.uniform(15, 40)) * unit)
    weight = np.exp(float(rng.uniform(0, 2.0)) * where).ravel().astype(np.float64)
    relief, light = float(rng.uniform(0.15, 0.85)), float(rng.uniform(0, 2 * np.pi))
    layer = np.zeros((size, size), dtype=np.float32)
    for radius, most in ((1.0, 90), (1.7, 50), (2.6, 22)):
        count = int(rng.integers(most // 5, most))
        # the inverse of the cumulative weight is much faster than choice(p=...)
        places = np.searchsorted(np.cumsum(weight), rng.random(count) * weight.sum()).clip(
            max=size * size - 1
        )
        amounts = np.zeros(size * size, dtype=np.float32)
        amounts[places] = rng.uniform(0.5, 1.0, count)
        dents = splatted(size, amounts.reshape(size, size), radius * unit, relief=relief, light=light)
        layer += dents
    return np.asarray(np.clip(1.3 * layer, -1.2, 1.2), dtype=np.float32)


def rolled_in_scale(size: int, angle: float, rng: np.random.Generator) -> Field:
    """Ragged flakes pressed into the surface, in swarms that follow the direction of rolling."""
    unit = size / 128
    long, short = float(rng.uniform(3.5, 9.0)) * unit, float(rng.uniform(2.0, 3.2)) * unit
    flakes = streaky_noise(size, rng, along=long, across=short, angle=angle + float(rng.normal(0, 0.15)))
    flakes += 0.45 * cloudy_noise(size, rng, exponent=0.5)
    swarm = streaky_noise(size, rng, along=60 * unit, across=22 * unit, angle=angle)
    height = flakes + rng.uniform(0.2, 0.7) * swarm - rng.uniform(1.1, 1.7)
    return np.asarray(np.clip(2.0 * height, 0, 1) * (0.7 + 0.15 * flakes), dtype=np.float32)


def scratches(size: int, angle: float, rng: np.random.Generator) -> Field:
    """Thin, crisp, long lines in a direction of their own, straight or slightly bent, of changing depth."""
    unit = size / 128
    direction = float(rng.uniform(0, np.pi))
    layer = np.zeros((size, size), dtype=np.float32)
    depth = smooth_noise(size, rng, length=14 * unit)
    for number in range(int(rng.integers(1, 6))):
        reach = 0.4 * size if number else 0.25 * size  # the first one is well inside the picture
        turned = frame(size, direction + float(rng.normal(0, rng.choice([0.03, 0.35]))))
        middle = float(rng.uniform(-0.3, 0.3)) * size
        bent = float(rng.normal(0, 0.12)) * ((turned.along - middle) / size) ** 2 * size
        across = turned.across - bent - float(rng.uniform(-reach, reach))
        half, width = float(rng.uniform(0.2, 0.8)) * size, float(rng.uniform(0.7, 1.6)) * unit
        ends = np.clip((half - np.abs(turned.along - middle)) / (6 * unit), 0, 1)
        line = np.exp(-((across / width) ** 2)) * ends * np.clip(0.8 + 0.3 * depth, 0.15, 1)
        layer = np.maximum(layer, line * np.float32(rng.uniform(0.7, 1.2)))
    return layer.astype(np.float32)


DEFECTS: dict[str, Layer] = {
    "crazing": crazing,
    "inclusion": inclusion,
    "patches": patches,
    "pitting": pitting,
    "rolled-in-scale": rolled_in_scale,
    "scratches": scratches,
}
