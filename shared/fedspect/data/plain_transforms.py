"""The five functions of ``torchvision.transforms.v2.functional`` that views use, in torch alone.

The CUDA build of torch for a plant's device often comes without a torchvision that fits it. Views are drawn
with torchvision where it is installed and with these otherwise; a test holds the two within one grey level
of each other.

Images are uint8 tensors (C, H, W) with one or three channels; so are the results.
"""

from __future__ import annotations

from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor


def _to_uint8(image: Tensor) -> Tensor:
    return image.clamp_(0, 255).to(torch.uint8)


def resized_crop(
    image: Tensor, top: int, left: int, height: int, width: int, size: List[int], *, antialias: bool = True
) -> Tensor:
    """Cut a window and resize it to ``size`` (height, width), bilinear."""
    window = image[:, top : top + height, left : left + width].unsqueeze(0).float()
    resized = F.interpolate(window, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    return _to_uint8(resized[0].round_())


def adjust_brightness(image: Tensor, brightness_factor: float) -> Tensor:
    """Multiply by ``brightness_factor``."""
    return _to_uint8(image.float().mul_(brightness_factor))


def adjust_contrast(image: Tensor, contrast_factor: float) -> Tensor:
    """Stretch around the mean grey by ``contrast_factor``."""
    pixels = image.float()
    if image.shape[0] == 3:
        weights = torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)
        grey = (pixels * weights).sum(0).floor()
    else:
        grey = pixels
    mean = grey.mean()
    return _to_uint8(pixels.mul_(contrast_factor).add_((1.0 - contrast_factor) * mean))


def adjust_gamma(image: Tensor, gamma: float) -> Tensor:
    """Raise the share of full light to the power ``gamma``."""
    return _to_uint8(image.float().div_(255).pow_(gamma).mul_(255.999))


def gaussian_blur(image: Tensor, kernel_size: List[int], sigma: List[float]) -> Tensor:
    """Blur with a Gaussian of ``kernel_size`` (odd) and ``sigma`` (pixels), edges mirrored."""
    kernels = []
    for length, deviation in zip(kernel_size, sigma):
        offsets = torch.arange(length, dtype=torch.float32) - (length - 1) / 2
        weights = torch.exp(-0.5 * (offsets / deviation) ** 2)
        kernels.append(weights / weights.sum())
    pixels = image.float().unsqueeze(1)
    reach_x, reach_y = kernel_size[0] // 2, kernel_size[1] // 2
    pixels = F.pad(pixels, [reach_x, reach_x, reach_y, reach_y], mode="reflect")
    pixels = F.conv2d(pixels, kernels[0].view(1, 1, 1, -1))
    pixels = F.conv2d(pixels, kernels[1].view(1, 1, -1, 1))
    return _to_uint8(pixels.squeeze(1).round_())
