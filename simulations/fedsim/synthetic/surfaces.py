"""Sound surfaces: rolled, ground and brushed metal and glazed ceramic, without a defect.

What a surface looks like says nothing about the defect that will be drawn on it: material, direction, light
and grain are drawn first and from the same distribution for every class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsim.synthetic.noise import Field, cloudy_noise, frame, smooth_noise, streaky_noise

MATERIALS = ("rolled", "ground", "brushed", "ceramic")


@dataclass(frozen=True)
class Surface:
    """A sound piece of surface: ``texture`` is reflectance about 0, ``light`` the lamp's share about 1."""

    material: str
    texture: Field
    light: Field
    angle: float  # radians: the direction of rolling, grinding or brushing


def draw_surface(size: int, rng: np.random.Generator) -> Surface:
    """A surface of random material and direction under random light; fields of shape (size, size)."""
    material = MATERIALS[int(rng.integers(len(MATERIALS)))]
    angle = float(rng.uniform(0, np.pi))
    draw = {"rolled": _rolled, "ground": _ground, "brushed": _brushed, "ceramic": _ceramic}[material]
    texture = draw(size, rng, angle)
    return Surface(material=material, texture=texture, light=_light(size, rng), angle=angle)


def _rolled(size: int, rng: np.random.Generator, angle: float) -> Field:
    unit = size / 128
    texture = rng.uniform(0.01, 0.03) * cloudy_noise(size, rng, exponent=float(rng.uniform(0.7, 1.5)))
    lengths = {"along": float(rng.uniform(15, 60)) * unit, "across": float(rng.uniform(1.0, 5.0)) * unit}
    texture += rng.uniform(0.008, 0.03) * streaky_noise(size, rng, angle=angle, **lengths)
    if rng.random() < 0.5:  # marks that a worn roll leaves at each turn
        position = frame(size, angle).along / (rng.uniform(0.12, 0.6) * size)
        wave = np.sin(2 * np.pi * (position + rng.random())) ** 2
        texture += rng.uniform(-0.06, 0.06) * wave ** float(rng.uniform(1, 6))
    return texture.astype(np.float32)


def _ground(size: int, rng: np.random.Generator, angle: float) -> Field:
    unit = size / 128
    texture = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):  # passes of the wheel cross each other at a small angle
        turned = angle + float(rng.normal(0, 0.12))
        along, across = float(rng.uniform(30, 120)) * unit, float(rng.uniform(0.4, 1.2))
        texture += rng.uniform(0.015, 0.035) * streaky_noise(
            size, rng, along=along, across=across, angle=turned
        )
    return texture


def _brushed(size: int, rng: np.random.Generator, angle: float) -> Field:
    unit = size / 128
    texture = np.zeros((size, size), dtype=np.float32)
    for across in (0.6, 1.5, 4.0):
        along = across * float(rng.uniform(6, 16)) * unit
        texture += rng.uniform(0.008, 0.03) * streaky_noise(
            size, rng, along=along, across=across, angle=angle
        )
    return texture


def _ceramic(size: int, rng: np.random.Generator, angle: float) -> Field:
    unit = size / 128
    texture = rng.uniform(0.01, 0.035) * smooth_noise(size, rng, length=float(rng.uniform(6, 25)) * unit)
    texture += rng.uniform(0.005, 0.02) * cloudy_noise(size, rng, exponent=0.6)
    if rng.random() < 0.5:  # a pattern of the glaze
        grains = smooth_noise(size, rng, length=float(rng.uniform(1.5, 3.5)) * unit)
        texture += rng.uniform(-0.06, 0.06) * np.clip(grains - 1.2, 0, 1)
    return texture.astype(np.float32)


def _light(size: int, rng: np.random.Generator) -> Field:
    turned = frame(size, float(rng.uniform(0, 2 * np.pi)))
    light = 1 + rng.uniform(0, 0.45) * turned.along / size
    light += (
        rng.uniform(-0.35, 0.15)
        * (turned.along**2 + rng.uniform(0, 1) * turned.across**2)
        / (0.5 * size) ** 2
    )
    light += rng.uniform(0, 0.06) * smooth_noise(size, rng, length=0.3 * size)
    return np.maximum(light, 0.25).astype(np.float32)
