"""What plants report, read with care: bounded, JSON, and of the right form, or refused with the reason."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from fedspect.errors import EnrolmentError
from fedspect.protocol.limits import LARGEST_DEPLOYMENT_REPORT, LARGEST_REPORT
from fedspect.protocol.versions import DeploymentReport


def json_object(text: str, what: str = "a site report", largest: int = LARGEST_REPORT) -> dict[str, Any]:
    """What a plant reports: bounded, and an object.

    Raises:
        EnrolmentError: it is something else.

    """
    try:
        if len(text) > largest:
            raise ValueError(f"{len(text)} characters")
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise EnrolmentError(f"{what} cannot be read", seen=str(error)[:200]) from error
    return content


def deployment_report(text: str) -> DeploymentReport:
    """What a plant says of a version: bounded, and of the form that both sides mean.

    Raises:
        EnrolmentError: it is something else.

    """
    content = json_object(text, "a deployment report", LARGEST_DEPLOYMENT_REPORT)
    try:
        return DeploymentReport.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EnrolmentError("a deployment report cannot be read", seen=f"{where}: {first['msg']}") from error
