"""Metrics recorder: ``metrics.jsonl``, a row for each event, with the central evaluation of each round.

A run that was killed may say something twice when it goes on: readers take the last word on a round.
"""

from __future__ import annotations

import json

from fedserver.rounds.events import ClosedFormFound, Event, ModelTested, OnEvent, RoundClosed, RunFinished
from fedserver.storage.run_store import RunStore
from fedsim.central_evaluation import CentralTest
from fedsim.config import SimulationSettings
from fedsim.federation import head_after
from fedsim.run_folder import Prepared, RunFolder
from fedspect.files import append_line, read_json_lines


class Recorder:
    """Writes each event down, measures the model after a round, and tells whoever watches."""

    def __init__(
        self,
        folder: RunFolder,
        prepared: Prepared,
        settings: SimulationSettings,
        test: CentralTest,
        tell: OnEvent,
    ) -> None:
        self._folder = folder
        self._prepared = prepared
        self._settings = settings
        self._test = test
        self._tell = tell
        self._measured: int | None = None

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, RunFinished) and self._measured != event.rounds:
            self._measure(event.rounds)
        self._note(event)
        if isinstance(event, ClosedFormFound):
            self._measure(0)
        if isinstance(event, RoundClosed) and self._due(event.record.round):
            self._measure(event.record.round)

    def mend(self) -> None:
        """Write down what a killed run did no longer come to say of its closed rounds.

        The server's store has every closed round; of those whose heads it still keeps the model can be measured.
        """
        if not RunStore.exists(self._folder.rounds):
            return
        store = RunStore(self._folder.rounds)
        rows = read_json_lines(self._folder.metrics)
        closed = {row["record"]["round"] for row in rows if row.get("event") == "RoundClosed"}
        tested = {row["round"] for row in rows if row.get("event") == "ModelTested"}
        for record in store.history():
            if record.round not in closed:
                self._write(RoundClosed(record, 0.0))
            if record.round not in tested and self._due(record.round) and record.round in store.kept_heads():
                self._measure(record.round)

    def _due(self, round_number: int) -> bool:
        every = self._settings.federation.evaluate_every
        return bool(every) and round_number % every == 0

    def _measure(self, round_number: int) -> None:
        self._test.load(head_after(self._folder, self._prepared, self._settings, round_number))
        evaluation = self._test.evaluate(self._test.predict())
        self._measured = round_number
        self._note(ModelTested(round_number, evaluation.accuracy, evaluation.log_loss))

    def _note(self, event: Event) -> None:
        self._write(event)
        self._tell(event)

    def _write(self, event: Event) -> None:
        append_line(self._folder.metrics, json.dumps(event.as_dict(), ensure_ascii=False))
