"""Stages (the paper calls them levels) of a network, of which the first few can be frozen.

Every network that Fedspect trains is a list of levels; ``forward`` sends the images through one after the
other. ``freeze`` freezes the first levels: their parameters get no gradient and their batch
statistics do not move, not even after ``network.train()``. What is left is the *head*: the only part that
plants train and exchange.

Shapes: N images, C channels, H W height and width, K classes.
"""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, TypeVar, Union, cast

import torch
from torch import Tensor, nn

from fedspect.errors import CheckpointError, InputSizeError, ModelError
from fedspect.model.discriminant import Discriminant, TappedFrozenPart, TappedHead, tapped
from fedspect.seeds import derived_seed

_Network = TypeVar("_Network", bound="LevelledNetwork")

STATISTICS = ("running_mean", "running_var")


class LevelledNetwork(nn.Module):
    """Named levels, applied one after the other: images (N, C, H, W) -> logits (N, K).

    Attributes:
        architecture: the name that ``build_network`` knows it by.
        form: "learned" (groups with masks), "condensed" (plain grouped convolutions) or "plain" (peers).
        minimum_size: smallest height and width, in pixels.
        only_size: the one size that it takes, in pixels, where it takes one only.
        default_freeze_levels: how many levels are frozen unless the user asks otherwise.
        freeze_levels: how many are frozen now; set by ``freeze``.
        taps: names of levels whose maps a closed-form classifier looks at where they are frozen; where none of
            them is, it is the last frozen level.
        discriminant: that classifier, once ``attach_discriminant`` gave the network one.

    """

    taps: Tuple[str, ...] = ()

    def __init__(
        self,
        levels: Sequence[Tuple[str, nn.Module]],
        *,
        architecture: str,
        form: str,
        num_classes: int,
        channels: int,
        minimum_size: int,
        default_freeze_levels: int,
        only_size: Optional[int] = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.form = form
        self.num_classes = num_classes
        self.channels = channels
        self.minimum_size = minimum_size
        self.only_size = only_size
        self.default_freeze_levels = default_freeze_levels
        self.freeze_levels = 0
        self.discriminant: Optional[Discriminant] = None
        self._level_names = tuple(name for name, _ in levels)
        for name, level in levels:
            self.add_module(name, level)

    def levels(self) -> List[Tuple[str, nn.Module]]:
        """The levels in the order of ``forward``."""
        return [(name, cast(nn.Module, getattr(self, name))) for name in self._level_names]

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, K).

        Raises:
            InputSizeError: another number of channels, or pictures too small.

        """
        self.check_input(images)
        if self.discriminant is None:
            for _, level in self.levels():
                images = level(images)
            return images
        places = tap_places(self, self.freeze_levels)
        taps: List[Tensor] = []
        for place, (_, level) in enumerate(self.levels()):
            images = level(images)
            if place in places:
                taps.append(tapped(images.float()))
        logits: Tensor = images + self.discriminant(torch.cat(taps, 1))
        return logits

    def check_input(self, images: Tensor) -> None:
        """Raise ``InputSizeError`` when images of this shape cannot be answered."""
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise InputSizeError(
                f"{self.architecture} takes pictures of {self.channels} channel(s)",
                seen=f"a batch of shape {tuple(images.shape)}",
                accepted=f"(N, {self.channels}, H, W)",
                remedy="read the pictures with the base model's own number of channels",
            )
        height, width = int(images.shape[2]), int(images.shape[3])
        if self.only_size is not None and (height, width) != (self.only_size, self.only_size):
            raise InputSizeError(
                f"{self.architecture} takes pictures of one size only",
                seen=f"{width} x {height}",
                accepted=f"{self.only_size} x {self.only_size}",
                remedy="set the input size to that",
            )
        if min(height, width) < self.minimum_size:
            raise InputSizeError(
                f"pictures are too small for {self.architecture}",
                seen=f"{width} x {height}",
                accepted=f"{self.minimum_size} pixels or more on each side",
                remedy="choose a larger input size",
            )

    def train(self: _Network, mode: bool = True) -> _Network:
        """Training mode for all but the frozen levels, which always stay in evaluation mode."""
        super().train(mode)
        for _, level in self.levels()[: self.freeze_levels]:
            level.eval()
        return self

    def attach_discriminant(self, size: int) -> None:
        """Start at a closed-form classifier: all zeros until one is loaded, as the head's own classifier is then.

        Args:
            size: height and width of pictures, to learn how many channels the taps have.

        Raises:
            ModelError: no level that could be tapped is frozen.

        """
        places = tap_places(self, self.freeze_levels)
        if not places:
            raise ModelError(
                "a closed form needs frozen levels to look at",
                seen=f"{self.freeze_levels} frozen levels",
                accepted="at least 1",
                remedy='freeze more levels, or set start = "fresh"',
            )
        _, classifier = self._classifier()
        with torch.no_grad():
            device = classifier.weight.device
            images = torch.zeros(1, self.channels, size, size, device=device)
            count = 0
            for place, (_, level) in enumerate(self.levels()[: max(places) + 1]):
                images = level.train(False)(images)
                count += 2 * images.shape[1] if place in places else 0
            classifier.weight.zero_()
            if classifier.bias is not None:
                classifier.bias.zero_()
        self.discriminant = Discriminant(count, self.num_classes).to(device)
        self.train(self.training)

    def trains_residual(self) -> bool:
        """Whether the head answers anything beside a closed form: rounds have moved its classifier from zero."""
        _, classifier = self._classifier()
        bias = classifier.bias
        return bool(classifier.weight.any()) or (bias is not None and bool(bias.any()))

    def replace_classifier(self, num_classes: int, seed: int) -> None:
        """Put a new last layer for ``num_classes`` classes in place; its weights follow from ``seed``."""
        check_classes(num_classes)
        name, old = self._classifier()
        with seeded("classifier", seed):
            new: nn.Module
            if isinstance(old, nn.Linear):
                new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
            else:
                new = nn.Conv2d(old.in_channels, num_classes, kernel_size=1, bias=old.bias is not None)
        parent = self.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], new.to(old.weight.device, old.weight.dtype))
        self.num_classes = num_classes

    def _classifier(self) -> Tuple[str, Union[nn.Linear, nn.Conv2d]]:
        """The last layer with one output a class, and its full name."""
        last = self._level_names[-1]
        for name, module in reversed(list(getattr(self, last).named_modules(prefix=last))):
            if isinstance(module, nn.Linear) and module.out_features == self.num_classes:
                return name, module
            if isinstance(module, nn.Conv2d) and module.out_channels == self.num_classes:
                return name, module
        raise ModelError(
            f"{self.architecture} has no layer that can be seen to be its classifier",
            remedy="choose another architecture",
        )


def tap_places(network: LevelledNetwork, freeze_levels: int) -> Tuple[int, ...]:
    """The places of the levels before the cut that a closed form looks at; empty where nothing is frozen."""
    cut = cut_level(network, freeze_levels)
    frozen = [name for name, _ in network.levels()[:cut]]
    places = tuple(place for place, name in enumerate(frozen) if name in network.taps)
    return places or ((cut - 1,) if cut else ())


def check_classes(num_classes: int) -> None:
    """Raise ``ModelError`` unless ``num_classes`` is a usable number of classes."""
    if not 1 <= num_classes <= 100_000:
        raise ModelError("a network needs a number of classes", seen=num_classes, accepted="1 to 100000")


class seeded:  # noqa: N801 - used like a function: ``with seeded("classifier", 3):``
    """A block whose CPU random numbers follow from names alone; outside it nothing is disturbed."""

    def __init__(self, *names: object) -> None:
        self._seed = derived_seed(*names)

    def __enter__(self) -> None:
        self._before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        torch.default_generator.set_state(self._before)


def freeze(network: LevelledNetwork, freeze_levels: int) -> None:
    """Freeze the first ``freeze_levels`` levels: no gradients, and evaluation mode for good.

    The other levels are set free, so a second call may freeze fewer.

    Raises:
        ModelError: the network has not that many levels, or nothing would be left to train.

    """
    _check_level(network, freeze_levels)
    network.freeze_levels = freeze_levels
    for place, (_, level) in enumerate(network.levels()):
        level.requires_grad_(place >= freeze_levels)
    network.train(network.training)


def cut_level(network: LevelledNetwork, freeze_levels: int) -> int:
    """Where frozen features are best taken: past following levels that hold nothing to train.

    For CondenseNetV2, 8 becomes 9: the transition's pool leaves a quarter of the numbers to keep. 0 stays 0.

    """
    _check_level(network, freeze_levels)
    cut = freeze_levels
    if cut == 0:
        return 0
    levels = network.levels()
    while cut < len(levels) - 1 and not _has_state(levels[cut][1]):
        cut += 1
    return cut


class FrozenPart(nn.Sequential):
    """The levels before the cut: images (N, C, H, W) -> features; evaluation mode, no gradients."""

    def forward(self, images: Tensor) -> Tensor:
        """Features at the cut."""
        with torch.no_grad():
            for level in self:
                images = level(images)
        return images

    def train(self, mode: bool = True) -> FrozenPart:
        """Stay in evaluation mode whatever is asked."""
        return super().train(False)


def frozen_part(network: LevelledNetwork, freeze_levels: int) -> nn.Module:
    """Images -> features at ``cut_level``; shares its modules with the network."""
    cut = cut_level(network, freeze_levels)
    return FrozenPart(*(level for _, level in network.levels()[:cut])).train(False)


def head_part(network: LevelledNetwork, freeze_levels: int) -> nn.Module:
    """Features at ``cut_level`` -> logits (N, K); shares its modules with the network."""
    cut = cut_level(network, freeze_levels)
    return nn.Sequential(*(level for _, level in network.levels()[cut:]))


def tapped_parts(network: LevelledNetwork, freeze_levels: int, size: int) -> Tuple[nn.Module, nn.Module]:
    """``frozen_part`` and ``head_part`` of a network with a discriminant; ``size`` of the pictures' side."""
    assert network.discriminant is not None
    cut = cut_level(network, freeze_levels)
    levels = [level for _, level in network.levels()[:cut]]
    frozen = TappedFrozenPart(levels, tap_places(network, freeze_levels))
    device = network.discriminant.limit.device
    with torch.no_grad():
        shape = frozen_part(network, freeze_levels)(
            torch.zeros(1, network.channels, size, size, device=device)
        ).shape
    return frozen, TappedHead(head_part(network, freeze_levels), network.discriminant, tuple(shape[1:]))


