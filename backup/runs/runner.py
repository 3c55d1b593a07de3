"""One run from its start to its entry in SyncHistory: the lock, the clock, the outcome, whatever happens on the way."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, replace
from datetime import datetime

from backup.core import interrupts
from backup.core.errors import BackupError, Interrupted, Locked, LockLost, StoreUnavailable, Unexpected
from backup.core.log import event, redact
from backup.core.model import Now, Run, Status, StillHeld, Verb
from backup.core.timeline import AHEAD
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.tally import Tally
from backup.mirror.writing import Steps, no_end
from backup.recycle_bin.bin import RecycleBin
from backup.runs import upgrade
from backup.runs.clock import clock_of
from backup.runs.history import History
from backup.runs.lock import Lock, take
from backup.runs.open_runs import drop_scratches, has_left_sync, is_left_sync, is_left_verify, take_over
from backup.runs.ownership import Ownership, is_alive
from backup.runs.policy import Policy
from backup.runs.session import WHOLE_TURN, Outcome, Progress, Session, Stores, Turn, Work, no_progress
from backup.stores import Limits, Store

__all__ = [
    "WHOLE_TURN",
    "Outcome",
    "Progress",
    "Recorder",
    "Session",
    "Stores",
    "Turn",
    "Work",
    "foreseen",
    "no_progress",
]

_Begun = tuple[Run, Checkpoint, Run | None]
"""The run to do, where it begins, and the entry of the one that was left open, if it is that."""


class Recorder:
    """Runs of one service."""

    def __init__(
        self, service: str, policy: Policy, lock: Lock, limits: Limits, now: Now, others: Collection[str] = ()
    ) -> None:
        """`others` are the tables or containers that the settings name for other services' backups."""
        self._service, self._policy, self._lock = service, policy, lock
        self._limits, self._now, self._others = limits, now, others

    def run(
        self,
        run: Run,
        stores: Stores,
        work: Work,
        progress: Progress = no_progress,
        turn: Turn = WHOLE_TURN,
        *,
        alone: bool = True,
        owned: bool | None = None,
    ) -> Outcome:
        """Does the work under the lock and with an entry from its start, and says how it ended; never raises an error.

        A run that finds the lock taken, or an open run that is alive, leaves no entry: it has not started. A sync goes
        on as an open one if it may (`Run.takes_over`), and walks the whole key space from there; all other open runs
        are closed. Not `alone`, it takes no lock, and has its entry at its end only, unless it is `owned`. An
        interrupted sync is left open.
        """

        def begin(history: History, run: Run, clock: Now) -> _Begun:
            if not alone:
                return run, Checkpoint(), None
            found = take_over(history, self._service, run.started_at, clock, run.takes_over)
            if found is not None:
                start = Checkpoint.from_text(found.checkpoint).begun_anew()
                return replace(found, checkpoint=start.to_text()), start, found
            start = Checkpoint()
            keeps_one = run.verb is Verb.SYNC and not run.dry_run
            return replace(run, checkpoint=start.to_text()) if keeps_one else run, start, None

        outcome = self._run(
            run, stores, work, progress, turn, begin, alone=alone, owned=alone if owned is None else owned
        )
        assert outcome is not None  # noqa: S101 - for mypy; `begin` gives a run
        return outcome

    def resume(
        self, run: Run, stores: Stores, work: Work, progress: Progress = no_progress, turn: Turn = WHOLE_TURN
    ) -> Outcome | None:
        """Goes on with the sync that an earlier call left open, from its checkpoint; None if there is none.

        Takes the lock only if there is one: a look disturbs nobody.
        """

        def begin(history: History, run: Run, clock: Now) -> _Begun | None:
            found = take_over(history, self._service, run.started_at, clock, is_left_sync)
            return None if found is None else (found, Checkpoint.from_text(found.checkpoint), found)

        def look(backup: Store, history: History) -> bool:
            return has_left_sync(backup, history, self._service, self._now)

        return self._run(run, stores, work, progress, turn, begin, alone=True, owned=True, look=look)

    def walk(self, run: Run, stores: Stores, work: Work, turn: Turn) -> Outcome | None:
        """Goes on with the verify that an earlier call left open, or begins one, which stays open when time is up.

        It takes no lock, so that syncs need not wait for it. None while another call is at it.
        """

        def begin(history: History, run: Run, clock: Now) -> _Begun | None:
            found = next(filter(is_left_verify, history.open_runs(self._service)), None)
            if found is not None and is_alive(found, clock()):
                return None
            start = Checkpoint.from_text(found.checkpoint) if found else Checkpoint()
            return replace(found or run, checkpoint=start.to_text()), start, found

        return self._run(run, stores, work, no_progress, turn, begin, alone=False, owned=True)

    def _run(
        self,
        run: Run,
        stores: Stores,
        work: Work,
        progress: Progress,
        turn: Turn,
        begin: Callable[[History, Run, Now], _Begun | None],
        *,
        alone: bool,
        owned: bool,
        look: Callable[[Store, History], bool] = lambda _, __: True,
    ) -> Outcome | None:
        tally = Tally(lambda counts: progress(self._service, counts), self._policy.max_failed_records)
        seconds_left = _countdown(turn.seconds)
        try:
            with interrupts.running(), ExitStack() as stack:
                source, backup = stack.enter_context(stores())
                tally.spell = lambda key: json.dumps(backup.keys.to_json(key), ensure_ascii=False)
                history = History(backup)
                if not look(backup, history):
                    return None
                try:
                    lock = self._lock if alone else _no_lock
                    held = take(stack, lock, self._service, backup.place.location, turn.wait_seconds)
                except StoreUnavailable as error:
                    return self._saved(history.add, self._ended(run, tally, error))
                if alone or not upgrade.are_current(backup, self._service):
                    with nullcontext() if alone else self._lock(self._service, backup.place.location):
                        upgrade.bring_up_to_date(backup, self._service, self._others)
                now = clock = clock_of(backup, self._now)
                recycled = RecycleBin(backup, self._service, lambda: history.timeline(self._service, now()))
                ahead = history.ahead(self._service, now())
                now = history.clock(self._service, now, recycled.newest(now() + AHEAD))
                if alone:
                    drop_scratches(backup, history, self._service, clock())
                begun = begin(
                    history,
                    replace(
                        run,
                        started_at=now(),
                        status=Status.IN_PROGRESS,
                        place=history.place,
                        number=history.next_number(self._service),
                        notes=self._ahead(ahead, now()),
                    ),
                    clock,
                )
                if begun is None:
                    return None
                run, start, found = begun
                resumed = found is not None
                ownership = Ownership(history, clock) if owned else None
                if ownership is not None:
                    run = stack.enter_context(ownership.taken(run, found))
                if alone:
                    turn.started(run)
                held = _all_of(interrupts.check, held, *([ownership.check_young] if ownership else []))
                keep = recycled.keeper(run, now, resumed=resumed)
                steps = Steps(held, now, keep, self._limits.parallelism, seconds_left=seconds_left)
                session = Session(source, backup, history, recycled, run, tally, steps, self._policy, start, resumed)
                session.ownership, session.charged_before = ownership, run.request_charge or 0.0
                session.fence(source)
                session.fence(backup)
                outcome = self._worked(session, work)
                with interrupts.last_words():
                    return self._left_open(session, outcome) or self._saved(session.save, outcome)
        except Exception as error:
            return self._ended(run, tally, foreseen(error))

    def _left_open(self, session: Session, outcome: Outcome) -> Outcome | None:
        """The outcome of a run whose entry another call goes on with: its time was up, it was interrupted, or it is
        another's already. None for a run that has ended."""
        passed_on = isinstance(outcome.error, LockLost) and session.run.checkpoint is not None
        if not session.unfinished and not passed_on:
            return None
        if session.ownership is not None:
            session.ownership.leave()
        return replace(outcome, recorded=True)

    def _ahead(self, run: Run | None, now: datetime) -> tuple[str, ...]:
        """What is said of a run whose time lies ahead, in the log as well."""
        if run is None:
            return ()
        stamped = run.completed_at or run.started_at
        event("history.ahead", level=logging.WARNING, service=self._service, sync_id=run.sync_id, at=stamped, now=now)
        return (
            f"The run {run.sync_id} is stamped {stamped:%Y-%m-%d %H:%M:%S %Z}, which lies ahead: its clock was wrong, "
            "or this one is. It is taken for as old as its place among the runs says.",
        )

    def _worked(self, session: Session, work: Work) -> Outcome:
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
        error: BackupError | None = None
        try:
            work(session)
        except Interrupted:
            percent = session.run.percent
            at = "" if percent is None else f" at {percent} %"
            error = Interrupted(f"Interrupted{at}; run it again to continue.")
        except Exception as caught:
            error = foreseen(caught)
        if error is None and not session.unfinished:
            error = session.tally.failure()
        run = session.run
        may_go_on = session.ownership is not None and run.checkpoint is not None
        session.unfinished = may_go_on if isinstance(error, Interrupted) else error is None and session.unfinished
        if session.unfinished:
            run = run if error is None else replace(run, counts=session.tally.counts)
            counts = asdict(run.counts)
            event(f"{run.verb}.paused", service=self._service, sync_id=run.sync_id, **counts, percent=run.percent)
            return Outcome(run, error)
        session.run = replace(session.run, request_charge=session.charge())
        outcome = self._ended(session.run, session.tally, error, session.steps.now)
        return replace(outcome, report=session.report, key_to_json=session.backup.keys.to_json)

    def _saved(self, save: Callable[[Run], Run | None], outcome: Outcome) -> Outcome:
        """The outcome, now in SyncHistory. A run that cannot be recorded fails; an earlier error is kept."""
        try:
            run = save(outcome.run) or outcome.run
        except BackupError as error:
            if outcome.error is None:
                raise
            event(
                "history.not_saved",
                level=logging.ERROR,
                service=self._service,
                sync_id=outcome.run.sync_id,
                error=error,
            )
            return outcome
        return replace(outcome, run=run, recorded=True)

    def _ended(self, run: Run, tally: Tally, error: BackupError | None, now: Now | None = None) -> Outcome:
        status = Status.FAILED if error else Status.COMPLETED
        if not run.dry_run and tally.proof is not None:
            run = replace(run, proof=tally.proof)
        run = replace(run, failures=(*tally.failures.items(),))
        run = replace(run, error_kind=type(error).__name__ if error else None)
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
        return Outcome(run, error, tally.changes)


def _no_lock(_service: str, _backup: str) -> AbstractContextManager[StillHeld]:
    return nullcontext(lambda: None)


def _all_of(*checks: StillHeld) -> StillHeld:
    def check() -> None:
        for one in checks:
            one()

    return check


def _countdown(seconds: float | None) -> Callable[[], float]:
    """The seconds left, from now on."""
    if seconds is None:
        return no_end
    ends_at = time.monotonic() + seconds
    return lambda: ends_at - time.monotonic()


def foreseen(error: Exception) -> BackupError:
    """The error itself if it is the app's own, else Unexpected; then its kind and its places in the code are logged.

    A foreign error's message may quote a record, so that is neither logged nor told.
    """
    if isinstance(error, BackupError):
        return error
    where = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:])
    event("unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    return Unexpected(f"Unexpected {type(error).__name__}; what had been written stays, nothing else was changed.")
