"""Gate report: the decision with reasons as sentences, and the figures. Nothing is measured here.

Four questions. Are all answers numbers? Does the engine answer what the trained model answers? Is it not worse
than the current engine on the golden pictures, escapes counted apart from false rejects and from pictures of
which a person is asked? Is it quick enough? What becomes of a piece is what the line itself makes of the answer.

Shapes: N pictures, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from fedclient.worker.engines.model import softmax
from fedclient.worker.gate.evidence import Answers, Evidence
from fedclient.worker.gate.settings import GateSettings
from fedclient.worker.golden.pictures import without_pictures
from fedclient.worker.line.decision_policy import ASK, PASS, REJECT, DecisionPolicy
from fedclient.worker.line.settings import VerdictSettings

NOTHING_PASSES = (
    "no class is good, so nothing passes on this line: escapes and false rejects are not counted"
    " (`fedclient thresholds --good CLASS` names one)"
)


@dataclass(frozen=True)
class GateReport:
    """``passed`` where there is no reason against the candidate."""

    reasons: Tuple[str, ...]
    figures: Dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the line may run it."""
        return not self.reasons


def decide(evidence: Evidence, settings: GateSettings, line: VerdictSettings) -> GateReport:
    """Compare the evidence with the limits; ``line`` says which classes are good and how sure an answer must be.

    Raises:
        SettingsError: the line's settings name a class that is not among the classes.

    """
    DecisionPolicy(line, evidence.candidate.classes)  # a mistake there is not the candidate's
    figures: Dict[str, Any] = {
        "pictures": len(evidence.labels),
        "engine": {"kind": evidence.kind, "precision": evidence.precision},
        "remarks": [*evidence.remarks, *_unproved(evidence)],
    }
    reasons = _numbers(evidence, figures)
    if not reasons:
        reasons += _agreement(evidence, settings, figures)
        reasons += _quality(evidence, settings, line, figures)
        reasons += _latency(evidence, settings, figures)
    if not evidence.labels and settings.without_pictures == "refuse":
        reasons.append('there is no golden picture, and without_pictures = "refuse" lets no engine in then')
    return GateReport(tuple(reasons), figures)


def _unproved(evidence: Evidence) -> List[str]:
    """Classes without golden pictures."""
    missing = without_pictures(evidence.candidate.classes, evidence.labels)
    return [f"classes without a golden picture, unproved: {', '.join(missing)}"[:300]] if missing else []


def _numbers(evidence: Evidence, figures: Dict[str, Any]) -> List[str]:
    candidate = evidence.candidate
    if candidate.fault:
        return [f"the engine fails: {candidate.fault}"]
    for whose, answers in (("the engine", candidate), ("the trained model", evidence.trained)):
        bad = int((~np.isfinite(answers.logits)).any(axis=1).sum())
        if bad:
            figures["not_finite"] = bad
            return [
                f"{whose} answers {bad} of {len(answers.logits)} pictures with something that is no number"
            ]
    return []


def _agreement(evidence: Evidence, settings: GateSettings, figures: Dict[str, Any]) -> List[str]:
    """The engine beside the trained model, on golden and drawn pictures; verdicts per class on golden ones."""
    trained, candidate = evidence.trained.logits, evidence.candidate.logits
    half = evidence.precision == "float16"
    tolerance = settings.logits_tolerance_float16 if half else settings.logits_tolerance
    golden = len(evidence.labels)
    scale = max(float(np.abs(trained[:golden] if golden else trained).max()), 1e-6)
    parts = [part for part in (slice(0, golden), slice(golden, None)) if len(trained[part])]
    difference = max(_difference(candidate[part], trained[part]) for part in parts)
    figures["agreement"] = {"logits_difference": difference, "tolerance": tolerance}
    reasons = []
    if difference > tolerance:
        reasons.append(
            "the engine does not compute what the trained model does: logits differ by up to"
            f" {difference:.1e} of their scale, {tolerance:.1e} is allowed"
        )
    same = (trained[:golden].argmax(1) == candidate[:golden].argmax(1)) | (
        _margin(trained[:golden]) <= 2 * tolerance * scale  # a tie, as far as the tolerance can tell
    )
    figures["agreement"]["same_verdict"] = int(same.sum())
    labels = np.asarray(evidence.labels)
    per_class: Dict[str, Dict[str, int]] = {}
    for name in sorted(set(evidence.labels)):
        of_class = labels == name
        agree, count = int(same[of_class].sum()), int(of_class.sum())
        per_class[name] = {"pictures": count, "same_verdict": agree}
        if agree < count:
            reasons.append(
                f"class {name}: the engine calls {count - agree} of {count} golden pictures otherwise than the"
                " trained model"
            )
    figures["classes"] = per_class
    return reasons


