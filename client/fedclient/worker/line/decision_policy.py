"""Decision policy: from probabilities to a verdict: the piece passes, is rejected, or a person is asked (`ask`).

The most probable class names the side: good or not. A piece passes when the probabilities of all good classes
together reach the threshold of that class, and is rejected when those of all others do: two kinds of defect
that cannot be told apart make a piece no better. Without a good class the most probable class alone must reach
its threshold, and nothing passes. Whatever reaches no threshold is a person's to decide, and so is every picture
that a guard doubts.

Shapes: N pictures, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

import numpy as np

from fedclient.worker.engines.model import LineAnswer
from fedclient.worker.line.input_guard import Doubts, Guard, InputBatch
from fedclient.worker.line.settings import SETTINGS_FILE, VerdictSettings
from fedspect.errors import SettingsError, did_you_mean

PASS, REJECT, ASK = "pass", "reject", "ask"
OUTCOMES = (PASS, REJECT, ASK)


@dataclass(frozen=True)
class Verdict:
    """The answer for one picture."""

    outcome: str
    """"pass", "reject" or "ask"."""
    label: str
    """The most probable class."""
    confidence: float
    """Its probability."""
    probabilities: Tuple[float, ...]
    """One per class, in the model's order."""
    reasons: Doubts = ()
    """Why a person is asked, whatever the probabilities are."""

    def as_dict(self, classes: Sequence[str]) -> Dict[str, Any]:
        """For a JSON line."""
        reasons: Dict[str, Any] = {"reasons": list(self.reasons)} if self.reasons else {}
        return {
            "verdict": self.outcome,
            "class": self.label,
            "confidence": round(self.confidence, 6),
            "probabilities": {name: round(value, 6) for name, value in zip(classes, self.probabilities)},
            **reasons,
        }


class DecisionPolicy:
    """The thresholds of one list of classes, and the guards that are asked beside them."""

    def __init__(
        self, settings: VerdictSettings, classes: Sequence[str], guards: Sequence[Guard] = ()
    ) -> None:
        """See that every class that the settings name exists.

        Raises:
            SettingsError: one does not.

        """
        refuse_unknown([*settings.good_classes, *settings.sure_of], classes, SETTINGS_FILE)
        self.classes = tuple(classes)
        self.guards = tuple(guards)
        self.good = np.array([name in settings.good_classes for name in classes], dtype=bool)
        self.sure = np.array([settings.sure_of.get(name, settings.sure) for name in classes])

    def decide(self, batch: InputBatch, answer: LineAnswer) -> List[Verdict]:
        """One verdict per picture; what was doubtful when it was read, or what a guard doubts, is asked about."""
        doubts = [guard.doubts(batch, answer) for guard in self.guards] or [batch.doubts]
        found = []
        for verdict, *reasons in zip(self.by_confidence(answer.probabilities), *doubts):
            together = tuple(dict.fromkeys(reason for each in reasons for reason in each))
            found.append(replace(verdict, outcome=ASK, reasons=together) if together else verdict)
        return found

    def by_confidence(self, probabilities: np.ndarray) -> List[Verdict]:
        """Verdicts by the thresholds alone: one per row of ``probabilities`` (N, K)."""
        return [self._verdict(row) for row in np.asarray(probabilities, dtype=np.float64)]

    def _verdict(self, row: np.ndarray) -> Verdict:
        top = int(row.argmax())
        good = bool(self.good[top])
        certainty = float(row[self.good == good].sum()) if self.good.any() else float(row[top])
        # float32 probabilities sum to 1 only up to their rounding
        sure = certainty >= float(self.sure[top]) - 1e-6
        outcome = ASK if not sure else PASS if good else REJECT
        return Verdict(outcome, self.classes[top], float(row[top]), tuple(float(value) for value in row))


def refuse_unknown(names: Iterable[str], classes: Sequence[str], where: str) -> None:
    """See that every class that is named ``where`` (a file, an option) exists.

    Raises:
        SettingsError: one does not.

    """
    for name in names:
        if name not in classes:
            raise SettingsError(
                f"{where} names a class that the model does not know",
                seen=name,
                accepted=", ".join(classes),
                remedy=did_you_mean(name, classes),
            )


def threshold_table(settings: VerdictSettings, classes: Sequence[str]) -> List[Mapping[str, Any]]:
    """For each class whether it is good and how sure an answer must be; raises as ``DecisionPolicy``."""
    policy = DecisionPolicy(settings, classes)
    return [
        {"class": name, "good": bool(good), "sure": float(sure)}
        for name, good, sure in zip(classes, policy.good, policy.sure)
    ]
