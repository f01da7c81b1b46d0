"""What `fedclient engines list` prints: deployments with what the gate measured, engines, the history."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedspect.console import print_table
from fedspect.errors import FedspectError

if TYPE_CHECKING:
    from fedclient.worker.deployments import Deployment, Deployments, Entry


def show_history(entries: Sequence[Entry]) -> None:
    """Every decision in a table."""
    columns = ("when", "what", "number", "version", "who", "why", "figures")
    rows = [
        (
            _when(each.at),
            each.event + (" by force" if each.forced else ""),
            each.number,
            each.version[:12],
            each.who,
            each.why,
            _measured(each.figures),
        )
        for each in entries
    ]
    print_table("History", columns, rows)


def show_deployments(
    made: Sequence[Deployment], faults: Sequence[str | None], current: Deployment | None
) -> None:
    """The deployments; ``faults`` says of each why the line could not run it."""
    headings = ("deployment", "state", "right", "escapes", "false rejects", "asked", "ms", "added")
    rows = [_row(each, current, fault) for each, fault in zip(made, faults)]
    caption = "the line runs none of them yet" if current is None else _caption(current)
    print_table("Deployments", headings, rows, caption=caption)


def show_engines(engines: Sequence[Any], deployments: Deployments) -> None:
    """The engines in the store, if there are any."""
    facts = [engine_facts(each, deployments) for each in engines]
    if not facts:
        return
    rows = [
        (
            each["id"],
            each["part"],
            each["kind"],
            each["precision"],
            f"{each['bytes'] / 1e6:.1f}",
            "yes" if each["in_use"] else "",
        )
        for each in facts
    ]
    print_table("Engines", ("engine", "part", "kind", "precision", "MB", "kept for the line"), rows)


def engine_facts(stored: Any, deployments: Deployments) -> dict[str, Any]:
    """An engine as JSON values."""
    try:
        in_use = stored.id in deployments.engines_in_use()
    except FedspectError:
        in_use = False
    return {
        "id": stored.id,
        "part": stored.sidecar.get("part"),
        "kind": stored.key.kind,
        "precision": stored.key.precision,
        "bytes": stored.sidecar.get("bytes", 0),
        "in_use": in_use,
    }


def _row(deployment: Deployment, current: Deployment | None, fault: str | None) -> tuple[object, ...]:
    figures: dict[str, Any] = deployment.figures
    mine = figures.get("candidate") or {}
    sign = "> " if current is not None and current.id == deployment.id else "  "
    return (
        sign + deployment.id,
        deployment.state if fault is None else f"{deployment.state}, engines gone or damaged",
        f"{mine['right']} of {mine['pictures']}" if mine else "",
        *("" if mine.get(name) is None else mine[name] for name in ("escapes", "false_rejects", "asked")),
        (figures.get("latency_ms") or {}).get("candidate") or "",
        _when(deployment.added_at),
    )


def _caption(current: Deployment) -> str:
    said = f"the line runs {current.id}, since {_when(current.activated_at)}"
    latency = current.figures.get("latency_ms") or {}
    if latency and latency.get("limit") is None:
        said += "; no limit of milliseconds is set (latency_limit_ms in engines.toml)"
    return said


def _measured(figures: dict[str, Any]) -> str:
    """What the gate measured, as one line."""
    mine = figures.get("candidate") or {}
    said = [f"{mine['right']} of {mine['pictures']} right"] if mine else []
    for name in ("escapes", "false_rejects", "asked"):
        if mine.get(name) is not None:
            said.append(f"{mine[name]} {name.replace('_', ' ')}")
    milliseconds = (figures.get("latency_ms") or {}).get("candidate")
    return ", ".join([*said, *([] if milliseconds is None else [f"{milliseconds} ms"])])


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
