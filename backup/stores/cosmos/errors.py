"""Says what errors of the Cosmos DB SDK mean: transient, something missing, or one document refused. No I/O."""

from __future__ import annotations

import contextlib
import json
from math import isfinite
from types import TracebackType

from azure.core.exceptions import AzureError, ServiceRequestError, ServiceResponseError
from azure.cosmos.exceptions import (
    CosmosBatchOperationError,
    CosmosClientTimeoutError,
    CosmosHttpResponseError,
    CosmosResourceNotFoundError,
)
from azure.cosmos.http_constants import HttpHeaders

_TRANSIENT = {408, 410, 429, 449, 500, 502, 503, 504}
# In this order: a replica lags behind the session; a container is being made; a region takes no more writes; a region
# does not know the account yet.
_TRANSIENT_BY_SUB_STATUS = {(404, 1002), (404, 1013), (403, 3), (403, 1008)}
_MISSING = {0, 1003}  # sub-statuses of 404: the document; its container or database
_REFUSED = {400, 409, 413}
_LONGEST_WAIT = 10.0  # seconds; whoever asks for more is asked again then
_PARTITION_IS_FULL = (403, 1014)  # the documents of one partition key have a limit


def http_status_of(error: AzureError) -> tuple[int, int]:
    """Status and sub-status of the answer; 0 for each that it does not have."""
    if isinstance(error, CosmosBatchOperationError):
        answers = error.operation_responses or []
        index = error.error_index or 0
        answer = answers[index] if index < len(answers) else {}
        return int(error.status_code or 0), int(answer.get("subStatusCode") or 0)
    return int(getattr(error, "status_code", None) or 0), int(getattr(error, "sub_status", None) or 0)


def is_not_verified(error: AzureError) -> bool:
    """Whether the server's certificate is not trusted. No request has reached it then."""
    return isinstance(error, ServiceRequestError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def is_transient(error: AzureError) -> bool:
    """Whether the same call may succeed later."""
    if is_not_verified(error):
        return False
    if isinstance(error, ServiceRequestError | ServiceResponseError | CosmosClientTimeoutError):
        return True
    status = http_status_of(error)
    return status[0] in _TRANSIENT or status in _TRANSIENT_BY_SUB_STATUS


def is_missing(error: AzureError) -> bool:
    """Whether a document, a container or a database does not exist. Not the 404 of a replica that lags."""
    status, sub_status = http_status_of(error)
    return status == 404 and sub_status in _MISSING


def is_refusal(error: AzureError) -> bool:
    """Whether the server refuses this one document. Else the error is about the server or the container."""
    status = http_status_of(error)
    return status[0] in _REFUSED or status == _PARTITION_IS_FULL


class UnlessMissing(contextlib.AbstractContextManager["UnlessMissing"]):
    """Ends the block without an error if the document, container or database of its request does not exist."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return isinstance(error, CosmosResourceNotFoundError) and is_missing(error)


def reason_of(error: AzureError) -> str:
    """The status and the first line of the server's message, without activity ids and without the request."""
    status, sub_status = http_status_of(error)
    if isinstance(error, CosmosHttpResponseError):
        text = error.message or error.http_error_message or ""
        with contextlib.suppress(ValueError):
            text = json.loads(text[text.index("{") : text.rindex("}") + 1]).get("message") or ""
        number = f"{status}.{sub_status}" if sub_status else f"{status}"
        return f"HTTP {number}. {text.splitlines()[0] if text.strip() else ''}".strip()
    if isinstance(error, CosmosBatchOperationError):
        return f"HTTP {status}, in a batch."
    return str(error.message or type(error).__name__).splitlines()[0]


def retry_after_seconds(error: AzureError) -> float | None:
    """How long the server asks to wait, at most ten seconds; None if it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None) or {}
    waits = (
        seconds_to_wait(headers.get(name), unit)
        for name, unit in ((HttpHeaders.RetryAfterInMilliseconds, 0.001), ("Retry-After", 1.0))
    )
    return next((seconds for seconds in waits if seconds is not None), None)


def seconds_to_wait(text: object, unit: float) -> float | None:
    """The seconds in a header that counts in `unit`, at most ten; None if it is no number."""
    number = number_of_header(text)
    return None if number is None else min(number * unit, _LONGEST_WAIT)


def number_of_header(text: object) -> float | None:
    """The number in a header; None if there is none that is finite and not negative."""
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None
