"""Where a network computes, in which precision, and with which randomness."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

import torch

from fedspect.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """The device that a setting means: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".

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
    return device


def precision(device: torch.device, *, half: bool) -> torch.autocast:
    """A block that computes in float16 where ``half`` is set (a GPU), else as usual."""
    return torch.autocast(device.type, dtype=torch.float16 if half else torch.bfloat16, enabled=half)


def gradient_scaler(*, enabled: bool) -> Any:
    """Keeps small gradients above zero in half precision; does nothing where not enabled."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler("cuda", enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)  # before torch 2.3


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Inside, random numbers may be seeded and convolutions repeat themselves; outside, all is as before."""
    chosen = torch.backends.cudnn.deterministic
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = chosen
