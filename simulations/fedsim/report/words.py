"""Numbers and findings as people say them.

Every number of a report passes through here, so that the same thing reads the same everywhere and a missing
value is a dash, never ``None`` or ``nan``.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Optional

from fedsim.report.model import Comparison, RunSummary, weakest_class
from fedspect.training.metrics import Evaluation

MISSING = "–"
_SURE = 1.959964  # standard normal quantile of a 95 % interval


def percent(share: Optional[float], digits: int = 1) -> str:
    """0.9721 as ``97.2 %`` (with a narrow no-break space)."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{100 * share:.{digits}f}\u202f%"


def points(difference: Optional[float], digits: int = 1) -> str:
    """A difference of two shares with its sign: 0.034 as ``+3.4``."""
    if difference is None or not math.isfinite(difference):
        return MISSING
    text = f"{100 * difference:+.{digits}f}"
    return text.replace("-", "−") if float(text) else f"±{0:.{digits}f}"


def number(value: Optional[float], digits: int = 3) -> str:
    """A plain number with a fixed count of decimals."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def count(value: Optional[int]) -> str:
    """12345 as ``12,345``."""
    return MISSING if value is None else f"{value:,}"


def size(amount: Optional[float]) -> str:
    """Bytes in the unit that suits: ``912 B``, ``48.3 kB``, ``2.5 MB``."""
    if amount is None:
        return MISSING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000 or unit == "GB":
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.{0 if abs(amount) >= 100 else 1}f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def duration(seconds: Optional[float]) -> str:
    """Seconds as ``0.4 s``, ``48 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def likely_range(correct: int, total: int) -> Optional[tuple[float, float]]:
    """The 95 % interval of a share after Wilson (1927); None for no pictures."""
    if total <= 0:
        return None
    share, square = correct / total, _SURE**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = _SURE / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def moment(when: Optional[datetime]) -> str:
    """A date and time of day, in the zone that it was written in."""
    return "" if when is None else f"{when.day} {when:%B %Y, %H:%M}"


def plural(amount: int, one: str, many: Optional[str] = None) -> str:
    """``1 plant``, ``4 plants``."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""


def summary_sentences(run: RunSummary) -> list[str]:
    """What came out, in two or three sentences that need no machine learning to understand."""
    done, planned = len(run.rounds), run.facts.rounds
    plants = plural(len(run.plant_names), "plant")
    went = {
        "finished": f"{plants} trained one model together in {plural(done, 'round')}.",
        "running": f"{plants} are training one model together: {done} of {plural(planned, 'round')} done.",
        "interrupted": f"{plants} were training one model together when the run was stopped after "
        f"{done} of {plural(planned, 'round')}.",
        "failed": f"{plants} were training one model together; the run ended early, after "
        f"{done} of {plural(planned, 'round')}.",
    }
    sentences = [went[run.facts.state]]
    if run.final is not None:
        sentences.append(_result_sentence(run.final))
    travelled = sum(closed.bytes_up + closed.bytes_down for closed in run.rounds)
    if travelled:
        sentences.append(
            f"No picture left its plant; {size(travelled)} of numbers travelled, in all rounds together."
        )
    return sentences


def _result_sentence(final: Evaluation) -> str:
    named = (
        f"Of {plural(final.num_examples, 'picture')} that no plant trained with, the model names the class "
        f"of {count(round(final.accuracy * final.num_examples))} rightly: {percent(final.accuracy)}"
    )
    weakest = weakest_class(final)
    if weakest is None or weakest[1] >= 1.0:
        return named + "."
    return f"{named}. It finds {weakest[0]} least well ({percent(weakest[1])} of them)."


def gain_sentence(comparison: Comparison) -> str:
    """What joining gained, in two sentences."""
    joined = comparison.federation.evaluation.accuracy
    gains = sorted(joined - arm.evaluation.accuracy for arm in comparison.alone)
    if not gains:
        return ""
    where = "of accuracy on the same test pictures."
    least, most = points(gains[0]), points(gains[-1])
    if gains[0] <= 0:
        winners = sum(gain > 0 for gain in gains)
        text = (
            f"Joining gained {winners or 'none'} of {plural(len(gains), 'plant')}; the differences lie "
            f"between {least} and {most} points {where}"
        )
    elif len(gains) == 1:
        text = f"Joining gained the plant {least[1:]} points {where}"
    else:
        text = f"Joining gained every plant between {least[1:]} and {most[1:]} points {where}"
    if comparison.together is None:
        return text
    rest = comparison.together.evaluation.accuracy - joined
    comparative = "more" if rest > 0 else "less"
    return f"{text} With all pictures in one place it would be {points(abs(rest))[1:]} points {comparative}."
