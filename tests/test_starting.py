"""Starting is felt by everyone: a command loads what it needs and nothing heavy beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = {"pydantic"}  # settings and records
DRAWING = {"rich", "jinja2", "matplotlib"}
HEAVY = {
    "torch",
    "torchvision",
    "flwr",
    "grpc",
    "cryptography",
    "numpy",
    "google.protobuf",
    "onnxruntime",
    "psutil",
}

MEMBERSHIP = {
    "plant": "plant-a",
    "federation": "steel",
    "fingerprint": "00" * 32,
    "enrolment_addresses": ["127.0.0.1:1"],
    "fleet_addresses": ["127.0.0.1:2"],
    "classes": ["crack", "good"],
    "base_hash": "00" * 32,
    "data": "/pictures",
}


def loaded(home: Path, module: str, *arguments: str) -> set[str]:
    """The modules that a command loads, run as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FEDSPECT_HOME": str(home)},
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    return {
        line.rsplit("|", 1)[-1].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        ("fedclient.cli --help", HEAVY | MODELS),
        ("fedserver.cli --help", HEAVY | MODELS),
        ("fedclient.cli status", HEAVY | DRAWING),
        ("fedclient.cli engines rollback", HEAVY | DRAWING),
        ("fedclient.cli stop", HEAVY | DRAWING | MODELS),
    ],
)
def test_a_command_loads_nothing_that_it_does_not_need(
    command: str, absent: set[str], tmp_path: Path
) -> None:
    (tmp_path / "plant.json").write_text(json.dumps(MEMBERSHIP), encoding="utf-8")
    assert not absent & loaded(tmp_path, *command.split())
