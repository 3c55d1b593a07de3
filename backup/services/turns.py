"""Work on services side by side, a few at once, and what callers hear of a sync that waits for its turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event, Lock
from typing import TypeVar

from backup.core import spans
from backup.core.errors import BackupError, Cancelled, Interrupted, Locked, RecordsSetAside, SetFailed, StoreUnavailable
from backup.core.foreseen import foreseen
from backup.core.log import event, redact
from backup.core.model import utc_now
from backup.core.run_values import Counts, Proof, Run, Status, Trigger, Verb
from backup.mirror.tally import CHANGES_NAMED
from backup.runs.runner import Observer, Outcome, Turn
from backup.services.service import Options, SyncService
from backup.services.set_snapshot import SetSnapshot

Failed = Callable[[str, Verb, Trigger, Options, BackupError], Outcome]
"""Makes the outcome of a run that could not begin."""

AT_ONCE = 8
"""How many services run at once. Each has its own connections, and its chunks and batches in memory."""

_NAMED = 5

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
        self._is_settled = False
        self.snapshot: SetSnapshot | None = None
        """Where it reads its source; None: as it is now."""

    def run(self, others: Sequence[Future[None]] = ()) -> None:
        """Syncs, once the others have ended, unless a look has settled it by then."""
        wait(others)
        if self._is_settled:
            return
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
            failure = foreseen(error)
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
        self._outcome, self._is_settled = outcome, True
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

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, as it is to stay or for this slice."""
        return self._outcome is not None

    def outcome(self) -> Outcome:
        """Returns how it ended, or a run in progress. Waits until it has begun, but not for its turn."""
        if not self._has_turn.is_set():
            note = f"It waits for its turn: {self.at_once} services are synced at once."
            run = new_run(self.service, Verb.SYNC, self._trigger, self._options)
            return Outcome(replace(run, sync_id="", notes=(note,)))
        self._has_begun.wait()
        if self._outcome is not None:
            return self._outcome
        assert self._run is not None  # noqa: S101 - for mypy; a sync that has begun has a run or an outcome
        return Outcome(self._run)


def new_run(service: str, verb: Verb, trigger: Trigger, options: Options) -> Run:
    """A run that has done nothing yet."""
    run = Run(service, trigger, options.force, utc_now(), verb=verb)
    return replace(run, dry_run=options.dry_run, allow_mass_delete=options.allow_mass_delete, limit=options.limit)


def new_run_of_several(name: str, trigger: Trigger, options: Options) -> Run:
    """A sync of several services as one run, of which no call has done anything yet, so nothing is unproven."""
    return replace(new_run(name, Verb.SYNC, trigger, options), proof=Proof())


def could_not_begin(service: str, verb: Verb, trigger: Trigger, options: Options, error: BackupError) -> Outcome:
    """The outcome of a run that could not begin."""
    run = new_run(service, verb, trigger, options)
    kind = type(error).__name__
    event(f"{verb}.failed", level=logging.ERROR, service=service, error_kind=kind, error=error, hint=error.hint)
    return Outcome(run.ended(Status.FAILED, run.started_at, Counts(), redact(str(error))), error)


class ProgressAsOne(Observer):
    """Tells an observer the progress of several services as that of one run. For any thread.

    `run` is what earlier calls have made of it: its counts, and its percent.
    """

    def __init__(self, run: Run, observer: Observer) -> None:
        self.run = run
        self._observer, self._expected, self._lock = observer, 1, Lock()
        self._counts: dict[str, Counts] = {}
        self._percent_of: dict[str, int] = {}

    def expects(self, services: int) -> None:
        """As `Observer` says."""
        self._expected = services

    def started(self, run: Run) -> None:
        """As `Observer` says. What a resumed run has counted before is in its next counts again, so it is no more among
        those of earlier calls."""
        with self._lock:
            self.run = replace(self.run, counts=self.run.counts.less(run.counts))

    def progress(self, service: str, counts: Counts) -> None:
        """As `Observer` says."""
        self._counts[service] = counts
        self._observer.progress(self.run.service, sum(list(self._counts.values()), self.run.counts))

    def walked(self, run: Run) -> None:
        """As `Observer` says."""
        self._tell(run.service, run.percent or 0)

    def ended(self, outcome: Outcome) -> None:
        """As `Observer` says."""
        self._tell(outcome.run.service, (outcome.run.percent or 0) if outcome.in_progress else 100)

    def _tell(self, service: str, percent: int) -> None:
        self._percent_of[service] = max(percent, self._percent_of.get(service, 0))
        walked = sum(list(self._percent_of.values()))
        self._observer.walked(replace(self.run, percent=_percent_of_all(self.run, walked, self._expected)))


