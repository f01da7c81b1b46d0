"""The server's unit, image and compose file, as far as they can be read where no engine runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict

import pytest
from deploy_parts import ROOT, verify

SERVER = ROOT / "deploy" / "server"


def compose() -> Dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    content = yaml.safe_load((SERVER / "compose.yaml").read_text())
    assert isinstance(content, dict)
    return content


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    verify(tmp_path, SERVER / "fedserver@.service", "fedserver@steel.service")


def test_only_rounds_and_joining_are_published_to_others() -> None:
    services = compose()["services"]
    assert [port.split(":")[-1] for port in services["server"]["ports"]] == ["9092", "9094"]
    assert services["tensorboard"]["ports"] == ["127.0.0.1:6006:6006"]


def test_nothing_in_the_containers_may_become_root_or_write_to_the_image() -> None:
    for service in compose()["services"].values():
        assert service["user"] == "10001:10001"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_tensorboard_reads_the_workspace_only() -> None:
    assert compose()["services"]["tensorboard"]["volumes"] == ["workspace:/workspace:ro"]


def test_the_image_takes_its_base_by_name_and_its_packages_by_the_constraints() -> None:
    text = (SERVER / "Containerfile").read_text()
    assert "ARG PYTHON_IMAGE=python:3.11-slim\n" in text
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert "--constraint constraints.txt" in text
    assert text.index("USER 10001:10001") < text.index("ENTRYPOINT")


def test_what_the_image_copies_is_in_the_build_context() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(
        r"^COPY (?!--from)(.+) \S+$", (SERVER / "Containerfile").read_text(), re.MULTILINE
    ):
        for source in sources.split():
            assert source in kept and (ROOT / source).exists()
