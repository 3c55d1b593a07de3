"""Transactional batches as Azure judges them: what each operation would come to, before any is carried out. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOST_OPERATIONS = 100
MOST_BYTES = 2 * 1024 * 1024
_KNOWN = {"Create", "Upsert", "Replace", "Read", "Delete"}
_UNKNOWN_YET = object()  # the etag of what the batch itself writes


def refusal(operations: Sequence[Any], size: int) -> tuple[int, str] | None:
    """Status and message for a batch that is refused as a whole."""
    if size > MOST_BYTES:
        return 413, "Request size is too large"
    if not operations:
        return 400, "Batch request has no operations."
    if len(operations) > MOST_OPERATIONS:
        return 400, "Batch request has more operations than what is supported."
    for operation in operations:
        if operation.get("operationType") not in _KNOWN or "ifNoneMatch" in operation:
            return 400, f"This server has not been taught the operation {operation}."
    return None


def failure(
    operations: Sequence[Mapping[str, Any]],
    etags: Mapping[str, str],
    has_key: Callable[[Mapping[str, Any]], bool],
) -> list[dict[str, Any]] | None:
    """The answer to a batch of which an operation fails; None if none does.

    `etags` are those of the documents that are there, by id; `has_key` says whether a document has the batch's key.
    """
    present: dict[str, Any] = dict(etags)
    for n, operation in enumerate(operations):
        status = _status(operation, present, has_key)
        if status >= 400:
            failed = {"statusCode": status, "requestCharge": 1.0}
            others = {"statusCode": 424, "requestCharge": 0.0}
            return [failed if m == n else others for m in range(len(operations))]
        if operation["operationType"] == "Delete":
            del present[_id(operation)]
        elif operation["operationType"] != "Read":
            present[_id(operation)] = _UNKNOWN_YET
    return None


def _status(
    operation: Mapping[str, Any], present: Mapping[str, Any], has_key: Callable[[Mapping[str, Any]], bool]
) -> int:
    kind, name, body = operation["operationType"], _id(operation), operation.get("resourceBody")
    if body is not None and not (isinstance(body.get("id"), str) and body["id"] == name and has_key(body)):
        return 400
    if kind == "Create" and name in present:
        return 409
    if kind in ("Replace", "Read", "Delete") and name not in present:
        return 404
    if "ifMatch" in operation and present.get(name) != operation["ifMatch"]:
        return 412
    return 200


def _id(operation: Mapping[str, Any]) -> Any:
    return operation["id"] if "id" in operation else operation["resourceBody"].get("id")
