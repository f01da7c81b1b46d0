from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any, List, Sequence

import numpy as np
import pytest

from fedclient.worker.gate.evidence import Answers, Evidence
from fedclient.worker.gate.gate_report import NOTHING_PASSES, GateReport
from fedclient.worker.gate.gate_report import decide as decided
from fedclient.worker.gate.settings import GateSettings
from fedclient.worker.line.settings import VerdictSettings
from fedspect.errors import SettingsError

CLASSES = ("crack", "good", "stain")
LABELS = ("crack",) * 4 + ("good",) * 4 + ("stain",) * 2
SETTINGS = GateSettings()
LINE = VerdictSettings(good_classes=["good"])


def decide(evidence: Evidence, settings: GateSettings, line: VerdictSettings = LINE) -> GateReport:
    return decided(evidence, settings, line)


def logits(called: Sequence[str], drawn: int = 2) -> np.ndarray:
    """Sure of each class that it calls; the drawn pictures are called crack."""
    rows = [CLASSES.index(name) for name in called] + [0] * drawn
    return (8 * np.eye(3)[rows]).astype(np.float32)


def answers(called: Sequence[str], milliseconds: float = 5.0) -> Answers:
    return Answers(CLASSES, logits(called), seconds=(milliseconds / 1e3,) * 5)


def evidence(called: Sequence[str] = LABELS, before: Any = LABELS, **more: Any) -> Evidence:
    candidate = answers(called)
    given: dict[str, Any] = {
        "labels": LABELS,
        "names": tuple(str(number) for number in range(len(LABELS))),
        "trained": Answers(CLASSES, candidate.logits),
        "candidate": candidate,
        "current": None if before is None else answers(before),
        "kind": "onnxruntime",
        "precision": "float32",
        **more,
    }
    return Evidence(**given)


def called(**wrong: Any) -> List[str]:
    """The labels with some exchanged: ``crack="good"`` calls the first crack good."""
    verdicts = list(LABELS)
    for label, verdict in wrong.items():
        verdicts[LABELS.index(label)] = verdict
    return verdicts


def test_a_candidate_as_good_as_the_current_engine_passes() -> None:
    verdict = decide(evidence(), SETTINGS)
    assert verdict.passed
    assert verdict.figures["candidate"]["right"] == 10
    assert verdict.figures["classes"]["crack"] == {
        "pictures": 4,
        "same_verdict": 4,
        "right": 4,
        "right_before": 4,
    }
    quickest = {"candidate": 5.0, "current": 5.0}
    assert verdict.figures["latency_ms"] == {**quickest, "quickest": quickest, "limit": None}


def test_one_more_escape_is_too_many_and_the_reason_says_how_many() -> None:
    verdict = decide(evidence(called(crack="good")), SETTINGS)
    assert verdict.reasons == (
        "1 golden pictures with a defect would pass, 0 with the current engine; 0 more are allowed",
    )
    assert decide(evidence(called(crack="good")), SETTINGS.model_copy(update={"more_escapes": 1})).passed


def test_escapes_that_the_current_engine_has_too_do_not_count_against_a_candidate() -> None:
    assert decide(evidence(called(crack="good"), called(stain="good")), SETTINGS).passed


def test_false_rejects_are_counted_apart_from_escapes() -> None:
    rejects = list(LABELS)
    rejects[4:6] = ["crack", "stain"]
    generous = SETTINGS.model_copy(update={"more_wrong": 1.0})
    assert decide(evidence(called(good="crack")), generous).passed
    [reason] = decide(evidence(rejects), generous).reasons
    assert reason == (
        "2 good golden pictures would be rejected, 0 with the current engine; 1 more are allowed"
    )
    half = generous.model_copy(update={"more_false_rejects": 0.5})
    assert decide(evidence(rejects), half).passed


