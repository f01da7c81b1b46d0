"""Textured surfaces with six kinds of defect, for demonstrations, tests and pre-training."""

from fedsim.synthetic.drawing import CLASSES, draw_dataset, draw_picture, picture_rng

__all__ = ["CLASSES", "draw_dataset", "draw_picture", "picture_rng"]
