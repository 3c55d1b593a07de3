"""Work on services side by side, a few at once, and what callers hear of a sync that waits for its turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import TypeVar

from backup.core.errors import BackupError, StoreUnavailable
from backup.core.log import event, redact
from backup.core.model import Counts, Run, Status, Trigger, Verb, utc_now
from backup.runs.runner import Observer, Outcome, Turn
from backup.services.service import Options, SyncService

Failed = Callable[[str, Verb, Trigger, Options, BackupError], Outcome]
"""Makes the outcome of a run that could not begin."""

AT_ONCE = 8
"""How many services run at once. Each has its own connections, and its chunks and batches in memory."""

_LOCK_SECONDS = 90.0
"""How long a scheduled sync waits for the lock: longer than a dead run's lease lasts, or a purge."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class SyncInTurn(Observer):
    """The sync of one service in its own thread, and what other threads may know of it."""

    def __init__(
        self,
        service: str,
        open_service: Callable[[str], SyncService],
        failed: Failed,
        trigger: Trigger,
        options: Options,
        observer: Observer,
        seconds_left: Callable[[], float | None],
    ) -> None:
        self._service, self._open_service, self._failed, self._trigger = service, open_service, failed, trigger
        self._options, self._observer, self._seconds_left = options, observer, seconds_left
        self._has_turn, self._has_begun = Event(), Event()
        self._run: Run | None = None
        self._outcome: Outcome | None = None

    def run(self) -> None:
        self._has_turn.set()
        try:
            service = self._open_service(self._service)
            scheduled, seconds = self._trigger is Trigger.TIMER, self._seconds_left()
            wait_seconds = min(_LOCK_SECONDS, seconds or 0) if scheduled else 0
            outcome = service.sync(self._trigger, self._options, self, Turn(seconds, wait_seconds))
            # A caller hears at once why a run could not begin. The morning after, only history tells.
            belongs_in_history = scheduled or isinstance(outcome.error, StoreUnavailable)
            if outcome.error is not None and belongs_in_history and not outcome.recorded:
                outcome = replace(outcome, recorded=service.leave_entry(outcome.run))
            self._outcome = outcome
        except BackupError as error:
            self._outcome = self._failed(self._service, Verb.SYNC, self._trigger, self._options, error)
        finally:
            self._has_begun.set()

    def started(self, run: Run) -> None:
        self._run = run
        self._has_begun.set()
        self._observer.started(run)

    def progress(self, service: str, counts: Counts) -> None:
        self._observer.progress(service, counts)

    def ended(self, outcome: Outcome) -> None:
        self._observer.ended(outcome)

    def outcome(self) -> Outcome:
        """Returns how it ended, or a run in progress. Waits until it has begun, but not for its turn."""
        if not self._has_turn.is_set():
            note = f"It waits for its turn: {AT_ONCE} services are synced at once."
            run = _new_run(self._service, Verb.SYNC, self._trigger, self._options)
            return Outcome(replace(run, sync_id="", notes=(note,)))
        self._has_begun.wait()
        if self._outcome is not None:
            return self._outcome
        assert self._run is not None  # noqa: S101 - for mypy; a sync that has begun has a run or an outcome
        return Outcome(self._run)


def _new_run(service: str, verb: Verb, trigger: Trigger, options: Options) -> Run:
    """A run that has done nothing yet."""
    run = Run(service, trigger, options.force, utc_now(), verb=verb)
    return replace(run, dry_run=options.dry_run, allow_mass_delete=options.allow_mass_delete, limit=options.limit)


def could_not_begin(service: str, verb: Verb, trigger: Trigger, options: Options, error: BackupError) -> Outcome:
    """The outcome of a run that could not begin."""
    run = _new_run(service, verb, trigger, options)
    event(f"{verb}.failed", level=logging.ERROR, service=service, error=error, hint=error.hint)
    return Outcome(run.ended(Status.FAILED, run.started_at, Counts(), redact(str(error))), error)


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], at_once: int = AT_ONCE) -> list[Result]:
    """Calls `work` with each item, `at_once` items at a time, each in a thread. Returns the results in the order of the
    items."""
    with ThreadPoolExecutor(max_workers=max(1, min(len(items), at_once))) as pool:
        return list(pool.map(work, items))
