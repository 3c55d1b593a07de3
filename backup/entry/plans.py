"""The JSON answer of a plan."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from backup.core.log import redact
from backup.entry.answers import Answer, status_of
from backup.services.service_plans import Plan, ServicePlan


def shape_plan(plan: Plan) -> Answer:
    """The answer to a plan: 200 when every service and every pattern can be done, else the status of a failure."""
    errors = [*plan.errors, *(service.error for service in plan.services if service.error is not None)]
    body: dict[str, Any] = {
        "Success": not errors,
        "Results": [_result(service) for service in plan.services],
        "Notes": list(plan.notes),
        "Errors": [redact(str(error)) for error in plan.errors],
    }
    return Answer(max(map(status_of, errors)) if errors else 200, body)


def _result(service: ServicePlan) -> dict[str, Any]:
    planned = service.changes
    counts = {} if planned is None else {_title(name): value for name, value in asdict(planned).items()}
    return {
        "Service": service.service,
        "Key": service.key,
        "Version": service.version,
        "Filter": service.filter,
        "LeftOut": list(service.left_out),
        "Masked": list(service.masked),
        "Transform": list(service.transform),
        **counts,
        "Notes": list(service.notes),
        "Error": None if service.error is None else redact(str(service.error)),
    }


def _title(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))
