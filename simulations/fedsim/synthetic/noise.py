"""Smooth random fields, the raw material of every surface and defect.

White noise is filtered in the frequency domain, so a field costs two small Fourier transforms. Fields wrap
around at the borders and have mean 0 and standard deviation 1. Lengths are in pixels, angles in radians,
arrays float32 of shape (size, size).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """Pixel coordinates turned by an angle about the middle: ``along`` the direction and ``across`` it."""

    along: Field
    across: Field


def frame(size: int, angle: float) -> Frame:
    """Coordinates in pixels, 0 in the middle of the picture."""
    x, y = _grid(size)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return Frame(along=x * cosine + y * sine, across=y * cosine - x * sine)


def streaky_noise(size: int, rng: np.random.Generator, *, along: float, across: float, angle: float) -> Field:
    """Noise that keeps its value for about ``along`` pixels in one direction and ``across`` in the other."""
    u, v = _turned_frequencies(size, angle)
    exponent = (u * np.float32(along)) ** 2 + (v * np.float32(across)) ** 2
    return _filtered(size, rng, np.exp(np.float32(-2 * np.pi**2 / 4) * exponent))


def smooth_noise(size: int, rng: np.random.Generator, *, length: float) -> Field:
    """Noise that keeps its value for about ``length`` pixels in every direction."""
    return streaky_noise(size, rng, along=length, across=length, angle=0.0)


def cloudy_noise(size: int, rng: np.random.Generator, *, exponent: float) -> Field:
    """Noise with structure at every scale; a larger ``exponent`` (0 to 3) is softer."""
    u, v = _frequencies(size)
    squared = u * u + v * v
    squared[0, 0] = np.inf
    return _filtered(size, rng, squared ** np.float32(-exponent / 2))


def splatted(size: int, amounts: Field, radius: float, *, relief: float, light: float) -> Field:
    """Put a small dent of ``radius`` pixels wherever ``amounts`` is not 0.

    ``relief`` (0 to 1) moves the dent's look from flat and dark to lit from the direction ``light``: one edge
    bright, the other dark. A dent of amount 1 has depth about 1.
    """
    u, v = _turned_frequencies(size, light)
    bell = np.exp(np.float32(-2 * np.pi**2 * radius**2) * (u * u + v * v)) * np.float32(2 * np.pi * radius**2)
    slope = (1 - relief) + 1j * np.float32(2 * np.pi * radius * relief * 1.6) * u
    return np.fft.irfft2(np.fft.rfft2(amounts) * bell * slope, s=(size, size)).astype(np.float32)


def _filtered(size: int, rng: np.random.Generator, response: Field) -> Field:
    white = rng.standard_normal((size, size), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * response, s=(size, size)).astype(np.float32)
    field -= field.mean()
    return field / max(float(field.std()), 1e-6)


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[Field, Field]:
    axis = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    return axis[None, :], axis[:, None]


def _frequencies(size: int) -> tuple[Field, Field]:
    u = np.fft.rfftfreq(size).astype(np.float32)[None, :]
    v = np.fft.fftfreq(size).astype(np.float32)[:, None]
    return u, v


def _turned_frequencies(size: int, angle: float) -> tuple[Field, Field]:
    u, v = _frequencies(size)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return u * cosine + v * sine, v * cosine - u * sine