def _quality(
    evidence: Evidence, settings: GateSettings, line: VerdictSettings, figures: Dict[str, Any]
) -> List[str]:
    """The engine beside the current one, on golden pictures whose class both know."""
    if not evidence.labels:
        return []
    candidate, current = evidence.candidate, evidence.current
    if current is not None and (current.fault or not np.isfinite(current.logits).all()):
        figures["remarks"].append(
            f"the current engine is not compared, it fails: {current.fault or 'no numbers'}"[:300]
        )
        current = None
    mine = _counted(candidate, evidence.labels, line)
    figures["candidate"] = mine
    if mine["escapes"] is None:
        figures["remarks"].append(NOTHING_PASSES)
    for name, right in mine.pop("right_by_class").items():
        figures["classes"][name]["right"] = right
    reasons = []
    if mine["balanced_accuracy"] < settings.lowest_accuracy:
        reasons.append(
            f"{mine['right']} of {mine['pictures']} golden pictures are called right, on average"
            f" {mine['balanced_accuracy']:.0%} of a class; at least {settings.lowest_accuracy:.0%} is asked for"
        )
    if current is None:
        figures["current"] = None
        return reasons
    both = [each if each in current.classes else "" for each in evidence.labels]
    mine, theirs = _counted(candidate, both, line), _counted(current, both, line)
    for name, right in theirs.pop("right_by_class").items():
        figures["classes"][name]["right_before"] = right
    figures["current"] = theirs
    pictures, good = mine["pictures"], mine["good"]
    if mine["escapes"] is not None and theirs["escapes"] is not None:
        reasons += _worse(
            mine["escapes"],
            theirs["escapes"],
            settings.more_escapes,
            "{} golden pictures with a defect would pass, {} with the current engine; {} more are allowed",
        )
        reasons += _worse(
            mine["false_rejects"],
            theirs["false_rejects"],
            max(1, int(settings.more_false_rejects * good)),
            "{} good golden pictures would be rejected, {} with the current engine; {} more are allowed",
        )
    reasons += _worse(
        mine["asked"],
        theirs["asked"],
        max(1, int(settings.more_asked * pictures)),
        f"of {{}} of {pictures} golden pictures a person would be asked, of {{}} with the current engine;"
        " {} more are allowed",
    )
    reasons += _worse(
        pictures - mine["right"],
        pictures - theirs["right"],
        max(1, int(settings.more_wrong * pictures)),
        f"{{}} of {pictures} golden pictures are called wrong, {{}} with the current engine; {{}} more are allowed",
    )
    return reasons


def _latency(evidence: Evidence, settings: GateSettings, figures: Dict[str, Any]) -> List[str]:
    """The limit is for what a picture usually takes on this device, whatever else that does; the two engines are
    compared by their quickest answers, since other work makes an answer slower and never quicker.
    """

    def milliseconds(
        answers: Optional[Answers], which: Callable[[Sequence[float]], float]
    ) -> Optional[float]:
        return None if answers is None or not answers.seconds else round(1e3 * which(answers.seconds), 3)

    candidate, current = evidence.candidate, evidence.current
    mine, theirs = milliseconds(candidate, median), milliseconds(current, median)
    quickest, their_quickest = milliseconds(candidate, min), milliseconds(current, min)
    limit = settings.latency_limit_ms
    figures["latency_ms"] = {
        "candidate": mine,
        "current": theirs,
        "quickest": {"candidate": quickest, "current": their_quickest},
        "limit": limit,
    }
    runs = len(candidate.seconds)
    reasons = []
    if mine is None or quickest is None:
        return ["the engine answered no picture while it was timed"]
    if limit is not None and mine > limit:
        reasons.append(f"a picture takes {mine:.1f} ms (median of {runs}), {limit:.1f} ms is the limit")
    if their_quickest is not None and quickest > settings.slower * their_quickest:
        reasons.append(
            f"a picture takes {quickest:.1f} ms (quickest of {runs}), {their_quickest:.1f} ms with the current"
            f" engine; {settings.slower:g} times as long is allowed"
        )
    return reasons


def _worse(mine: int, theirs: int, more: int, sentence: str) -> List[str]:
    return [sentence.format(mine, theirs, more)] if mine > theirs + more else []


def _counted(answers: Answers, labels: Sequence[str], line: VerdictSettings) -> Dict[str, Any]:
    """Right answers, and what the line would make of them; a label that the model does not know is left out.

    Without a good class escapes and false rejects are None: nothing passes, and no piece is good.
    """
    places = {name: place for place, name in enumerate(answers.classes)}
    truth = np.asarray([places.get(each, -1) for each in labels], dtype=np.int64)
    logits = answers.logits[: len(truth)]
    policy = DecisionPolicy(_known(line, answers.classes), answers.classes)
    outcomes = np.asarray([each.outcome for each in policy.by_confidence(softmax(logits))])
    known = truth >= 0
    right = (logits.argmax(1) == truth) & known
    by_class = {
        name: (int(right[truth == place].sum()), int((truth == place).sum()))
        for name, place in places.items()
    }
    good = policy.good[truth] & known
    shares = [hits / count for hits, count in by_class.values() if count]
    return {
        "pictures": int(known.sum()),
        "right": int(right.sum()),
        "balanced_accuracy": float(np.mean(shares)) if shares else 1.0,
        "escapes": int((known & ~good & (outcomes == PASS)).sum()) if policy.good.any() else None,
        "false_rejects": int((good & (outcomes == REJECT)).sum()) if policy.good.any() else None,
        "asked": int((known & (outcomes == ASK)).sum()),
        "good": int(good.sum()),
        "right_by_class": {name: hits for name, (hits, count) in by_class.items() if count},
    }


def _known(line: VerdictSettings, classes: Sequence[str]) -> VerdictSettings:
    """The line's settings as far as a model with these classes can follow them."""
    return line.model_copy(
        update={
            "good_classes": [name for name in line.good_classes if name in classes],
            "sure_of": {name: value for name, value in line.sure_of.items() if name in classes},
        }
    )


def _difference(logits: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference as a share of the reference's largest logit."""
    scale = max(float(np.abs(reference).max()), 1e-6)
    return float(np.abs(logits - reference).max()) / scale


def _margin(logits: np.ndarray) -> np.ndarray:
    """How far the likeliest class is ahead of the next: (N,)."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    ordered = np.sort(logits, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])