def test_defects_called_by_another_defects_name_are_counted_as_wrong() -> None:
    wrong = ["stain", "stain", *LABELS[2:]]
    [reason] = decide(evidence(wrong), SETTINGS).reasons
    assert reason == "2 of 10 golden pictures are called wrong, 0 with the current engine; 1 more are allowed"


def paler(evidence: Evidence, by: float) -> Evidence:
    """The same verdicts, less sure of them: 0.4 makes 0.92 of 0.999, and 0.04 of each other class."""
    pale = replace(evidence.candidate, logits=evidence.candidate.logits * np.float32(by))
    return replace(evidence, candidate=pale, trained=Answers(CLASSES, pale.logits))


def test_a_piece_that_the_line_would_ask_about_neither_escapes_nor_is_rejected() -> None:
    strict = LINE.model_copy(update={"sure": 0.95})
    unsure = paler(evidence(called(crack="good"), None), 0.4)  # 0.925: sure enough by default
    assert decide(unsure, SETTINGS).figures["candidate"]["escapes"] == 1
    counted = decide(unsure, SETTINGS, strict).figures["candidate"]
    assert (counted["escapes"], counted["false_rejects"], counted["asked"]) == (0, 0, 5)
    single = LINE.model_copy(update={"sure_of": {"good": 0.95}})
    counted = decide(unsure, SETTINGS, single).figures["candidate"]
    assert (counted["escapes"], counted["asked"]) == (0, 5)


def test_asking_about_many_more_pictures_is_a_reason_against_a_candidate() -> None:
    strict = LINE.model_copy(update={"sure": 0.95})
    [reason] = decide(paler(evidence(), 0.4), SETTINGS, strict).reasons
    assert reason == (
        "of 4 of 10 golden pictures a person would be asked, of 0 with the current engine; 1 more are allowed"
    )
    assert decide(paler(evidence(), 0.4), SETTINGS).passed
    assert decide(paler(evidence(), 0.4), SETTINGS.model_copy(update={"more_asked": 1.0}), strict).passed


def test_without_a_good_class_nothing_passes_so_nothing_escapes_and_the_figures_say_so() -> None:
    verdict = decide(evidence(called(crack="good")), SETTINGS, VerdictSettings())
    assert verdict.passed
    assert verdict.figures["candidate"]["escapes"] is None
    assert verdict.figures["current"]["false_rejects"] is None
    assert verdict.figures["remarks"] == [NOTHING_PASSES]


def test_a_class_without_golden_pictures_is_named_in_the_figures() -> None:
    fewer = LABELS[:8]
    verdict = decide(evidence(fewer, fewer, labels=fewer, names=fewer), SETTINGS)
    assert verdict.passed
    assert verdict.figures["remarks"] == ["classes without a golden picture, unproved: stain"]


def test_a_first_engine_must_be_right_more_often_than_the_floor() -> None:
    always = ["crack"] * 10
    [reason] = decide(evidence(always, None), SETTINGS).reasons
    assert reason == (
        "4 of 10 golden pictures are called right, on average 33% of a class; at least 50% is asked for"
    )
    assert decide(evidence(always, None), SETTINGS.model_copy(update={"lowest_accuracy": 0.0})).passed
    assert decide(evidence(LABELS, None), SETTINGS).figures["current"] is None


def test_an_engine_that_computes_something_else_is_refused_class_by_class() -> None:
    other = evidence(called(stain="crack"), called(stain="crack"))
    other = replace(other, trained=Answers(CLASSES, logits(LABELS)))
    reasons = decide(other, SETTINGS).reasons
    assert "logits differ by up to 1.0e+00 of their scale, 1.0e-04 is allowed" in reasons[0]
    assert reasons[1] == (
        "class stain: the engine calls 1 of 2 golden pictures otherwise than the trained model"
    )


def test_a_tie_within_the_tolerance_is_no_disagreement() -> None:
    trained = logits(LABELS)
    trained[0] = [7.9999, 8.0, 0]
    candidate = trained.copy()
    candidate[0] = [8.0, 7.9999, 0]
    tie = replace(evidence(), trained=Answers(CLASSES, trained), candidate=answers(LABELS))
    tie = replace(tie, candidate=replace(tie.candidate, logits=candidate), current=None)
    assert decide(tie, SETTINGS).passed


