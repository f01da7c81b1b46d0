"""Error feedback: what a lossy encoding dropped of one change is added to the next.

Without it the small values that ``sparse-int8`` leaves out would be left out for ever; with it they add up
until they are large enough to be sent (Seide et al. 2014; Karimireddy et al., ICML 2019, show that it keeps
the pace of plain SGD). The part that was lost, the *residual*, is a state of its own: the plant keeps it on
its disk, and a round that is repeated starts from the residual that the first try started from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional

import numpy as np

from fedspect.update.change import change_between, sum_of
from fedspect.update.encoding import DEFAULT_DENSITY, LOSSLESS, decode, encode
from fedspect.update.schema import Arrays, Schema


@dataclass(frozen=True)
class Encoded:
    """A message, what its receiver will read from it, and what it could not hold."""

    blob: bytes
    decoded: Arrays
    residual: Optional[Arrays]
    """None after a lossless encoding."""


def encode_with_feedback(
    change: Mapping[str, np.ndarray],
    residual: Optional[Mapping[str, np.ndarray]],
    *,
    encoding: str,
    density: float = DEFAULT_DENSITY,
) -> Encoded:
    """Encode a change together with what earlier messages lost.

    Args:
        change: what training did.
        residual: what is still owed; None at the start.
        encoding: as for ``encoding.encode``.
        density: as for ``encoding.encode``.

    Raises:
        SettingsError, UpdateRefusedError, UpdateFormatError: as ``encoding.encode`` does.

    """
    owed = sum_of(change, residual)
    blob = encode(owed, encoding=encoding, density=density)
    decoded = decode(blob, Schema.of(owed))
    return Encoded(blob, decoded, None if encoding == LOSSLESS else change_between(decoded, owed))
