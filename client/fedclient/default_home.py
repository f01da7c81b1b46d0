"""Default folder of a plant, the same for node and worker."""

from __future__ import annotations

import os
from pathlib import Path

from fedspect.account import expanded

HOME_VARIABLE = "FEDSPECT_HOME"


def default_home() -> Path:
    """The default folder of a plant: ``$FEDSPECT_HOME``, or the user's own data folder."""
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return expanded(Path(data)) / "fedspect" / "plant"
