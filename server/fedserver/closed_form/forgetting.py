"""Forgetting a plant: the closed form as it would be had the plant never taken part.

Exact, because sums are: what is left is added up again and solved with the shrinkage, temperature and limit that
hold already. It covers the closed form. Versions that rounds trained on the plant's pictures stay what they are.
"""

from __future__ import annotations

from dataclasses import replace

from fedserver.closed_form.choice import GROUPS, sums_of
from fedserver.closed_form.store import ClosedFormRecord
from fedserver.storage.run_store import RunStore
from fedspect.discriminant.analysis import MEANS, solve
from fedspect.discriminant.statistics import total
from fedspect.errors import FederationError


def forget(store: RunStore, plant: str) -> ClosedFormRecord:
    """Remove a plant's statistics from a run, and find its closed form without them.

    Raises:
        FederationError: the run has no closed form, the plant is not in it, or nobody else is.
        AlreadyRunningError: a server works on the run.

    """
    kept = store.closed_forms
    latest = kept.latest()
    if latest is None or plant not in latest.plants:
        raise FederationError(
            "there is nothing of this plant to forget",
            seen=plant,
            accepted=", ".join(latest.plants) if latest is not None else "a run that begins at a closed form",
            remedy="`fedserver plants` lists the plants; `fedserver plants revoke` shuts one out",
        )
    others = [name for name in latest.plants if name != plant]
    if not others:
        raise FederationError(
            "without this plant nothing would be left", seen=plant, remedy="begin a new run instead"
        )
    classes, features = (int(length) for length in store.head(0)[MEANS].shape)
    with store.occupy():
        kept.forget(plant)
        groups = [group for group in GROUPS if group in latest.orientations]
        parts = (kept.statistics(name, classes, features) for name in others)
        sums = sums_of(parts, groups, (classes, features))
        found = solve(total(sums.values(), classes, features), latest.shrinkage)
        limit = found.limit if latest.limit is None else latest.limit
        tensors = replace(found, temperature=latest.temperature, limit=limit).tensors()
        record = latest.model_copy(
            update={
                "version": store.version_with(tensors),
                "plants": {name: latest.plants[name] for name in others},
                "evaluated": 0,
                "right": 0,
                "confusion": None,
                "loss": None,
                "gains": None,
                "bytes_up": kept.bytes_up(),
                "notes": [f"{plant} was forgotten; shrinkage, temperature and limit stay as they were"],
            }
        )
        kept.add(tensors, record)
    return record
