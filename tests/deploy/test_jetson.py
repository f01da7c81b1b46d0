"""The Jetson's install script and units, as far as a PC can try them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from deploy_parts import ROOT, tool, verify

JETSON = ROOT / "deploy" / "jetson"
MACHINE = os.uname().machine
UNITS = ["fedspect-node.service", "fedspect-line.service", "fedspect-watch@.service"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a Jetson runs Linux")


def install(
    tmp_path: Path, *words: str, uv: bool = True, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run install.sh into a folder of the test's own, with interpreters that answer as they are told to."""
    places = ["--no-services", "--prefix", str(tmp_path / "opt"), "--home", str(tmp_path / "plant")]
    tools = ["--uv", str(program(tmp_path / "uv", "exit 9"))] if uv else []
    environment = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        ["bash", str(JETSON / "install.sh"), *places, *tools, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def python(path: Path, version: str) -> str:
    """An interpreter that says which one it is, and lacks TensorRT."""
    return str(
        program(path, f'case "$2" in *version_info*) echo {version};; *tensorrt*) exit 1;; *) exit 0;; esac')
    )


def interpreters(tmp_path: Path, node: str = "3.10", worker: str = "3.8") -> list[str]:
    return [
        "--node-python",
        python(tmp_path / "node-python", node),
        "--worker-python",
        python(tmp_path / "worker-python", worker),
    ]


def wheel(tmp_path: Path, name: str) -> str:
    (tmp_path / name).write_bytes(b"a wheel")
    return str(tmp_path / name)


def test_a_dry_run_says_every_step_and_changes_nothing(tmp_path: Path) -> None:
    torch = wheel(tmp_path, f"torch-2.1.0a0+41361538.nv23.06-cp38-cp38-linux_{MACHINE}.whl")
    done = install(tmp_path, "--dry-run", "--jetpack", "5", "--torch-wheel", torch, *interpreters(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [line for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert any("fedspect[node] @" in step and str(ROOT / "constraints.txt") in step for step in steps)
    assert any("fedspect[worker] @" in step and "--override" in step for step in steps)
    assert any(
        "venv" in step and "--system-site-packages" in step and "worker-python" in step for step in steps
    )
    assert done.stdout.rstrip().endswith("nothing was changed")
    assert not (tmp_path / "opt").exists() and not (tmp_path / "plant").exists()


def test_jetpack_6_has_one_environment_for_both(tmp_path: Path) -> None:
    one = python(tmp_path / "python", "3.10")
    done = install(tmp_path, "--dry-run", "--jetpack", "6", "--cpu-torch", "--node-python", one)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fedspect[node,worker] @" in done.stdout
    assert "/worker\n" in done.stdout and "ln -sfn node" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jetpack", "5"], "no torch for the worker"),
        (["--jetpack", "4", "--cpu-torch"], "JetPack 4"),
        (["--jetpack", "5", "--torch-wheel", "/none/torch.whl"], "there is no file /none/torch.whl"),
        (["--jetpack", "5", "--cpu-torch", "--wheels", "/none"], "there is no folder /none"),
    ],
)
def test_what_stands_in_the_way_is_named_and_nothing_is_changed(
    tmp_path: Path, words: list[str], said: str
) -> None:
    done = install(tmp_path, *words, *interpreters(tmp_path))
    assert done.returncode == 1
    assert f"failure  {said}" in done.stdout
    assert "nothing was changed" in done.stdout
    assert not (tmp_path / "opt").exists()


def test_every_obstacle_is_named_at_once(tmp_path: Path) -> None:
    done = install(tmp_path, "--jetpack", "5", *interpreters(tmp_path, node="3.9", worker="3.10"))
    assert done.returncode == 1
    for what in ("is Python 3.9", "is Python 3.10", "no torch for the worker"):
        assert what in done.stdout
    assert "3 of these stand in the way" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"torch-2.1.0-cp310-cp310-linux_{MACHINE}.whl", "is for another Python"),
        ("torch-2.1.0-cp38-cp38-linux_riscv64.whl", "is for another machine"),
        (f"numpy-1.24.4-cp38-cp38-linux_{MACHINE}.whl", "is no wheel of torch"),
        (f"torch-1.13.0-cp38-cp38-linux_{MACHINE}.whl", "is no torch 2"),
    ],
)
def test_a_torch_for_something_else_is_refused_by_name(tmp_path: Path, name: str, said: str) -> None:
    given = ["--torch-wheel", wheel(tmp_path, name)]
    done = install(tmp_path, "--jetpack", "5", *given, *interpreters(tmp_path))
    assert done.returncode == 1
    assert f"{name} {said}" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--frobnicate"],
        ["--prefix"],
        ["--prefix", "relative"],
        ["--home", "/with space"],
        ["--purge"],
        ["--cpu-torch", "--torch-wheel", "/a.whl"],
    ],
)
def test_a_line_that_cannot_be_meant_is_not_understood(tmp_path: Path, words: list[str]) -> None:
    assert install(tmp_path, *words).returncode == 2


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "precious").write_text("x")
    done = install(tmp_path, "--jetpack", "5", "--cpu-torch", *interpreters(tmp_path))
    assert done.returncode == 1 and "holds something else" in done.stdout
    removed = install(tmp_path, "--uninstall")
    assert removed.returncode == 1 and "nothing of ours is installed" in removed.stdout
    assert (tmp_path / "opt" / "precious").read_text() == "x"


