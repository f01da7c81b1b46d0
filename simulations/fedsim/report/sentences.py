"""Result sentences of a run and a comparison; numbers are formatted by ``fedspect.report``."""

from __future__ import annotations

from fedsim.report.model import Comparison, RunSummary, weakest_class
from fedspect.report.formatting import MISSING as MISSING
from fedspect.report.formatting import count as count
from fedspect.report.formatting import duration as duration
from fedspect.report.formatting import likely_range as likely_range
from fedspect.report.formatting import listed as listed
from fedspect.report.formatting import moment as moment
from fedspect.report.formatting import number as number
from fedspect.report.formatting import percent as percent
from fedspect.report.formatting import plural as plural
from fedspect.report.formatting import points as points
from fedspect.report.formatting import size as size
from fedspect.training.metrics import Evaluation


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
