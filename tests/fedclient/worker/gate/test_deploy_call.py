"""The node asks its worker to deploy, over the real socket and in a real process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Callable, List

import pytest

from fedclient.worker.deployments import Deployments
from fedspect.update.schema import Arrays

if sys.version_info < (3, 10):
    pytest.skip("the node runs on Python 3.10 and newer", allow_module_level=True)

from fedclient.node.worker_client import WorkerClient

pytestmark = pytest.mark.slow
Publish = Callable[..., Path]


def test_the_worker_deploys_what_its_node_names_and_tells_of_its_progress(
    home: Path, publish: Publish, trained_head: Arrays
) -> None:
    stages: List[str] = []
    link = WorkerClient(
        home / "worker.json",
        home / "worker.log",
        on_progress=lambda stage, done, total: stages.append(stage),
    )
    try:
        folder = publish(trained_head)
        report = json.loads(link.deploy(str(folder), 1))
        assert report["outcome"] == "activated", report
        assert (report["version"], report["number"]) == (folder.name, 1)
        assert {"backbone", "head", "gate"} <= set(stages)
        current = Deployments(home / "deployments").current()
        assert current is not None
        assert (current.version, current.who, current.why) == (folder.name, "headquarters", "published")
        (folder / "card.json").write_bytes(b"{")
        assert json.loads(link.deploy(str(folder), 1))["outcome"] == "failed"
    finally:
        link.close()