QUICK_UV = """
for last; do :; done
case $1 in
    build)
        while [ "$1" != --out-dir ]; do shift; done
        touch "$2/fedspect-0-py3-none-any.whl"
        ;;
    venv)
        mkdir -p "$last/bin"
        for name in python fedclient; do printf '#!/bin/sh\\necho "$0 $@"\\n' >"$last/bin/$name"; done
        chmod +x "$last"/bin/*
        ;;
esac
"""


def test_a_second_call_does_nothing_and_a_new_version_takes_the_place_of_the_old(tmp_path: Path) -> None:
    words = ["--uv", str(program(tmp_path / "quick-uv", QUICK_UV)), "--jetpack", "5", *interpreters(tmp_path)]
    name = f"torch-2.1.0-cp38-cp38-linux_{MACHINE}.whl"
    words += ["--torch-wheel", wheel(tmp_path, name)]
    first = install(tmp_path, *words)
    assert first.returncode == 0, first.stdout + first.stderr
    opt = tmp_path / "opt"
    before = (opt / "current").resolve()
    assert (before / "node" / "bin" / "fedclient").exists() and (before / "complete").exists()
    assert "node/bin/fedclient doctor --worker-python" in first.stdout
    for command in ("fedclient", "fedspect-join"):
        assert str(opt / "current") in (opt / "bin" / command).read_text()
        assert "/opt/fedspect" not in (opt / "bin" / command).read_text()

    again = install(tmp_path, *words)
    assert again.returncode == 0 and f"installed already: {before.name}" in again.stdout
    assert (opt / "current").resolve() == before

    (tmp_path / name).write_bytes(b"another wheel")
    changed = install(tmp_path, *words)
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert (opt / "current").resolve() != before and not before.exists()
    assert len(list((opt / "releases").iterdir())) == 1


def test_a_step_that_fails_leaves_the_version_that_runs(tmp_path: Path) -> None:
    opt = tmp_path / "opt"
    (opt / "releases" / "before").mkdir(parents=True)
    (opt / "current").symlink_to("releases/before")
    (opt / ".fedspect").touch()
    done = install(tmp_path, "--jetpack", "5", "--cpu-torch", *interpreters(tmp_path))
    assert done.returncode == 3, done.stdout + done.stderr
    assert (opt / "current").resolve() == opt / "releases" / "before"


def test_uninstalling_keeps_the_plants_folder_unless_told_otherwise(tmp_path: Path) -> None:
    for purge in (False, True):
        (tmp_path / "opt").mkdir()
        (tmp_path / "opt" / ".fedspect").touch()
        (tmp_path / "plant").mkdir(exist_ok=True)
        done = install(tmp_path, "--uninstall", *(["--purge"] if purge else []))
        assert done.returncode == 0, done.stdout + done.stderr
        assert not (tmp_path / "opt").exists()
        assert (tmp_path / "plant").exists() is not purge


@pytest.mark.skipif(os.geteuid() == 0, reason="asks for root, which this is")
def test_services_need_root(tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(JETSON / "install.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "failure  not root" in done.stdout


def test_nothing_in_the_scripts_names_a_place_on_the_network() -> None:
    for path in [each for each in (ROOT / "deploy").rglob("*") if each.is_file()]:
        assert "://" not in path.read_text().replace("file://", ""), path


# -- shell, units, wheels ------------------------------------------------------------------------------------

SCRIPTS = [
    "deploy/jetson/install.sh",
    "deploy/jetson/check-wheels",
    "deploy/jetson/fedclient",
    "deploy/jetson/fedspect-join",
    ".ci/run",
    ".ci/worker-test",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    done = subprocess.run(
        [tool("shellcheck"), str(ROOT / script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_may_be_executed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_the_units(tmp_path: Path, unit: str) -> None:
    verify(tmp_path, JETSON / unit, unit)


def test_every_unit_is_installed_and_removed() -> None:
    script = (JETSON / "install.sh").read_text()
    assert sorted(UNITS) == sorted(path.name for path in JETSON.glob("*.service"))
    assert all(unit in script for unit in UNITS)


def test_the_watch_writes_where_its_unit_may_write_and_others_may_read() -> None:
    lines = (JETSON / "fedspect-watch@.service").read_text().splitlines()
    facts = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    words = facts["ExecStart"].split()
    output = Path(words[words.index("--output") + 1])
    assert words[1:3] == ["watch", "%f"] and facts["ProtectSystem"] == "strict"
    assert output.parent == Path("/var/lib") / facts["StateDirectory"] and output.name == "%i.jsonl"
    assert facts["StateDirectoryMode"] == "0750" and facts["UMask"] == "0027"


@pytest.mark.slow
def test_every_package_has_a_wheel_for_the_device() -> None:
    done = subprocess.run(
        [str(JETSON / "check-wheels"), "--uv", tool("uv")], capture_output=True, text=True, check=False
    )
    if done.returncode == 2:
        pytest.skip("the registry was not reached")
    assert done.returncode == 0, done.stdout
