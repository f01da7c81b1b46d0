"""Live view of a run at a terminal; plain lines anywhere else.

``LiveView`` is handed the round loop's events (``fedserver.rounds.events``), in a simulation and at headquarters
alike, and keeps what is to be seen in ``RunView``; drawing reads that and nothing else. It writes to standard
error, so that results can be piped. What comes from plants is shown as text only: no markup.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Optional

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedserver.operations.run_view import RunView, plain
from fedserver.rounds.events import Event
from fedspect.console import stderr
from fedspect.report.formatting import MISSING, duration, number, percent, size

BARS = "▁▂▃▄▅▆▇█"
SAID_EVERY = 60.0
"""Seconds between two lines about a long stage, where there is no live view."""
TRUSTED_AFTER = 5.0
"""Seconds of a stage before the time that is left is guessed from them."""
_STYLE = {"refused": "red", "lost": "red", "working": "cyan", "late": "yellow", "answered": "green"}


@dataclass
class Stage:
    """Progress of one countable part of the work: pictures checked, examples trained."""

    name: str
    began: float
    said: float
    """When it was last told of, by the view's clock."""
    done: int = 0
    total: int = 0

    def words(self, now: float) -> str:
        """Name, progress and estimated time left."""
        if not self.total:
            return f"{self.name} ..."
        text = f"{self.name} {self.done:,} of {self.total:,}"
        spent = now - self.began
        if self.done and spent >= TRUSTED_AFTER:
            text += f", about {duration(spent * (self.total - self.done) / self.done)} left"
        return text


class LiveView:
    """Live view of a run; call it with each event, within a ``with`` block.

    ::

        with LiveView(rounds=15, title="demo") as view:
            prepare(folder, settings, view.stage)
            RoundLoop(..., on_event=view).run()

    Args:
        rounds: how many are planned.
        title: what is running.
        plants: their names, if they are known before the first round.
        console: where to write; standard error when not given.
        quiet: write nothing.

    """

    def __init__(
        self,
        *,
        rounds: int,
        title: str = "",
        plants: Sequence[str] = (),
        console: Optional[Console] = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.view = RunView(rounds=rounds, title=plain(title))
        self._console = console or stderr()
        self._quiet = quiet
        self._clock = clock
        self._lock = threading.Lock()
        self._began = self._told = clock()
        self._stage: Optional[Stage] = None
        self._live: Optional[Live] = None
        for name in plants:
            self.view.row(name)
        if self._console.is_terminal and not quiet:
            self._live = Live(
                console=self._console,
                get_renderable=self.render,
                refresh_per_second=4,
                vertical_overflow="crop",
            )

    def __enter__(self) -> LiveView:
        self._began = self._told = self._clock()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        with self._lock:
            self._told = self._clock()
            line = self.view.take(event)
        if line is not None:
            self._say(line)

    def note(self, line: str) -> None:
        """Show a sentence: above the live view, or as a line like the others."""
        if not self._quiet:
            self._console.print(Text(plain(line)), highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Show a stage's progress while the block runs; call what it yields with (done, total)."""
        began = self._clock()
        stage = Stage(plain(name), began, began)

        def tell(done: int, total: int) -> None:
            stage.done, stage.total = done, total
            now = self._clock()
            if now - stage.said >= SAID_EVERY:
                stage.said = now
                self._say(stage.words(now))

        self._stage = stage
        try:
            yield tell
        finally:
            self._stage = None
        count = f": {stage.done:,}" if stage.done else ""
        self._say(f"{stage.name}{count}, {duration(self._clock() - began)}")

    def render(self) -> RenderableType:
        """The current view."""
        with self._lock:
            parts: list[RenderableType] = [self._heading(), self._bar()]
            stage = self._stage
            if stage is not None:
                parts.append(Text(stage.words(self._clock()), style="cyan"))
            if self.view.closed or self.view.tested:
                parts.append(self._figures())
            if self.view.waiting:
                parts.append(Text(f"waiting: {self.view.waiting}", style="yellow"))
            if self.view.plants:
                parts.append(Padding(self._table(), (1, 0, 0, 0)))
            parts += [
                Text(said, style="red", overflow="ellipsis", no_wrap=True) for said in self.view.remarks
            ]
            return Group(*parts)

    def _say(self, line: str) -> None:
        if self._live is None and not self._quiet:
            self._console.print(Text(line), highlight=False, soft_wrap=True)

    def _heading(self) -> Text:
        view = self.view
        heading = Text(view.title or "federation", style="bold")
        if view.finished:
            heading.append("   finished", style="green")
        elif view.phase:
            heading.append(f"   {view.phase}", style="not bold")
        heading.append(f"   {duration(self._clock() - self._began)}", style="dim")
        if view.seconds_left is not None and not view.finished:
            left = max(0.0, view.seconds_left - (self._clock() - self._told))
            heading.append(f"   about {duration(left)} left", style="dim")
        return heading

    def _bar(self) -> RenderableType:
        return Padding(ProgressBar(total=max(1, self.view.rounds), completed=self.view.closed, width=60), 0)

    def _figures(self) -> Text:
        view = self.view
        line = Text()
        if view.tested:
            line.append(f"test accuracy {percent(view.tested[-1])} ", style="bold")
            line.append(trend(view.tested[-30:]) + "   ", style="cyan")
        if view.received is not None:
            line.append(f"at the plants {percent(view.received)}   ")
        line.append(f"training loss {number(view.train_loss)}   travelled {size(view.traffic)}")
        return line

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
        table.add_column("plant", no_wrap=True, overflow="ellipsis", max_width=28)
        table.add_column("state")
        for name in ("pictures", "accuracy", "loss", "sent", "time"):
            table.add_column(name, justify="right", no_wrap=True)
        rows = self.view.rows()
        for row in rows:
            table.add_row(
                Text(row.name),
                Text(row.state or MISSING, style=_STYLE.get(row.state, "")),
                MISSING if row.pictures is None else f"{row.pictures:,}",
                percent(row.accuracy),
                number(row.loss),
                size(row.bytes_up),
                duration(row.seconds),
            )
        hidden = len(self.view.plants) - len(rows)
        if hidden:
            table.add_row(Text(f"and {hidden:,} more", style="dim"))
        return table


def trend(values: Sequence[float]) -> str:
    """Sparkline: values as small bars between their own minimum and maximum."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    room = high - low or 1.0
    return "".join(BARS[min(len(BARS) - 1, int((value - low) / room * len(BARS)))] for value in values)
