from __future__ import annotations

import json
import socket
import stat
import sys
from pathlib import Path

import pytest
from PIL import Image

from fedclient.node.doctor import Check, device, examine, software, worst
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedserver.enrolment.authority import Authority
from fedspect.protocol.join_token import JoinToken

WORKER = {
    "python": "3.8.18",
    "fedclient": "installed",
    "torch": "2.1.2",
    "torchvision": "0.16.2",
    "numpy": "1.24.4",
    "onnxruntime": "1.19.2",
    "cuda": None,
}


def interpreter(path: Path, **more: object) -> Path:
    """An interpreter that says what it is asked."""
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps({**WORKER, **more})}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlantHome:
    monkeypatch.setattr(sys, "executable", str(interpreter(tmp_path / "python")))
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
    assert checks["worker"].level == "ok" and "torch 2.1.2" in checks["worker"].found
    assert checks["GPU"].level == "warning" and checks["engines"].level == "ok"
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
    assert found.level == "warning" and "one class" in found.found
    (tmp_path / "pictures" / "plain").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "pictures" / "plain" / "1.png")
    found = by_name(home, data=tmp_path / "pictures")["pictures"]
    assert found.level == "ok" and found.found.startswith("2 pictures of 2 classes by folders")


def test_a_server_that_is_not_there_is_named_with_its_address(home: PlantHome, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    membership(tmp_path, home, port)
    checks = by_name(home)
    for name in (f"enrolment localhost:{port}", f"rounds localhost:{port}"):
        assert checks[name].level == "failure" and checks[name].exit_code == 65
        assert "firewall" in checks[name].remedy


def test_too_little_disk_and_memory_are_failures(home: PlantHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "TOO_LITTLE_DISK", 1 << 60)
    monkeypatch.setattr(device, "TOO_LITTLE_MEMORY", 1 << 60)
    checks = by_name(home)
    assert (checks["disk"].level, checks["disk"].exit_code) == ("failure", 51)
    assert (checks["memory"].level, checks["memory"].exit_code) == ("failure", 70)
    assert worst(list(checks.values())) in (51, 70)


def test_a_damaged_membership_is_one_line_and_the_rest_is_still_looked_at(home: PlantHome) -> None:
    home.membership_path.write_text("{")
    checks = by_name(home)
    assert (checks["membership"].level, checks["membership"].exit_code) == ("failure", 53)
    assert "disk" in checks


# -- the worker's interpreter ------------------------------------------------------------------------------


def test_the_gpu_is_named_with_its_memory_and_a_jetson_without_one_is_told_why(
    home: PlantHome, tmp_path: Path
) -> None:
    seen = interpreter(tmp_path / "gpu", cuda="11.4", gpu=["Xavier", 8 << 30, "7.2"])
    found = by_name(home, worker_python=str(seen))["GPU"]
    assert found.level == "ok" and found.found == "Xavier, 8.0 GiB, compute 7.2, CUDA 11.4"
    blind = interpreter(tmp_path / "blind", torch="2.1.0+cpu")
    found = by_name(home, worker_python=str(blind), root=jetson(tmp_path))["GPU"]
    assert found.level == "warning" and "NVIDIA's own torch" in found.remedy


def test_an_old_library_is_named_and_nothing_to_run_engines_with_is_a_warning(
    home: PlantHome, tmp_path: Path
) -> None:
    old = interpreter(tmp_path / "old", torch="1.13.1", onnxruntime=None)
    checks = by_name(home, worker_python=str(old))
    assert checks["worker"].level == "warning" and "torch" in checks["worker"].remedy
    assert checks["engines"].level == "warning"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2.1.0a0+41361538.nv23.06", (2, 1, 0)),
        ("3.8.10", (3, 8, 10)),
        ("1.19.2", (1, 19, 2)),
        ("2.7", (2, 7)),
    ],
)
def test_versions_are_compared_by_their_leading_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert software._numbers(text) == numbers


