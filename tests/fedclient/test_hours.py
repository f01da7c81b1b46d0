from __future__ import annotations

import calendar
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedclient.hours import DAY, Hours, Window

MIDNIGHT = calendar.timegm((2026, 11, 22, 0, 0, 0))


def at(hour: int, minute: int = 0, second: int = 0) -> float:
    return MIDNIGHT + hour * 3600 + minute * 60 + second


def hours(*texts: str) -> Hours:
    return Hours.parse(texts, local=time.gmtime)


def test_a_window_over_midnight_allows_the_night_and_not_the_day() -> None:
    night = hours("22:00-06:00")
    assert [night.allow(at(hour)) for hour in (21, 22, 23, 0, 5, 6, 12)] == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_window_begins_with_its_first_minute_and_ends_before_its_last() -> None:
    noon = hours("12:00-12:45")
    assert noon.allow(at(12)) and noon.allow(at(12, 44, 59))
    assert not noon.allow(at(11, 59, 59)) and not noon.allow(at(12, 45))


def test_several_windows_may_come_in_one_text_or_in_many() -> None:
    for made in (hours("22:00-06:00, 12:00-12:45"), hours("22:00-06:00", "12:00-12:45")):
        assert made.allow(at(23)) and made.allow(at(12, 30)) and not made.allow(at(15))
        assert str(made) == "22:00-06:00, 12:00-12:45"


def test_no_window_means_at_any_time_and_the_whole_day_is_a_window() -> None:
    assert hours().allow(at(3)) and str(hours()) == "at any time"
    assert all(hours("0:00-24:00").allow(at(hour)) for hour in range(24))


def test_the_next_opening_is_told_to_the_minute() -> None:
    night = hours("22:00-06:00")
    assert night.opening(at(6, 0, 30)) == at(22)
    assert night.opening(at(23)) == at(23)
    assert hours("05:00-06:00").opening(at(12)) == at(29)


def test_windows_follow_the_wall_clock_when_daylight_saving_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        early = Hours.parse(["06:00-07:00"])
        before = calendar.timegm((2026, 3, 28, 5, 0, 0))  # 06:00 in winter
        after = calendar.timegm((2026, 3, 29, 4, 0, 0))  # 06:00 in summer, 23 hours later
        assert early.allow(before) and early.allow(after)
        assert early.opening(before + 3600) == after
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text", ["22-6", "25:00-06:00", "22:60-06:00", "06:00-06:00", "24:00-06:00", "night", "22:00-06:00-"]
)
def test_what_is_no_window_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="22" if "22" in text else "a|o"):
        hours(text)


@given(st.integers(0, DAY - 1), st.integers(0, DAY), st.integers(0, DAY - 1))
def test_a_window_and_its_reverse_share_the_day_between_them(first: int, end: int, minute: int) -> None:
    if first in (end, end % DAY):
        return
    window = Window(first, end)
    assert Window.parse(str(window)) == window
    rest = Window(end % DAY, first or DAY)
    assert window.holds(minute) != rest.holds(minute)
