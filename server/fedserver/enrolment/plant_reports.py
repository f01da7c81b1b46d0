"""Validation of plants' reports: bounded, JSON, and of the right form, or refused with the reason."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedspect.errors import EnrolmentError
from fedspect.protocol.limits import LARGEST_DEPLOYMENT_REPORT, LARGEST_REPORT
from fedspect.protocol.versions import DeploymentReport

M = TypeVar("M", bound=BaseModel)


class ReportedBlocker(BaseModel):
    """A reason why training does not run at a plant now: ``kind`` is paused, hours, memory or load."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: str
    reason: str


class ReportedSite(BaseModel):
    """The part of a plant's site report that headquarters reads; the rest is kept as it came."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    counts: dict[str, Annotated[int, Field(ge=0, le=10**9)]] | None = None
    """Pictures by class; not set: the plant has not told."""
    training: ReportedBlocker | None = None
    """What speaks against training; not set: it may run."""

    @property
    def pictures(self) -> int | None:
        """Pictures of all classes together."""
        return None if self.counts is None else sum(self.counts.values())

    @classmethod
    def of(cls, stored: dict[str, Any]) -> ReportedSite:
        """One from the registry; nothing is known of one that an earlier server took as it came."""
        try:
            return cls.model_validate(stored)
        except ValidationError:
            return cls()


def site_report(text: str) -> dict[str, Any]:
    """A plant's site report as it came, once it is bounded and its known part (``ReportedSite``) can be read.

    Raises:
        EnrolmentError: it is something else.

    """
    content = _object(text, "a site report", LARGEST_REPORT)
    _validated(ReportedSite, content, "a site report")
    return content


def deployment_report(text: str) -> DeploymentReport:
    """A plant's deployment report, bounded and of the form that both sides know.

    Raises:
        EnrolmentError: it is something else.

    """
    content = _object(text, "a deployment report", LARGEST_DEPLOYMENT_REPORT)
    return _validated(DeploymentReport, content, "a deployment report")


def _object(text: str, what: str, largest: int) -> dict[str, Any]:
    """A plant's report: at most ``largest`` characters, and a JSON object.

    Raises:
        EnrolmentError: it is something else.

    """
    try:
        if len(text) > largest:
            raise ValueError(f"{len(text)} characters")
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("not an object")
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair cannot be stored
    except (ValueError, RecursionError) as error:
        raise EnrolmentError(f"{what} cannot be read", seen=str(error)[:200]) from error
    return content


def _validated(model: type[M], content: dict[str, Any], what: str) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise EnrolmentError(f"{what} cannot be read", seen=f"{where}: {first['msg']}") from error
