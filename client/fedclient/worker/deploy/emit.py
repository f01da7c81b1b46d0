"""The nodes of a described network, level by level: reads like ``fedspect.model.condensenetv2``.

Shapes: N images, C channels, H = W height and width, K classes, G groups.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import numpy as np

from fedclient.worker.deploy.description import (
    HARD_SWISH,
    RELU,
    Affine,
    Block,
    Conv,
    Description,
    Excitation,
    Layer,
)
from fedclient.worker.deploy.forms import Form
from fedclient.worker.deploy.rewrites import swapped
from fedclient.worker.deploy.writer import Features, Writer

LEVELS = 12
STEPS = {1: ("",), 2: ("", "/total"), 3: ("", "/move", "/total")}
"""How the convolutions of a branch are called, by their number."""


class Emitter:
    """Writes levels ``first`` (counted from 0) to before ``last`` of one description in one form."""

    def __init__(self, description: Description, form: Form, writer: Writer) -> None:
        self.description = description
        self.form = form
        self.writer = writer

    def levels(self, features: Features, first: int, last: int) -> Features:
        """Features before level ``first`` in, features behind level ``last - 1`` out."""
        pixels: Optional[Features] = None
        level = first
        while level < last:
            if level == 0:
                pixels = features
                # with block 1 and its pool in this part, nothing may look at the stem as it is
                if self.description.stem_ready is None or last < 3:
                    features = self.stem(features)
            elif level < 10 and level % 2:
                block = self.description.blocks[level // 2]
                pooled = block.early_pool and level + 1 < last
                features = self.block(features, block, pixels if level == 1 else None, pooled)
                if level == 9:
                    features = self.finish(features)
                level += pooled
            elif level < 10:
                features = self.pool(f"transition{level // 2}", features)
            elif level == 10:
                features = self.hidden(features)
            else:
                features = self.classifier(features)
            level += 1
        return features

    def stem(self, pixels: Features, conv: Optional[Conv] = None) -> Features:
        """Normalised pixels (N, C, H, W) -> the first features, half as high and wide."""
        conv = conv or self.description.stem
        name = self.writer.conv("initial", pixels.name, conv.weight, conv.bias, stride=2, pads=(1, 1, 1, 1))
        return Features(name, conv.weight.shape[0], (pixels.size + 1) // 2)

    def block(self, features: Features, block: Block, pixels: Optional[Features], pooled: bool) -> Features:
        """All layers of a block, and the pool behind it if ``pooled``."""
        for layer in block.layers:
            last = layer is block.layers[-1]
            ready_stem = None if pixels is None or not pooled else self.description.stem_ready
            new = self.new_features(features, layer, ready_stem)
            ready = self.activate(
                f"{layer.name}/again", self.affine(new, layer.again, f"{layer.name}/again"), layer
            )
            if pooled and last:
                features = self.pooled_skip(features, layer, pixels)
                ready = self.pool(f"{layer.name}/pooled_again", ready)
                new = self.pool(f"{layer.name}/pooled_new", new)
            features = self.joined(self.refreshed(features, ready, layer), new, layer)
        return (
            features if block.pack is None else self.packed(f"block{layer.block}/pack", features, block.pack)
        )

    def packed(self, name: str, features: Features, index: np.ndarray) -> Features:
        """Some of the channels. The pool of one pixel brings them back into the runtime's blocked layout, where
        the block behind it can add and join.
        """
        features = self.gather(f"{name}/gather", features, index)
        self.writer.node("AveragePool", name, [features.name], kernel_shape=[1, 1])
        return replace(features, name=name)

    def ready(self, older: Features, layer: Layer, stem: Optional[Conv]) -> Features:
        """What the first 1x1 looks at; with ``stem``, older are the pixels."""
        name = layer.name
        if stem is not None:
            features = self.stem(older, stem)
        else:
            features = older if layer.gather is None else self.gather(f"{name}/gather", older, layer.gather)
            features = self.affine(features, layer.ready, f"{name}/ready")
        return self.activate(f"{name}/ready", features, layer)

    def new_features(self, older: Features, layer: Layer, stem: Optional[Conv] = None) -> Features:
        """Learned group convolution, 3x3, excitation."""
        name = layer.name
        features = self.ready(older, layer, stem)
        features = self.spatial(self.wide(features, layer), layer)
        if layer.excitation is not None:
            features = self.excite(f"{name}/excitation", features, layer.excitation)
        return features

    def wide(self, ready: Features, layer: Layer) -> Features:
        """The first 1x1, ready for the 3x3."""
        name = layer.name
        features = self.pointwise(f"{name}/reduce", ready, layer.reduce)
        if layer.norm is None:
            # The order of channels is nothing to an activation, and next to a convolution it costs nothing.
            features = self.activate(f"{name}/wide", features, layer)
        if layer.reduce_rows:
            features = self.swap(f"{name}/shuffle", features, layer.reduce_rows)
        elif layer.order is not None:
            features = self.gather(f"{name}/shuffle", features, layer.order)
        if layer.norm is not None:
            features = self.affine(features, layer.norm, f"{name}/norm")
            features = self.activate(f"{name}/wide", features, layer)
        return features

    def spatial(self, features: Features, layer: Layer) -> Features:
        """The 3x3 convolution as the sum of its branches."""
        total = ""
        for place, branch in enumerate(layer.spatial, 1):
            name = f"{layer.name}/spatial" + (f"{place}" if len(layer.spatial) > 1 else "")
            output = features.name
            for conv, step in zip(branch.convs, STEPS[len(branch.convs)]):
                down, right = (side // 2 for side in conv.weight.shape[2:])
                pads = (down, right, down, right)
                output = self.writer.conv(
                    f"{name}{step}", output, conv.weight, conv.bias, groups=conv.groups, pads=pads
                )
            total = self.writer.node("Add", f"{name}/sum", [total, output]) if total else output
        return Features(total, layer.growth, features.size)

    def refreshed(self, older: Features, ready: Features, layer: Layer) -> Features:
        """Older features plus what the new ones add to them."""
        name = f"{layer.name}/react"
        if layer.react_rows:
            ready = self.swap(f"{name}/shuffle", ready, layer.react_rows)
        slots = self.pointwise(name, ready, layer.react)
        if layer.scatter is not None:
            slots = self.scatter(f"{name}/scatter", slots, layer.scatter)
        return Features(
            self.writer.node("Add", f"{layer.name}/refreshed", [older.name, slots.name]),
            older.channels,
            older.size,
        )

    def joined(self, older: Features, new: Features, layer: Layer) -> Features:
        """Older features and the new ones behind them."""
        name = self.writer.node("Concat", f"{layer.name}/joined", [older.name, new.name], axis=1)
        return Features(name, older.channels + new.channels, older.size)

    def pooled_skip(self, older: Features, layer: Layer, pixels: Optional[Features]) -> Features:
        """The average of a block's older features; for the stem's own straight from the pixels."""
        stem = self.description.stem_pooled
        if stem is None or pixels is None:
            return self.pool(f"{layer.name}/pooled_older", older)
        end = pixels.size % 2  # the last window reaches one row of padding where the size is odd
        name = self.writer.conv("initial_pooled", pixels.name, stem.weight, stride=4, pads=(1, 1, end, end))
        return Features(name, stem.weight.shape[0], (pixels.size + 1) // 2 // 2)

    def finish(self, features: Features) -> Features:
        """Block 5's norm, pool and excitation: a flat vector (N, C)."""
        features = self.affine(features, self.description.norm, "block5/norm")
        name = self.writer.node("Relu", "block5/activation", [features.name])
        name = self.writer.node("GlobalAveragePool", "block5/pool", [name])
        factors = self.factors("block5/excitation", name, self.description.excitation)
        name = self.writer.node("Mul", "block5/excitation", [name, factors])
        return Features(self.writer.node("Flatten", "block5/flatten", [name]), features.channels, 0)

    def hidden(self, features: Features) -> Features:
        """Hidden layer with hard-swish: (N, C) -> (N, F)."""
        linear = self.description.hidden
        name = self.linear("hidden/linear", features.name, linear.weight, linear.bias)
        name = self.hard_swish("hidden/activation", name)
        return Features(name, linear.weight.shape[0], 0)

    def classifier(self, features: Features) -> Features:
        """Logits (N, K)."""
        linear = self.description.classifier
        name = self.linear("classifier", features.name, linear.weight, linear.bias)
        return Features(name, linear.weight.shape[0], 0)

    def linear(self, name: str, source: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """A matrix product and a bias."""
        writer = self.writer
        inputs = [source, writer.constant(f"{name}.weight", weight), writer.constant(f"{name}.bias", bias)]
        return writer.node("Gemm", name, inputs, transB=1)

    def pool(self, name: str, features: Features) -> Features:
        """The mean of 2x2 pixels."""
        self.writer.node("AveragePool", name, [features.name], kernel_shape=[2, 2], strides=[2, 2])
        return Features(name, features.channels, features.size // 2)

    def pointwise(self, name: str, features: Features, conv: Conv) -> Features:
        """A 1x1 convolution."""
        self.writer.conv(name, features.name, conv.weight, conv.bias, groups=conv.groups)
        return Features(name, conv.weight.shape[0], features.size)

    def affine(self, features: Features, affine: Affine, name: str) -> Features:
        """Scale and shift, as the form wants them."""
        writer, count = self.writer, features.channels
        if self.form.affine == "depthwise" and count % 16 == 0:
            weight = affine.scale.reshape(count, 1, 1, 1)
            writer.conv(name, features.name, weight, affine.shift, groups=count)
        else:
            inputs = [
                writer.constant(f"{name}.scale", affine.scale),
                writer.constant(f"{name}.shift", affine.shift),
                writer.constant(f"{name}.mean", np.zeros(count)),
                writer.constant(f"{name}.variance", np.ones(count)),
            ]
            writer.node("BatchNormalization", name, [features.name, *inputs], epsilon=0.0)
        return Features(name, count, features.size)

    def activate(self, name: str, features: Features, layer: Layer) -> Features:
        """The layer's activation."""
        assert layer.activation in (RELU, HARD_SWISH)
        if layer.activation == RELU:
            output = self.writer.node("Relu", f"{name}/activation", [features.name])
        else:
            output = self.hard_swish(f"{name}/activation", features.name)
        return Features(output, features.channels, features.size)

    def hard_swish(self, name: str, source: str) -> str:
        """``x * clip(x + 3, 0, 6) / 6``."""
        writer = self.writer
        if self.form.hard_swish == "one":
            return writer.node("HardSwish", name, [source])
        three, six = writer.constant("three", np.array(3.0)), writer.constant("six", np.array(6.0))
        gate = writer.node("Add", f"{name}/add", [source, three])
        gate = writer.node("Clip", f"{name}/clip", [gate, writer.constant("zero", np.array(0.0)), six])
        gate = writer.node("Div", f"{name}/divide", [gate, six])
        return writer.node("Mul", name, [source, gate])

    def excite(self, name: str, features: Features, excitation: Excitation) -> Features:
        """Each channel times a factor of 0 to 1."""
        means = self.writer.node("GlobalAveragePool", f"{name}/means", [features.name])
        factors = self.factors(name, means, excitation)
        if self.form.excitation == "resize" and features.size > 1:
            scales = self.writer.constant(
                f"{name}/wide.scales", np.array([1.0, 1.0, features.size, features.size])
            )
            factors = self.writer.node(
                "Resize",
                f"{name}/wide",
                [factors, "", scales],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
            # inference says nothing of the batch behind a Resize, and only shapes that are known to be equal
            # are multiplied in the blocked layout
            self.writer.declare(replace(features, name=factors))
        self.writer.node("Mul", name, [features.name, factors])
        return Features(name, features.channels, features.size)

    def factors(self, name: str, means: str, excitation: Excitation) -> str:
        """Means (N, C, 1, 1) -> factors (N, C, 1, 1)."""
        reduced = self.writer.conv(f"{name}/reduce", means, excitation.reduce[:, :, None, None])
        reduced = self.writer.node("Relu", f"{name}/relu", [reduced])
        expanded = self.writer.conv(f"{name}/expand", reduced, excitation.expand[:, :, None, None])
        return self.writer.node("Sigmoid", f"{name}/factors", [expanded])

    def gather(self, name: str, features: Features, index: np.ndarray) -> Features:
        """Channels by number."""
        self.writer.node(
            "Gather", name, [features.name, self.writer.constant(f"{name}.index", index)], axis=1
        )
        return Features(name, len(index), features.size)

    def swap(self, name: str, features: Features, rows: int) -> Features:
        """Channels, seen as a table of that many rows, transposed."""
        count, size = features.channels, features.size
        if self.form.permute == "gather":
            return self.gather(name, features, swapped(count, rows))
        writer = self.writer
        table = writer.constant(f"{name}.table", np.array([0, rows, count // rows, size, size]))
        output = writer.node("Reshape", f"{name}/table", [features.name, table])
        output = writer.node("Transpose", f"{name}/transpose", [output], perm=[0, 2, 1, 3, 4])
        flat = writer.constant(f"{name}.flat", np.array([0, count, size, size]))
        return Features(writer.node("Reshape", name, [output, flat]), count, size)

    def scatter(self, name: str, slots: Features, index: np.ndarray) -> Features:
        """Slot s is added to channel ``index[s]``: a product with a matrix of 0 and 1, as the authors have it."""
        writer, count, size = self.writer, slots.channels, slots.size
        matrix = np.zeros((len(index), count))
        matrix[np.arange(len(index)), index] = 1
        flat = writer.constant(f"{name}.flat", np.array([0, count, size * size]))
        output = writer.node("Reshape", f"{name}/flat", [slots.name, flat])
        output = writer.node("Transpose", f"{name}/rows", [output], perm=[0, 2, 1])
        output = writer.node("MatMul", f"{name}/product", [output, writer.constant(f"{name}.matrix", matrix)])
        output = writer.node("Transpose", f"{name}/columns", [output], perm=[0, 2, 1])
        picture = writer.constant(f"{name}.picture", np.array([0, count, size, size]))
        return Features(writer.node("Reshape", name, [output, picture]), count, size)
