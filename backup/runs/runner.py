"""One run of a service in three steps: claim, work, end. It ends the run whatever happens on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, replace
from datetime import datetime

from backup.core import interrupts
from backup.core.errors import BackupError, Interrupted, LockLost, StoreError, StoreUnavailable
from backup.core.log import event, redact
from backup.core.model import CheckLock, Now
from backup.core.run_values import Run, Status, Verb
from backup.core.timeline import AHEAD
from backup.core.unexpected import as_backup_error
from backup.core.workers import Workers
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.recycle_bin.bin import RecycleBin
from backup.runs import upgrade
from backup.runs.clock import clock_of, elapsed, since
from backup.runs.history import History
from backup.runs.lock import Lock, take
from backup.runs.lost_backup import lost_behind_proof
from backup.runs.open_runs import drop_scratches, has_left_sync, is_left_verify, take_over
from backup.runs.opening import Opening, note_ahead
from backup.runs.outcome import NOBODY, Observer, Observers, Outcome, tell_end
from backup.runs.ownership import Ownership, is_alive
from backup.runs.policy import Policy
from backup.runs.run_spans import count_run, span_of, tell_span
from backup.runs.session import RunRequest, Session
from backup.runs.unchanged_runs import settled_at_once
from backup.stores import Limits, Store


class Runner:
    """Runs one service's verbs. Each run has an entry in SyncHistory. `run` raises no error; its outcome has it."""

    def __init__(
        self,
        service: str,
        policy: Policy,
        lock: Lock,
        limits: Limits,
        now: Now,
        other_tables: Collection[str] = (),
        watcher: Observer = NOBODY,
    ) -> None:
        """`other_tables` are the tables or containers that the settings name for other services' backups. Every run
        tells the `watcher` how it goes."""
        self._service, self._policy, self._lock = service, policy, lock
        self._limits, self._now = limits, now
        self._other_tables, self._watcher = other_tables, watcher

    def run(self, request: RunRequest) -> Outcome | None:
        """Does the work and returns how it ended. Returns None for a run that only resumes or goes in parts,
        if it has nothing to do or another call does it already.

        A verb that may change records takes the lock, and has its entry from its start; but if nothing has changed
        since a quiet sync, it may have it at its end. If another run has the lock or
        an open run is alive, it does not start and leaves no entry. A sync resumes an unfinished sync if it may
        (`Run.takes_over`), and walks the whole key space from there; it closes all other open runs. An interrupted sync
        stays open. A verify takes no lock and has its entry at its end; a drill takes none either, but has its entry
        from its start.
        """
        observer, session, are_apart = Observers(self._watcher, request.observer), None, False
        request = replace(request, observer=observer)
        tally = Tally(lambda counts: observer.progress(self._service, counts), self._policy.max_failed_records)
        seconds_left = request.turn.countdown()
        try:
            with interrupts.running(), ExitStack() as stack:
                source, backup = stack.enter_context(request.stores())
                with _held(source), _held(backup):
                    if request.tell_apart is not None and not request.only_resumes:
                        # Before the run writes its entry, which must not come into a source. If a server does not
                        # answer, the work asks again; so the entry records that error.
                        with suppress(StoreError):
                            request.tell_apart(source, backup)
                            are_apart = True
                    if not are_apart:
                        request = replace(request, find_unchanged=None)
                    claimed = self._claim(request, source, backup, tally, seconds_left, stack)
                if isinstance(claimed, Session):
                    session = claimed
                    with span_of(session.run) as span:
                        error = self._work(session, request, are_apart=are_apart)
                        with interrupts.last_words():
                            ended = self._end(session, error)
                        tell_span(span, ended)
                    outcome: Outcome | None = ended
                else:
                    outcome = claimed
                    if outcome is not None and outcome.error is None:  # it has ended already
                        with span_of(outcome.run) as span:
                            tell_span(span, outcome)
        except Exception as error:
            outcome = self._ended(request.run if session is None else session.run, tally, as_backup_error(error))
        if outcome is not None and (session is not None or not (request.only_resumes or request.in_parts)):
            count_run(outcome)
            observer.ended(outcome)  # a call that only looked for a run to resume, and failed at that, is not a run
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
        """Takes the lock, and writes the run's entry or resumes that of an open run.

        The stack gives back what the run holds. Returns None if there is nothing to do; an outcome if the run could not
        begin, or has ended already, and its entry says so.
        """
        tally.key_to_json = backup.keys.to_json
        history = History(backup)
        if request.only_resumes and not has_left_sync(backup, history, self._service, self._now, request.may_resume):
            return None
        try:
            check_lock = self._take_lock(request, backup.place.location, stack)
        except StoreUnavailable as error:
            return self._recorded(history.add, self._ended(request.run, tally, error))
        for store in (source, backup):  # the run that had the lock until now may have altered columns
            if store.relational is not None:
                store.relational.forget()
        asked_at = None  # the source, by `elapsed`
        if request.run.verb is Verb.SYNC and source.relational is not None and not source.traits.in_process:
            asked_at = elapsed()
            source.relational.read_ahead(stack.enter_context(Workers(2)).begun)
        lock = nullcontext if request.needs_lock else lambda: self._lock(self._service, backup.place.location)
        opening = upgrade.opening_of(backup, self._service, self._other_tables, lock)
        clock = clock_of(backup, self._now, opening.server_time)
        recycled = RecycleBin(backup, self._service, lambda: history.timeline(self._service, now()))
        kept_at = recycled.newest(clock() + AHEAD) if opening.bin_may_be_newer else None
        now = opening.clock(clock, kept_at)
        if request.needs_lock:
            opening = drop_scratches(*(backup, history, self._service, opening, clock()), request.observer.closed)
        # Before anybody looks, also at the catalogue: the backup has all that the source had then.
        started_at = now() if asked_at is None else opening.clock(lambda: clock() - since(asked_at), kept_at)()
        looked = settled_at_once(request, (source, backup), opening, started_at, now, check_lock, seconds_left())
        if isinstance(looked, Outcome):
            return looked
        begun = self._begin(request, history, opening, started_at, clock)
        if begun is None:
            return None
        run, start, resumed_run = begun
        others = [other for other in opening.open_runs if other is not resumed_run and not other.only_compares]
        if others:  # they are closed by now, so what they did counts
            opening = history.opening(self._service)
        ownership = Ownership(history, clock) if request.has_entry_while_it_lasts else None
        if ownership is not None:
            # A look takes as long as a chunk. If the process must end since, the run is left open, as after a chunk.
            with interrupts.last_words() if looked is not None else nullcontext():
                run = stack.enter_context(ownership.taken(run, resumed_run))
        if request.needs_lock:
            request.observer.started(run)
        checks = [interrupts.check, check_lock, *([ownership.check_young] if ownership else [])]
        keep = recycled.recorder(run, now, resumed=resumed_run is not None)
        steps = Steps(_all_of(checks), now, keep, self._limits.parallelism, looked=looked, seconds_left=seconds_left)
        session = Session(
            *(source, backup, history, opening, recycled, run, tally, steps, self._policy, start),
            resumed=resumed_run is not None,
            ownership=ownership,
            observer=request.observer,
            charged_before=run.request_charge or 0.0,
        )
        session.fence(source)
        session.fence(backup)
        return session

    def _work(self, session: Session, request: RunRequest, *, are_apart: bool) -> BackupError | None:
        """Does the work. Returns the error if it failed; the session has what was done so far."""
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
            if request.tell_apart is not None and not are_apart:
                labels = f"{session.source.place.label}, {session.backup.place.label}"
                for attempt in self._limits.retry.attempts(f"tell two places apart: {labels}"):
                    with attempt:
                        request.tell_apart(session.source, session.backup)
            request.work(session)
        except Interrupted:
            percent = session.run.percent
            return Interrupted(f"Interrupted{'' if percent is None else f' at {percent} %'}; run it again to continue.")
        except LockLost as error:
            return error if session.ownership is None else session.ownership.explained(error)
        except Exception as error:
            return as_backup_error(error)
        finally:
            session.note(*(note for note in session.tally.notes if note not in session.run.notes))
        return None if session.unfinished else session.tally.failure()

    def _end(self, session: Session, error: BackupError | None) -> Outcome:
        """Writes how the run ended into its entry. It leaves the entry open for the call that resumes the run when its
        time was up, when it was interrupted, and when another process has taken it over."""
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
            return replace(outcome, recorded=True, left_open=True)
        return self._surely_there(session, self._recorded(session.save, outcome))

    # --- parts of them ------------------------------------------------------------------------------------------------

    def _take_lock(self, request: RunRequest, location: str, stack: ExitStack) -> CheckLock:
        if not request.needs_lock:
            return lambda: None
        return take(stack, self._lock, self._service, location, request.turn.wait_seconds)

    def _begin(
        self, request: RunRequest, history: History, opening: Opening, started_at: datetime, clock: Now
    ) -> tuple[Run, Checkpoint, Run | None] | None:
        """The run, where it begins, and the open run that it resumes or None. Returns None if there is nothing to do.
        Closes the other open runs."""
        run = replace(
            request.run,
            started_at=started_at,
            status=Status.IN_PROGRESS,
            place=history.place,
            number=opening.next_number,
            notes=note_ahead(opening, self._service, started_at),
        )
        resumed_run = None
        if request.in_parts:
            resumed_run = next(filter(is_left_verify, opening.open_runs), None)
            if resumed_run is not None and is_alive(resumed_run, clock()):
                return None
        elif request.needs_lock:
            if request.only_resumes and not any(map(request.may_resume, opening.open_runs)):
                return None
            may_resume = request.may_resume if request.only_resumes else run.takes_over
            resumed_run = take_over(
                *(history, opening.open_runs, run.started_at, clock(), may_resume), request.observer.closed
            )
        if resumed_run is None and request.only_resumes:
            return None
        start = Checkpoint() if resumed_run is None else Checkpoint.from_text(resumed_run.checkpoint)
        if resumed_run is not None and not (request.only_resumes or request.in_parts):
            start = start.begun_anew()  # so that the run sees all changes until it was asked for
        run = resumed_run or run
        has_checkpoint = request.in_parts or (run.verb is Verb.SYNC and not run.dry_run)
        return replace(run, checkpoint=start.to_text()) if has_checkpoint else run, start, resumed_run

    def _surely_there(self, session: Session, outcome: Outcome) -> Outcome:
        """The outcome, whose entry was just written; that of a failure if the backup may lack the last writes."""
        error = None if outcome.error is not None else lost_behind_proof(session, outcome.run)
        if error is None:
            return outcome
        session.tally.proof = None
        return self._recorded(session.history.save, self._ended(session.run, session.tally, error, session.steps.now))

    def _recorded(self, save: Callable[[Run], Run | None], outcome: Outcome) -> Outcome:
        """Writes the run's entry, and returns the outcome with that. A run whose entry cannot be written fails; an
        error that it had before stays its error."""
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
        """Ends the run now: returns its outcome, and writes its line into the log."""
        status = Status.FAILED if error else Status.COMPLETED
        if not run.dry_run and tally.proof is not None:
            run = replace(run, proof=tally.proof)
        run = replace(run, failures=(*tally.failures.items(),), error_kind=type(error).__name__ if error else None)
        run = run.ended(status, (now or self._now)(), tally.counts, redact(str(error)) if error else None)
        outcome = Outcome(run, error, tuple(tally.changes))
        tell_end(outcome)
        return outcome


def _held(store: Store) -> AbstractContextManager[None]:
    return nullcontext() if store.relational is None else store.relational.held()


def _all_of(checks: Collection[CheckLock]) -> CheckLock:
    def check() -> None:
        for check_one in checks:
            check_one()

    return check
