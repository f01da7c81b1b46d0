"""What a person can do wrong with ``fedsim`` ends in a clear message and its exit code, or goes on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import tomllib
from small_pictures import draw, folder_of, manifest_of, names

from fedsim.cli import app
from quick_runs import CALM, QUICK

FEDSIM = [sys.executable, "-c", "from fedsim.cli import main; main()"]
ONE_ROUND = (*QUICK, *CALM, "--rounds", "1", "--local-epochs", "1", "--json")


def huge_png(path: Path, side: int) -> None:
    """A valid PNG of side x side white pixels in a few kilobytes."""
    packer = zlib.compressobj(1)
    row = b"\0" + b"\xff" * ((side + 7) // 8)
    data = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


# -- pictures ----------------------------------------------------------------------------------------------


def test_an_empty_folder_is_said_to_hold_no_pictures(tmp_path, fedsim):
    (tmp_path / "empty").mkdir()
    ended = fedsim("run", "--data", tmp_path / "empty", *QUICK, "--output", tmp_path / "run")
    assert ended.code == 21
    assert "no pictures" in ended.err and ".png" in ended.err


def test_a_folder_that_does_not_exist_is_named(tmp_path, fedsim):
    ended = fedsim("run", "--data", tmp_path / "absent", *QUICK, "--output", tmp_path / "run")
    assert ended.code == 21
    assert "absent" in ended.err


def test_one_class_only_is_too_few(tmp_path, fedsim):
    pictures = folder_of(tmp_path / "pictures", per_class=3, classes=["dark"])
    ended = fedsim("run", "--data", pictures, *QUICK, "--output", tmp_path / "run")
    assert ended.code == 23
    assert "dark" in ended.err


def test_classes_that_differ_only_in_case_are_named(tmp_path, fedsim):
    pictures = folder_of(tmp_path / "pictures", per_class=3, classes=["dark", "light"])
    draw(pictures / "Dark" / "one.png", "dark", 99)
    if (pictures / "Dark").samefile(pictures / "dark"):
        pytest.skip("this file system does not tell upper from lower case")
    ended = fedsim("run", "--data", pictures, *QUICK, "--output", tmp_path / "run")
    assert ended.code == 23
    assert "Dark" in ended.err and "dark" in ended.err and "--classes" in ended.err


def test_the_list_of_classes_decides_which_pictures_count_and_which_are_missing(tmp_path, fedsim):
    pictures = folder_of(tmp_path / "pictures", per_class=5, classes=["dark", "light", "striped"])
    draw(pictures / "Dark" / "one.png", "dark", 99)
    listed = ("--classes", "light,dark,shiny=glossy")
    ended = fedsim("data", pictures, *listed, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["missing_classes"] == ["shiny"]
    assert {row["name"]: row["pictures"] for row in ended.json["classes"]} == {"light": 5, "dark": 6}
    assert [row["kind"] for row in ended.json["problems"] if row["left_out"]] == ["unknown class"] * 5

    ended = fedsim("run", "--data", pictures, *listed, *ONE_ROUND[:-1], "--output", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "left out striped/" in ended.err and "no pictures of shiny" in ended.err
    prepared = json.loads((tmp_path / "run" / "prepared.json").read_text())
    assert prepared["classes"] == ["light", "dark", "shiny"]
    assert (
        fedsim("run", "--data", pictures, "--classes", "dark,Dark", "--output", tmp_path / "two").code == 23
    )


def test_a_plant_that_would_have_no_pictures_is_named(tmp_path, pictures, fedsim):
    options = ("--scratch", "--model", "plain-cnn", "--size", 64, "--plants", 50)
    ended = fedsim("run", "--data", pictures, *options, "--output", tmp_path / "run")
    assert ended.code == 24
    assert "more would have no pictures" in ended.err and "fewer plants" in ended.err
    assert len(ended.err.splitlines()[0]) < 120


def test_a_plant_with_one_picture_takes_part_and_a_split_that_leaks_is_counted(tmp_path, pictures, fedsim):
    rows = []
    for at, name in enumerate(names(pictures)):
        plant, side = "small" if at == 1 else "large", "test" if at % 5 == 0 else "train"
        rows.append((name, name.split("/")[0], plant, side, f"pair {at // 2}"))
    manifest = manifest_of(pictures, tmp_path / "list.csv", rows, ["plant", "split", "group"])
    ended = fedsim(
        "run", "--data", pictures, "--manifest", manifest, "--split", "manifest", *ONE_ROUND,
        "--partition", "by-column", "--column", "plant", "--output", tmp_path / "run",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert ended.json["twins_in_training"] == 6  # every test picture has its neighbour in training
    assert '"num_examples": 1' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_bad_files_are_named_and_left_out_and_the_run_goes_on(tmp_path, fedsim):
    pictures = folder_of(tmp_path / "pictures", per_class=5)
    (pictures / "dark" / "text.png").write_text("this is no picture")
    draw(tmp_path / "whole.jpg", "light", 1)
    whole = (tmp_path / "whole.jpg").read_bytes()
    (pictures / "light" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    huge_png(pictures / "striped" / "huge.png", 30_000)
    ended = fedsim("run", "--data", pictures, *ONE_ROUND[:-1], "--output", tmp_path / "run")
    assert ended.code == 0, ended.err
    for name in ("dark/text.png: not a picture", "light/cut.jpg: truncated", "striped/huge.png: too large"):
        assert f"left out {name}" in " ".join(ended.err.split())
    assert json.loads((tmp_path / "run" / "prepared.json").read_text())["left_out"] == 3
    assert "accuracy" in ended.out and "report.html" in ended.out
    assert "defects at threshold 0.5" in ended.out and "--good" in ended.out


def test_escapes_and_false_rejects_are_counted_against_the_good_classes(tmp_path, pictures, fedsim):
    options = ("--data", pictures, *ONE_ROUND[:-1], "--threshold", 0.6)
    ended = fedsim("run", *options, "--good", "light", "--output", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "of 4 defects at threshold 0.6" in ended.out and "of 2 good ones" in ended.out
    assert fedsim("run", *options, "--good", "shiny", "--output", tmp_path / "two").code == 23
    assert not (tmp_path / "two").exists()


# -- the disk ----------------------------------------------------------------------------------------------


def test_a_place_that_may_not_be_written_to_is_said(pictures, fedsim):
    ended = fedsim("run", "--data", pictures, *QUICK, "--output", "/sys/fedsim-run")
    assert ended.code == 52
    assert "/sys/fedsim-run" in ended.err


def test_a_full_disk_ends_in_its_code_and_the_run_goes_on_when_there_is_space(
    tmp_path, pictures, environment, fedsim
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here; the next test limits the size of files instead")
    try:
        ended = fedsim("run", "--data", pictures, *ONE_ROUND, "--output", disk / "run")
        assert ended.code == 51
        assert ended.json["error"] == "DiskFullError"
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        ended = fedsim("run", "--resume", "--output", disk / "run", "--json")
        assert ended.code == 0, ended.err
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_file_that_cannot_grow_is_a_storage_error(tmp_path, pictures, environment):
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    ended = subprocess.run(
        [*FEDSIM, "run", "--data", pictures, *ONE_ROUND[:-1], "--output", tmp_path / "run"],
        env=environment, capture_output=True, text=True, preexec_fn=limit, check=False,
    )  # fmt: skip
    assert ended.returncode == 50, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list((tmp_path / "run").rglob(".writing-*"))


# -- the command itself ------------------------------------------------------------------------------------


def test_the_options_are_those_that_people_know(fedsim, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = fedsim("run", "--help").out
    options = """--data --manifest --classes --good --threshold --split --plants --partition --alpha --column
    --rounds --local-epochs --strategy --encoding --batch-norm --evaluate-every --backend --model --base
    --scratch --freeze-levels --size --seed --threads --device --config --set --output --resume --overwrite
    --json"""
    for option in options.split():
        assert option in text
    for panel in ("Pictures", "Plants", "Rounds", "Model", "Output"):
        assert panel in text


def test_help_shows_bounds_choices_and_defaults_as_they_are_typed(fedsim, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert "[default: 4]" in fedsim("run", "--help").out
    pretrain = fedsim("pretrain", "--help").out
    assert "2<=x<=10000" in pretrain and "1|3" in pretrain
    assert fedsim("pretrain", "--epochs", 1, "--output", "base").code == 2
    assert fedsim("pretrain", "--channels", 2, "--output", "base").code == 2


def test_drawn_surfaces_do_not_take_the_place_of_a_source_of_that_name(tmp_path, fedsim):
    (tmp_path / "synthetic" / "a").mkdir(parents=True)
    ended = fedsim("pretrain", tmp_path / "synthetic", "--synthetic", 3, "--output", tmp_path / "base")
    assert ended.code == 23 and str(tmp_path / "synthetic") in ended.err


def test_help_says_what_an_argument_is(fedsim, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert "Folder of pictures, or a CSV or Parquet list." in fedsim("data", "--help").out


def test_a_misspelt_command_is_suggested_once(fedsim):
    ended = fedsim("rn")
    assert ended.code == 2 and ended.err.count("Did you mean") == 1


def test_the_commands_are_those_that_people_know(fedsim):
    text = fedsim("--help").out
    for command in ("run", "compare", "data", "pretrain", "synth", "config"):
        assert f" {command} " in text


def test_help_and_completion_wait_for_neither_torch_nor_flower(environment):
    program = "import sys, fedsim.cli; print([name for name in ('torch', 'flwr') if name in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


def test_every_command_has_its_page():
    pages = Path(__file__).parents[2] / "docs" / "commands"
    for command in app.registered_commands:
        name = command.callback.__name__ if command.name is None else command.name
        page = (pages / f"fedsim-{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# fedsim {name}\n")
        assert f"(fedsim-{name}.md)" in (pages / "fedsim.md").read_text(encoding="utf-8")


def test_the_printed_settings_are_a_file_to_start_from(tmp_path, fedsim):
    ended = fedsim("config", "--set", "federation.rounds=3")
    assert ended.code == 0
    assert tomllib.loads(ended.out)["federation"]["rounds"] == 3
    path = tmp_path / "run.toml"
    path.write_text(ended.out)
    assert tomllib.loads(fedsim("config", "--config", path).out) == tomllib.loads(ended.out)


def test_an_unknown_key_of_a_file_suggests_the_nearest(tmp_path, fedsim):
    path = tmp_path / "run.toml"
    path.write_text("[federation]\nrouns = 3\n")
    ended = fedsim("run", "--config", path, "--output", tmp_path / "run")
    assert ended.code == 10
    assert "did you mean federation.rounds?" in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [("--strategy", "fedmagic", 2), ("--rounds", "many", 2), ("--nonsense", "1", 2), ("--alpha", "-1", 10)],
)
def test_a_wrong_option_is_refused_before_anything_is_written(option, value, code, tmp_path, fedsim):
    assert fedsim("run", option, value, "--output", tmp_path / "run").code == code
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--freeze-levels", "40"), 30),
        (("--scratch", "--model", "cdnv3"), 30),
        (("--scratch", "--model", "vit-b-16", "--size", "64"), 33),
        (("--base", "nowhere"), 32),
        (("--device", "cuda:99"), 10),
        (("--manifest", "absent.csv"), 10),
        (("--data", ".", "--manifest", "absent.csv"), 25),
        (("--partition", "by-column", "--column", "component"), 24),
    ],
)
def test_what_cannot_begin_is_said_before_anything_is_drawn_or_written(
    options, code, tmp_path, fedsim, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fedsim.prepare.draw_dataset", lambda *_, **__: pytest.fail("surfaces were drawn"))
    for command in ("run", "compare"):
        ended = fedsim(command, *options, "--output", tmp_path / "run")
        assert ended.code == code, ended.err
        assert (
            not (tmp_path / "run" / "federation").exists() and not (tmp_path / "run" / "config.toml").exists()
        )


def test_a_run_that_could_not_be_prepared_leaves_no_folder_in_the_way(tmp_path, pictures, fedsim):
    options = ("--data", pictures, *QUICK, "--output", tmp_path / "run")
    assert fedsim("run", *options, "--plants", 50).code == 24
    assert not (tmp_path / "run").exists()
    assert fedsim("run", *options, "--plants", 50).code == 24
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").touch()
    ended = fedsim("run", *options)
    assert ended.code == 61
    assert "--resume" in ended.err and "--overwrite" in ended.err


def test_an_unknown_architecture_is_a_model_error(tmp_path, pictures, fedsim):
    options = ("--scratch", "--model", "cdnv3", "--output", tmp_path / "run")
    ended = fedsim("run", "--data", pictures, *options)
    assert ended.code == 30
    assert "cdnv2" in ended.err


def test_a_damaged_base_model_is_named(tmp_path, pictures, fedsim):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "card.json").write_text("{}")
    ended = fedsim("run", "--data", pictures, "--base", tmp_path / "base", "--output", tmp_path / "run")
    assert ended.code == 32


def test_synthetic_surfaces_are_drawn_once_for_a_seed(tmp_path, fedsim):
    ended = fedsim("synth", tmp_path / "a", "--per-class", 2, "--size", 64, "--json")
    assert ended.code == 0 and ended.json["pictures"] == 2 * len(ended.json["classes"])
    assert fedsim("synth", tmp_path / "b", "--per-class", 2, "--size", 64).code == 0
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_scenes_are_drawn_in_colour_and_the_six_classes_are_not(tmp_path, fedsim):
    scenes = ("synth", tmp_path / "a", "--scenes", "--per-class", 1, "--size", 32, "--channels", 3, "--json")
    ended = fedsim(*scenes)
    assert ended.code == 0 and ended.json["pictures"] == len(ended.json["classes"]) == len(
        names(tmp_path / "a")
    )
    assert fedsim("synth", tmp_path / "b", "--channels", 3).code == 10


def test_as_a_process_it_says_its_version_and_offers_completion(environment):
    ended = subprocess.run(
        [*FEDSIM, "--version"], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip().rsplit(" ", 1)[-1][0].isdigit()
    shell = {**environment, "_FEDSIM_COMPLETE": "complete_bash", "COMP_WORDS": "fedsim ru", "COMP_CWORD": "1"}
    program = "import sys; sys.argv[0] = 'fedsim'; from fedsim.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=shell, capture_output=True, text=True, check=False
    )
    assert ended.stdout.split() == ["run"], os.linesep.join((ended.stdout, ended.stderr))
