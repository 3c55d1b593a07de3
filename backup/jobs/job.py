"""A job: a request to run, and its state. Values alone; no I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import UnionType
from typing import Any, Self, TypeVar

from backup.core.log import event
from backup.jobs.stored import moment_text, whole_number

CLOCKS_DIFFER = timedelta(minutes=5)
"""How far the clocks of two machines may differ. A time that lies further ahead comes from a wrong clock."""

Made = TypeVar("Made")
HISTORY_AT_MOST = 100
"""How many states a job keeps: the first, and the latest of the rest."""


class State(StrEnum):
    """The state of a job. The names come from the job queue of the original system."""

    ENQUEUED = "Enqueued"
    SCHEDULED = "Scheduled"
    PROCESSING = "Processing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DELETED = "Deleted"

    @property
    def has_ended(self) -> bool:
        """Whether nothing happens to the job any more unless somebody requeues or deletes it."""
        return self in ENDED


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.DELETED})
OPEN = frozenset(State) - ENDED


@dataclass(frozen=True)
class Request:
    """What a job shall do: a verb on a service, with its options."""

    service: str
    verb: str = "sync"
    force: bool = False
    dry_run: bool = False
    allow_mass_delete: bool = False
    full: bool = False
    sample: int = 0
    limit: int | None = None


@dataclass(frozen=True)
class StateChange:
    """A state that the job entered, when, and why."""

    state: State
    at: datetime
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """A request and everything that its record says. Times are aware UTC.

    `trigger` is http, timer or cli; `requested_by` is a person's name, if it is known. No worker begins a Scheduled job
    before `due_at`. `attempt` counts the attempts from 1; `retries` counts the failed ones that led to another attempt.
    `owner` is the process that works on it, `claim` marks its work, `heartbeat_at` is its last sign of life. `sync_id`
    is the run that the job became; `percent` and `counts` are that run's progress. `proof` is only of a run of several
    services: what those have proven that ended in earlier slices, if it is known. `cancelled` asks a running job to
    stop. `occurrence` is the time of the schedule that the job is for.
    """

    job_id: str
    order: str
    request: Request
    trigger: str
    created_at: datetime
    state: State = State.ENQUEUED
    state_at: datetime | None = None
    requested_by: str | None = None
    due_at: datetime | None = None
    attempt: int = 0
    retries: int = 0
    owner: str | None = None
    claim: str | None = None
    heartbeat_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    sync_id: str | None = None
    percent: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    proof: Mapping[str, Any] | None = None
    error: str | None = None
    error_kind: str | None = None
    hint: str | None = None
    cancelled: bool = False
    occurrence: str | None = None
    history: tuple[StateChange, ...] = ()

    def became(self, state: State, at: datetime, reason: str = "", **changed: Any) -> Job:
        """Returns the job in another state, with the state in its history and these fields changed."""
        history = (*self.history, StateChange(state, at, reason))
        if len(history) > HISTORY_AT_MOST:
            history = (history[0], *history[-HISTORY_AT_MOST + 1 :])
        ended = at if state.has_ended else None
        return replace(self, state=state, state_at=at, ended_at=ended, history=history, **changed)

    def to_json(self) -> dict[str, Any]:
        """Returns the job as JSON values; `from_json` reads them."""
        return {name: value for name, value in _plain(asdict(self)).items() if value not in (None, {}, [])}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Returns the job of a record. Ignores fields that this release does not have. Raises ValueError, TypeError,
        KeyError or AttributeError for a record that is none of a job; see `job_of`."""
        values = {item.name: record[item.name] for item in fields(cls) if item.name in record}
        for name in _TIMES & values.keys():
            values[name] = _moment(values[name])
        request = {
            item.name: record["request"][item.name] for item in fields(Request) if item.name in record["request"]
        }
        values["request"], values["state"] = _checked(Request(**request), _REQUEST_KINDS), State(values["state"])
        values["history"] = tuple(
            StateChange(State(change["state"]), _moment(change["at"]), change["reason"])
            for change in values.get("history", ())
        )
        return _checked(cls(**values), _KINDS)


def job_of(record: Mapping[str, Any]) -> Job | None:
    """The record's job. None, and a line in the log, for a record that cannot be read, such as one of a later release
    that knows more states: it counts as missing, and stops no other job."""
    try:
        return Job.from_json(record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        job_id = record.get("job_id") if isinstance(record, Mapping) else None
        event("job.not_read", level=logging.WARNING, job_id=job_id, error=type(error).__name__)
        return None


_KINDS: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("job_id", "order", "trigger"), str),
    **dict.fromkeys(("attempt", "retries"), int),
    **{"cancelled": bool, "occurrence": str | None},
}
_REQUEST_KINDS: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("service", "verb"), str),
    **dict.fromkeys(("force", "dry_run", "allow_mass_delete", "full"), bool),
    **{"sample": int, "limit": int | None},
}
"""A request that is spoilt is nobody's wish: no value of it is guessed."""
_TIMES = frozenset(item.name for item in fields(Job) if "datetime" in str(item.type))


def _checked(made: Made, kinds: Mapping[str, type | UnionType]) -> Made:
    """Returns what was made. Raises TypeError where a field has another kind, or a number no run can have."""
    for name, kind in kinds.items():
        value = getattr(made, name)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if (kind is not bool and isinstance(value, bool)) or not isinstance(value, kind):
            raise TypeError(name)
        if is_number:
            whole_number(value)
    return made


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(moment_text(text))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.isoformat() if isinstance(value, datetime) else value