def test_the_real_interpreter_answers(home: PlantHome) -> None:
    checks = {check.name: check for check in software.worker(str(Path(sys.prefix) / "bin" / "python"))}
    assert checks["worker"].level == "ok" and "torch" in checks["worker"].found


# -- a Jetson, by its files --------------------------------------------------------------------------------


def jetson(folder: Path, *, mode: int = 8, hot: int = 41_500, release: str = "R35") -> Path:
    """The files of a Jetson Xavier NX that the doctor reads."""
    root = folder / "jetson"
    for name, content in {
        "etc/nv_tegra_release": f"# {release} (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref\n",
        "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0",
        "var/lib/nvpmodel/status": f"pmode:{mode:04} fmode:quiet\n",
        "etc/nvpmodel.conf": "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n"
        "< POWER_MODEL ID=0 NAME=MODE_15W_2CORE >\n< POWER_MODEL ID=3 NAME=MODE_10W_2CORE >\n"
        "< POWER_MODEL ID=7 NAME=MODE_20W_4CORE >\n< POWER_MODEL ID=8 NAME=MODE_20W_6CORE >\n",
        "sys/devices/system/cpu/online": "0-5\n" if mode == 8 else "0-1\n",
        "sys/devices/system/cpu/present": "0-5\n",
        "sys/class/thermal/thermal_zone0/type": "CPU-therm\n",
        "sys/class/thermal/thermal_zone0/temp": f"{hot}\n",
        "sys/class/thermal/thermal_zone1/type": "iwlwifi\n",
        "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_a_jetson_tells_its_model_release_power_mode_and_heat(home: PlantHome, tmp_path: Path) -> None:
    checks = by_name(home, root=jetson(tmp_path))
    assert checks["device"].found == "NVIDIA Jetson Xavier NX Developer Kit, L4T 35.4.1 (JetPack 5)"
    assert (checks["power mode"].level, checks["power mode"].found) == ("ok", "8 (MODE_20W_6CORE)")
    assert (checks["temperature"].level, checks["temperature"].found) == ("ok", "42 °C (CPU-therm)")
    assert "processors" not in checks


def test_a_weak_power_mode_heat_and_an_old_release_are_warnings_with_the_mend(
    home: PlantHome, tmp_path: Path
) -> None:
    checks = by_name(home, root=jetson(tmp_path, mode=3, hot=96_000, release="R32"))
    assert checks["power mode"].level == "warning" and "nvpmodel -m 8" in checks["power mode"].remedy
    assert checks["processors"].found == "0-1 of 0-5 are on"
    assert checks["temperature"].level == "warning" and "fan" in checks["temperature"].remedy
    assert checks["device"].level == "warning" and "JetPack 5 or 6" in checks["device"].remedy
    assert worst(list(checks.values())) == 0


def test_a_jetson_whose_mode_is_not_written_says_how_to_ask(home: PlantHome, tmp_path: Path) -> None:
    root = jetson(tmp_path)
    (root / "var/lib/nvpmodel/status").unlink()
    assert "nvpmodel -q" in by_name(home, root=root)["power mode"].remedy


# -- settings and the way to headquarters ------------------------------------------------------------------


def test_settings_that_cannot_be_read_are_a_failure_that_names_the_key(home: PlantHome) -> None:
    (home.folder / "plant.toml").write_text("[training]\nhour = []\n")
    found = by_name(home)["settings"]
    assert (found.level, found.exit_code) == ("failure", 10)
    assert "training.hours" in found.remedy


def test_a_token_is_looked_at_before_it_is_used(home: PlantHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    token = JoinToken("plant-a", 1, b"", b"", b"", (("localhost", port), ("no-such-name.invalid", port)))
    checks = by_name(home, token=token)
    assert "expired" in checks["token"].found
    assert checks[f"enrolment localhost:{port}"].exit_code == 65
    assert "name is not known" in checks[f"enrolment no-such-name.invalid:{port}"].found
    assert "federation" not in checks
