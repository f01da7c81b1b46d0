"""`fedclient engines` and `fedclient golden`, with engines built by ONNX Runtime in the worker's process."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from fedclient.cli import app
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedclient.worker.deployments import Deployment, Deployments
from fedclient.worker.training.head import head_of
from fedspect.console import run_app
from fedspect.files import write_bytes, write_json, write_text
from fedspect.model.base import save_base
from fedspect.model.levels import freeze
from fedspect.model.network import build_network
from fedspect.protocol.versions import VersionCard
from fedspect.update.schema import Arrays, version_of

CLASSES = ("plain", "striped")
PAGES = Path(__file__).parents[3] / "docs" / "commands"

Fedclient = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlantHome:
    monkeypatch.setenv("FEDSPECT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    made = PlantHome(tmp_path / "home")
    made.prepare()
    membership = Membership(
        plant="plant-1",
        federation="steel",
        fingerprint="ab" * 32,
        enrolment_addresses=[],
        fleet_addresses=[],
        classes=list(CLASSES),
        aliases={"stripes": "striped"},
        base_hash="ab" * 32,
        data=str(tmp_path / "pictures"),
    )
    write_json(made.membership_path, membership.model_dump())
    return made


@pytest.fixture
def fedclient(capsys: pytest.CaptureFixture[str], home: PlantHome) -> Fedclient:
    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_app(app, [str(word) for word in words])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def add(home: PlantHome, number: int, **more: Any) -> Deployment:
    """A deployment whose engines are in the store, as far as a pointer cares."""
    refused = more.pop("refused", ())
    engine = f"engine-{number}"
    deployment = Deployment(
        id=f"{number:04d}-abc",
        version=f"{number:064x}",
        number=number,
        classes=CLASSES,
        base_hash="ab" * 32,
        engines={"whole": engine},
        figures={
            "candidate": {"right": 19, "pictures": 20, "escapes": 1, "false_rejects": None, "asked": 2},
            "latency_ms": {"candidate": 4.5, "limit": None},
        },
    )
    return Deployments(home.folder / "deployments").add(deployment, refused=refused)


@pytest.fixture
def with_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedclient.engine_files.fault_of", lambda *_, **__: None)


def put_engine(home: PlantHome, number: int) -> Path:
    """The files of the engine that ``add`` names, as far as they are looked at."""
    file = home.folder / "engines" / f"engine-{number}" / "engine.onnx"
    write_bytes(file, b"an engine")
    facts = {"key": {"kind": "onnxruntime"}, "bytes": 9, "sha256": hashlib.sha256(b"an engine").hexdigest()}
    write_json(file.with_name("engine.json"), facts)
    return file


def test_a_device_without_engines_is_told_what_to_do(fedclient: Fedclient) -> None:
    code, _, err = fedclient("engines", "list")
    assert (code, "fedclient engines build" in err) == (0, True)
    code, out, _ = fedclient("engines", "list", "--json")
    assert json.loads(out) == {
        "current": None,
        "previous": None,
        "deployments": [],
        "engines": [],
        "history": [],
        "problems": [],
    }
    assert fedclient("engines", "rollback")[0] == 81
    assert fedclient("engines", "activate", "1")[0] == 81
    code, _, err = fedclient("engines", "build")
    assert code == 80
    assert "no version was published" in err


@pytest.mark.usefixtures("with_engines")
def test_activating_listing_and_going_back(fedclient: Fedclient, home: PlantHome) -> None:
    add(home, 1)
    add(home, 2)
    assert fedclient("engines", "activate", "1")[0] == 0
    assert fedclient("engines", "activate", "0002")[0] == 0
    code, out, err = fedclient("engines", "list")
    assert code == 0
    assert "> 0002-abc" in out
    assert "19 of 20" in out
    assert "no limit of milliseconds is set" in out
    assert "note: no class is good, so nothing passes" in err
    write_text(home.folder / "line" / "line.toml", '[verdicts]\ngood_classes = ["plain"]\n')
    assert "no class is good" not in fedclient("engines", "list")[2]
    code, out, _ = fedclient("engines", "rollback", "--why", "scratches are missed", "--json")
    assert (code, json.loads(out)["id"]) == (0, "0001-abc")
    _, out, _ = fedclient("engines", "list", "--history")
    assert "scratches are missed" in out
    assert "19 of 20 right, 1 escapes, 2 asked, 4.5 ms" in out
    _, out, _ = fedclient("engines", "list", "--json")
    assert json.loads(out)["current"] == "0001-abc"
    assert [each["event"] for each in json.loads(out)["history"]][-1] == "rolled back"


@pytest.mark.usefixtures("with_engines")
def test_a_refused_deployment_needs_force_and_the_history_says_so(
    fedclient: Fedclient, home: PlantHome
) -> None:
    add(home, 1, refused=["3 defects would pass"])
    code, _, err = fedclient("engines", "activate", "1")
    assert code == 81
    assert "3 defects would pass" in err
    assert "--force" in err
    code, _, err = fedclient("engines", "activate", "1", "--force")
    assert code == 0
    assert "was refused" in err
    assert "activated by force" in fedclient("engines", "list", "--history")[1]


def test_a_deployment_whose_engines_are_gone_is_not_activated(fedclient: Fedclient, home: PlantHome) -> None:
    add(home, 1)
    code, _, err = fedclient("engines", "activate", "1", "--force")
    assert code == 80
    assert "fedclient engines build 1 --activate" in err
    assert "engines gone" in fedclient("engines", "list")[1]


def test_damaged_engines_are_named_before_the_pointer_moves(fedclient: Fedclient, home: PlantHome) -> None:
    files = []
    for number in (1, 2, 3):
        add(home, number)
        files.append(put_engine(home, number))
        assert fedclient("engines", "activate", number)[0] == 0
    files[1].write_bytes(b"an engima")  # as long as what was built
    assert fedclient("engines", "activate", "2")[0] == 80
    code, out, _ = fedclient("engines", "rollback", "--json")
    assert (code, json.loads(out)["number"]) == (0, 1)
    fedclient("engines", "activate", "3")
    files[0].write_bytes(b"")
    code, _, err = fedclient("engines", "rollback")
    assert (code, "0001-abc: engines gone or damaged" in err) == (81, True)
    assert "gone or damaged" in fedclient("engines", "list")[1]
    assert json.loads(fedclient("engines", "list", "--json")[1])["current"] == "0003-abc"


@pytest.mark.usefixtures("with_engines")
def test_a_damaged_pointer_is_named_and_mended_by_activating(fedclient: Fedclient, home: PlantHome) -> None:
    add(home, 1)
    fedclient("engines", "activate", "1")
    (home.folder / "deployments" / "current.json").write_bytes(b"{")
    code, out, err = fedclient("engines", "list")
    assert (code, "0001-abc" in out, "not valid JSON" in err) == (0, True, True)
    assert fedclient("engines", "rollback")[0] == 81  # there was nothing before it
    assert fedclient("engines", "activate", "1")[0] == 0
    assert "> 0001-abc" in fedclient("engines", "list")[1]


def test_rollback_as_a_command_of_its_own_opens_no_model(home: PlantHome) -> None:
    script = (
        "import sys; more = {'numpy', 'PIL', 'cryptography', 'psutil'} if 'rollback' in sys.argv else set()\n"
        "from fedclient.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'onnxruntime', 'flwr', 'tensorrt', *more} & set(sys.modules)\n"
    )
    for words in (["rollback"], ["list", "--json"]):
        run = subprocess.run(
            [sys.executable, "-c", script, "engines", *words],
            env={"PYTHONPATH": ":".join(sys.path), "FEDSPECT_HOME": str(home.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode in (0, 81), run.stderr
        assert "AssertionError" not in run.stderr


def test_a_build_hands_kind_and_precision_on(
    fedclient: Fedclient, home: PlantHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(_home: PlantHome, _module: str, arguments: list[str], _progress: object) -> dict[str, object]:
        asked.extend(arguments)
        return {"outcome": "activated", "reasons": ["not activated"], "number": 1, "seconds": 1.0}

    monkeypatch.setattr("fedclient.commands.asking.ask_worker", ask)
    write_json(home.folder / "versions" / ("f" * 64) / "card.json", {"number": 1})
    assert fedclient("engines", "build", "1", "--precision", "float32", "--kind", "onnxruntime")[0] == 0
    assert asked[-4:] == ["--kind", "onnxruntime", "--precision", "float32"]
    assert "--activate" not in asked


def test_a_mistake_in_the_settings_is_said_before_a_worker_is_started(
    fedclient: Fedclient, home: PlantHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("fedclient.commands.asking.ask_worker", lambda *given: asked.append(given))
    write_json(home.folder / "versions" / ("f" * 64) / "card.json", {"number": 1})
    code, _, err = fedclient("engines", "build", "--kind", "openvino")
    assert code == 10 and "engine.kind on the command line" in err
    write_text(home.folder / "engines.toml", "[gate]\nlatency_limit = 5\n")
    code, _, err = fedclient("engines", "build")
    assert code == 10 and "gate.latency_limit" in err
    code, _, err = fedclient("engines", "list")
    assert code == 0 and "gate.latency_limit" in err
    (problem,) = json.loads(fedclient("engines", "list", "--json")[1])["problems"]
    assert "gate.latency_limit" in problem
    assert asked == []


@pytest.mark.usefixtures("with_engines")
def test_building_what_the_line_runs_already_is_said_beforehand(
    fedclient: Fedclient, home: PlantHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = {"outcome": "activated", "reasons": [], "number": 1, "seconds": 1.0}
    monkeypatch.setattr("fedclient.commands.asking.ask_worker", lambda *_: report)
    add(home, 1)
    fedclient("engines", "activate", "1")
    for number in (1, 2):
        card = {"number": number, "content_hash": f"{number:064x}"}
        write_json(home.folder / "versions" / f"{number:064x}" / "card.json", card)
    assert "runs this version already" in fedclient("engines", "build", "1", "--activate")[2]
    assert "already" not in fedclient("engines", "build", "2", "--activate")[2]
    assert "already" not in fedclient("engines", "build", "1")[2]


def test_golden_pictures_are_added_by_hand_and_shown(fedclient: Fedclient, home: PlantHome) -> None:
    paths = []
    for number in range(2):
        path = home.folder.parent / f"<{number}>.png"
        Image.fromarray(np.full((32, 32), 50 * number, np.uint8)).save(path)
        paths.append(path)
    assert "golden init" in fedclient("golden", "show")[2]
    code, out, _ = fedclient("golden", "add", *paths, "--class", "Stripes")
    assert (code, "striped" in out) == (0, True)
    assert "no golden picture shows plain" in fedclient("golden", "show")[2]
    page = home.folder.parent / "golden.html"
    code, out, _ = fedclient("golden", "show", "--html", page, "--json")
    assert json.loads(out)["counts"] == {"striped": 2}
    assert json.loads(out)["without"] == ["plain"]
    text = page.read_text()
    assert text.count("data:image/jpeg") == 2
    assert "&lt;0&gt;.png" in text
    assert "<0>" not in text
    assert fedclient("golden", "add", paths[0], "--class", "dent")[0] == 23
    code, out, _ = fedclient("golden", "remove", "<0>.png", "--json")
    assert (code, json.loads(out)["counts"]) == (0, {"striped": 1})
    assert fedclient("golden", "remove", "<0>.png")[0] == 20
    assert fedclient("golden", "add", home.folder.parent / "none.png", "--class", "plain")[0] == 22


@pytest.mark.parametrize("page", ["fedclient-engines", "fedclient-golden"])
def test_each_command_has_a_page_that_names_its_parts(page: str) -> None:
    text = (PAGES / f"{page}.md").read_text()
    parts = {
        "fedclient-engines": ("list", "build", "activate", "rollback"),
        "fedclient-golden": ("init", "add", "remove", "show"),
    }
    for part in parts[page]:
        assert f"fedclient {page.split('-')[1]} {part}" in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_published_version_is_built_activated_and_left_again(fedclient: Fedclient, home: PlantHome) -> None:
    first, second = published(home)
    code, out, err = fedclient("golden", "init", "--json")
    assert code == 0, err
    assert sum(json.loads(out)["counts"].values()) == json.loads(out)["new"] > 0
    code, _, err = fedclient("engines", "build", "1")
    assert code == 0, err
    assert "not activated" in err
    assert json.loads(fedclient("engines", "list", "--json")[1])["current"] is None
    assert fedclient("engines", "activate", "1")[0] == 0
    code, out, err = fedclient("engines", "build", second[:12], "--activate", "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "activated"), err
    assert fedclient("engines", "rollback")[0] == 0
    current = Deployments(home.folder / "deployments").current()
    assert current is not None
    assert current.version == first
    assert len(json.loads(fedclient("engines", "list", "--json")[1])["engines"]) == 3


def published(home: PlantHome) -> list[str]:
    """A base model, pictures and two versions, as a node leaves them."""
    network = build_network("cdnv2-a", 2, channels=1, form="condensed", seed=1)
    base = save_base(
        home.folder / "base" / "b",
        network,
        classes=CLASSES,
        input_size=64,
        mean=[0.5],
        std=[0.25],
        provenance={},
    )
    pictures = home.folder.parent / "pictures"
    random = np.random.default_rng(0)
    for name in CLASSES:
        (pictures / name).mkdir(parents=True)
        for number in range(12):
            image = random.integers(0, 256, (64, 64), dtype=np.uint8)
            Image.fromarray(image).save(pictures / name / f"{number}.png")
    write_json(
        home.folder / "worker.json",
        {
            "plant": "plant-1",
            "classes": list(CLASSES),
            "data": str(pictures),
            "base": str(home.folder / "base" / "b"),
            "state": str(home.state),
            "cache": str(home.folder / "cache"),
        },
    )
    write_text(
        home.folder / "engines.toml",
        "[gate]\nruns = 3\nslower = 1000.0\nlowest_accuracy = 0.0\nmore_escapes = 100\nmore_wrong = 1.0\n",
    )
    network = base.network(CLASSES, seed=0)
    freeze(network, 8)
    versions = []
    for number in (1, 2):
        head: Arrays = {name: values * (1 + 1e-3 * number) for name, values in head_of(network).items()}
        head = {name: values.astype(np.float32) for name, values in head.items()}
        card = VersionCard(
            number=number,
            content_hash=version_of(head),
            base_hash=base.content_hash,
            architecture="cdnv2-a",
            classes=list(CLASSES),
            freeze_levels=8,
            run="run-1",
            rounds=3,
            created="2026-01-01T00:00:00Z",
        )
        folder = home.folder / "versions" / card.content_hash
        write_bytes(folder / "head.safetensors", safetensors.numpy.save(head))
        write_json(folder / "card.json", card.model_dump())
        versions.append(card.content_hash)
    return versions
