"""The rows of docs/results.md: runs the commands behind them and writes the table anew.

    python benchmarks/results.py --data ../shared/data run neu-grouped --seeds 1 2 3
    python benchmarks/results.py table

Each row is a ``fedsim`` command as a user would type it, run once a seed in its own process. What it reached
is kept in ``docs/results.json`` (a measured row is not run again unless its command changes; until then what the
earlier command reached stays in the table, and is marked there); the tables are made from that.
The base models of the ablations are made first:

    fedsim pretrain DATA/xsdd --synthetic 150 --training-size 112 --epochs 35 --threads 1 --output BASES/a
    fedsim pretrain --synthetic 300 --training-size 112 --epochs 35 --threads 1 --output BASES/a-without-xsdd
    fedsim pretrain DATA/xsdd --synthetic 150 --training-size 112 --epochs 35 --threads 1 --model cdnv2-b \
        --output BASES/b
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import scipy.stats

from fedspect.files import write_json
from fedspect.locking import exclusive
from result_rows import ROWS, Row

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "docs" / "results.json", ROOT / "docs" / "results.md"
BEGIN, END = "<!-- table: made by benchmarks/results.py -->", "<!-- end of the table -->"
CLASS_FIGURES = ("precision", "recall", "f1")
MISSED = 0.9
"""A plant misses a class of which it recalls less than this."""


def arguments_of(row: Row, data: Path, made: Path, bases: Path, seed: int, output: Path) -> list[str]:
    """The command line of a row, as a list."""
    text = row.command.format(data=data, made=made, bases=bases)
    return ["fedsim", *shlex.split(text), "--threads", "1", "--seed", str(seed), "--output", str(output)]


def shown_command(row: Row, seed: int) -> str:
    """A row's command as the page shows it."""
    return shlex.join(arguments_of(row, Path("DATA"), Path("MADE"), Path("BASES"), seed, Path("OUT")))


def measure(name: str, seed: int, data: Path, work: Path, bases: Path) -> None:
    """Run one row with one seed and keep what it reached."""
    row = ROWS[name]
    kept = read_kept()
    shown = shown_command(row, seed)
    if any(each["row"] == name and each["command"] == shown for each in kept):
        print(f"{name} seed {seed}: measured before")
        return
    output, made = work / f"{name}-{seed}", work / "made" / row.made
    if row.prepare is not None and not made.exists():
        row.prepare(data, made)
    command = [*arguments_of(row, data, made, bases, seed, output), "--set", f"cache_folder={work / 'cache'}"]
    command[0] = str(Path(sys.executable).parent / "fedsim")
    if (output / "federation" / "config.toml").exists():
        command = [command[0], "compare", "--resume", "--output", str(output)]
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    arms = read_arms(output, row)
    entry = {
        "row": name,
        "seed": seed,
        "command": shown,
        "arms": arms,
        "seconds": round(time.monotonic() - started),
    }
    work.mkdir(parents=True, exist_ok=True)
    with exclusive(work / "results.lock"):  # rows may be measured side by side
        others = [each for each in read_kept() if (each["row"], each["seed"]) != (name, seed)]
        write_json(KEPT, [*others, entry])
    print(f"{name} seed {seed}: {arms}", flush=True)


def read_arms(output: Path, row: Row) -> dict[str, Any]:
    """What each arm reached, and its seconds; of plants alone lists, a plant each."""
    found: dict[str, Any] = {}
    if "together" in row.arms:
        arm = json.loads((output / "together.json").read_text())
        found["together"] = {**reached(arm["evaluation"]), "seconds": arm["seconds"]}
    if "federation" in row.arms:
        evaluation = json.loads((output / "federation" / "evaluation.json").read_text())["evaluation"]
        seconds = json.loads((output / "federation" / "run.json").read_text())["seconds"]
        found["federation"] = {**reached(evaluation), "seconds": seconds}
    if "alone" in row.arms:
        arms = [json.loads(path.read_text()) for path in sorted((output / "alone").glob("*.json"))]
        plants = [reached(arm["evaluation"]) for arm in arms]
        found["alone"] = {
            **{figure: [plant[figure] for plant in plants] for figure in plants[0]},
            "seconds": sum(arm["seconds"] for arm in arms),
        }
    return found


