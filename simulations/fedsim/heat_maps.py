"""Class activation maps of the worst misclassifications, for the report.

Grad-CAM (Selvaraju et al., 2017) at the last feature map, by automatic differentiation, so that it does for every
architecture. The line computes the same for its own engines without torch
(``fedclient.worker.line.explain.class_activation``). What is
written shows heat alone and nothing of the picture: pictures stay where they are.

Shapes: N pictures, C channels, S input size, K classes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedclient.worker.line.explain.overlay import enlarged, save_overlay
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import PictureError
from fedspect.model import LevelledNetwork

GROUND = 232  # the grey that stands for the picture


def class_activation(network: LevelledNetwork, images: Tensor, labels: Tensor) -> np.ndarray:
    """What speaks for class ``labels`` (N) in normalised ``images`` (N, C, S, S): float32 (N, S, S), 0 to 1."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, given: object, answer: Tensor) -> None:
        if answer.ndim == 4 and answer.shape[-1] > 1:
            maps.append(answer)

    leaves = [module for module in network.modules() if not list(module.children())]
    handles = [module.register_forward_hook(keep) for module in leaves]
    was_training = network.training
    try:
        network.eval()
        with torch.enable_grad():
            logits = network(images.detach().clone().requires_grad_())
            last = maps[-1]
            (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), last)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    heat = (gradient.mean(dim=(2, 3), keepdim=True) * last).sum(dim=1).clamp(min=0)
    return np.stack([enlarged(each, images.shape[-1]) for each in heat.detach().cpu().numpy()])


def write_heat_map(
    folder: Path, name: str, picture: Path, label: int, network: LevelledNetwork, preprocessing: Preprocessing
) -> str | None:
    """Write one picture's map below ``folder/heat``; its path in the folder, None if the picture is gone.

    Raises:
        StorageError: it cannot be written.

    """
    try:
        pixels = preprocessing.load(picture)
    except PictureError:
        return None
    device = next(network.parameters()).device
    images = torch.from_numpy(preprocessing.normalise(pixels[None])).to(device)
    heat = class_activation(network, images, torch.tensor([label], device=device))[0]
    place = f"heat/{hashlib.sha256(name.encode('utf-8')).hexdigest()[:12]}.png"
    save_overlay(folder / place, np.full_like(pixels, GROUND), heat)
    return place
