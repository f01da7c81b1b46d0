"""Folder watcher process: line, reloader, journal, watcher; it ends when told to."""

from __future__ import annotations

import hashlib
import logging
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

from fedclient.worker.deployments import Deployment
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.monitoring.telemetry import Telemetry
from fedclient.worker.line.reload.reloader import Reloader
from fedclient.worker.line.review.review_heat_maps import HeatMaps
from fedclient.worker.line.review.review_queue import ReviewQueue
from fedclient.worker.line.serving.dynamic_batcher import DynamicBatcher
from fedclient.worker.line.serving.model_leases import ServedModel
from fedclient.worker.line.settings import LineSettings, read_settings
from fedclient.worker.line.watch.journal import Journal
from fedclient.worker.line.watch.watcher import Watcher
from fedspect.console import print_json
from fedspect.errors import NoPicturesError
from fedspect.graceful_shutdown import stop_event
from fedspect.locking import Occupied

logger = logging.getLogger("fedclient.line")


@dataclass(frozen=True)
class PollInterval:
    """Seconds: between two looks, that a file must not change, after which a damaged one is named."""

    every: float
    settle: float
    give_up: float


def watch(
    home: LineHome,
    folder: Path,
    pace: PollInterval,
    *,
    output: Optional[Path] = None,
    skip_present: bool = False,
    once: bool = False,
) -> None:
    """Watch a folder until SIGTERM or Ctrl-C, or with ``once`` until every picture has its verdict.

    Raises:
        NoPicturesError: there is no such folder.
        AlreadyRunningError: another process watches it for this plant.
        StorageError: a verdict cannot be written down.
        EngineError: ``once``, and there is no engine; or the engine gives no answers any more.

    """
    if not folder.is_dir():
        raise NoPicturesError("there is no such folder to watch", seen=folder, remedy="check the path")
    name = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    lock = Occupied(home.line / "watch" / f"{name}.lock", f"the watch of {folder}")
    stop = stop_event(signal.SIGTERM, signal.SIGINT)
    settings = read_settings(home.line)
    with lock:
        journal = Journal(home.line / "watch" / f"{name}.jsonl", output)
        review = ReviewQueue(home.review, settings.review)
        telemetry = Telemetry(
            review=review,
            drift=lambda: home.drift_watch(reloader.settings.drift),
            heat_maps=HeatMaps(home.store),
        )
        line = DynamicBatcher(settings.serving)

        def on_model(model: ServedModel, deployment: Deployment) -> None:
            telemetry.model_replaced(model, deployment, home.reference)

        def on_settings(taken: LineSettings) -> None:
            review.settings = taken.review
            telemetry.settings(taken.drift)

        threads = settings.serving.threads
        reloader = Reloader(
            line,
            home.deployments,
            lambda each: home.open(each, threads=threads),
            home.line,
            guards=home.guards,
            on_model=on_model,
            on_settings=on_settings,
            on_broken=stop.set,
        )
        watcher = Watcher(
            folder,
            line,
            journal,
            telemetry,
            partial(print_json, indent=None),
            settle=pace.settle,
            give_up=pace.give_up,
        )
        try:
            if not reloader.look():
                if once:
                    home.open_current().close()  # says what is missing
                logger.warning("no engine yet: pictures wait for the first version")
            reloader.start()
            if skip_present and not journal.count:  # later starts find what came meanwhile
                logger.info("%d pictures lie there already", watcher.skip_present())
            while not stop.is_set():
                begun = time.monotonic()
                watcher.look()
                if once and not watcher.pending:
                    return
                # a folder with very many pictures takes a while to look at: leave the disk some peace
                stop.wait(max(pace.every, 2 * (time.monotonic() - begun)))
        finally:
            reloader.stop()
            line.close()
            telemetry.close()
        reloader.status.check()
