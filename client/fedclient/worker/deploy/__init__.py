"""From a trained, condensed CondenseNetV2 to ONNX files that a line's device runs.

``description`` reads the weights, ``rewrites`` changes their shape but not the function, ``forms`` names which
rewrites a target gets, ``emit`` writes the nodes and ``export`` makes checked files of them.
"""

from __future__ import annotations

from fedclient.worker.deploy.export import DeployFacts, DeployGraphs, deploy_graphs, save_graphs
from fedclient.worker.deploy.forms import AUTHORS, CPU, MASKED, TENSORRT, Form, form_named, form_names

__all__ = [
    "AUTHORS",
    "CPU",
    "MASKED",
    "TENSORRT",
    "DeployFacts",
    "DeployGraphs",
    "Form",
    "deploy_graphs",
    "form_named",
    "form_names",
    "save_graphs",
]
