"""What a person sees while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fedserver.operations.live_view import LiveView, trend
from fedserver.operations.run_view import RunView, plain
from fedserver.rounds.events import (
    Event,
    ModelTested,
    PlantLost,
    PlantRefused,
    PlantReplied,
    RoundClosed,
    RoundContext,
    RoundStarted,
    RunFinished,
    Waiting,
)
from fedserver.rounds.history import Evaluation, PlantResult, Refusal, RoundRecord
from fedspect.update.round_messages import RoundReply

PLANTS = ("plant-1", "plant-2", "plant-10")


def result(plant: str, *, accuracy: float = 0.75, weight: float = 0.5, late_by: int = 0) -> PlantResult:
    reply = RoundReply(
        plant=plant,
        run_id="run",
        round=1,
        base_hash="a" * 64,
        version="b" * 64,
        num_examples=60,
        evaluated=20,
        metrics={"accuracy": accuracy},
        train_loss=0.5,
        seconds={"total": 4.0},
    )
    answered = PlantResult.of(reply, late_by=late_by, bytes_up=160_000, bytes_down=640_000)
    return answered.model_copy(update={"weight": weight})


def record(number: int, results: list[PlantResult], refused: tuple[str, ...] = ()) -> RoundRecord:
    return RoundRecord(
        round=number,
        version="c" * 64,
        parent="b" * 64,
        started="2024-05-06T14:03:00+00:00",
        seconds=6.0,
        plants=results,
        refused=[Refusal(plant=name, kind="update", reason="too long a step") for name in refused],
        lost={},
        evaluation=Evaluation.of(number - 1, "b" * 64, results),
        train_loss=0.5,
        bytes_up=160_000 * len(results),
        bytes_down=640_000 * len(results),
        notes=[],
    )


def context(number: int, *, train: bool = True) -> RoundContext:
    return RoundContext("run", number, 3, "b" * 64, train)


def first_round() -> list[Event]:
    results = [result("plant-1"), result("plant-2", weight=0.0)]
    return [
        RoundStarted(context(1), PLANTS),
        *(PlantReplied(context(1), each) for each in results),
        PlantRefused(plant="plant-2", round=1, kind="update", reason="too long a step", in_a_row=1),
        PlantLost(plant="plant-10", round=1, reason="no answer within 600 s"),
        RoundClosed(record(1, results, refused=("plant-2",)), seconds_left=80.0),
        ModelTested(1, 0.612, 1.1),
    ]


def seen(view: LiveView, width: int = 110) -> str:
    target = io.StringIO()
    Console(file=target, width=width, force_terminal=True, color_system=None).print(view.render())
    return target.getvalue().replace("\u202f", " ")


def live(**options: object) -> LiveView:
    terminal = Console(file=io.StringIO(), width=110, force_terminal=True)
    return LiveView(rounds=3, title="demo", console=terminal, **options)  # type: ignore[arg-type]


def test_where_there_is_no_terminal_each_round_is_a_plain_line() -> None:
    target = io.StringIO()
    with LiveView(rounds=3, title="demo", console=Console(file=target, width=60)) as view:
        for event in first_round():
            view(event)
        view(RunFinished(rounds=3, version="c" * 64, stopped_early=False, evaluation=None))
    lines = target.getvalue().replace("\u202f", " ").splitlines()
    assert lines == [
        "plant-2 refused in round 1: too long a step",
        "plant-10 gave no answer in round 1: no answer within 600 s",
        "round 1 of 3: 1 update, training loss 0.500, 1.6 MB, 6.0 s, about 1 min 20 s left",
        "round 1 of 3: 61.2 % right on the test pictures",
        "the run is finished after 3 rounds; version cccccccccccc",
    ]


def test_the_view_shows_round_time_left_and_a_row_for_each_plant() -> None:
    now = [100.0]
    view = live(clock=lambda: now[0])
    for event in first_round():
        view(event)
    now[0] += 30.0
    text = seen(view)
    assert "demo   round 1 of 3   30 s   about 50 s left" in text
    assert "test accuracy 61.2 %" in text
    assert "at the plants 75.0 %" in text
    assert "travelled 1.6 MB" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("plant-")]
    assert rows[0] == ["plant-1", "used", "60", "75.0", "%", "0.500", "160", "kB", "4.0", "s"]
    assert rows[1][:2] == ["plant-2", "refused"]
    assert rows[2][:3] == ["plant-10", "lost", "–"]
    assert "plant-2 refused in round 1: too long a step" in text


def test_a_plant_at_work_one_that_answered_and_a_late_one_are_told_apart() -> None:
    view = RunView(rounds=3)
    view.take(RoundStarted(context(2), PLANTS))
    view.take(PlantReplied(context(2), result("plant-1")))
    assert [row.state for row in view.rows()] == ["answered", "working", "working"]
    view.take(RoundClosed(record(2, [result("plant-1"), result("plant-2", late_by=1)]), seconds_left=0.0))
    assert [row.state for row in view.rows()] == ["used", "late", "working"]


def test_the_closing_evaluation_changes_the_accuracy_and_nothing_else() -> None:
    view = RunView(rounds=3)
    for event in first_round():
        view.take(event)
    view.take(RoundStarted(context(3, train=False), PLANTS))
    assert view.phase == "the closing evaluation"
    only_judged = result("plant-1", accuracy=0.9).model_copy(update={"num_examples": 0, "train_loss": None})
    view.take(PlantReplied(context(3, train=False), only_judged))
    row = view.row("plant-1")
    assert (row.accuracy, row.pictures, row.loss) == (0.9, 60, 0.5)


def test_waiting_is_shown_until_a_round_begins() -> None:
    view = live()
    view(Waiting(round=1, present=1, needed=2, text="1 plant is here, 2 are needed"))
    assert "waiting: 1 plant is here, 2 are needed" in seen(view)
    view(RoundStarted(context(1), PLANTS))
    assert "waiting" not in seen(view)


def test_the_end_is_shown_with_what_all_plants_say_of_the_last_model() -> None:
    view = live()
    for event in first_round():
        view(event)
    last = Evaluation.of(3, "c" * 64, [result("plant-1", accuracy=0.95)])
    view(RunFinished(rounds=3, version="c" * 64, stopped_early=False, evaluation=last))
    text = seen(view)
    assert "finished" in text
    assert "at the plants 95.0 %" in text
    assert "left" not in text.splitlines()[0]


def test_names_and_reasons_cannot_steer_the_terminal() -> None:
    view = live()
    view(RoundStarted(context(1), ("[red]\x1b[2J plant",)))
    view(PlantLost(plant="[red]\x1b[2J plant", round=1, reason="\x1b]0;title\x07 [bold]\nnew line"))
    text = seen(view)
    assert "\x1b" not in text
    assert "[red] [2J plant" in text
    assert "[bold] new line" in text
    assert plain("a\tb\r\n\u202ec") == "a b   c"


def test_of_many_plants_those_with_trouble_are_shown() -> None:
    view = live()
    names = tuple(f"plant-{number}" for number in range(1, 101))
    view(RoundStarted(context(1), names))
    for name in names:
        view(PlantReplied(context(1), result(name)))
    view(PlantLost(plant="plant-77", round=1, reason="gone"))
    text = seen(view)
    assert "plant-77" in text
    assert "and 84 more" in text
    assert len(text.splitlines()) < 30


def test_a_stage_is_shown_with_its_progress_and_gone_afterwards() -> None:
    view = live()
    with view.stage("checking pictures") as progress:
        assert "checking pictures ..." in seen(view)
        progress(120, 360)
        assert "checking pictures 120 of 360" in seen(view)
    assert "checking" not in seen(view)


def test_a_stage_that_fails_lets_its_error_pass_and_is_gone() -> None:
    view = live()
    with pytest.raises(KeyError), view.stage("checking pictures"):
        raise KeyError
    assert "checking" not in seen(view)


def test_a_stage_is_one_line_where_there_is_no_terminal() -> None:
    target, now = io.StringIO(), [1.0]
    view = LiveView(rounds=3, console=Console(file=target), clock=lambda: now[0])
    with view.stage("drawing surfaces") as progress:
        for done in range(1, 361):
            progress(done, 360)
        now[0] = 3.5
    assert target.getvalue() == "drawing surfaces: 360, 2.5 s\n"


def test_a_long_stage_says_once_a_minute_how_far_it_is_where_there_is_no_terminal() -> None:
    target, now = io.StringIO(), [0.0]
    view = LiveView(rounds=0, console=Console(file=target), clock=lambda: now[0])
    with view.stage("learning groups") as progress:
        for second in range(1, 151):
            now[0] = float(second)
            progress(10 * second, 3000)
    assert target.getvalue().splitlines() == [
        "learning groups 600 of 3,000, about 4 min 0 s left",
        "learning groups 1,200 of 3,000, about 3 min 0 s left",
        "learning groups: 1,500, 2 min 30 s",
    ]


def test_the_time_that_a_stage_still_takes_is_shown_once_it_can_be_guessed() -> None:
    now = [0.0]
    view = live(clock=lambda: now[0])
    with view.stage("learning groups") as progress:
        now[0] = 1.0
        progress(1, 100)
        assert "1 of 100" in seen(view) and "left" not in seen(view)
        now[0] = 20.0
        progress(25, 100)
        assert "learning groups 25 of 100, about 1 min 0 s left" in seen(view)


def test_quiet_says_nothing_and_a_terminal_is_left_as_it_was() -> None:
    target = io.StringIO()
    with LiveView(rounds=3, console=Console(file=target), quiet=True) as view:
        for event in first_round():
            view(event)
    assert target.getvalue() == ""

    terminal = io.StringIO()
    console = Console(file=terminal, width=110, height=40, force_terminal=True)
    with pytest.raises(KeyboardInterrupt), LiveView(rounds=3, console=console) as view:
        view(first_round()[0])
        raise KeyboardInterrupt
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_a_trend_rises_as_its_values_do() -> None:
    assert trend([0.1, 0.5, 0.9]) == "▁▅█"
    assert trend([0.5]) == "▁"
    assert trend([]) == ""
