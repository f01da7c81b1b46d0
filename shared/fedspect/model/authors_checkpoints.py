"""Checkpoint converter for the authors' own CondenseNetV2 checkpoints, as trained and as published.

Two layouts exist. As trained, learned groups are dense 1x1 convolutions with a mask (``..._mask``); as
published ("converted"), they are grouped convolutions with an index of the inputs, and for the reactivation a
0/1 matrix that puts each output into place. Both become a ``LevelledNetwork`` of ours that answers the same.

Files are read without unpickling code (``weights_only``). Prefixes of parallel training (``module.``) and the
wrappers that training scripts put around the weights (``state_dict``, ``state_dict_ema``, ...) are taken off.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import re
from pathlib import Path
from typing import Any, ContextManager, Dict, Iterator, List, Mapping, Tuple, cast

import torch
from torch import Tensor, nn

from fedspect.errors import CheckpointError
from fedspect.model.condensenetv2 import PLANS, CondenseNetV2
from fedspect.model.levels import LevelledNetwork

MAX_FILE_BYTES = 1 << 30
WRAPPERS = ("state_dict_ema", "ema_state_dict", "model_ema", "state_dict", "model")
"""Where training scripts keep the weights, the averaged ones first: those are the ones that were measured."""

LAYER = re.compile(r"features\.denseblock_(\d+)\.denselayer_(\d+)\.(conv_1|conv_2|sfr|se)\.(.+)")
PARTS = {"conv_1": "lgc", "conv_2": "conv", "sfr": "sfr", "se": "excitation"}
ENDS = {
    "features.init_conv.": "initial.",
    "features.norm_last.": "block5.norm.",
    "features.se_last.": "block5.excitation.",
    "fc.": "hidden.linear.",
    "classifier.": "classifier.",
}
SCHEDULE = ("_count", "_stage")
"""Counters of the authors' dropping schedule; the mask says all that is needed."""


def read_checkpoint(path: Path) -> Dict[str, Tensor]:
    """The weights in an authors' file (``.pth.tar``, ``.pth``), by the authors' names without prefixes.

    Raises:
        CheckpointError: the file is missing, too large, not a checkpoint, or holds more than plain weights.

    """
    if not path.is_file():
        raise CheckpointError(
            "that is a folder, not a weights file" if path.is_dir() else "there is no such weights file",
            seen=path,
            accepted="a .pth.tar or .pth file of CondenseNetV2's authors",
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise CheckpointError(
            "a weights file is too large",
            seen=f"{path}: {path.stat().st_size} bytes",
            accepted=f"{MAX_FILE_BYTES} bytes at most",
        )
    try:
        with _plain_settings():
            content = torch.load(str(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _from_torch(path):
            raise _no_checkpoint(path) from error
        raise CheckpointError(
            "a weights file holds more than weights",
            seen=f"{path}: {str(error).partition('.')[0]}",  # the rest is torch's advice
            accepted="a file written by torch.save that holds weights only; code in it is never run",
            remedy="save its state_dict anew, without the optimiser and other objects",
        ) from error
    except Exception as error:  # torch raises many kinds; none may reach a user as a traceback
        raise _no_checkpoint(path) from error
    return _weights_in(content, path)


def _from_torch(path: Path) -> bool:
    """Whether it begins as files of ``torch.save`` do: a zip archive, or a pickle of protocol 2."""
    with path.open("rb") as source:
        return source.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))


def _no_checkpoint(path: Path) -> CheckpointError:
    return CheckpointError(
        "a weights file cannot be read: it is no PyTorch checkpoint, or it is damaged",
        seen=path,
        accepted="a whole file written by torch.save",
        remedy="compare its size with the original's, or fetch it again",
    )


def import_authors(state: Mapping[str, Tensor], *, channels: int = 3) -> LevelledNetwork:
    """A network of ours with the authors' weights; model and layout follow from names and shapes.

    With ``channels = 1`` the first convolution's three kernels are summed: a grey picture then gets the answer
    that its three equal channels would get.

    Raises:
        CheckpointError: a key is missing or unknown, a shape differs, or a mask or index is not valid.

    """
    form = "condensed" if any(key.endswith(".index") for key in state) else "learned"
    network = CondenseNetV2(
        _architecture(state),
        _classes(state),
        channels=_shape(state, "features.init_conv.weight")[1],
        form=form,
    )
    own = network.state_dict()
    names = dict(_names(state))
    _check_names(names, own, network.architecture)
    with torch.no_grad():
        for theirs, ours in names.items():
            own[ours].copy_(_converted(theirs, state[theirs], own[ours], network.architecture))
        if channels == 1 and network.channels == 3:
            _to_grey(network)
    network.eval()
    return network


def _weights_in(content: Any, path: Path) -> Dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        seen = sorted(map(str, content))[:6] if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            "no weights are found in the file",
            seen=f"{path}: {seen}",
            accepted=f"named tensors, bare or under one of {', '.join(WRAPPERS)}",
        )
    return {
        str(key)[7:] if str(key).startswith("module.") else str(key): value for key, value in content.items()
    }


def _plain_settings() -> ContextManager[object]:
    """The authors' files may hold the command line they were trained with; that class is harmless."""
    safe_globals = getattr(torch.serialization, "safe_globals", None)  # from torch 2.5
    if safe_globals is None:
        return contextlib.nullcontext()
    return cast(ContextManager[object], safe_globals([argparse.Namespace]))


