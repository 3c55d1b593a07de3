"""One run of a service, in three steps: it is claimed, worked on, and ended, whatever happens on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, replace

from backup.core import interrupts
from backup.core.errors import BackupError, Interrupted, Locked, LockLost, StoreError, StoreUnavailable
from backup.core.foreseen import foreseen
from backup.core.log import event, redact
from backup.core.model import Now, Run, Status, StillHeld, Verb
from backup.core.timeline import AHEAD
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.tally import Tally
from backup.mirror.writing import Steps
from backup.recycle_bin.bin import RecycleBin
from backup.runs import upgrade
from backup.runs.clock import clock_of
from backup.runs.history import History
from backup.runs.lock import Lock, take
from backup.runs.open_runs import drop_scratches, has_left_sync, is_left_sync, is_left_verify, take_over
from backup.runs.opening import Opening, note_ahead
from backup.runs.outcome import NOBODY, WHOLE_TURN, Observer, Observers, Outcome, Turn
from backup.runs.ownership import Ownership, is_alive
from backup.runs.policy import Policy
from backup.runs.session import Session, Stores, Work
from backup.stores import Limits, Store

__all__ = [  # what callers of a runner need beside it
    "NOBODY",
    "WHOLE_TURN",
    "Observer",
    "Outcome",
    "RunRequest",
    "Runner",
    "Session",
    "Stores",
    "Turn",
    "Work",
    "foreseen",
]


@dataclass(frozen=True)
class RunRequest:
    """A run as it is asked for: what it does between its claim and its end, with which stores.

    `tell_apart` raises ConfigError for sides that are one place, by what their servers say; None for a run that writes
    to neither. `only_resumes`: the unfinished sync of an earlier call is resumed from its checkpoint, or nothing is
    done; a look for it disturbs nobody. `in_parts`: a verify that stays open when its time is up, and is resumed by the
    next; it takes no lock, so that syncs need not wait for it.
    """

    run: Run
    stores: Stores
    work: Work
    turn: Turn = WHOLE_TURN
    observer: Observer = NOBODY
    tell_apart: Callable[[Store, Store], None] | None = None
    only_resumes: bool = False
    in_parts: bool = False

    @property
    def needs_lock(self) -> bool:
        return not self.run.only_compares

    @property
    def has_entry_while_it_lasts(self) -> bool:
        return self.needs_lock or self.in_parts or self.run.verb is Verb.DRILL


class Runner:
    """Runs one service's verbs. Each run has an entry in SyncHistory; none raises an error, its outcome has it."""

    def __init__(
        self,
        service: str,
        policy: Policy,
        lock: Lock,
        limits: Limits,
        now: Now,
        others: Collection[str] = (),
        watcher: Observer = NOBODY,
    ) -> None:
        """`others` are the tables or containers that the settings name for other services' backups. The `watcher` is
        told of every run."""
        self._service, self._policy, self._lock = service, policy, lock
        self._limits, self._now, self._others, self._watcher = limits, now, others, watcher

    def run(self, request: RunRequest) -> Outcome | None:
        """Does the work and says how it ended. None where a run only resumes or goes on in parts, and there is nothing
        to do or another call is at it.

        A verb that may change records takes the lock and has its entry from its start. It leaves none if the lock is
        taken, or an open run is alive: then it has not started. A sync resumes an unfinished one if it may
        (`Run.takes_over`), and walks the whole key space from there; all other open runs are closed. An interrupted
        sync is left open. A verify takes no lock and has its entry at its end, a drill from its start.
        """
        observer, session, told = Observers(self._watcher, request.observer), None, False
        request = replace(request, observer=observer)
        tally = Tally(lambda counts: observer.progress(self._service, counts), self._policy.max_failed_records)
        seconds_left = request.turn.countdown()
        try:
            with interrupts.running(), ExitStack() as stack:
                source, backup = stack.enter_context(request.stores())
                if request.tell_apart is not None and not request.only_resumes:
                    # Before there is an entry, which would be a trace in a source. Where a server does not answer it is
                    # done once more in the work, so that there is an entry of that.
                    with suppress(StoreError):
                        request.tell_apart(source, backup)
                        told = True
                claimed = self._claim(request, source, backup, tally, seconds_left, stack)
                if isinstance(claimed, Session):
                    session = claimed
                    error = self._work(session, request, told=told)
                    with interrupts.last_words():
                        outcome: Outcome | None = self._end(session, error)
                else:
                    outcome = claimed
        except Exception as error:
            outcome = self._ended(request.run if session is None else session.run, tally, foreseen(error))
        if outcome is not None and (session is not None or not (request.only_resumes or request.in_parts)):
            observer.ended(outcome)  # what only looked for something to go on with, and could not, is no run
        return outcome

    # --- the three steps ----------------------------------------------------------------------------------------------

    def _claim(
        self,
        request: RunRequest,
        source: Store,
        backup: Store,
        tally: Tally,
        seconds_left: Callable[[], float],
        stack: ExitStack,
    ) -> Session | Outcome | None:
        """Takes the lock, and makes the entry of the run, or adopts that of an open one.

        What the run holds it gives back when the stack is closed. None if there is nothing to do; the outcome of a run
        that has an entry although it could not begin.
        """
        tally.key_to_json = backup.keys.to_json
        history = History(backup)
        if request.only_resumes and not has_left_sync(backup, history, self._service, self._now):
            return None
        try:
            held = self._take_lock(request, backup.place.location, stack)
        except StoreUnavailable as error:
            return self._recorded(history.add, self._ended(request.run, tally, error))
        lock = nullcontext if request.needs_lock else lambda: self._lock(self._service, backup.place.location)
        opening = upgrade.opening_of(backup, self._service, self._others, lock)
        clock = clock_of(backup, self._now)
        recycled = RecycleBin(backup, self._service, lambda: history.timeline(self._service, now()))
        now = opening.clock(clock, recycled.newest(clock() + AHEAD) if opening.bin_may_be_newer else None)
        if request.needs_lock:
            opening = drop_scratches(backup, history, self._service, opening, clock())
        begun = self._begin(request, history, opening, now, clock)
        if begun is None:
            return None
        run, start, adopted = begun
        ownership = Ownership(history, clock) if request.has_entry_while_it_lasts else None
        if ownership is not None:
            run = stack.enter_context(ownership.taken(run, adopted))
        if request.needs_lock:
            request.observer.started(run)
        checks = [interrupts.check, held, *([ownership.check_young] if ownership else [])]
        keep = recycled.recorder(run, now, resumed=adopted is not None)
        steps = Steps(_all_of(checks), now, keep, self._limits.parallelism, seconds_left=seconds_left)
        session = Session(
            *(source, backup, history, opening, recycled, run, tally, steps, self._policy, start),
            resumed=adopted is not None,
            ownership=ownership,
            charged_before=run.request_charge or 0.0,
        )
        session.fence(source)
        session.fence(backup)
        return session

    def _work(self, session: Session, request: RunRequest, *, told: bool) -> BackupError | None:
        """Does the work; returns why it failed. What was done so far is in the session."""
        run = session.run
        event(
            f"{run.verb}.started",
            service=self._service,
            sync_id=run.sync_id,
            trigger=run.trigger,
            forced=run.forced,
            dry_run=run.dry_run,
            allow_mass_delete=run.allow_mass_delete,
        )
        try:
            if request.tell_apart is not None and not told:
                labels = f"{session.source.place.label}, {session.backup.place.label}"
                for attempt in self._limits.retry.attempts(f"tell two places apart: {labels}"):
                    with attempt:
                        request.tell_apart(session.source, session.backup)
            request.work(session)
        except Interrupted:
            percent = session.run.percent
            return Interrupted(f"Interrupted{'' if percent is None else f' at {percent} %'}; run it again to continue.")
        except Exception as error:
            return foreseen(error)
        return None if session.unfinished else session.tally.failure()

    def _end(self, session: Session, error: BackupError | None) -> Outcome:
        """Writes the run's entry as it ended; or leaves it open for the call that resumes the run: because its time was
        up, it was interrupted, or it is another's already."""
        run = session.run
        if isinstance(error, Interrupted):
            session.unfinished = session.ownership is not None and run.checkpoint is not None
        elif error is not None:
            session.unfinished = False
        if session.unfinished:
            run = run if error is None else replace(run, counts=session.tally.counts)
            counts = asdict(run.counts)
            event(f"{run.verb}.paused", service=self._service, sync_id=run.sync_id, **counts, percent=run.percent)
            outcome = Outcome(run, error)
        else:
            session.run = replace(run, request_charge=session.charge())
            outcome = self._ended(session.run, session.tally, error, session.steps.now)
            outcome = replace(outcome, report=session.report.with_keys(session.backup.keys.to_json))
        if session.unfinished or (isinstance(error, LockLost) and run.checkpoint is not None):
            if session.ownership is not None:
                session.ownership.leave()
            return replace(outcome, recorded=True)
        return self._recorded(session.save, outcome)

    # --- parts of them ------------------------------------------------------------------------------------------------

    def _take_lock(self, request: RunRequest, location: str, stack: ExitStack) -> StillHeld:
        if not request.needs_lock:
            return lambda: None
        return take(stack, self._lock, self._service, location, request.turn.wait_seconds)

    def _begin(
        self, request: RunRequest, history: History, opening: Opening, now: Now, clock: Now
    ) -> tuple[Run, Checkpoint, Run | None] | None:
        """The run to do, where it begins, and the open run that it resumes, if it does. None if there is nothing to
        do. Closes what else was left open."""
        run = replace(
            request.run,
            started_at=now(),
            status=Status.IN_PROGRESS,
            place=history.place,
            number=opening.next_number,
            notes=note_ahead(opening, self._service, now()),
        )
        adopted = None
        if request.in_parts:
            adopted = next(filter(is_left_verify, opening.open_runs), None)
            if adopted is not None and is_alive(adopted, clock()):
                return None
        elif request.needs_lock:
            may_resume = is_left_sync if request.only_resumes else run.takes_over
            adopted = take_over(history, opening.open_runs, run.started_at, clock(), may_resume)
        if adopted is None and request.only_resumes:
            return None
        start = Checkpoint() if adopted is None else Checkpoint.from_text(adopted.checkpoint)
        if adopted is not None and not (request.only_resumes or request.in_parts):
            start = start.begun_anew()  # so that all is seen that changed since the run was asked for
        run = adopted or run
        has_checkpoint = request.in_parts or (run.verb is Verb.SYNC and not run.dry_run)
        return replace(run, checkpoint=start.to_text()) if has_checkpoint else run, start, adopted

    def _recorded(self, save: Callable[[Run], Run | None], outcome: Outcome) -> Outcome:
        """The outcome, now in SyncHistory. A run that cannot be recorded fails; an earlier error is kept."""
        try:
            run = save(outcome.run) or outcome.run
        except BackupError as error:
            if outcome.error is None:
                raise
            sync_id = outcome.run.sync_id
            event("history.not_saved", level=logging.ERROR, service=self._service, sync_id=sync_id, error=error)
            return outcome
        return replace(outcome, run=run, recorded=True)

    def _ended(self, run: Run, tally: Tally, error: BackupError | None, now: Now | None = None) -> Outcome:
        """The outcome of a run that ends now, and its line in the log."""
        status = Status.FAILED if error else Status.COMPLETED
        if not run.dry_run and tally.proof is not None:
            run = replace(run, proof=tally.proof)
        run = replace(run, failures=(*tally.failures.items(),), error_kind=type(error).__name__ if error else None)
        run = run.ended(status, (now or self._now)(), tally.counts, redact(str(error)) if error else None)
        locked = isinstance(error, Locked)  # another run is at work, which is no failure of this one
        event(
            f"{run.verb}.{'locked' if locked else 'failed' if error else 'completed'}",
            level=logging.ERROR if error and not locked else logging.INFO,
            service=self._service,
            sync_id=run.sync_id,
            **asdict(run.counts),
            verified=run.verified,
            duration_ms=run.duration_ms,
            **({"error": error, "hint": error.hint} if error else {}),
        )
        return Outcome(run, error, tuple(tally.changes))


def _all_of(checks: Collection[StillHeld]) -> StillHeld:
    def check() -> None:
        for each in checks:
            each()

    return check
