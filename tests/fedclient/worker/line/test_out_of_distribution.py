from __future__ import annotations

from typing import Optional

import numpy as np

from fedclient.worker.engines.model import LineAnswer
from fedclient.worker.line.decision_policy import ASK, PASS, DecisionPolicy
from fedclient.worker.line.input_guard import InputBatch
from fedclient.worker.line.out_of_distribution import DistanceGuard
from fedclient.worker.line.settings import VerdictSettings

BATCH = InputBatch(np.zeros((2, 1, 8, 8), np.uint8), [(), ()])


def answer(unlikeness: Optional[np.ndarray]) -> LineAnswer:
    sure = np.array([[0.99, 0.01], [0.99, 0.01]], np.float32)
    return LineAnswer(np.log(sure), sure, np.zeros((2, 0), np.float32), unlikeness)


def judged(unlikeness: Optional[np.ndarray]) -> list:
    policy = DecisionPolicy(VerdictSettings(good_classes=["good"]), ["good", "pit"], (DistanceGuard(),))
    return policy.decide(BATCH, answer(unlikeness))


def test_a_sure_answer_about_a_picture_unlike_training_is_a_persons_with_the_reason() -> None:
    known, strange = judged(np.array([0.4, 2.5]))
    assert (known.outcome, known.reasons) == (PASS, ())
    assert strange.outcome == ASK
    assert strange.reasons == ("unlike all training pictures: 2.5 times as far as known ones",)


def test_a_version_that_measures_no_distance_is_believed_as_before() -> None:
    assert [each.outcome for each in judged(None)] == [PASS, PASS]
    assert [each.outcome for each in judged(np.zeros(2))] == [PASS, PASS]
