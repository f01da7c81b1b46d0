"""`fedclient join`: join with a token, take part in rounds, and reconnect after any interruption.

Once: enrol, fetch the base model, let the worker look at the pictures, report. Then, for ever: answer
rounds on the Fleet API. A link that is lost is waited for, and so is headquarters where somebody else answers in
its stead; a server that does not recognise the key is asked why over the enrolment service, which either lets
the plant in again (a new server, a new certificate, another base model) or says for good that it was revoked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedclient.node.enrolment.enrol import joined, returned
from fedclient.node.enrolment.session import Session
from fedclient.node.headquarters_sync import HeadquartersSync
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedclient.node.message_handler import MessageHandler
from fedclient.node.node_status import NodeStatus
from fedclient.node.policy_watcher import PolicyWatcher
from fedclient.node.version_updater import VersionUpdater
from fedclient.node.worker_supervisor import WorkerSupervisor
from fedclient.yield_policy import YieldPolicy
from fedspect import files
from fedspect.errors import (
    EnrolmentError,
    FederationError,
    WorkerError,
    WorkspaceError,
)
from fedspect.protocol.join_token import JoinToken
from fedspect.protocol.limits import CLOCK_TOLERANCE
from fedspect.protocol.names import join_address

FIRST_RETRY = 1.0  # seconds
LONGEST_RETRY = 10.0
ENDS_WITHIN = 5.0

logger = logging.getLogger("fedclient.node")

Say = Callable[[str], None]


@dataclass
class JoinedPlant:
    """A plant on this device; ``run`` returns when it is told to stop or is revoked.

    ``say`` takes sentences for the plant's engineer, ``on_change`` is called when the status changed.
    """

    home: PlantHome
    say: Say = lambda text: None
    on_change: Callable[[], None] = lambda: None
    wait: float | None = None
    """Seconds to wait for headquarters before the first contact; ``None``: for ever."""
    status: NodeStatus = field(init=False)
    yield_policy: YieldPolicy = field(init=False)
    _worker: WorkerSupervisor = field(init=False)
    _sync: HeadquartersSync = field(init=False)
    _clock_offset: float = field(default=0.0, init=False)
    _said: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.status = NodeStatus(self.home, on_change=self.on_change)
        self.yield_policy = YieldPolicy(self.home.folder)
        self._worker = WorkerSupervisor(self.home, self.yield_policy, self.status, self.say)
        updater = VersionUpdater(self.home, self._worker, self.yield_policy, self.status, self.say)
        self._sync = HeadquartersSync(self.home, self.yield_policy, self.status, updater)

    def run(
        self,
        stop: threading.Event,
        *,
        token: JoinToken | None = None,
        data: Path | None = None,
        worker_python: str | None = None,
    ) -> None:
        """Join with a token, or come back without; then answer rounds.

        Raises:
            EnrolmentError: headquarters does not admit this device, and why.
            ConnectionLostError: it did not answer within ``wait``.
            WorkspaceError: there is no token and the plant never joined.
            DataError, WorkerError: the pictures or the worker cannot be used.
            AlreadyRunningError: another process is this plant.

        """
        self.home.prepare()
        with self.home.occupied():
            self.status.set_state("starting")
            try:
                self._run(stop, token, data, worker_python)
            except FederationError as error:
                self.status.set_state(
                    "refused" if isinstance(error, EnrolmentError) else "stopped", str(error)
                )
                raise
            except BaseException as error:
                self.status.set_state("stopped", str(error) or type(error).__name__)
                raise
            finally:
                self._worker.close()
            self.status.set_state("stopped")

    def _run(
        self, stop: threading.Event, token: JoinToken | None, data: Path | None, worker_python: str | None
    ) -> None:
        kept: dict[str, Any] = {}
        if data is not None:
            kept["data"] = str(data.absolute())
        if worker_python is not None:
            kept["worker_python"] = worker_python
        self._worker.prepare(worker_python or self._worker_python())
        from fedclient.node.flower.fleet_connection import (
            NotRecognisedError,
        )  # Flower takes seconds to import

        with self._accompanied(stop):
            while not stop.is_set():
                try:
                    membership = self._admitted(stop, token, kept)
                    if membership is None:
                        return
                    token, self.wait = None, None  # from now on the key is enough, and there is all the time
                    if self._worker.ensure_running(membership):
                        self._inspect()
                    self._answer(stop, membership)
                except NotRecognisedError as error:
                    self._tell("asking", f"asking headquarters why: {error}")
                    stop.wait(FIRST_RETRY)
                except WorkerError:
                    if not stop.is_set():
                        raise

    def _worker_python(self) -> str | None:
        """The worker's interpreter as it was named when this device joined."""
        return self.home.membership().worker_python if self.home.membership_path.exists() else None

    @contextmanager
    def _accompanied(self, stop: threading.Event) -> Iterator[None]:
        """The threads beside the rounds: policy watcher, headquarters sync and stop."""
        ended = threading.Event()
        watcher = PolicyWatcher(self._worker, self.say, on_news=self._sync.soon)

        def close_on_stop() -> None:
            while not (stop.wait(0.2) or ended.is_set()):
                pass
            self._worker.close()
            ended.set()
            self._sync.soon()

        work = (lambda: watcher.run(ended), lambda: self._sync.run(ended), close_on_stop)
        threads = [threading.Thread(target=each, daemon=True) for each in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            self._sync.soon()
            for thread in threads:  # Python must not end under a thread that is closing a connection
                thread.join(ENDS_WITHIN)

    # -- being admitted ------------------------------------------------------------------------------------

    def _admitted(
        self, stop: threading.Event, token: JoinToken | None, kept: dict[str, Any]
    ) -> Membership | None:
        """Try until headquarters answers; ``None`` when told to stop meanwhile."""
        deadline = None if self.wait is None else time.monotonic() + self.wait
        delay = FIRST_RETRY
        while not stop.is_set():
            try:
                return self._enrol(token, kept) if token is not None else self._return(kept)
            except (EnrolmentError, WorkspaceError):
                raise
            except FederationError as error:
                if deadline is not None and time.monotonic() > deadline:
                    raise
                why = error.what if error.seen is None else f"{error.what} ({error.seen})"
                mend = f"; {error.remedy}" if error.remedy else ""
                self._tell("waiting", f"{why}; trying again{mend}")
            stop.wait(delay)
            delay = min(2 * delay, LONGEST_RETRY)
        return None

    def _enrol(self, token: JoinToken, kept: dict[str, Any]) -> Membership:
        if self.home.membership_path.exists():
            known = self.home.membership()
            if known.fingerprint != token.fingerprint.hex() or known.plant != token.plant:
                raise EnrolmentError(
                    "this device is a plant already",
                    seen=f"{known.plant} of {known.federation}",
                    remedy="run `fedclient leave` first, or use another --home",
                )
        with joined(self.home, token) as (session, authority):
            addresses = [join_address(*address) for address in token.addresses]
            self._see_clock(session)
            membership = session.membership(addresses, token.fingerprint, **kept)
            self._fetch_base(session)
            self.home.remember(membership, authority)
        self._tell("enrolled", f"{membership.plant} is admitted to {membership.federation}")
        return membership

    def _return(self, kept: dict[str, Any]) -> Membership:
        known = self.home.membership()
        with returned(self.home, known) as session:
            self._see_clock(session)
            before = {"data": known.data, "worker_python": known.worker_python, "node_id": known.node_id}
            membership = session.membership(
                known.enrolment_addresses, bytes.fromhex(known.fingerprint), **{**before, **kept}
            )
            self._fetch_base(session)
            self.home.remember(membership, self.home.authority_path.read_bytes())
        return membership

    def _fetch_base(self, session: Session) -> None:
        session.fetch_base(self.home, lambda done, total: self.status.progress("base model", done, total))
        self.status.put(work=None)

    def _see_clock(self, session: Session) -> None:
        self._clock_offset = session.clock_offset
        if abs(session.clock_offset) > CLOCK_TOLERANCE:
            self.say(
                f"this device's clock is {-session.clock_offset:+.0f} s from headquarters'; rounds go on with"
                " headquarters' time, but set the clock: certificates are checked with this device's own"
            )

    # -- working -------------------------------------------------------------------------------------------

    def _inspect(self) -> None:
        """Inspect the pictures, and send counts to headquarters; names of files stay here.

        That headquarters hears it now is not worth waiting for.
        """
        self.status.set_state("inspecting", "looking at the pictures")
        report = self._worker.inspect()
        files.write_json(self.home.report_path, report)
        counts = report.get("counts", {})
        self.say(
            f"{sum(counts.values())} pictures: " + ", ".join(f"{n} {name}" for name, n in counts.items())
        )
        for kind, number in report.get("problems", {}).items():
            self.say(f"{number} files left out: {kind}")
        for what in ("given_up", "missing_classes"):
            if report.get(what):
                self.say(f"{what.replace('_', ' ')}: {', '.join(report[what])}")
        try:
            self._sync.report()
        except FederationError as error:
            logger.warning("the site report was not handed in: %s", error)

    def _answer(self, stop: threading.Event, membership: Membership) -> None:
        from fedclient.node.flower.fleet_node import FleetNode
        from fedclient.node.flower.message_store import MessageStore

        node = FleetNode(
            membership.fleet_addresses,
            self.home.authority_path.read_bytes(),
            self.home.key(),
            MessageHandler(lambda: self._worker, on_notice=self._heard),
            MessageStore(self.home.state / "message"),
            clock_offset=self._clock_offset,
            proxy=self.yield_policy.settings.network.proxy,
            node_id=membership.node_id,
        )

        def on_state(state: str, detail: str) -> None:
            if state == "joined" and node.node_id != membership.node_id:
                again = self.home.membership().model_copy(update={"node_id": node.node_id})
                files.write_json(self.home.membership_path, again.model_dump(), mode=0o600)
            self._tell(state, detail)

        node.on_state = on_state
        node.run(stop)

    def _heard(self, text: str) -> None:
        self.say(f"headquarters says: {text}")

    def _tell(self, state: str, detail: str) -> None:
        """Write the status, and print it when it is new."""
        self.status.set_state(state, detail)
        news = f"{state}: {detail}" if detail else state
        if state not in ("working", "idle") and news != self._said:
            self._said = news
            self.say(news)
