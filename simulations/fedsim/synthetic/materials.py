"""Sound materials: how high and how dark a piece of surface is, pixel by pixel, and its two colours.

Each material draws its own height (what side light shows) and reflectance from a random stream. Thread pitch,
direction, grain, tone and colours are drawn anew for each picture, so a class of defect can be told by none of them.
Lengths are given for a picture of 128 pixels and grow with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Tuple

import numpy as np

from fedsim.synthetic.lattice import cell_borders
from fedsim.synthetic.noise import Field, cloudy_noise, frame, smooth_noise, streaky_noise


@dataclass
class Material:
    """A piece of surface: fields of shape (size, size), changed in place by whoever draws a defect on it."""

    height: Field
    """About 0, in the unit that side light shows as full contrast."""
    tone: Field
    """Reflectance, 0 to 1; 0 is the first colour, 1 the second."""
    colours: Field
    """Two colours, (2, 3), 0 to 1."""
    angle: float
    """Radians: the direction of threads, grain or machining."""
    pitch: float
    """Pixels from one thread, tile or tool mark to the next."""


Layers = Tuple[Any, Any]
"""Height about 0 and pattern of tone about 0, each (size, size)."""

Draw = Callable[[int, float, float, np.random.Generator], Layers]


def draw_material(name: str, size: int, rng: np.random.Generator) -> Material:
    """A sound piece of the material ``name``."""
    draw, hues, pitches = MATERIALS[name]
    angle = float(rng.uniform(0, np.pi)) if rng.random() < 0.7 else float(rng.integers(2)) * np.pi / 2
    pitch = float(rng.uniform(*pitches)) * size / 128
    height, pattern = draw(size, angle, pitch, rng)
    middle, depth = float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.6, 1.4))
    tone = np.clip(middle + depth * pattern, 0, 1).astype(np.float32)
    return Material(height.astype(np.float32), tone, _colours(hues, rng), angle, pitch)


def brushed(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Fine parallel lines of three widths."""
    lines = sum(
        rng.uniform(0.2, 1)
        * streaky_noise(size, rng, along=width * rng.uniform(10, 40), across=width, angle=angle)
        for width in (0.6, 1.4, pitch / 2)
    )
    return 0.15 * lines, 0.05 * lines


