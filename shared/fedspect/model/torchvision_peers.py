"""Torchvision's classifiers as levelled networks, by their own names with dashes: ``mobilenet-v3-small``.

Two families cover most: those with a ``features`` sequence (MobileNet, EfficientNet, DenseNet, VGG,
ConvNeXt, ...) and those with ``layer1`` to ``layer4`` (ResNet and its kin). Any other classifier is one
level, so it can only be trained as a whole. No weights are fetched. For grey pictures the first convolution
takes one channel.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple, cast

from torch import nn

from fedspect.errors import ModelError
from fedspect.model.levels import LevelledNetwork

MINIMUM_SIZE = 64
Levels = List[Tuple[str, nn.Module]]


def torchvision_names() -> List[str]:
    """Names of all classifiers of the installed torchvision; empty where it is not installed."""
    try:
        import torchvision
    except ImportError:
        return []
    names: List[str] = torchvision.models.list_models(module=torchvision.models)
    return [name.replace("_", "-") for name in names]


def torchvision_network(architecture: str, num_classes: int, *, channels: int) -> LevelledNetwork:
    """A classifier with fresh weights.

    Raises:
        ModelError: it cannot take that many channels, or it answers more than logits.

    """
    import torchvision

    name = architecture.replace("-", "_")
    options: Dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        options.update(aux_logits=False, init_weights=True)
    network = torchvision.models.get_model_builder(name)(**options)
    if channels == 1:
        _take_grey(network, architecture)
    levels = _levels(network)
    return LevelledNetwork(
        levels,
        architecture=architecture,
        form="plain",
        num_classes=num_classes,
        channels=channels,
        minimum_size=MINIMUM_SIZE,
        only_size=cast(int, network.image_size) if name.startswith("vit") else None,
        default_freeze_levels=len(levels) * 2 // 3 if len(levels) > 1 else 0,
    )


def _levels(network: nn.Module) -> Levels:
    parts = dict(network.named_children())
    if isinstance(parts.get("features"), nn.Sequential) and _multiplies_last(parts):
        return _features_family(parts)
    if {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"} <= set(parts):
        first = nn.Sequential(parts["conv1"], parts["bn1"], nn.ReLU(inplace=True), parts["maxpool"])
        layers = [(f"layer{place}", parts[f"layer{place}"]) for place in (1, 2, 3, 4)]
        return [
            ("first", first),
            *layers,
            ("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())),
            ("classifier", parts["fc"]),
        ]
    return [("whole", network)]


def _features_family(parts: dict[str, nn.Module]) -> Levels:
    features = cast(nn.Sequential, parts["features"])
    levels: Levels = [(f"features{place}", part) for place, part in enumerate(features.children(), 1)]
    pool = parts.get("avgpool", nn.Identity())
    if isinstance(
        features[-1], nn.BatchNorm2d
    ):  # DenseNet ends with a norm and leaves the rest to its forward
        pool = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))
    classifier = parts["classifier"]
    flattens = any(isinstance(module, nn.Flatten) for module in classifier.modules())
    flat = nn.Identity() if flattens else nn.Flatten()
    return [*levels, ("pool", nn.Sequential(pool, flat)), ("classifier", classifier)]


def _multiplies_last(parts: dict[str, nn.Module]) -> bool:
    """Whether the classifier works on a vector; SqueezeNet's is a convolution with a pool behind it."""
    kinds = [type(module) for module in parts.get("classifier", nn.Identity()).modules()]
    return nn.Linear in kinds and nn.Conv2d not in kinds


def _take_grey(network: nn.Module, architecture: str) -> None:
    """Let the first convolution take one channel; its weights are the sum of the three."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1:
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _grey(module))
            return
    raise ModelError(
        f"{architecture} cannot take grey pictures", accepted="3 channels", remedy="use a colour base model"
    )


def _grey(old: nn.Conv2d) -> nn.Conv2d:
    new = nn.Conv2d(
        1,
        old.out_channels,
        cast(Any, old.kernel_size),
        cast(Any, old.stride),
        cast(Any, old.padding),
        cast(Any, old.dilation),
        bias=old.bias is not None,
    )
    new.weight.data.copy_(old.weight.data.sum(1, keepdim=True))
    if old.bias is not None and new.bias is not None:
        new.bias.data.copy_(old.bias.data)
    return new
