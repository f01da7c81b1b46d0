"""The golden set: a plant's own pictures that never train and that a new engine must answer well.

``pictures`` keeps them, ``choosing`` takes them out of the plant's held-out share.
"""

from __future__ import annotations

from fedclient.worker.golden.pictures import GoldenPicture, GoldenSet

__all__ = ["GoldenPicture", "GoldenSet"]
