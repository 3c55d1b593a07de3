"""A job: a request to run, and what became of it. Values alone; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

HISTORY_AT_MOST = 100
"""So many states a job remembers: the first, and the latest of the others."""


class State(StrEnum):
    """Where a job stands. The names are those of the original system's job queue."""

    ENQUEUED = "Enqueued"
    SCHEDULED = "Scheduled"
    PROCESSING = "Processing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DELETED = "Deleted"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in ENDED


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.DELETED})
OPEN = frozenset(State) - ENDED


@dataclass(frozen=True)
class Request:
    """What a job is to do: a verb on a service, with its options. `limit` is the most changes that a sync may make."""

    service: str
    verb: str = "sync"
    force: bool = False
    dry_run: bool = False
    allow_mass_delete: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class StateChange:
    """A state of the past, when it began, and why."""

    state: State
    at: datetime
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """A request with its record. Times are aware UTC.

    `trigger` is who asked: http, timer, cli; `requested_by` a name, where one is known. A Scheduled job may be worked
    on from `due_at` on. `attempt` counts the tries from 1, `retries` those that failed and were tried again. `owner`
    works on it by this `claim`, and last said so at `heartbeat_at`. `sync_id` is the run that the job became; `percent`
    and `counts` are the progress of that run. `cancelled` asks a running job to stop.
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
    error: str | None = None
    error_kind: str | None = None
    hint: str | None = None
    cancelled: bool = False
    occurrence: str | None = None
    history: tuple[StateChange, ...] = ()

    def became(self, state: State, at: datetime, reason: str = "", **changed: Any) -> Job:
        """The job in another state, with that in its history."""
        past = (*self.history, StateChange(state, at, reason))
        if len(past) > HISTORY_AT_MOST:
            past = (past[0], *past[-HISTORY_AT_MOST + 1 :])
        ended = at if state.has_ended else None
        return replace(self, state=state, state_at=at, ended_at=ended, history=past, **changed)

    def to_json(self) -> dict[str, Any]:
        """The job as JSON values, which `from_json` takes."""
        return {name: value for name, value in _plain(asdict(self)).items() if value not in (None, {}, [])}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """The job of a record. Fields that this release does not know are left out."""
        known = {item.name: given[item.name] for item in fields(cls) if item.name in given}
        for name in _TIMES & known.keys():
            known[name] = datetime.fromisoformat(known[name])
        request = {item.name: known["request"][item.name] for item in fields(Request) if item.name in known["request"]}
        known["request"], known["state"] = Request(**request), State(known["state"])
        known["history"] = tuple(
            StateChange(State(past["state"]), datetime.fromisoformat(past["at"]), past["reason"])
            for past in known.get("history", ())
        )
        return cls(**known)


_TIMES = frozenset(item.name for item in fields(Job) if "datetime" in str(item.type))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.isoformat() if isinstance(value, datetime) else value