def ground(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Long crisp grooves that cross at a small angle."""
    grooves = sum(
        streaky_noise(size, rng, along=float(size), across=0.7, angle=angle + float(rng.normal(0, 0.15)))
        for _ in range(2)
    )
    return 0.2 * grooves, 0.04 * grooves + 0.03 * cloudy_noise(size, rng, exponent=1.0)


def cast(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """The grain of a sand mould, at two scales."""
    grain = smooth_noise(size, rng, length=pitch / 3) + 0.6 * cloudy_noise(size, rng, exponent=0.7)
    return 0.25 * grain, 0.04 * grain + 0.05 * smooth_noise(size, rng, length=4 * pitch)


def rings(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """A face turned on a lathe: circles about a centre that may lie outside."""
    turned = frame(size, angle)
    radius = np.hypot(turned.along - rng.uniform(-1, 1) * size, turned.across - rng.uniform(-1, 1) * size)
    radius += 0.3 * smooth_noise(size, rng, length=float(size) / 6)
    marks = np.sin(2 * np.pi * radius / pitch)
    lines = np.interp(radius.ravel(), np.arange(4 * size), rng.standard_normal(4 * size)).reshape(size, size)
    return 0.25 * marks + 0.12 * lines, 0.05 * marks + 0.04 * lines


def woven(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Warp and weft that pass over each other: plain weave, twill or satin."""
    turned = frame(size, angle)
    wobble = pitch * 0.12
    along = (turned.along + wobble * smooth_noise(size, rng, length=3 * pitch)) / pitch
    across = (turned.across + wobble * smooth_noise(size, rng, length=3 * pitch)) / pitch
    column, row = np.floor(along), np.floor(across)
    step, repeat = ((1, 2), (1, 3), (1, 4), (2, 5))[int(rng.integers(4))]
    over = (column * step + row) % repeat < max(1, repeat // 2)
    warp, weft = np.sin(np.pi * (along - column)), np.sin(np.pi * (across - row))
    height = np.where(over, warp * (0.6 + 0.4 * weft), weft * (0.6 + 0.4 * warp))
    threads = rng.normal(0, 0.06, (2, 512))
    dye = np.where(over, threads[0][column.astype(int) % 512], threads[1][row.astype(int) % 512])
    two = rng.uniform(-0.3, 0.3) if rng.random() < 0.4 else 0.0
    fibres = 0.03 * cloudy_noise(size, rng, exponent=0.3)
    return 0.8 * height, 0.25 * (height - 0.6) + dye + two * over + fibres


def knitted(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Columns of loops, each the shape of a V."""
    turned = frame(size, angle)
    across = (turned.across + 0.15 * pitch * smooth_noise(size, rng, length=3 * pitch)) / pitch
    column = np.floor(across)
    offset = np.abs(across - column - 0.5)
    along = turned.along / (pitch * rng.uniform(0.6, 0.9)) + 1.3 * offset
    loops = np.abs(np.sin(np.pi * along)) * np.sin(2 * np.pi * np.clip(offset, 0.02, 0.48)) ** 0.5
    return 0.8 * loops, 0.3 * (loops - 0.5) + 0.03 * cloudy_noise(size, rng, exponent=0.3)


def wood(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Year rings cut along the trunk, with pores; now and then a knot bends them."""
    turned = frame(size, angle)
    way = turned.across / pitch
    way = way + rng.uniform(0.3, 1.2) * streaky_noise(
        size, rng, along=float(size), across=2 * pitch, angle=angle
    )
    way = way + 0.1 * smooth_noise(size, rng, length=pitch)
    saw = (way % 1.0) ** float(rng.uniform(1, 3))
    pores = streaky_noise(size, rng, along=12 * size / 128, across=0.7, angle=angle)
    return 0.15 * pores + 0.1 * saw, 0.3 * (saw - 0.4) + 0.05 * pores


def leather(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Rounded cells with furrows between them."""
    bend = 0.15 * pitch
    turned = frame(size, angle)
    x = (turned.along + bend * smooth_noise(size, rng, length=pitch)) / (pitch * rng.uniform(1, 1.8))
    y = (turned.across + bend * smooth_noise(size, rng, length=pitch)) / pitch
    domes = np.sqrt(np.clip(2.5 * cell_borders(x, y, rng), 0, 1))
    fine = cloudy_noise(size, rng, exponent=0.5)
    return 0.8 * domes + 0.06 * fine, 0.12 * (domes - 0.8) + 0.02 * fine


def concrete(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Clouds of cement, sand, and small holes that air left."""
    clouds = cloudy_noise(size, rng, exponent=float(rng.uniform(1.0, 1.6)))
    sand = cloudy_noise(size, rng, exponent=0.2)
    holes = np.clip(smooth_noise(size, rng, length=pitch / 3) - rng.uniform(2.2, 3.2), 0, 1)
    return 0.15 * sand - 1.2 * holes, 0.06 * clouds + 0.04 * sand - 0.3 * holes


def tiles(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Tiles or bricks with joints, each with a tone of its own."""
    turned = frame(size, angle)
    wide = pitch * rng.uniform(1.0, 2.4)
    row = np.floor(turned.across / pitch)
    along = turned.along / wide + rng.choice([0.0, 0.5]) * (row % 2)
    column = np.floor(along)
    edge = np.minimum(
        np.minimum(along - column, 1 - along + column) * wide,
        np.minimum(turned.across / pitch - row, 1 - turned.across / pitch + row) * pitch,
    )
    joint = np.clip(edge / (rng.uniform(0.8, 2.5) * size / 128) - 0.5, 0, 1)
    own = rng.normal(0, 0.06, (64, 64))[row.astype(int) % 64, column.astype(int) % 64]
    glaze = cloudy_noise(size, rng, exponent=1.2)
    return 0.8 * joint + 0.04 * glaze, rng.choice([-0.3, 0.3]) * (1 - joint) + own * joint + 0.04 * glaze


def printed(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Tracks, pads and lettering in two tones, as on a circuit board or a label."""
    cells = max(4, int(size / pitch))
    grid = rng.random((cells + 2, cells + 2)) < rng.uniform(0.3, 0.6)
    turned = frame(size, float(rng.choice([0.0, np.pi / 4, np.pi / 2])))
    x = ((turned.along / size + 0.75) * cells).astype(int) % (cells + 2)
    y = ((turned.across / size + 0.75) * cells).astype(int) % (cells + 2)
    runs = np.where(rng.random(cells + 2) < 0.4, True, False)
    ink = np.where(runs[y], grid[y, x // 3], grid[y // 2, x]).astype(np.float32)
    ink = np.clip(2 * _softened(ink, size, 0.8 * size / 128) - 0.5, 0, 1)
    return 0.1 * ink, rng.choice([-1, 1]) * 0.45 * (ink - 0.5) + 0.01 * cloudy_noise(size, rng, exponent=0.5)


def glass(size: int, angle: float, pitch: float, rng: np.random.Generator) -> Layers:
    """Almost nothing: a slow gradient, and a faint wave of the float."""
    wave = streaky_noise(size, rng, along=float(size), across=4 * pitch, angle=angle)
    return 0.03 * wave, 0.03 * wave + 0.05 * smooth_noise(size, rng, length=float(size) / 2)


def _softened(field: Field, size: int, radius: float) -> Field:
    u, v = np.fft.rfftfreq(size)[None, :], np.fft.fftfreq(size)[:, None]
    response = np.exp(-2 * np.pi**2 * radius**2 * (u * u + v * v))
    return np.fft.irfft2(np.fft.rfft2(field) * response, s=(size, size)).astype(np.float32)


def _colours(hues: tuple[float, float, float], rng: np.random.Generator) -> Field:
    """A dark and a light colour of about one hue: (middle, how far hues spread, saturation)."""
    hue, spread, saturation = hues
    colours = []
    for light in (rng.uniform(0.05, 0.35), rng.uniform(0.65, 1.0)):
        angle = 2 * np.pi * (hue + float(rng.uniform(-spread, spread)))
        strength = saturation * float(rng.uniform(0.3, 1.0))
        phases = angle - np.asarray([0, 2 * np.pi / 3, 4 * np.pi / 3])
        colours.append(np.clip(light * (1 + strength * np.cos(phases)), 0, 1))
    return np.asarray(colours, dtype=np.float32)


GREY, EARTH, DYED = (0.6, 0.1, 0.1), (0.08, 0.04, 0.5), (0.0, 0.5, 0.8)
"""Hues: metal and stone, wood and leather, anything that is dyed."""

MATERIALS: dict[str, tuple[Draw, tuple[float, float, float], tuple[float, float]]] = {
    "brushed": (brushed, GREY, (4, 12)),
    "cast": (cast, GREY, (4, 12)),
    "concrete": (concrete, GREY, (5, 14)),
    "glass": (glass, GREY, (5, 20)),
    "ground": (ground, GREY, (4, 12)),
    "knitted": (knitted, DYED, (6, 18)),
    "leather": (leather, EARTH, (4, 16)),
    "printed": (printed, DYED, (5, 16)),
    "rings": (rings, GREY, (3, 14)),
    "tiles": (tiles, DYED, (18, 60)),
    "wood": (wood, EARTH, (5, 24)),
    "woven": (woven, DYED, (4, 14)),
}
"""By name: how it is drawn, its hues, and the least and largest pitch."""
