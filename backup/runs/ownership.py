"""The owner of an open run: its owner and attempt in SyncHistory, its heartbeat, and the fence of its batches.

The lock keeps other processes from trying. A run may lose the lock, or its process may stop for a while. Then the fence
keeps it from writing over what its successor wrote. The backup's own database decides that.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from backup.core import interrupts
from backup.core.errors import BackupError, Locked, LockLost
from backup.core.log import event
from backup.core.model import Now
from backup.core.run_values import Run, Status
from backup.runs.clock import elapsed
from backup.runs.history import History
from backup.runs.process import Process, this_process
from backup.stores import Store

HEARTBEAT_SECONDS = 15.0
"""The seconds between two heartbeats of a run."""

OLD_SECONDS = 120.0
"""An open run whose heartbeat is older, by the clock that wrote it, belongs to nobody."""

_BEAT_SECONDS = 20.0  # at most, for one heartbeat
_SETTLE_SECONDS, _LOOKS = 0.5, 6


_attempts_here: set[str] = set()
"""The attempts of this process that have not ended."""


def is_alive(run: Run, now: datetime) -> bool:
    """Whether an open run belongs to a process that still works on it. `now` is of the clock that writes heartbeats.

    It does not if its heartbeat is old. Nor if its owner is a process of this machine that is gone, or an attempt of
    this process that has ended. Nor if it has no owner: then a call left it for another call to resume.
    """
    if run.status is not Status.IN_PROGRESS or run.owner is None:
        return False
    owner = Process.read(run.owner)
    if owner is not None and (owner.is_gone or (owner == this_process() and run.attempt not in _attempts_here)):
        return False
    # If a heartbeat lies far ahead, the clock that wrote it was set back since.
    return abs(now - _last_heartbeat(run)) <= timedelta(seconds=OLD_SECONDS)


def refuse_alive(run: Run, now: datetime) -> None:
    """Raises Locked for an open run that is alive, with its owner and the age of its heartbeat."""
    if not is_alive(run, now):
        return
    owner = Process.read(run.owner or "")
    who = f"process {owner.number} on {owner.host}" if owner else str(run.owner)
    age = max(0, round((now - _last_heartbeat(run)).total_seconds()))
    raise Locked(
        f"A run of {run.service} is in progress in {who}; its last heartbeat is {age} s old.",
        hint="Wait until it has ended; `python -m backup history` shows it as InProgress. When its heartbeat is "
        f"{OLD_SECONDS:g} s old, the next run takes it over.",
    )


def _has_acted(run: Run) -> bool:
    """Whether the run has ended, and did more than to fail."""
    return run.status is not Status.IN_PROGRESS and bool(
        run.status is Status.COMPLETED or run.counts.processed or run.added_columns
    )


def _last_heartbeat(run: Run) -> datetime:
    return run.heartbeat_at or run.started_at


class Ownership:
    """One call's ownership of the entry of its run, from `taken` to its end. Threads may share it."""

    def __init__(self, history: History, clock: Now) -> None:
        """`clock` writes the heartbeats: it is the clock of the backup's server, if it has one."""
        self._history, self._clock = history, clock
        self._owner = str(this_process())
        self._attempts = [str(uuid.uuid4())]  # of this call; after a lost answer the entry may have any of them
        self._run: Run | None = None
        self._lost = False
        self._confirmed = elapsed()
        self._beating = threading.Lock()

    @property
    def beside(self) -> Store:
        """The store whose sibling has the run's entry."""
        return self._history.backup

    @contextmanager
    def taken(self, run: Run, entry: Run | None) -> Iterator[Run]:
        """Takes the run, and writes heartbeats until the `with` ends. Yields the run as its entry now has it.

        `entry` is the open run that it resumes, as it was read; None for a new run. Raises Locked when another process
        was faster.
        """
        attempt = self._attempts[0]
        _attempts_here.add(attempt)
        ended = threading.Event()
        try:
            run = self._run = self._signed(run)
            if entry is None:
                self._history.save(run, new=True)
                if not run.only_compares:
                    self._yield_to_rivals(run)
            elif not self._history.change(run, [entry.owner, self._owner], [entry.attempt, attempt]):
                raise Locked(f"Another process has just taken over the run of {run.service}.")
            self._confirmed = elapsed()
            threading.Thread(target=self._beat_until, args=(ended,), name=f"heart-{run.service}", daemon=True).start()
            yield run
        finally:
            ended.set()
            _attempts_here.difference_update(self._attempts)

    def _signed(self, run: Run) -> Run:
        return replace(run, owner=self._owner, attempt=self._attempts[-1], heartbeat_at=self._clock())

    def _yield_to_rivals(self, run: Run) -> None:
        """Raises Locked if another run began since this one has read SyncHistory. Only a run with another kind of lock
        can do that.

        One that has ended since has taken this run's number, and what this run knows is old. Of those that go on, both
        runs see each other, or only the later one sees the other. So the run with the greater SyncId gives way at once.
        The run with the smaller SyncId waits for that, and else gives way as well.
        """
        for look in range(_LOOKS):
            rivals = [
                rival
                for rival in self._history.rivals(run)
                if not rival.only_compares and (_has_acted(rival) or is_alive(rival, self._clock()))
            ]
            if not rivals:
                return
            waits = all(run.sync_id < rival.sync_id and not _has_acted(rival) for rival in rivals)
            if look + 1 < _LOOKS and waits:
                interrupts.sleep(_SETTLE_SECONDS)
                continue
            error = Locked(f"Another run of {run.service} began at the same moment. This run changed no record.")
            self.save(run.ended(Status.FAILED, self._clock(), run.counts, str(error)))
            raise error

    def _beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT_SECONDS) and not self._lost:
            self._beat()

    def _beat(self) -> None:
        """Writes a heartbeat. A lost answer does not end the run."""
        run = self._run
        assert run is not None  # noqa: S101 - for mypy; it was taken
        with self._beating:
            started = elapsed()
            try:
                is_owner = self._any_attempt(
                    lambda attempts: self._history.beat(
                        run.sync_id, self._owner, attempts, self._clock(), _BEAT_SECONDS
                    )
                )
            except Exception as error:
                event(
                    "run.heartbeat_failed",
                    level=logging.WARNING,
                    service=run.service,
                    sync_id=run.sync_id,
                    error=error if isinstance(error, BackupError) else type(error).__name__,
                )
                return
            if is_owner:
                self._confirmed = started
            else:
                self._lost = True

    def check_young(self) -> None:
        """Raises LockLost unless the last heartbeat is so young that no other process can have taken the run over.

        If it is too old, as after a stop of the process, it first tries a new heartbeat.
        """
        if not self._lost and self._is_old():
            with self._beating:
                pass  # waits for the heartbeat of another thread
            if self._is_old():
                self._beat()
        if self._lost or self._is_old():
            raise self._error()

    def _is_old(self) -> bool:
        return elapsed() - self._confirmed > OLD_SECONDS - 2 * HEARTBEAT_SECONDS

    def check_last(self, transaction: Any, again: bool) -> None:
        """As `Fence` says."""
        run = self._run
        assert run is not None  # noqa: S101 - for mypy; it was taken
        history, owner = self._history, self._owner
        if transaction is None:
            self.check_young()
            is_owner = self._any_attempt(lambda attempts: history.is_owned(run.sync_id, owner, attempts))
        elif again:
            new = str(uuid.uuid4())
            _attempts_here.add(new)
            self._attempts.append(new)
            is_owner = self._any_attempt(lambda attempts: history.renew(run.sync_id, owner, attempts, new, transaction))
        else:
            is_owner = self._any_attempt(lambda attempts: history.is_owned(run.sync_id, owner, attempts, transaction))
        if not is_owner:
            self._lost = True
            raise self._error()

    def save(self, run: Run) -> Run:
        """Writes the run's entry if this call still owns it, and returns the run as the entry now has it. May be
        repeated. Raises LockLost."""
        started = elapsed()
        run = self._signed(run)
        if not self._any_attempt(lambda attempts: self._history.change(run, [self._owner], attempts)):
            self._lost = True
            raise self._error()
        self._confirmed = started
        return run

    def leave(self) -> None:
        """Leaves the entry open, so that another call may resume the run at once. A failure does no harm."""
        if self._run is None:
            return
        try:
            self._history.leave(self._run.sync_id, self._owner, self._attempts)
        except BackupError as error:
            event("run.not_left", level=logging.WARNING, service=self._run.service, error=error)

    def explained(self, error: LockLost) -> LockLost:
        """The error that ended the run. Another one where no other process has the run: its entry is not there."""
        run = self._run
        try:
            if run is None or self._history.get(run.service, run.sync_id) is not None:
                return error
        except BackupError:
            return error
        return LockLost(
            f"The entry of the run {run.sync_id} is not in SyncHistory, so no run of {run.service} can go on. What "
            "this run has written stays.",
            hint="Look for a trigger, a rule or a policy that keeps entries out of SyncHistory, or for whoever deletes "
            "them.",
        )

    def _any_attempt(self, has: Callable[[Sequence[str]], bool]) -> bool:
        """Whether the entry `has` an attempt of this call. It asks again if another thread added an attempt while the
        server answered."""
        while True:
            attempts = list(self._attempts)
            if has(attempts):
                return True
            if len(self._attempts) == len(attempts):
                return False

    def _error(self) -> LockLost:
        service = self._run.service if self._run is not None else ""
        if self._lost:
            return LockLost(f"Another process has taken over the run of {service}. What this run has written stays.")
        return LockLost(
            f"The run of {service} could not write a heartbeat for {OLD_SECONDS - 2 * HEARTBEAT_SECONDS:g} s, so it "
            "stopped. What it has written stays."
        )
