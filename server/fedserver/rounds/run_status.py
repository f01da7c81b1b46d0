"""Run status: what a run is doing, or why it waits, is an event and a line in ``status.json``, never silence."""

from __future__ import annotations

import time
from collections.abc import Callable

from fedserver.rounds.events import OnEvent, RoundContext, Waiting
from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_store import RunStore
from fedspect.errors import InterruptedRunError, QuorumError
from fedspect.report.formatting import plural

MOST_CLAUSES = 10  # reasons in one text


class RunStatus:
    """Says what a run is doing, rests between two looks, and knows when to stop.

    Args:
        store: whose ``status.json`` says it.
        settings: how long a rest is, and how many plants a round needs.
        on_event: is told of waiting.
        should_stop: asked at every rest.

    """

    def __init__(
        self, store: RunStore, settings: RoundSettings, on_event: OnEvent, should_stop: Callable[[], bool]
    ) -> None:
        self._store = store
        self._settings = settings
        self._emit = on_event
        self._should_stop = should_stop
        self._said = ""

    def say(self, state: str, text: str, **facts: object) -> None:
        """Put what the run is doing into its status."""
        self._said = text
        self._store.say(state, text, **facts)

    def wait(
        self,
        context: RoundContext,
        present: int,
        of_what: str,
        reasons: list[str],
        *,
        enough: bool,
        remedy: str | None = None,
    ) -> None:
        """Say that and why the run waits, and the ``remedy`` if there is a better one than mending plants;
        ``enough`` when it has waited long enough.

        Raises:
            QuorumError: it has.

        """
        needed = self._settings.quorum
        wanted = plural(needed, of_what)
        said = f"{context} needs {wanted} and has {present}"
        if len(reasons) > MOST_CLAUSES:
            reasons = [*reasons[:MOST_CLAUSES], f"and {len(reasons) - MOST_CLAUSES} more"]
        if enough:
            raise QuorumError(
                said,
                seen="; ".join(reasons) or None,
                accepted=f"at least {wanted}",
                remedy=remedy or "mend the plants that failed, or ask for a smaller quorum",
            )
        text = "; ".join([said, *reasons, *filter(None, [remedy])])
        if text != self._said:
            self.say("waiting", text, round=context.round, present=present, needed=needed)
            self._emit(Waiting(context.round, present, needed, text))

    def rest(self, heard: bool) -> None:
        """Between two looks: stop if asked to, and rest unless something was heard.

        Raises:
            InterruptedRunError: the run was asked to stop.

        """
        if self._should_stop():
            raise InterruptedRunError(
                "the run was stopped", remedy="start it again: it goes on with the round that was cut"
            )
        if not heard:
            time.sleep(self._settings.poll)
