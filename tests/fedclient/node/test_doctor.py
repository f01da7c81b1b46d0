from __future__ import annotations

import json
import socket
import stat
import sys
from pathlib import Path

import pytest
from PIL import Image

from fedclient.node import doctor
from fedclient.node.doctor import Check, examine, worst
from fedclient.node.home import Membership, PlantHome
from fedserver.authority import Authority


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlantHome:
    answer = {"python": "3.8.18", "torch": "2.1.2", "fedclient": "installed", "cuda": None}
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(fake))
    made = PlantHome(tmp_path / "home")
    made.prepare()
    return made


def by_name(home: PlantHome, **more: object) -> dict[str, Check]:
    return {check.name: check for check in examine(home, **more)}  # type: ignore[arg-type]


def membership(tmp_path: Path, home: PlantHome, port: int) -> None:
    authority = Authority(tmp_path / "authority")
    authority.create("steel")
    home.remember(
        Membership(
            plant="plant-a",
            federation="steel",
            fingerprint=authority.fingerprint().hex(),
            enrolment_addresses=[f"localhost:{port}"],
            fleet_addresses=[f"localhost:{port}"],
            classes=["pit"],
            base_hash="ab" * 32,
            data=str(tmp_path / "pictures"),
        ),
        authority.certificate_path.read_bytes(),
    )


def test_a_device_that_joined_nothing_is_told_how(home: PlantHome) -> None:
    checks = by_name(home)
    assert checks["node"].level == "ok" and "flwr 1.30" in checks["node"].found
    assert checks["worker"].level == "warning" and "no GPU" in checks["worker"].found
    assert "fedclient join" in checks["federation"].remedy
    assert worst(list(checks.values())) == 0


def test_an_interpreter_without_torch_is_a_failure_with_its_own_exit_code(
    home: PlantHome, tmp_path: Path
) -> None:
    for content in (
        "#!/bin/sh\nexit 1\n",
        '#!/bin/sh\necho \'{"python": "3.8", "torch": null, "fedclient": null}\'\n',
    ):
        broken = tmp_path / "broken"
        broken.write_text(content)
        broken.chmod(0o755)
        checks = by_name(home, worker_python=str(broken))
        assert checks["worker"].level == "failure"
        assert checks["worker"].remedy
        assert worst(list(checks.values())) == 70


def test_files_that_are_no_pictures_are_counted_and_a_missing_folder_is_a_failure(
    home: PlantHome, tmp_path: Path
) -> None:
    assert by_name(home, data=tmp_path / "pictures")["pictures"].level == "failure"
    (tmp_path / "pictures" / "pit").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "pictures" / "pit" / "1.png")
    found = by_name(home, data=tmp_path / "pictures")["pictures"]
    assert found.level == "ok" and found.found.startswith("1 in ")


def test_a_server_that_is_not_there_is_named_with_its_address(home: PlantHome, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    membership(tmp_path, home, port)
    checks = by_name(home)
    for name in (f"enrolment localhost:{port}", f"rounds localhost:{port}"):
        assert checks[name].level == "failure" and checks[name].exit_code == 65
        assert "firewall" in checks[name].remedy


def test_too_little_disk_and_memory_are_failures(home: PlantHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TOO_LITTLE_DISK", 1 << 60)
    monkeypatch.setattr(doctor, "TOO_LITTLE_MEMORY", 1 << 60)
    checks = by_name(home)
    assert (checks["disk"].level, checks["disk"].exit_code) == ("failure", 51)
    assert (checks["memory"].level, checks["memory"].exit_code) == ("failure", 70)
    assert worst(list(checks.values())) in (51, 70)


def test_a_damaged_membership_is_one_line_and_the_rest_is_still_looked_at(home: PlantHome) -> None:
    home.membership_path.write_text("{")
    checks = by_name(home)
    assert (checks["membership"].level, checks["membership"].exit_code) == ("failure", 53)
    assert "disk" in checks
