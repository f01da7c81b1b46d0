"""Status texts: rounds and versions in words, as `fedclient status` and the view of `fedclient join` say them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fedspect.report.formatting import plural


def round_text(facts: Mapping[str, Any]) -> str:
    """The round in words: which of how many, how good what was received is here, how training went."""
    parts = [f"round {facts['round']} of {facts['of']}"]
    if not facts.get("trains", True):
        parts = [f"the closing evaluation after {plural(int(facts['round']) - 1, 'round')}"]
    if facts.get("accuracy") is not None:
        parts.append(f"accuracy of what was received {100 * float(facts['accuracy']):.1f} %")
    if facts.get("loss") is not None:
        parts.append(f"training loss {float(facts['loss']):.3f}")
    if facts.get("seconds") is not None:
        parts.append(f"{float(facts['seconds']):.0f} s")
    return ", ".join(parts)


def version_texts(line: Mapping[str, Any] | None, offered: Mapping[str, Any] | None) -> list[str]:
    """What the line runs, and what became of the published version where that is another one."""
    texts = []
    if line is not None:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(line["at"])))
        texts.append(f"on the line: version {line['number']} ({str(line['version'])[:12]}) since {since}")
    if offered is not None and (line is None or offered["version"] != line["version"]):
        why = f": {plain(str(offered['why']))}" if offered.get("why") else ""
        texts.append(
            f"published: version {offered['number']} ({offered['version'][:12]}), {offered['outcome']}{why}"
        )
    return texts


def plain(text: str) -> str:
    """The text without line breaks, tabs or control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
