"""Which augmented forms of a picture there are: the settings of ``views``, to be read without torch."""

from __future__ import annotations

import hashlib
import json
from typing import List

from pydantic import Field
from typing_extensions import Annotated

from fedspect import plugins
from fedspect.settings import Settings

GROUP = "fedspect.augmentations"


class ViewSettings(Settings):
    """Which changes of a picture leave its defect what it is, and how many forms of it are kept."""

    orientations: bool = True
    """Turn by quarter turns and mirror: for surfaces without an upright. Off where up and down mean
    something."""
    crops: bool = True
    """Cut a window and enlarge it."""
    smallest_crop: float = Field(0.75, ge=0.2, le=1.0)
    """Side of the smallest window as a share of the picture's side, 0.2 to 1."""
    light: bool = True
    """Brighter, darker, and other gammas."""
    light_strength: float = Field(0.2, ge=0.0, le=0.9)
    """Largest change of brightness and gamma, as a share, 0 to 0.9."""
    contrast: bool = True
    """More and less contrast."""
    contrast_strength: float = Field(0.2, ge=0.0, le=0.9)
    """Largest change of contrast, as a share, 0 to 0.9."""
    noise: bool = True
    """Noise of a camera, in one view of three."""
    noise_strength: float = Field(6.0, ge=0.0, le=64.0)
    """Largest standard deviation of the noise, in grey levels of 255."""
    blur: bool = True
    """A lens slightly out of focus, in one view of three."""
    blur_strength: float = Field(1.0, ge=0.1, le=5.0)
    """Largest standard deviation of the blur, in pixels of the network's input."""
    augmentations: List[Annotated[str, plugins.NameIn(GROUP, ())]] = Field(default_factory=list)
    """Changes that other packages add, in this order, in every variant (`docs/extend/augmentation.md`)."""
    views_per_picture: int = Field(16, ge=1, le=1024)
    """How many views of a picture the cache holds at a time; the first is the picture as it is, the next
    are its orientations."""
    renew_every: int = Field(32, ge=0)
    """Epochs after which the variants of the pool are drawn anew; 0 keeps the first ones for good."""
    seed: int = Field(0, ge=0)
    """Another number draws other variants. Runs of one number share what the cache holds, whatever their own
    seed: that decides which view is shown when."""

    @property
    def has_variants(self) -> bool:
        """Whether any view beyond the eight orientations differs from them."""
        return (
            self.crops or self.light or self.contrast or self.noise or self.blur or bool(self.augmentations)
        )

    @property
    def key(self) -> str:
        """A short hash of all that decides how a variant looks (not of how many there are)."""
        content = self.model_dump(exclude={"views_per_picture", "renew_every"})
        if not self.augmentations:  # as it was before there were any, so that caches stay
            del content["augmentations"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


NO_VIEWS = ViewSettings(
    orientations=False, crops=False, light=False, contrast=False, noise=False, blur=False, views_per_picture=1
)
"""Pictures only as they are."""