def _percent_of_all(run: Run, walked: int, services: int) -> int:
    """How far all services are together: those of earlier calls of the run, and these, which have walked so many
    percent each, added up."""
    before = run.percent or 0
    return min(99, before + (100 - before) * walked // (100 * max(1, services)))


def as_one(run: Run, outcomes: Sequence[Outcome], *, consistent: bool = False) -> Outcome:
    """Returns the outcome of all these syncs as that of one run: in progress while one of them is; failed with
    SetFailed if some failed, or with Locked if these only met other runs. It has proven what all of them have proven,
    and has read as of the moment of all of them. `run` is what was asked for, with the counts, the percent and the
    proof of its earlier calls; without a proof of these it has none either. `consistent`: it was to read as of one
    moment, and says whether it did."""
    counts = sum((outcome.run.counts for outcome in outcomes), run.counts)
    failures = [(outcome.run.service, outcome.error) for outcome in outcomes if outcome.error is not None]
    errors = tuple(error for _, error in failures)
    unfinished = sum(outcome.in_progress for outcome in outcomes)
    proofs = [outcome.run.proof for outcome in outcomes if not outcome.in_progress and outcome.run.proof is not None]
    is_known = run.proof is not None and len(proofs) + unfinished == len(outcomes)
    proof = sum(proofs, run.proof or Proof()) if is_known else None
    stops = [error for error in errors if isinstance(error, Cancelled | Interrupted)]
    error: BackupError | None = None
    if stops:
        error = stops[0]
    elif errors:
        only_met_others = all(isinstance(error, Locked) for error in errors)
        error = errors[0] if only_met_others else _set_failed(run.service, failures, len(outcomes), unfinished)
    if unfinished and not stops:
        walked = sum((outcome.run.percent or 0) if outcome.in_progress else 100 for outcome in outcomes)
        percent = _percent_of_all(run, walked, len(outcomes))
        return Outcome(replace(run, status=Status.IN_PROGRESS, counts=counts, percent=percent, proof=proof), error)
    status = Status.COMPLETED if error is None else Status.FAILED
    charges = [outcome.run.request_charge for outcome in outcomes if outcome.run.request_charge is not None]
    run = replace(run, error_kind=type(error).__name__ if error else None, proof=proof)
    run = replace(run, request_charge=sum(charges) if charges else None)
    moments = {outcome.run.read_as_of for outcome in outcomes}
    run = replace(run, read_as_of=moments.pop() if len(moments) == 1 else None)
    if consistent and run.read_as_of is not None:
        run = replace(
            run, notes=(*run.notes, f"Its tables were read as of one moment: {run.read_as_of:%Y-%m-%d %H:%M:%S} UTC.")
        )
    elif consistent:
        apart = [outcome.run.service for outcome in outcomes if outcome.run.read_as_of is None]
        listed = f": not {_listed(apart)}" if len(apart) < len(outcomes) else ""
        run = replace(run, notes=(*run.notes, f"Its tables were not all read as of one moment{listed}."))
    return Outcome(run.ended(status, utc_now(), counts, redact(str(error)) if error else None), error)


def _set_failed(name: str, failures: Sequence[tuple[str, BackupError]], number: int, unfinished: int) -> SetFailed:
    listed = _listed([f"{service} ({type(error).__name__})" for service, error in failures])
    done = number - len(failures) - unfinished
    return SetFailed(
        f"{len(failures)} of {number} services of {name} failed: {listed}. "
        f"{done} {'was' if done == 1 else 'were'} done. {failures[0][0]}: "
        f"{failures[0][1]}",
        hint=failures[0][1].hint or None,
        errors=tuple(error for _, error in failures),
    )


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest


def runs_as_one(outcomes: Sequence[Outcome]) -> Outcome:
    """Returns the outcome of several runs of one service, the first one first: that of the last run, with what all have
    written, changed and noted."""
    last, counts = outcomes[-1], outcomes[-1].run.counts
    written = {
        kind: sum(getattr(outcome.run.counts, kind) for outcome in outcomes[:-1])
        for kind in ("inserted", "updated", "deleted")
    }
    skipped = max(0, counts.skipped - written["inserted"] - written["updated"])
    run = replace(
        last.run,
        started_at=outcomes[0].run.started_at,
        counts=replace(counts.plus(**written), skipped=skipped),
        notes=tuple(dict.fromkeys(note for outcome in outcomes for note in outcome.run.notes)),
    )
    changes = dict.fromkeys(change for outcome in outcomes for change in outcome.changes)
    return replace(last, run=run, changes=[*changes][:CHANGES_NAMED])


def in_turn(
    groups: Sequence[Sequence[SyncInTurn]], pool: ThreadPoolExecutor, first: Sequence[Future[None]] = ()
) -> list[Future[None]]:
    """Starts the syncs, group by group: those of a group once all groups before, and `first`, have ended. If there are
    several groups, what was refused is synced again at the end, the last group first."""
    rounds: list[list[Future[None]]] = [[*first]] if first else []
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
