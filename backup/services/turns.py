"""Services worked on side by side: so many at once, and what is known of a sync that waits for its turn."""

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
"""Makes the outcome of a run of a service that could not begin."""

AT_ONCE = 8
"""How many services are worked on at once: each has its connections, its chunks and its batches in memory."""

_LOCK_SECONDS = 90.0
"""How long a scheduled sync waits for the lock: longer than the lease of a run that died lasts, or a purge."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class SyncInTurn(Observer):
    """The sync of one service, in a thread of its own, and what is known of it from outside."""

    def __init__(
        self,
        service: str,
        opened: Callable[[str], SyncService],
        failed: Failed,
        trigger: Trigger,
        options: Options,
        observer: Observer,
        seconds_left: Callable[[], float | None],
    ) -> None:
        self._service, self._opened, self._failed, self._trigger = service, opened, failed, trigger
        self._options, self._observer, self._seconds_left = options, observer, seconds_left
        self._has_turn, self._known = Event(), Event()
        self._run: Run | None = None
        self._outcome: Outcome | None = None

    def run(self) -> None:
        self._has_turn.set()
        try:
            service = self._opened(self._service)
            scheduled, seconds = self._trigger is Trigger.TIMER, self._seconds_left()
            wait_seconds = min(_LOCK_SECONDS, seconds or 0) if scheduled else 0
            outcome = service.sync(self._trigger, self._options, self, Turn(seconds, wait_seconds))
            # A caller hears what kept a run from beginning, the morning after only history tells.
            told = scheduled or isinstance(outcome.error, StoreUnavailable)
            if outcome.error is not None and told and not outcome.recorded:
                outcome = replace(outcome, recorded=service.leave_entry(outcome.run))
            self._outcome = outcome
        except BackupError as error:
            self._outcome = self._failed(self._service, Verb.SYNC, self._trigger, self._options, error)
        finally:
            self._known.set()

    def started(self, run: Run) -> None:
        self._run = run
        self._known.set()
        self._observer.started(run)

    def progress(self, service: str, counts: Counts) -> None:
        self._observer.progress(service, counts)

    def ended(self, outcome: Outcome) -> None:
        self._observer.ended(outcome)

    def outcome(self) -> Outcome:
        """How it ended, or that it is in progress; waits until it has begun, but not for its turn."""
        if not self._has_turn.is_set():
            waits = f"It waits for its turn: {AT_ONCE} services are synced at once."
            return Outcome(
                replace(_new_run(self._service, Verb.SYNC, self._trigger, self._options), sync_id="", notes=(waits,))
            )
        self._known.wait()
        if self._outcome is not None:
            return self._outcome
        assert self._run is not None  # noqa: S101 - for mypy; one of the two is known by now
        return Outcome(self._run)


def _new_run(service: str, verb: Verb, trigger: Trigger, options: Options) -> Run:
    """A run that has done nothing yet."""
    run = Run(service, trigger, options.force, utc_now(), verb=verb)
    return replace(run, dry_run=options.dry_run, allow_mass_delete=options.allow_mass_delete)


def could_not_begin(service: str, verb: Verb, trigger: Trigger, options: Options, error: BackupError) -> Outcome:
    """The outcome of a run that could not begin."""
    run = _new_run(service, verb, trigger, options)
    event(f"{verb}.failed", level=logging.ERROR, service=service, error=error, hint=error.hint)
    return Outcome(run.ended(Status.FAILED, run.started_at, Counts(), redact(str(error))), error)


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], at_once: int = AT_ONCE) -> list[Result]:
    """The results in the order of the items, so many worked on at once, each in a thread."""
    with ThreadPoolExecutor(max_workers=max(1, min(len(items), at_once))) as pool:
        return list(pool.map(work, items))