def head_state(network: LevelledNetwork, freeze_levels: int) -> Dict[str, Tensor]:
    """What plants exchange: parameters and running statistics of the levels after the frozen ones.

    Keys are those of ``network.state_dict()``, in its order. Counters, masks and indices are left out: they
    do not change while fine-tuning. A closed form is part of it. The tensors are detached but not copied.

    """
    _check_level(network, freeze_levels)
    parameters = {name for name, _ in network.named_parameters()}
    if network.discriminant is not None:
        parameters |= {f"discriminant.{name}" for name in network.discriminant.state_dict()}
    places = {name: place for place, (name, _) in enumerate(network.levels())}
    places["discriminant"] = len(places)
    return {
        key: value.detach()
        for key, value in network.state_dict().items()
        if places[key.partition(".")[0]] >= freeze_levels and (key in parameters or key.endswith(STATISTICS))
    }


def load_head_state(network: LevelledNetwork, state: Mapping[str, Tensor]) -> None:
    """Copy ``state`` into the network; it may lack keys of ``head_state`` (FedBN leaves out statistics).

    Raises:
        CheckpointError: a key is not of an unfrozen level, or a shape differs; nothing was changed then.

    """
    own = head_state(network, network.freeze_levels)
    for key, value in state.items():
        if key not in own:
            raise CheckpointError(
                "a tensor has no place among the unfrozen levels",
                seen=key,
                accepted=f"what {network.architecture} learns after level {network.freeze_levels}",
                remedy="check that both sides use the same base model and freeze_levels",
            )
        if own[key].shape != value.shape:
            raise CheckpointError(
                f"{key} has another shape",
                seen=tuple(value.shape),
                accepted=str(tuple(own[key].shape)),
                remedy="check that both sides use the same base model and list of classes",
            )
    with torch.no_grad():
        for key, value in state.items():
            own[key].copy_(value)


def batch_norm_statistics(names: Iterable[str]) -> List[str]:
    """Those of ``names`` that are running statistics of a batch norm."""
    return [name for name in names if name.endswith(STATISTICS)]


def _check_level(network: LevelledNetwork, freeze_levels: int) -> None:
    count = len(network.levels())
    if not 0 <= freeze_levels < count:
        names = ", ".join(f"{place} {name}" for place, (name, _) in enumerate(network.levels(), 1))
        raise ModelError(
            f"{network.architecture} cannot freeze that many levels",
            seen=freeze_levels,
            accepted=f"0 to {count - 1} (levels: {names})",
            remedy="set freeze_levels to a number in that range; 0 trains everything",
        )


def _has_state(module: nn.Module) -> bool:
    def tensors() -> Iterator[Tensor]:
        yield from module.parameters()
        yield from module.buffers()

    return any(True for _ in tensors())
