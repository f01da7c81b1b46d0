"""Live view of `fedclient join` at a terminal; plain log lines anywhere else.

The view draws the node's status (``fedclient.node.node_status``) four times a second and knows nothing else. Names
and reasons come from elsewhere and are shown as text only. It writes to standard error.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedclient.commands.wording import plain, round_text, version_texts
from fedspect.console import stderr
from fedspect.errors import StorageError
from fedspect.files import append_bounded

STYLE = {"lost": "yellow", "waiting": "yellow", "asking": "yellow", "working": "cyan", "idle": "green"}


class JoinView:
    """The view of one plant; ``facts`` returns the node's status, ``line`` the version that the line runs."""

    def __init__(
        self,
        title: str,
        log: Path,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.title = title
        self.facts: Callable[[], Mapping[str, Any]] = dict
        self.line: Callable[[], Mapping[str, Any] | None] = lambda: None
        self._log = log
        self._console = console or stderr()
        self._clock = clock
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self.render,
                refresh_per_second=4,
                vertical_overflow="crop",
            )

    def __enter__(self) -> JoinView:
        if self._live is not None:
            self._live.start()
            handler = _Lines(self._console)
            handler.setFormatter(logging.Formatter("%(message)s"))
            logging.getLogger("fedclient").addHandler(handler)
            logging.getLogger("fedspect").addHandler(handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Show a sentence and write it to the plant's log."""
        now = self._clock()
        with contextlib.suppress(StorageError):  # a full disk is no reason to end; it is said all the same
            append_bounded(self._log, {"time": now, "text": text})
        if self._live is not None:
            line = Text(time.strftime("%H:%M:%S ", time.localtime(now)), style="dim")
            self._console.print(line.append(plain(text), style="not dim"))
        else:
            self._console.print(Text(plain(text)), soft_wrap=True)

    def render(self) -> RenderableType:
        """The current view."""
        facts = self.facts()
        parts: list[RenderableType] = [self._heading(facts)]
        training, work = facts.get("training"), facts.get("work")
        if training:
            parts.append(Text(f"training waits: {plain(training['reason'])}", style="yellow"))
        if facts.get("round"):
            parts.append(Text(round_text(facts["round"])))
        if work:
            parts.append(_work(work))
        parts += [Text(text) for text in version_texts(self.line(), facts.get("version"))]
        parts += [
            Text(f"{subject}: {plain(text)}", style="red", overflow="ellipsis", no_wrap=True)
            for subject, text in (facts.get("problems") or {}).items()
        ]
        return Group(*parts)

    def _heading(self, facts: Mapping[str, Any]) -> Text:
        state = str(facts.get("state", "starting"))
        heading = Text(plain(self.title), style="bold")
        heading.append(f"   {state}", style=f"not bold {STYLE.get(state, '')}".strip())
        if facts.get("detail"):
            heading.append(f" {plain(str(facts['detail']))}", style="not bold")
        return heading.append(f"   {time.strftime('%H:%M:%S', time.localtime(self._clock()))}", style="dim")


class _Lines(logging.Handler):
    """Log handler that prints above the view; written otherwise, lines would tear it."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(Text(plain(self.format(record)), style="yellow"))


def _work(work: Mapping[str, Any]) -> RenderableType:
    done, total = int(work.get("done", 0)), int(work.get("total", 0))
    row = Table.grid(padding=(0, 1))
    if total:
        row.add_row(
            Text(plain(str(work["stage"]))),
            ProgressBar(total=total, completed=done, width=40),
            f"{done:,} of {total:,}",
        )
    else:
        row.add_row(Text(f"{plain(str(work['stage']))} ...", style="cyan"))
    return row
