"""Supervisor of `fedserver start`: runs all processes of headquarters and watches them from one loop.

After the last round the server publishes what the run has reached and stays, so that plants can fetch the
version, report what became of it, and join; with ``until_done`` it ends instead.

Three things run: Flower's SuperLink and the ServerApp with its rounds (child processes), and the enrolment
service (in this process). Either child may die; the loop notices and starts it again. The run's own folder
says where it stands, so each new start under the hood goes on with the next round.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import Any

from fedserver.enrolment.endpoint import EnrolmentEndpoint, offer_of
from fedserver.enrolment.plant_registry import RegisteredPlant
from fedserver.enrolment.service import EnrolmentService
from fedserver.flower.control_api import Control, thin_bundle
from fedserver.flower.node_register import NODES_FILE, Nodes
from fedserver.flower.serverapp import RUN_FOLDER_KEY
from fedserver.flower.superlink import SuperLink
from fedserver.operations.operator_log import OperatorLog
from fedserver.registry.announcer import VersionAnnouncer
from fedserver.registry.base_files import BaseFiles
from fedserver.rounds.event_log import EventTail
from fedserver.rounds.outcome import RunOutcome
from fedserver.settings import ServerSettings
from fedserver.storage.run_store import RunStore
from fedserver.storage.runs import is_finished
from fedserver.workspace import Workspace
from fedspect import files
from fedspect.errors import ConnectionLostError, FederationError

SERVED_APP = "fedserver.flower.workspace_serverapp"
LOOK = 0.25  # seconds between two looks at everything
LOOK_ONLINE = 1.0
SILENCE = 60.0  # seconds without an answer after which a living SuperLink is ended
MOST_STARTS = 5  # starts under the hood without a round in between

logger = logging.getLogger("fedserver")


class Supervisor:
    """A running server on a workspace; ``operator_log`` hears what there is to say."""

    def __init__(
        self,
        workspace: Workspace,
        settings: ServerSettings,
        base: BaseFiles,
        store: RunStore | None,
        *,
        operator_log: OperatorLog,
        until_done: bool = False,
    ) -> None:
        self._until_done = until_done
        self._done = False
        self._workspace = workspace
        self._settings = settings
        self._store = store
        self._operator_log = operator_log
        self._say = operator_log.say
        self._superlink = SuperLink(
            workspace.state / "flower", workspace.authority, workspace.logs / "superlink.log"
        )
        self._nodes = Nodes(workspace.registry, self._superlink.folder / NODES_FILE)
        self._control: Control | None = None
        self._run: int | None = None
        self._starts = 0
        self._not_before = 0.0
        self._last_round = -1
        self._online: list[str] = []
        self._next_online = 0.0
        self._heard = time.monotonic()
        self._announcer = VersionAnnouncer(workspace.models, base.content_hash, operator_log.say)
        self._events = None if store is None else EventTail(store.folder / "events.jsonl")
        self._endpoint = EnrolmentEndpoint(workspace, settings, self._service(base), operator_log.say)

    def serve(self, stop: threading.Event) -> bool:
        """Run until ``stop`` is set or, with ``until_done``, the run is finished; answers whether it is.

        The caller holds the workspace's lock.

        Raises:
            FederationError: something cannot be started, or dies again and again.
            FedspectError: what ended the rounds, where another start cannot mend it.

        """
        network = self._settings.network
        try:
            self._endpoint.certify()
            port = self._endpoint.open()
            self._start_superlink()
            self._endpoint.answer()
            self._say(
                f"plants may join at port {port} and work at port {network.fleet_port} "
                f"of {', '.join(network.hosts)}"
            )
            return self._watch(stop)
        finally:
            self._endpoint.close()
            if self._control is not None:
                self._control.close()
            self._superlink.stop()
            self._workspace.running_path.unlink(missing_ok=True)

    # -- starting ------------------------------------------------------------------------------------------

    def _service(self, base: BaseFiles) -> EnrolmentService:
        return EnrolmentService(
            self._workspace.registry,
            self._workspace.authority.fingerprint(),
            offer_of(self._settings, base),
            self._workspace.models,
            self._workspace.deployments,
            on_admitted=self._admit,
            on_left=lambda plant: None,  # the watch follows the registry
            on_deployed=self._announcer.deployed,
            on_clone=self._say,
        )

    def _admit(self, plant: RegisteredPlant) -> None:
        control = self._control
        if control is None:
            raise ConnectionLostError("headquarters is just starting", remedy="try again in a moment")
        self._nodes.admit(control, plant)

    def _start_superlink(self) -> None:
        network = self._settings.network
        if self._control is not None:
            self._control.close()
            self._control = None
        self._superlink.start(network.bind, network.fleet_port)
        self._nodes.reset()
        control = self._superlink.control()
        self._nodes.follow(control)
        self._control = control
        self._run = None
        self._write_running()

    def _open_anew(self) -> None:
        """Restart both ports with a new certificate; a round under way is cut and started again."""
        self._say("opening the ports anew with it")
        self._endpoint.close()
        self._superlink.stop()
        self._endpoint.open()
        self._start_superlink()
        self._endpoint.answer()

    def _submit(self, control: Control, store: RunStore) -> None:
        """Submit the run to Flower, and start the process that executes it."""
        if self._starts >= MOST_STARTS:
            raise FederationError(
                "the rounds cannot be carried on",
                seen=f"{self._starts} starts without a round in between: {RunOutcome.read(store.folder).text}",
                remedy=f"see {self._superlink.log} and {store.folder / 'status.json'}",
            )
        if time.monotonic() < self._not_before:
            return
        self._starts += 1
        self._not_before = time.monotonic() + self._starts  # a run that fails at once is not tried at once
        bundle = thin_bundle(SERVED_APP, {RUN_FOLDER_KEY: str(store.folder)})
        self._superlink.end_serverapp()
        store.say("starting", "the rounds are being started")  # what an earlier process said is past
        self._run = control.submit(bundle, {})
        self._superlink.start_serverapp()

    # -- watching ------------------------------------------------------------------------------------------

    def _watch(self, stop: threading.Event) -> bool:
        while not stop.is_set():
            try:
                if self._look():
                    self._finish()
                    if self._until_done:
                        return True
                self._heard = time.monotonic()
            except ConnectionLostError as error:
                if self._superlink.alive and time.monotonic() - self._heard > SILENCE:
                    logger.error("the SuperLink is silent: %s", error)
                    self._superlink.stop()
            stop.wait(LOOK)
        self._say("stopping")
        self._superlink.end_serverapp()  # first, so that it can say in the run's folder that it was stopped
        if self._control is not None and self._run is not None:
            with contextlib.suppress(ConnectionLostError):  # a SuperLink that is gone runs nothing
                self._control.stop(self._run)
        return self._done

    def _finish(self) -> None:
        """The last round is closed: publish its model, and log what happens from now on."""
        assert self._store is not None
        self._done = True
        self._superlink.end_serverapp()
        self._tell_events()
        self._say("all rounds are done")
        if self._settings.run.publish == "at-the-end":
            self._announcer.publish(self._workspace, self._store.folder)
        if not self._until_done:
            self._say(
                "staying for plants that join or fetch versions; `fedserver stop` ends this, "
                "`fedserver start --rounds N` or `--new-run` goes on with rounds"
            )

    def _look(self) -> bool:
        """One poll of everything; whether the run has just ended."""
        if not self._superlink.alive:
            self._say("Flower's SuperLink died; starting it again")
            logger.error("the SuperLink died: %s", self._superlink.last_words())
            self._start_superlink()
        if self._endpoint.certify():
            self._open_anew()
        control = self._control
        assert control is not None
        for sentence in self._nodes.follow(control):
            self._say(sentence)
        self._look_online(control)
        self._tell_events()
        store = self._store
        if store is None or self._done:
            return False
        if self._run is None and is_finished(store):
            return True
        if self._run is None:
            self._submit(control, store)
            return False
        last = store.rounds()[-1]
        if last != self._last_round:
            self._last_round, self._starts = last, 0
        if self._superlink.serverapp_pid is not None:
            return False
        # The process is gone. Flower says "completed" only of a ServerApp that came to its end; should it
        # have forgotten, a closing evaluation of the last round says the same.
        closed = last >= store.facts.rounds.rounds and store.closing(last) is not None
        if closed or control.state(self._run).sub_status == "completed":
            return True
        outcome = RunOutcome.read(store.folder)
        outcome.check()
        control.stop(self._run)
        self._say(f"the rounds were cut: {outcome.text}; going on")
        self._run = None
        return False

    def _look_online(self, control: Control) -> None:
        if time.monotonic() < self._next_online:
            return
        self._next_online = time.monotonic() + LOOK_ONLINE
        self._announcer.look()
        self._superlink.turn_log_over()
        online = self._nodes.plants(control.online())
        if online != self._online:
            for plant in sorted(set(online) - set(self._online)):
                self._say(f"{plant} is online")
            for plant in sorted(set(self._online) - set(online)):
                self._say(f"{plant} is offline")
            self._online = online
            self._write_running()

    def _tell_events(self) -> None:
        for event in self._events.new() if self._events is not None else []:
            self._operator_log.event(event)

    def _write_running(self) -> None:
        network = self._settings.network
        content: dict[str, Any] = {
            "pid": os.getpid(),
            "superlink": self._superlink.pid,
            "serverapp": self._superlink.serverapp_pid,
            "online": self._online,
            "network": network.model_dump(),
            "run": None if self._store is None else self._store.folder.name,
        }
        files.write_json(self._workspace.running_path, content, mode=0o600)
