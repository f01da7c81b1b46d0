"""Cameras: what a picture of a material is, by how it is lit and by what takes it.

Light from the side shows height, light from above shows tone. A line scan has rows or columns that are a little
brighter or darker than others, an area camera has vignetting; either can be out of focus and has grain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsim.synthetic.materials import Material
from fedsim.synthetic.noise import Field, frame, smooth_noise


def photograph(material: Material, channels: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Uint8 (size, size) for one channel, (size, size, 3) for three.

    Both are of one scene: the same stream gives a grey and a colour picture that show the same.
    """
    size = len(material.tone)
    tone = np.clip(material.tone, 0, 1)[..., None]
    scene = material.colours[0] * (1 - tone) + material.colours[1] * tone
    scene = scene * _light(material.height, rng)[..., None]
    scene = scene * rng.uniform(0.8, 1.3) * rng.uniform(0.93, 1.07, 3)
    if channels == 1:
        scene = scene @ np.asarray([[0.299], [0.587], [0.114]])
    if rng.random() < 0.35:
        scene = _out_of_focus(scene, float(rng.uniform(0.4, 1.6)) * size / 128)
    scene = np.clip(scene, 0, 1.2) ** rng.uniform(0.7, 1.4)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * rng.uniform(0.002, 0.04)
    levels = np.clip(np.rint((scene + grain) * 255), 0, 255).astype(np.uint8)
    return np.asarray(levels[..., 0] if channels == 1 else levels)


def _light(height: Field, rng: np.random.Generator) -> Field:
    """How bright each pixel is lit, about 1."""
    size = len(height)
    side, direction = float(rng.uniform(0.05, 0.5)), float(rng.uniform(0, 2 * np.pi))
    rows, columns = np.gradient(height)
    shade = side * (np.cos(direction) * columns + np.sin(direction) * rows)
    light = 1 + np.tanh(shade)
    turned = frame(size, direction)
    light = light * (1 + rng.uniform(0, 0.4) * turned.along / size)
    if rng.random() < 0.4:  # line scan
        lines = 1 + rng.uniform(0, 0.04) * rng.standard_normal(size)
        light = light * (lines[:, None] if rng.random() < 0.5 else lines[None, :])
    else:
        light = light * (1 - rng.uniform(0, 0.5) * (turned.along**2 + turned.across**2) / size**2)
    light = light + rng.uniform(0, 0.05) * smooth_noise(size, rng, length=0.3 * size)
    return np.asarray(np.maximum(light, 0.1), dtype=np.float32)


def _out_of_focus(scene: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    size = len(scene)
    u, v = np.fft.rfftfreq(size)[None, :], np.fft.fftfreq(size)[:, None]
    response = np.exp(-2 * np.pi**2 * radius**2 * (u * u + v * v))[..., None]
    return np.asarray(np.fft.irfft2(np.fft.rfft2(scene, axes=(0, 1)) * response, s=(size, size), axes=(0, 1)))
