"""Views: the augmented forms of a picture, numbered so that each can be made again and kept.

A surface has no upright. View 0 is the picture as it is, views 0 to 7 are its eight orientations, exact to
the pixel, and every view from 8 on is a *variant*: a random orientation with a random crop, light,
contrast, noise and blur, drawn from (seed, picture, number). So a view is named by its number alone, and
what the frozen levels answer for it can be kept on disk (``training.cache``).

With a cache a picture is shown from a pool of ``views_per_picture`` views, one an epoch in turn, and every
``renew_every`` epochs the variants of the pool give way to new ones. Without a cache a new view costs what
an old one does, so each epoch draws a new variant.

Images are uint8 tensors (C, H, W) with one or three channels, square.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, List

import torch
from torch import Tensor

from fedspect import plugins
from fedspect.data.view_settings import GROUP
from fedspect.data.view_settings import NO_VIEWS as NO_VIEWS
from fedspect.data.view_settings import ViewSettings as ViewSettings
from fedspect.errors import FedspectError, SettingsError
from fedspect.seeds import derived_seed

ORIENTATIONS = 8
"""Views 0 to 7 are orientations, all later ones variants."""
FURTHEST = 1 << 40
"""Where the variants of a run without a cache begin at most."""


def view_ids(epoch: int, settings: ViewSettings) -> List[int]:
    """Number the pool that an epoch draws from: view 0, then orientations, then variants, renewed at the
    chosen pace.
    """
    pool = list(range(min(settings.views_per_picture, ORIENTATIONS if settings.orientations else 1)))
    if settings.has_variants:
        variants = settings.views_per_picture - len(pool)
        renewals = epoch // settings.renew_every if settings.renew_every else 0
        first = ORIENTATIONS + renewals * variants
        pool.extend(range(first, first + variants))
    return pool


def pooled_view(epoch: int, picture_digest: str, settings: ViewSettings, seed: int) -> int:
    """The view of the pool that a picture shows in an epoch: each in turn, every picture with a start of
    its own.
    """
    pool = view_ids(epoch, settings)
    return pool[(derived_seed(seed, "start", picture_digest) + epoch) % len(pool)]


def new_view(epoch: int, picture_digest: str, settings: ViewSettings, seed: int) -> int:
    """The view that a picture shows in an epoch when nothing is kept: another variant every time."""
    if settings.has_variants:
        return ORIENTATIONS + derived_seed(seed, "first", picture_digest) % FURTHEST + epoch
    return pooled_view(epoch, picture_digest, settings, seed)


def view_token(view: int, settings: ViewSettings) -> str:
    """Name a view among those of all settings; orientations are the same under any, so all runs share
    them.
    """
    return str(view) if view < ORIENTATIONS else f"{settings.key}-{view}"


def is_variant(token: str) -> bool:
    """Whether a view's name is that of a variant: pools are renewed, orientations stay."""
    return not token.isdigit()


def apply_view(image: Tensor, view: int, picture_digest: str, settings: ViewSettings) -> Tensor:
    """Draw view number ``view`` of a picture.

    Args:
        image: uint8 (C, S, S); never changed.
        view: 0 as it is, 1 to 7 the other orientations, from 8 on variants.
        picture_digest: names the picture, so that two pictures get different variants.
        settings: which changes are made, how strong, and their seed.

    Returns:
        uint8 (C, S, S), contiguous; the same tensor object for view 0.

    """
    if view < ORIENTATIONS:
        return orient(image, view)
    generator = torch.Generator().manual_seed(derived_seed(settings.seed, "view", picture_digest, view))
    # All numbers are drawn whether they are used or not: switching one change off leaves the others as they
    # were.
    turn, top, left, side, bright, gamma, contrast, noisy, noise, blurred, blur = torch.rand(
        11, generator=generator, dtype=torch.float64
    ).tolist()
    if settings.orientations:
        image = orient(image, int(turn * ORIENTATIONS))
    if settings.crops:
        image = _crop(image, top, left, settings.smallest_crop + (1.0 - settings.smallest_crop) * side)
    transforms = _transforms()
    if settings.light:
        image = transforms.adjust_brightness(image, _around_one(bright, settings.light_strength))
        image = transforms.adjust_gamma(image, _around_one(gamma, settings.light_strength))
    if settings.contrast:
        image = transforms.adjust_contrast(image, _around_one(contrast, settings.contrast_strength))
    if settings.blur and blurred < 1 / 3:
        deviation = max(0.1, blur * settings.blur_strength)
        width = 2 * int(2 * deviation + 0.5) + 1
        image = transforms.gaussian_blur(image, [width, width], [deviation, deviation])
    if settings.noise and noisy < 1 / 3:
        grain = torch.randn(image.shape[1:], generator=generator).mul_(noise * settings.noise_strength)
        image = image.float().add_(grain).round_().clamp_(0, 255).to(torch.uint8)
    for name in settings.augmentations:
        seed = derived_seed(settings.seed, "augmentation", name, picture_digest, view)
        image = _augmented(name, image, torch.Generator().manual_seed(seed))
    return image.contiguous()


@functools.lru_cache(maxsize=None)
def _augmentation(name: str) -> Callable[[Tensor, torch.Generator], Tensor]:
    found: Callable[[Tensor, torch.Generator], Tensor] = plugins.resolve(GROUP, name)
    return found


def _augmented(name: str, image: Tensor, generator: torch.Generator) -> Tensor:
    """What another package makes of an image: a function of the image and of a generator to draw from."""
    try:
        made = _augmentation(name)(image.clone(), generator)
    except FedspectError:
        raise
    except Exception as error:  # a foreign package may fail in any way
        made = f"{type(error).__name__}: {error}"[:300]  # type: ignore[assignment]
    if not isinstance(made, Tensor) or made.dtype != torch.uint8 or made.shape != image.shape:
        seen = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else made
        raise SettingsError(
            f"the augmentation {name} does not give a picture",
            seen=seen,
            accepted=f"a uint8 tensor {tuple(image.shape)}",
            remedy="take it out of training.views.augmentations, or mend the package that registers it",
        )
    return made


def orient(image: Tensor, orientation: int) -> Tensor:
    """Turn by ``orientation % 4`` quarter turns and, from 4 on, mirror; 0 is the picture itself."""
    if orientation % 4:
        image = torch.rot90(image, orientation % 4, dims=(-2, -1))
    if orientation >= 4:
        image = torch.flip(image, dims=(-1,))
    return image.contiguous()


def _crop(image: Tensor, top: float, left: float, share: float) -> Tensor:
    side = image.shape[-1]
    window = max(1, round(side * share))
    if window == side:
        return image
    room = side - window + 1
    cut: Tensor = _transforms().resized_crop(
        image, int(top * room), int(left * room), window, window, [side, side], antialias=True
    )
    return cut


@functools.lru_cache(maxsize=None)
def _transforms() -> Any:
    """The functions of torchvision, imported at the first variant: with them come torch's compilers, which take longer
    to import than torch itself, and an interpreter that only looks at pictures does without.
    """
    try:
        from torchvision.transforms.v2 import functional
    except ImportError:  # a device whose torch has no torchvision that fits it
        from fedspect.data import plain_transforms as functional
    return functional


def _around_one(share: float, strength: float) -> float:
    return 1.0 + strength * (2.0 * share - 1.0)
