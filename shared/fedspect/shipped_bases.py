"""The base models that ship with the package, by name; no torch is needed to find them."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

MODELS = Path(__file__).parent / "model"
SHIPPED: Dict[str, Path] = {"a-grey": MODELS / "default_base"}
"""Model A for grey pictures is the default."""
DEFAULT = "a-grey"


def base_folder(named: Path) -> Path:
    """The folder of a base model that is named by its folder, or by the name that it ships under."""
    return named if named.exists() else SHIPPED.get(str(named), named)
