"""Work on services side by side, a few at once, and what callers hear of a sync that waits for its turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event
from typing import TypeVar

from backup.core import spans
from backup.core.errors import BackupError, Locked, RecordsSetAside, StoreUnavailable
from backup.core.log import event, redact
from backup.core.model import utc_now
from backup.core.run_values import Counts, Proof, Run, Status, Trigger, Verb
from backup.core.suggestions import quantity
from backup.core.unexpected import as_backup_error
from backup.runs.outcome import Observer, Outcome, Turn
from backup.services.service import Options, SyncService, new_run
from backup.services.set_snapshot import SetSnapshot
from backup.services.several_as_one import runs_as_one

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
        at_once: int = AT_ONCE,
        of_set: bool = False,
    ) -> None:
        """SyncHistory also gets an entry of a sync that could not begin, if it is scheduled or one of a set (`of_set`):
        there nobody looks at each. `at_once` is how many of its kind run at once."""
        self.service, self.at_once, self._of_set = service, at_once, of_set
        self._open_service, self._failed, self._trigger = open_service, failed, trigger
        self._options, self._observer, self.seconds_left = options, observer, seconds_left
        self._has_turn, self._has_begun = Event(), Event()
        self._run: Run | None = None
        self._outcome: Outcome | None = None
        self._unrecorded: SyncService | None = None
        self.snapshot: SetSnapshot | None = None
        """Where it reads its source; None: as it is now."""

    def run(self, others: Sequence[Future[None]] = ()) -> None:
        """Syncs, once the others have ended."""
        wait(others)
        self._has_turn.set()
        try:
            service = self._open_service(self.service)
            scheduled, seconds = self._trigger in (Trigger.TIMER, Trigger.JOB), self.seconds_left()
            wait_seconds = min(_LOCK_SECONDS, seconds or 0) if scheduled else 0
            outcome = service.sync(self._trigger, self._options, self, Turn(seconds, wait_seconds), self.snapshot)
            # A caller hears at once why a run could not begin. The morning after, only history tells.
            belongs_in_history = scheduled or isinstance(outcome.error, StoreUnavailable)
            belongs_in_history |= self._of_set and not isinstance(outcome.error, Locked)
            self._outcome = outcome
            if outcome.error is not None and belongs_in_history and not outcome.recorded:
                self._unrecorded = service
                self.leave_entry()
        except Exception as error:
            failure = as_backup_error(error)
            self._outcome = self._failed(self.service, Verb.SYNC, self._trigger, self._options, failure)
        finally:
            self._has_begun.set()

    def run_again_after(self, others: Sequence[Future[None]]) -> None:
        """Once the others have ended, syncs again if records were refused: they may fit now. Both runs are one outcome,
        and have an entry each."""
        wait(others)
        first = self._outcome
        if first is not None and isinstance(first.error, RecordsSetAside) and self._options.limit is None:
            self.run()
            self._outcome = runs_as_one([first, self.outcome()])

    def settle(self, outcome: Outcome) -> None:
        """Takes this for the outcome of the sync, before its turn has come: a look has settled it."""
        self._outcome = outcome
        self._has_turn.set()
        self._has_begun.set()
        self._observer.progress(self.service, outcome.run.counts)
        self._observer.ended(outcome)

    def leave_entry(self) -> None:
        """Writes the entry of a sync that could not begin, if SyncHistory lacks it. May be repeated: another sync of
        its set may have made SyncHistory meanwhile."""
        if self._unrecorded is not None and self._outcome is not None and not self._outcome.recorded:
            recorded = self._unrecorded.leave_entry(self._outcome.run)
            self._outcome = replace(self._outcome, recorded=recorded)

    def started(self, run: Run) -> None:
        self._run = run
        self._has_begun.set()
        self._observer.started(run)

    def progress(self, service: str, counts: Counts) -> None:
        self._observer.progress(service, counts)

    def walked(self, run: Run) -> None:
        self._observer.walked(run)

    def ended(self, outcome: Outcome) -> None:
        self._observer.ended(outcome)

    def closed(self, run: Run) -> None:
        self._observer.closed(run)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, as it is to stay or for this slice."""
        return self._outcome is not None

    def outcome(self) -> Outcome:
        """Returns how it ended, or a run in progress. Waits until it has begun, but not for its turn."""
        if not self._has_turn.is_set():
            note = f"It waits for its turn: {quantity(self.at_once, 'service is', 'services are')} synced at once."
            run = new_run(self.service, Verb.SYNC, self._trigger, self._options, utc_now())
            return Outcome(replace(run, sync_id="", notes=(note,)))
        self._has_begun.wait()
        if self._outcome is not None:
            return self._outcome
        assert self._run is not None  # noqa: S101 - for mypy; a sync that has begun has a run or an outcome
        return Outcome(self._run)


def new_run_of_several(name: str, trigger: Trigger, options: Options) -> Run:
    """A sync of several services as one run, of which no call has done anything yet, so nothing is unproven."""
    return replace(new_run(name, Verb.SYNC, trigger, options, utc_now()), status=Status.IN_PROGRESS, proof=Proof())


def could_not_begin(service: str, verb: Verb, trigger: Trigger, options: Options, error: BackupError) -> Outcome:
    """The outcome of a run that could not begin."""
    run = new_run(service, verb, trigger, options, utc_now())
    kind = type(error).__name__
    event(f"{verb}.failed", level=logging.ERROR, service=service, error_kind=kind, error=error, hint=error.hint)
    return Outcome(run.ended(Status.FAILED, run.started_at, Counts(), redact(str(error))), error)


def in_turn(groups: Sequence[Sequence[SyncInTurn]], pool: ThreadPoolExecutor) -> list[Future[None]]:
    """Starts the syncs, group by group: those of a group once all groups before have ended. If there are several
    groups, what was refused is synced again at the end, the last group first."""
    rounds: list[list[Future[None]]] = []
    for group in groups:
        before = [future for futures in rounds for future in futures]
        rounds.append([pool.submit(spans.carried(sync.run), before) for sync in group])
    futures = [future for group_futures in rounds for future in group_futures]
    for group in reversed(groups if len(groups) > 1 else ()):
        before = [*futures]
        futures += [pool.submit(spans.carried(sync.run_again_after), before) for sync in group]
    return futures


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], at_once: int = AT_ONCE) -> list[Result]:
    """Calls `work` with each item, `at_once` items at a time, each in a thread. Returns the results in the order of the
    items."""
    with ThreadPoolExecutor(max_workers=max(1, min(len(items), at_once))) as pool:
        return list(pool.map(spans.carried(work), items))
