"""Drawn surfaces: six kinds of defect on metal and ceramic, and scenes of many materials.

The six classes (``CLASSES``) are for demonstrations and tests, the scenes (``SCENES``) for pre-training.
"""

from fedsim.synthetic.drawing import CLASSES, draw_dataset, draw_picture, picture_rng
from fedsim.synthetic.scenes import SCENES, draw_scene, draw_scenes

__all__ = [
    "CLASSES",
    "SCENES",
    "draw_dataset",
    "draw_picture",
    "draw_scene",
    "draw_scenes",
    "picture_rng",
]
