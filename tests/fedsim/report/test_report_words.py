"""Numbers and findings as people say them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.report import Arm, Comparison, load_run
from fedsim.report import sentences as words
from fedspect.training.metrics import Evaluation


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.percent(0.97214), "97.2 %"),
        (words.percent(1.0, 0), "100 %"),
        (words.percent(None), "–"),
        (words.percent(math.nan), "–"),
        (words.points(0.034), "+3.4"),
        (words.points(-0.0349, 2), "−3.49"),
        (words.points(0.0), "±0.0"),
        (words.points(-0.00001), "±0.0"),
        (words.points(None), "–"),
        (words.number(0.12345), "0.123"),
        (words.number(math.inf), "–"),
        (words.count(12345), "12,345"),
        (words.count(None), "–"),
        (words.size(912), "912 B"),
        (words.size(48_349), "48.3 kB"),
        (words.size(160_000), "160 kB"),
        (words.size(2_500_000), "2.5 MB"),
        (words.size(7.2e12), "7200 GB"),
        (words.duration(0.44), "0.4 s"),
        (words.duration(47.8), "48 s"),
        (words.duration(59.6), "1 min 0 s"),
        (words.duration(200), "3 min 20 s"),
        (words.duration(7500), "2 h 5 min"),
        (words.duration(None), "–"),
        (words.plural(1, "plant"), "1 plant"),
        (words.plural(2000, "class", "classes"), "2,000 classes"),
        (words.listed([]), ""),
        (words.listed(["a"]), "a"),
        (words.listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_a_number_reads_as_people_write_it(said: str, expected: str) -> None:
    assert said.replace("\u202f", " ") == expected


def test_the_likely_range_is_wilsons() -> None:
    # By hand for 350 of 360: (p + z2/2n) / (1 + z2/n) with z = 1.96 is 0.9672, half the width 0.0176.
    low, high = words.likely_range(350, 360) or (0.0, 0.0)
    assert (low, high) == (pytest.approx(0.9497, abs=5e-4), pytest.approx(0.9848, abs=5e-4))
    assert words.likely_range(0, 0) is None


@given(st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_likely_range_holds_the_share_and_stays_between_0_and_1(pair: tuple[int, int]) -> None:
    correct, total = pair
    span = words.likely_range(correct, total)
    assert span is not None
    assert 0.0 <= span[0] <= correct / total + 1e-12
    assert correct / total - 1e-12 <= span[1] <= 1.0


@given(st.one_of(st.none(), st.floats(-1e200, 1e200), st.sampled_from([math.nan, math.inf, -math.inf])))
def test_no_number_is_ever_said_as_nan_or_none(value: Optional[float]) -> None:
    for say in (words.percent, words.points, words.number, words.duration):
        text = say(value)
        assert text
        assert not any(word in text.lower() for word in ("nan", "none", "inf"))


def test_the_summary_says_what_was_reached_and_what_is_weak(whole_run: Path) -> None:
    run = load_run(whole_run)
    assert run.final is not None
    sentences = [sentence.replace("\u202f", " ") for sentence in words.summary_sentences(run)]
    right = round(run.final.accuracy * 48)
    assert sentences[0] == "4 plants trained one model together in 6 rounds."
    assert sentences[1].startswith(
        f"Of 48 pictures that no plant trained with, the model names the class of {right} "
    )
    assert "It finds " in sentences[1]
    assert "No picture left its plant" in sentences[2]


def test_joining_is_summed_up_as_it_is(evaluation_of: Callable[[float], Evaluation]) -> None:
    def comparison(joined: float, *alone: float, together: Optional[float] = None) -> Comparison:
        return Comparison(
            federation=Arm(name="federation", evaluation=evaluation_of(joined)),
            alone=[Arm(name=f"plant-{n}", evaluation=evaluation_of(a)) for n, a in enumerate(alone, start=1)],
            together=None if together is None else Arm(name="together", evaluation=evaluation_of(together)),
        )

    assert words.gain_sentence(comparison(0.95, 0.6, 0.85)) == (
        "Joining gained every plant between 10.0 and 35.0 points of accuracy on the same test pictures."
    )
    assert "Joining gained the plant 35.0 points" in words.gain_sentence(comparison(0.95, 0.6))
    assert words.gain_sentence(comparison(0.8, 0.6, 0.85)).startswith(
        "Joining gained 1 of 2 plants; the differences lie between −5.0 and +20.0 points"
    )
    assert "Joining gained none of 2 plants" in words.gain_sentence(comparison(0.5, 0.6, 0.5))
    assert words.gain_sentence(comparison(0.95, 0.6, together=1.0)).endswith(
        "With all pictures in one place it would be 5.0 points more."
    )
    assert words.gain_sentence(comparison(0.95)) == ""