def test_half_precision_has_a_tolerance_of_its_own() -> None:
    near = evidence()
    shifted = replace(near.candidate, logits=near.candidate.logits * np.float32(1.005))
    assert not decide(replace(near, candidate=shifted), SETTINGS).passed
    assert decide(replace(near, candidate=shifted, precision="float16"), SETTINGS).passed


def test_drawn_pictures_count_for_agreement_too() -> None:
    near = evidence()
    strange = near.candidate.logits.copy()
    strange[-1] = [0, 8, 0]
    [reason] = decide(replace(near, candidate=replace(near.candidate, logits=strange)), SETTINGS).reasons
    assert "does not compute what the trained model does" in reason


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_the_only_reason(poison: float) -> None:
    bad = evidence()
    strange = bad.candidate.logits.copy()
    strange[3:5, 1] = poison
    verdict = decide(replace(bad, candidate=replace(bad.candidate, logits=strange)), SETTINGS)
    assert verdict.reasons == ("the engine answers 2 of 12 pictures with something that is no number",)


def test_an_engine_that_fails_is_refused_with_its_words() -> None:
    bad = evidence(candidate=Answers(CLASSES, np.zeros((0, 3), np.float32), "out of memory"))
    assert decide(bad, SETTINGS).reasons == ("the engine fails: out of memory",)


def test_a_current_engine_that_fails_is_not_compared_with() -> None:
    bad = evidence(current=Answers(CLASSES, np.zeros((0, 3), np.float32), "gone"))
    verdict = decide(bad, SETTINGS)
    assert verdict.passed
    assert verdict.figures["remarks"] == ["the current engine is not compared, it fails: gone"]


def test_the_latency_limit_is_kept_absolutely_and_beside_the_current_engine() -> None:
    slow = evidence(candidate=answers(LABELS, 9.0))
    [reason] = decide(slow, SETTINGS).reasons
    assert reason == (
        "a picture takes 9.0 ms (quickest of 5), 5.0 ms with the current engine; 1.5 times as long is allowed"
    )
    patient = SETTINGS.model_copy(update={"slower": 2.0})
    assert decide(slow, patient).passed
    [reason] = decide(slow, patient.model_copy(update={"latency_limit_ms": 8.0})).reasons
    assert reason == "a picture takes 9.0 ms (median of 5), 8.0 ms is the limit"


def test_other_work_on_the_device_makes_no_engine_slower_than_the_current_one() -> None:
    busy = dataclasses.replace(answers(LABELS), seconds=(0.005, 0.009, 0.009, 0.009, 0.009))
    verdict = decide(evidence(candidate=busy), SETTINGS)
    assert verdict.passed
    assert verdict.figures["latency_ms"]["candidate"] == 9.0
    assert verdict.figures["latency_ms"]["quickest"] == {"candidate": 5.0, "current": 5.0}


def test_classes_that_the_current_engine_does_not_know_are_left_out_of_the_comparison() -> None:
    fewer = Answers(("crack", "good"), logits(LABELS)[:, :2], seconds=(0.005,))
    verdict = decide(evidence(current=fewer), SETTINGS)
    assert verdict.passed
    assert verdict.figures["current"]["pictures"] == 8


def test_a_plant_without_golden_pictures_goes_by_its_rule() -> None:
    none = evidence((), (), labels=(), names=())
    assert decide(none, SETTINGS).passed
    [reason] = decide(none, SETTINGS.model_copy(update={"without_pictures": "refuse"})).reasons
    assert "there is no golden picture" in reason


def test_a_good_class_that_nobody_knows_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(SettingsError, match="fine"):
        decide(evidence(), SETTINGS, VerdictSettings(good_classes=["fine"]))