def reached(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What counts of an evaluation: accuracy, what the line would do, and by class what the paper's table has."""
    by_class = {
        figure: {each["name"]: each[figure] for each in evaluation["classes"]} for figure in CLASS_FIGURES
    }
    return {"accuracy": evaluation["accuracy"], "line": evaluation["line"], **by_class}


def read_kept() -> list[dict[str, Any]]:
    """Everything measured so far."""
    return json.loads(KEPT.read_text()) if KEPT.exists() else []


def table() -> str:
    """The table of docs/results.md from everything measured."""
    lines = [
        "| data and setting | arm | accuracy by seed | mean ± s.d. | goal | minutes |",
        "|---|---|---|---|---|---|",
    ]
    kept = read_kept()
    for name, row in ROWS.items():
        measured = sorted((each for each in kept if each["row"] == name), key=lambda each: each["seed"])
        earlier = any(each["command"] != shown_command(row, each["seed"]) for each in measured)
        title = f"{row.title} \\*" if earlier else row.title
        for arm, goal in row.arms.items():
            results = [each["arms"][arm] for each in measured if arm in each["arms"]]
            if results:
                lines.append(f"| {title} | {ARMS[arm]} | {figures(results)} | {goal} | {minutes(results)} |")
    if any("\\*" in line for line in lines):
        lines += [
            "",
            "\\* measured, at least in part, with an earlier command than the row's; to be run again.",
        ]
    return "\n".join([*lines, "", *by_class(kept), *paired(kept), *joining(kept), "", *commands()])


ARMS = {"together": "all pictures in one place", "federation": "federation", "alone": "each plant alone"}


def figures(results: list[dict[str, Any]]) -> str:
    """Two cells: the figures by seed, and their mean and spread."""
    values = [each["accuracy"] for each in results]
    if isinstance(values[0], list):
        cells = "; ".join(" ".join(f"{100 * value:.1f}" for value in plants) for plants in values)
        best = statistics.mean(max(plants) for plants in values)
        return f"{cells} | best plant {100 * best:.1f} %"
    cells = " ".join(f"{100 * value:.2f}" for value in values)
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{cells} | {100 * statistics.mean(values):.2f}{spread} %"


def by_class(kept: list[dict[str, Any]]) -> list[str]:
    """Precision, recall and F1 by class and the line's figures, of rows whose entries have them: means over seeds."""
    lines = []
    for name, row in ROWS.items():
        for arm in [arm for arm in row.arms if arm != "alone"]:
            results = [each["arms"][arm] for each in kept if each["row"] == name and arm in each["arms"]]
            results = [each for each in results if "precision" in each]
            for label in results[0]["precision"] if results else ():
                cells = (mean_percent([each[figure][label] for each in results]) for figure in CLASS_FIGURES)
                lines.append(f"| {row.title} | {ARMS[arm]} | {label} | {' | '.join(cells)} |  |")
            if results:
                means = [
                    mean_percent([mean_of(each[figure]) for each in results]) for figure in CLASS_FIGURES
                ]
                line = on_the_line([each["line"] for each in results])
                lines.append(f"| {row.title} | {ARMS[arm]} | mean | {' | '.join(means)} | {line} |")
    if not lines:
        return []
    head = "| data and setting | arm | class | precision | recall | F1 | on the line, all seeds together |"
    return [head, "|---|---|---|---|---|---|---|", *lines, ""]


def mean_of(by_label: dict[str, float | None]) -> float | None:
    """The mean over the classes of which there is a figure."""
    known = [value for value in by_label.values() if value is not None]
    return statistics.mean(known) if known else None


def mean_percent(values: list[float | None]) -> str:
    """A mean over seeds in percent; those without a figure are left out."""
    known = [value for value in values if value is not None]
    return f"{100 * statistics.mean(known):.2f} %" if known else "–"


def on_the_line(lines: list[dict[str, Any]]) -> str:
    """Escapes and false rejects, added up."""
    escapes, defects = sum(each["escapes"] for each in lines), sum(each["defects"] for each in lines)
    text = f"{escapes} of {defects} defects escape at {lines[0]['threshold']:g}"
    if lines[0]["false_rejects"] is None:
        return text
    rejects, good = sum(each["false_rejects"] for each in lines), sum(each["good"] for each in lines)
    return f"{text}, {rejects} of {good} good pieces rejected"


def minutes(results: list[dict[str, Any]]) -> str:
    """Mean minutes of a run."""
    return f"{statistics.mean(each['seconds'] for each in results) / 60:.1f}"


def paired(kept: list[dict[str, Any]]) -> list[str]:
    """Federation minus all in one place, by seed: same split, same base, same plants."""
    lines = []
    for name, row in ROWS.items():
        pairs = [
            each["arms"]["federation"]["accuracy"] - each["arms"]["together"]["accuracy"]
            for each in kept
            if each["row"] == name and {"federation", "together"} <= set(each["arms"])
        ]
        if pairs:
            by_seed = ", ".join(f"{100 * value:+.2f}" for value in pairs)
            mean = 100 * statistics.mean(pairs)
            lines.append(
                f"- {row.title}: federation minus all in one place {by_seed} "
                f"(mean {mean:+.2f} points{interval([100 * value for value in pairs])})"
            )
    return lines


def interval(values: list[float]) -> str:
    """Where the mean of such values lies with 95 % confidence, by Student's t over the seeds."""
    if len(values) < 2:
        return "; one seed gives no interval"
    mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * error
    return f"; 95 % interval over {len(values)} seeds {mean - reach:+.2f} to {mean + reach:+.2f}"


def joining(kept: list[dict[str, Any]]) -> list[str]:
    """The federation against plants alone, by seed: over all classes, and on those that the worst plant misses."""
    federated = {each["seed"]: each["arms"]["federation"] for each in kept if each["row"] == "neu-grouped"}
    lines = []
    for each in sorted(kept, key=lambda each: each["seed"]):
        if each["row"] != "neu-alone" or each["seed"] not in federated:
            continue
        federation, alone = federated[each["seed"]], each["arms"]["alone"]
        best = max(range(len(alone["accuracy"])), key=lambda place: alone["accuracy"][place])
        worst = min(range(len(alone["accuracy"])), key=lambda place: alone["accuracy"][place])
        missed = [name for name, recall in alone["recall"][worst].items() if recall < MISSED]
        means = [
            100 * statistics.mean(recall[name] for name in missed)
            for recall in (alone["recall"][worst], alone["recall"][best], federation["recall"])
        ]
        over_all = 100 * (federation["accuracy"] - alone["accuracy"][best])
        lines.append(
            f"- joining, seed {each['seed']}: the federation is {over_all:+.1f} points over the best single plant and "
            f"{100 * (federation['accuracy'] - alone['accuracy'][worst]):+.1f} over the worst; on what the worst plant "
            f"misses ({', '.join(missed)}) the recalls of the worst plant, the best plant and the federation are "
            f"{means[0]:.1f}, {means[1]:.1f} and {means[2]:.1f} %"
        )
    return lines


def commands() -> list[str]:
    """The command behind each row that was measured, with the row's name and what MADE stands for."""
    kept = {each["row"]: each["command"] for each in read_kept()}
    lines = []
    for name, row in ROWS.items():
        if name in kept:
            lines += ["", f"# {name}: {row.title}", *([f"# MADE: {row.how}"] if row.how else []), kept[name]]
    return ["```", *lines[1:], "```"]


def main() -> None:
    """Run rows, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument(
        "--bases", type=Path, default=ROOT / "runs" / "bases", help="base models of ablations"
    )
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    if given.action == "run":
        for seed in given.seeds:
            for name in given.rows or ROWS:
                measure(name, seed, given.data, given.work, given.bases)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
