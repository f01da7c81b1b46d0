"""Federated surface inspection: the public names, each imported when it is first used (``docs/api.md``).

The modules of this package are what both sides of a federation share; they know no Flower and run on Python 3.8. The
names below lead further, to a federation in one process and to engines. They are a table of places and no imports:
nothing in ``fedspect`` depends on the packages above it, and ``import fedspect`` loads neither torch nor Flower.
"""

from __future__ import annotations

import importlib
from typing import Any, List

_PLACES = {
    "fedspect.errors": ("FedspectError",),
    "fedspect.data.sources": ("find_pictures",),
    "fedspect.data.inspection": ("inspect_pictures",),
    "fedspect.data.split": ("split_pictures",),
    "fedspect.data.preprocess": ("Preprocessing",),
    "fedspect.model.base": ("default_base", "load_base", "save_base"),
    "fedspect.model.network": ("architectures", "build_network"),
    "fedspect.training.trainer": ("Trainer",),
    "fedspect.training.settings": ("TrainingSettings",),
    "fedspect.training.metrics": ("evaluate",),
    "fedsim.synthetic.drawing": ("draw_dataset",),
    "fedsim.config": ("SimulationSettings",),
    "fedsim.run": ("resume_run", "start_run"),
    "fedclient.worker.deploy.export": ("DeployFacts", "deploy_graphs", "save_graphs"),
    "fedclient.worker.engines.build": ("build_engine",),
    "fedclient.worker.engines.kinds": ("available_kinds",),
    "fedclient.worker.engines.opening": ("open_engine",),
    "fedclient.worker.engines.store": ("EngineStore",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """A public name, from the module that holds it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'fedspect' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> List[str]:
    """The public names beside the modules that are loaded."""
    return sorted({*globals(), *__all__})
