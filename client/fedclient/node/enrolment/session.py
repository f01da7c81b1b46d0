"""Authenticated session with headquarters: the base model, published versions, reports, leaving.

A session ends after an hour, or when headquarters is started again; ``enrol`` opens another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from fedclient.node.enrolment.download import Offered, Progress, check_version, hash_name, no_progress
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedspect.errors import DataError, EnrolmentError, FederationError
from fedspect.protocol.enrolment_pb2 import (
    Admission,
    BaseChunk,
    FetchBaseRequest,
    FetchVersionRequest,
    LeaveRequest,
    PublishedReply,
    PublishedRequest,
    ReportDeploymentRequest,
    ReportRequest,
)
from fedspect.protocol.grpc_services import Stub
from fedspect.protocol.limits import LARGEST_REPORT, MOST_CLASSES
from fedspect.protocol.names import checked_name, split_address
from fedspect.protocol.versions import VERSION_FILES, DeploymentReport

CALL_TIMEOUT = 20.0  # seconds
DOWNLOAD_TIMEOUT = 3600.0


class Session:
    """An open session with headquarters' enrolment service; made by ``enrol.joined`` and ``enrol.returned``."""

    def __init__(self, stub: Stub, admission: Admission, clock_offset: float) -> None:
        self._stub = stub
        self.admission = admission
        self.clock_offset = clock_offset
        """Seconds to add to this device's clock to get headquarters'."""

    def fetch_base(self, home: PlantHome, progress: Progress = no_progress) -> Path:
        """Download the base model's folder; files that are there and right are not fetched again.

        Raises:
            EnrolmentError: headquarters offers something that cannot be a base model.
            FederationError: this session is over, or headquarters has another base model by now: ask again.
            DamagedFileError: what came is not what was announced.
            StorageError: it cannot be kept.

        """
        session, base_hash = self.admission.session, self.admission.base_hash
        offered = Offered("base model", tuple(self.admission.base_files))
        folder = home.base_folder(hash_name(base_hash))

        def ask(name: str, offset: int) -> Iterator[BaseChunk]:
            request = FetchBaseRequest(session=session, base_hash=base_hash, name=name, offset=offset)
            try:
                yield from self._stub.fetch_base(request, timeout=DOWNLOAD_TIMEOUT)
            except (
                EnrolmentError
            ) as error:  # it shuts nobody out: who asks again hears whether he is admitted
                raise FederationError(error.what, seen=error.seen, remedy=error.remedy) from error

        offered.fetch(folder, ask, progress)
        return folder

    def published(self) -> Optional[PublishedReply]:
        """The version that headquarters wants plants to run: number, ``version_hash``, ``base_hash`` and
        ``files``; ``None`` when nothing is published.

        Raises:
            EnrolmentError: this session is over (after an hour, or because headquarters was started again):
                come back with ``enrol.returned``; or what is offered cannot be a version.
            ConnectionLostError: headquarters does not answer, or was asked too often.

        """
        request = PublishedRequest(session=self.admission.session)
        reply: PublishedReply = self._stub.published(request, timeout=CALL_TIMEOUT)
        if not reply.number:
            return None
        hash_name(reply.base_hash)
        hash_name(reply.version_hash)
        if {entry.name for entry in reply.files} != set(VERSION_FILES):
            names = ", ".join(repr(entry.name[:100]) for entry in reply.files[:5])
            raise EnrolmentError(
                "headquarters offers something that is no version",
                seen=names,
                accepted=", ".join(VERSION_FILES),
            )
        return reply

    def fetch_version(
        self, home: PlantHome, version: PublishedReply, progress: Progress = no_progress
    ) -> Path:
        """The folder of a version that ``published`` answered, checked against its hash; it holds
        ``fedspect.protocol.versions.VERSION_FILES``. What is there and right is not fetched again.

        Raises:
            FederationError: the version is not offered any more.
            ConnectionLostError: headquarters does not answer.
            EnrolmentError: this session is over, or what is offered is too large.
            DamagedFileError: what came is not what was announced.
            StorageError: it cannot be kept.

        """
        session, version_hash = self.admission.session, version.version_hash
        offered = Offered("published version", tuple(version.files))
        folder = home.folder / "versions" / hash_name(version_hash)

        def ask(name: str, offset: int) -> Iterator[BaseChunk]:
            request = FetchVersionRequest(
                session=session, version_hash=version_hash, name=name, offset=offset
            )
            chunks: Iterator[BaseChunk] = self._stub.fetch_version(request, timeout=DOWNLOAD_TIMEOUT)
            return chunks

        if offered.fetch(folder, ask, progress):
            check_version(folder, version_hash)
        return folder

    def report_deployment(self, report: DeploymentReport) -> None:
        """Tell headquarters what became of a version here; figures that have no room are left out.

        Raises:
            EnrolmentError: this session is over, or the report is not of that form.
            ConnectionLostError: headquarters does not answer; report again later.

        """
        request = ReportDeploymentRequest(session=self.admission.session, report_json=report.as_text())
        self._stub.report_deployment(request, timeout=CALL_TIMEOUT)

    def report(self, report: dict[str, object]) -> None:
        """Send the site report.

        Raises:
            DataError: it is too long.
            EnrolmentError: this session is over, or the report is not of that form.
            ConnectionLostError: headquarters does not answer; report again later.

        """
        text = json.dumps(report)
        if len(text) > LARGEST_REPORT:
            raise DataError(
                "the site report is too long", seen=f"{len(text)} characters", accepted=str(LARGEST_REPORT)
            )
        self._stub.report(
            ReportRequest(session=self.admission.session, report_json=text), timeout=CALL_TIMEOUT
        )

    def leave(self) -> None:
        """Have headquarters forget this device."""
        self._stub.leave(LeaveRequest(session=self.admission.session), timeout=CALL_TIMEOUT)

    def membership(self, addresses: Sequence[str], fingerprint: bytes, **kept: object) -> Membership:
        """The membership to store, checked: headquarters may prescribe, but names and bounds are validated.

        Raises:
            EnrolmentError, SettingsError: it broke them.

        """
        admission = self.admission
        if not 0 < len(admission.classes) <= MOST_CLASSES:
            raise EnrolmentError("the federation has no classes", seen=len(admission.classes))
        for address in admission.fleet_addresses:
            split_address(address)
        known = {
            "plant": checked_name(admission.plant),
            "federation": checked_name(admission.federation, "federation"),
            "fingerprint": fingerprint.hex(),
            "enrolment_addresses": list(addresses),
            "fleet_addresses": list(admission.fleet_addresses),
            "classes": list(admission.classes),
            "aliases": dict(admission.aliases),
            "base_hash": hash_name(admission.base_hash),
            **kept,
        }
        try:
            prescribed = json.loads(admission.settings_json or "{}")
            return Membership.model_validate({**known, "settings": prescribed})
        except (ValueError, RecursionError) as error:
            raise EnrolmentError(
                "headquarters prescribes something that cannot be understood",
                seen=str(error)[:300],
                remedy="bring both sides to the same version of Fedspect",
            ) from error
