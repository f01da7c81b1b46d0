"""ONNX export: from a trained network to the files that a line's device runs.

Any network is exported by torch (``torch_export``). CondenseNetV2 has a graph written by hand, which computes the same
quicker: ``description`` reads the weights, ``rewrites`` changes their shape but not the function, ``forms`` names
which rewrites a target gets and ``emit`` writes the nodes. ``export`` makes checked files of either.
"""

from __future__ import annotations

from fedclient.worker.deploy.export import DeployFacts, DeployGraphs, deploy_graphs, save_graphs
from fedclient.worker.deploy.forms import AUTHORS, CPU, MASKED, TENSORRT, TORCH, Form, form_named, form_names

__all__ = [
    "AUTHORS",
    "CPU",
    "MASKED",
    "TENSORRT",
    "TORCH",
    "DeployFacts",
    "DeployGraphs",
    "Form",
    "deploy_graphs",
    "form_named",
    "form_names",
    "save_graphs",
]