def _architecture(state: Mapping[str, Tensor]) -> str:
    first, hidden = _shape(state, "features.init_conv.weight"), _shape(state, "fc.weight")
    for name, plan in PLANS.items():
        if first[0] == 2 * plan.growth[0] and hidden[0] == plan.hidden:
            return name
    raise CheckpointError(
        "the weights are of no CondenseNetV2 that is known",
        seen=f"features.init_conv.weight {first}, fc.weight {hidden}",
        accepted=", ".join(f"{name}: {2 * plan.growth[0]} and {plan.hidden}" for name, plan in PLANS.items()),
    )


def _classes(state: Mapping[str, Tensor]) -> int:
    return _shape(state, "classifier.weight")[0]


def _shape(state: Mapping[str, Tensor], key: str) -> Tuple[int, ...]:
    if key not in state or state[key].dim() < 2:
        raise CheckpointError(
            "a weights file lacks a key",
            seen=f"no {key} among {len(state)} keys, such as {', '.join(sorted(state)[:3])}",
            accepted="a checkpoint of the authors' CondenseNetV2",
        )
    return tuple(state[key].shape)


def _names(state: Mapping[str, Tensor]) -> Iterator[Tuple[str, str]]:
    """The authors' names and ours, in the file's order; counters of the schedule are passed over."""
    for theirs in state:
        if theirs.rpartition(".")[2] in SCHEDULE:
            continue
        layer = LAYER.fullmatch(theirs)
        if layer:
            block, place, part, rest = layer.groups()
            yield theirs, f"block{block}.layer{place}.{PARTS[part]}.{_inner(rest)}"
            continue
        for start, ours in ENDS.items():
            if theirs.startswith(start):
                yield theirs, ours + _inner(theirs[len(start) :])
                break
        else:
            raise CheckpointError(
                "a weights file has a key that CondenseNetV2 does not have",
                seen=theirs,
                accepted="keys such as features.denseblock_1.denselayer_1.conv_1.conv.weight",
            )


def _inner(rest: str) -> str:
    return rest.replace("fc.0.", "reduce.").replace("fc.2.", "expand.").replace("_mask", "kept")


def _check_names(names: Mapping[str, str], own: Mapping[str, Tensor], architecture: str) -> None:
    missing: List[str] = [key for key in own if key not in set(names.values())]
    unknown: List[str] = [theirs for theirs, ours in names.items() if ours not in own]
    if unknown:
        raise CheckpointError(
            f"a weights file has a key that {architecture} does not have",
            seen=f"{unknown[0]} ({len(unknown)} such)",
        )
    if missing:
        raise CheckpointError(
            f"a weights file lacks a key of {architecture}",
            seen=f"nothing for {missing[0]} ({len(missing)} such)",
            remedy="use the whole file, as trained or as converted; a mixture of both cannot be read",
        )


def _converted(theirs: str, value: Tensor, own: Tensor, architecture: str) -> Tensor:
    """The authors' tensor in our form."""
    last = theirs.rpartition(".")[2]
    if last == "_mask":
        value = _kept(theirs, value, groups=own.shape[0], choices=own.shape[1])
    elif last == "index":
        value = _index(theirs, value, channels=own.shape[0])
    if value.shape != own.shape:
        raise CheckpointError(
            f"{theirs} has another shape",
            seen=tuple(value.shape),
            accepted=f"{tuple(own.shape)} for {architecture}",
        )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise CheckpointError(f"{theirs} holds a value that is not a finite number")
    return value


def _kept(key: str, mask: Tensor, *, groups: int, choices: int) -> Tensor:
    """Which of the choices each group keeps (G, choices), from a mask (filters, channels, 1, 1)."""
    flat = mask.flatten(1) if mask.dim() == 4 else mask
    by_member = flat if ".conv_1." in key else flat.t()
    if flat.dim() != 2 or by_member.shape[1] != choices or by_member.shape[0] % groups:
        raise CheckpointError(f"{key} has another shape", seen=tuple(mask.shape))
    members = by_member.reshape(-1, groups, choices) != 0
    if not bool((members == members[:1]).all()):
        raise CheckpointError(f"{key} is no mask of learned groups", seen="members of one group differ")
    return members[0]


def _index(key: str, index: Tensor, *, channels: int) -> Tensor:
    """Indices (C,) from the authors' form: the same, or a 0/1 matrix whose rows name them."""
    if index.dim() == 2:
        if tuple(index.shape) != (channels, channels):
            raise CheckpointError(
                f"{key} has another shape", seen=tuple(index.shape), accepted=str((channels, channels))
            )
        ones = (index == 1).sum(1)
        if not bool((ones == 1).all()) or int((index != 0).sum()) != channels:
            raise CheckpointError(
                f"{key} is no matrix that puts outputs into place", accepted="one 1 in each row"
            )
        return index.argmax(1)
    if bool(((index < 0) | (index >= channels)).any()):
        raise CheckpointError(f"{key} points outside", seen=int(index.max()), accepted=f"0 to {channels - 1}")
    return index


def _to_grey(network: LevelledNetwork) -> None:
    first = cast(nn.Conv2d, network.levels()[0][1])
    grey = nn.Conv2d(1, first.out_channels, kernel_size=3, stride=2, padding=1, bias=False)
    grey.weight.copy_(first.weight.sum(1, keepdim=True))
    network.initial = grey
    network.channels = 1
