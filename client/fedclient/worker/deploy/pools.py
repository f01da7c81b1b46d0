"""Rewrites that move pools, and what the stem can take over once they are moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedclient.worker.deploy.description import Conv, Description


def early_pools(description: Description) -> Description:
    """Each transition's average goes before its block's last refreshing sum: a quarter of the 1x1's work."""
    blocks = [replace(block, early_pool=True) for block in description.blocks[:-1]]
    return replace(description, blocks=(*blocks, description.blocks[-1]))


def pooled_stem(description: Description) -> Description:
    """Where block 1 is one layer, what passes it by is the stem, averaged: one 5x5 convolution of stride 4."""
    if len(description.blocks[0].layers) != 1:
        return description
    kernel = description.stem.weight
    wide = np.zeros((*kernel.shape[:2], 5, 5))
    for down in (0, 2):
        for right in (0, 2):
            wide[:, :, down : down + 3, right : right + 3] += kernel / 4
    return replace(description, stem_pooled=Conv(wide))


def ready_stem(description: Description) -> Description:
    """Where the pooled stem passes block 1 by, only its layer looks at the stem itself: its norm goes into it."""
    layer = description.blocks[0].layers[0]
    if description.stem_pooled is None:
        return description
    weight = description.stem.weight if layer.gather is None else description.stem.weight[layer.gather]
    conv = Conv(weight * layer.ready.scale[:, None, None, None], layer.ready.shift)
    return replace(description, stem_ready=conv)
