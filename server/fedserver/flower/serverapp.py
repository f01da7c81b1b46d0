"""The ServerApp: the round loop of a run folder, for whichever engine or SuperLink carries it.

``app`` is what a bundle for Flower names: it runs the folder that the run's configuration gives as
``run-folder`` and writes what happens to ``events.jsonl`` there, for the process that shows it. In one
process (a simulation) ``build_server_app`` takes callbacks instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.common import Context
from flwr.server import Grid, ServerApp

from fedserver.flower.transport import GridTransport
from fedserver.rounds.client_manager import Admit, admit_all
from fedserver.rounds.event_log import EventLog
from fedserver.rounds.events import OnEvent
from fedserver.rounds.loop import RoundLoop
from fedserver.rounds.transport import Transport
from fedserver.storage.run_store import RunStore
from fedspect.errors import FedspectError, SettingsError

RUN_FOLDER_KEY = "run-folder"

logger = logging.getLogger("fedserver")


def build_server_app(
    folder_for: Callable[[Context], Path],
    *,
    on_event: OnEvent | None = None,
    on_error: Callable[[FedspectError], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    admit: Admit = admit_all,
    transport_for: Callable[[Grid], Transport] = GridTransport,
) -> ServerApp:
    """A ServerApp that goes on with the run in the folder that ``folder_for`` finds.

    Args:
        folder_for: finds the run's folder (``RunStore``) for Flower's context.
        on_event: is told what happens, in the ServerApp's thread; not set: a file in the run's folder.
        on_error: is given what ended the run too early; not set: the error is logged and raised.
        should_stop: asked at every pause.
        admit: a further look at who joins.
        transport_for: makes the rounds' transport of Flower's Grid.

    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            store = RunStore(folder_for(context))
            listen = on_event or EventLog(store.folder / "events.jsonl")
            RoundLoop(transport_for(grid), store, listen, should_stop=should_stop, admit=admit).run()
        except FedspectError as error:
            if on_error is None:
                logger.error("%s", error)
                raise
            on_error(error)

    return app


def folder_from_configuration(context: Context) -> Path:
    """The run folder that the run's configuration names."""
    folder = context.run_config.get(RUN_FOLDER_KEY)
    if not isinstance(folder, str) or not folder:
        raise SettingsError(
            "Flower's run does not say which run folder to go on with",
            seen=folder,
            accepted=f"{RUN_FOLDER_KEY} in the run's configuration",
        )
    return Path(folder)


app = build_server_app(folder_from_configuration)
