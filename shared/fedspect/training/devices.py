"""Device, precision and random state of a network's computation."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, Iterator

import torch
from torch import nn

from fedspect.errors import SettingsError

_ONE_AT_A_TIME = threading.RLock()


def choose_device(name: str) -> torch.device:
    """The device that a setting means: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".

    A GPU is asked to repeat itself (cuDNN's deterministic algorithms), for good.

    Raises:
        SettingsError: there is no such GPU.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            "there is no such GPU",
            seen=name,
            accepted=f"{torch.cuda.device_count()} found",
            remedy='set device to "auto" or "cpu"',
        )
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
    return device


def precision(device: torch.device, *, half: bool) -> torch.autocast:
    """A block that computes in float16 where ``half`` is set (a GPU), else as usual."""
    return torch.autocast(device.type, dtype=torch.float16 if half else torch.bfloat16, enabled=half)


def gradient_scaler(*, enabled: bool) -> Any:
    """Keeps small gradients above zero in half precision; does nothing where not enabled."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler("cuda", enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)  # before torch 2.3


def draws_at_random(module: nn.Module) -> bool:
    """Whether a module in training asks torch for random numbers, as peers with dropout do."""
    return any(
        "Dropout" in type(part).__name__ or "Stochastic" in type(part).__name__ for part in module.modules()
    )


@contextlib.contextmanager
def own_randomness(module: nn.Module, device: torch.device) -> Iterator[Callable[[int], object]]:
    """A block with the function that seeds torch's random numbers; outside they are as if it had never been.

    Torch has one source of them a process, so where the module draws from it, only one thread at a time is
    let in. Where it does not, seeding does nothing.
    """
    if not draws_at_random(module):
        yield lambda seed: None
        return
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield torch.manual_seed
