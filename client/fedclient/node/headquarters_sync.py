"""Headquarters sync: a thread that fetches versions and sends reports beside the rounds.

It asks every ``look_every`` seconds over one session, which is opened anew when it is over. Headquarters
that cannot be reached, or does not want this plant any more, is the main loop's business: here the next visit
comes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from fedclient.node.enrolment.enrol import returned
from fedclient.node.enrolment.session import Session
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedclient.node.node_status import NodeStatus
from fedclient.node.version_updater import VersionUpdater
from fedclient.yield_policy import YieldPolicy
from fedspect import files
from fedspect.errors import ConnectionLostError, DataError, EnrolmentError, FedspectError

logger = logging.getLogger("fedclient.node")


class HeadquartersSync:
    """Synchronises with headquarters until ``stop`` is set."""

    def __init__(
        self,
        home: PlantHome,
        yield_policy: YieldPolicy,
        status: NodeStatus,
        updater: VersionUpdater,
        *,
        visit: Callable[[PlantHome, Membership], Any] = returned,
    ) -> None:
        self._home = home
        self._yield_policy = yield_policy
        self._status = status
        self._updater = updater
        self._visit = visit
        self._open = ExitStack()
        self._session: Session | None = None
        self._told: object = ()
        self._wake = threading.Event()
        self._turn = threading.Lock()

    def soon(self) -> None:
        """Make the next visit now."""
        self._wake.set()

    def report(self) -> None:
        """Send the site report now; errors as ``visit``."""
        with self._turn:
            self._tell(self._session_for(self._home.membership()))

    def run(self, stop: threading.Event) -> None:
        """Visit until told to stop; errors are logged, and the next visit follows."""
        while not stop.is_set():
            self._wake.wait(self._yield_policy.settings.versions.look_every)
            self._wake.clear()
            if stop.is_set() or not self._home.membership_path.exists():
                continue
            try:
                self.visit()
            except (ConnectionLostError, EnrolmentError) as error:
                logger.info("headquarters could not be visited: %s", error)
            except FedspectError as error:
                self._status.problem("versions", str(error))
                logger.warning("a visit to headquarters failed: %s", error)
            except Exception:
                logger.exception("a visit to headquarters failed")
        self._close()

    def visit(self) -> None:
        """Visit once; a session that is over is opened again.

        Raises:
            FedspectError: what could not be seen to.

        """
        membership = self._home.membership()
        with self._turn:
            was_open = self._session is not None
            try:
                try:
                    self._see_to(membership)
                except EnrolmentError:
                    if not was_open:
                        raise
                    self._close()
                    self._see_to(membership)
            except BaseException:
                self._close()
                raise
        self._status.problem("versions", None)

    def _see_to(self, membership: Membership) -> None:
        session = self._session_for(membership)
        self._tell(session)
        self._updater.look(session, membership.base_hash)

    def _session_for(self, membership: Membership) -> Session:
        if self._session is None:
            self._session = self._open.enter_context(self._visit(self._home, membership))
        return self._session

    def _tell(self, session: Session) -> None:
        """Send the site report when it, or the blocker of training, differs from the last one sent."""
        report = site_report(self._home, self._yield_policy)
        if report is not None and report != self._told:
            try:
                session.report(report)
            except DataError as error:  # once: another try would not mend it, and versions do not wait for it
                logger.warning("headquarters is not told how this plant is: %s", error)
            self._told = report

    def _close(self) -> None:
        self._session = None
        self._open.close()


def site_report(home: PlantHome, yield_policy: YieldPolicy) -> dict[str, Any] | None:
    """The site report for headquarters: counts, and what blocks training. No names of pictures."""
    try:
        report = files.read_json(home.report_path)
    except FileNotFoundError:
        return None
    blocker = yield_policy.schedule_blocker()
    told = {key: value for key, value in report.items() if key != "examples"}
    told["training"] = None if blocker is None else blocker.as_dict()
    return told
