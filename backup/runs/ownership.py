"""Whose an open run is: its owner and attempt in SyncHistory, its heartbeat, and the fence that its batches pass.

The lock keeps others from trying. That a run which lost it, or was stopped for a while, writes nothing over what its
successor has written is decided here, in the backup's own database.
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
from backup.core.model import Now, Run, Status
from backup.runs.clock import elapsed
from backup.runs.history import History
from backup.runs.process import Process, this_process
from backup.stores import Store

HEARTBEAT_SECONDS = 15.0
"""How often a run says that it goes on."""

OLD_SECONDS = 120.0
"""Without a heartbeat for so long, by the clock that wrote it, an open run belongs to nobody."""

_BEAT_SECONDS = 20.0  # for how long one heartbeat is tried
_SETTLE_SECONDS, _LOOKS = 0.5, 6


_attempts_here: set[str] = set()
"""The attempts of this process that are under way."""


def is_alive(run: Run, now: datetime) -> bool:
    """Whether an open run is somebody's. `now` is of the clock that writes heartbeats.

    It is not once its heartbeat is old, or its owner a process of this machine that is gone, or an attempt of this
    process that has ended; nor if nobody has it, for it was left for another call to go on with.
    """
    if run.status is not Status.IN_PROGRESS or run.owner is None:
        return False
    owner = Process.read(run.owner)
    if owner is not None and (owner.is_gone or (owner == this_process() and run.attempt not in _attempts_here)):
        return False
    # One that lies far ahead was written by a clock that was set back since.
    return abs(now - _heard_of(run)) <= timedelta(seconds=OLD_SECONDS)


def refuse_alive(run: Run, now: datetime) -> None:
    """Raises Locked for an open run that is somebody's, with its owner and when that was last heard of."""
    if not is_alive(run, now):
        return
    owner = Process.read(run.owner or "")
    who = f"process {owner.number} on {owner.host}" if owner else str(run.owner)
    age = max(0, round((now - _heard_of(run)).total_seconds()))
    raise Locked(
        f"A run of {run.service} goes on in {who}, which said so {age} s ago.",
        hint="Wait until it has ended; `python -m backup history` shows it as InProgress. One that has not said so for"
        f" {OLD_SECONDS:g} s is taken over.",
    )


def _heard_of(run: Run) -> datetime:
    return run.heartbeat_at or run.started_at


class Ownership:
    """One call's hold on the entry of its run, from `taken` to its end. Threads may share it."""

    def __init__(self, history: History, clock: Now) -> None:
        """`clock` is what heartbeats are written by: that of the backup's server, where there is one."""
        self._history, self._clock = history, clock
        self._owner = str(this_process())
        self._attempts = [str(uuid.uuid4())]  # of this call; which one the entry has last heard of nobody knows
        self._run: Run | None = None
        self._lost = False
        self._confirmed = elapsed()
        self._beating = threading.Lock()

    @property
    def beside(self) -> Store:
        """The store beside which the run's entry is."""
        return self._history.backup

    @contextmanager
    def taken(self, run: Run, entry: Run | None) -> Iterator[Run]:
        """Takes the run and, inside, says time and again that it goes on: `run` as it now stands.

        `entry` is the open run that it resumes, as it was read. Raises Locked when somebody else was faster.
        """
        attempt = self._attempts[0]
        _attempts_here.add(attempt)
        ended = threading.Event()
        try:
            run = self._run = self._signed(run)
            if entry is None:
                self._history.save(run)
                if not run.only_compares:
                    self._yield_to_others(run)
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

    def _yield_to_others(self, mine: Run) -> None:
        """Raises Locked if another began at the same moment, which only one with another kind of lock can.

        Each sees the other, or only the later one does; so the one of the greater SyncId gives way at once, and the
        other does unless that happens.
        """
        for look in range(_LOOKS):
            others = [
                run
                for run in self._history.open_runs(mine.service)
                if run.sync_id != mine.sync_id and not run.only_compares and is_alive(run, self._clock())
            ]
            if not others:
                return
            if look + 1 < _LOOKS and all(mine.sync_id < run.sync_id for run in others):
                interrupts.sleep(_SETTLE_SECONDS)
                continue
            error = Locked(f"Another run of {mine.service} began at the same moment.")
            self.save(mine.ended(Status.FAILED, self._clock(), mine.counts, str(error)))
            raise error

    def _beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT_SECONDS) and not self._lost:
            self._beat()

    def _beat(self) -> None:
        """Says that the run goes on. An answer that is lost ends nothing."""
        run = self._run
        assert run is not None  # noqa: S101 - for mypy; it was taken
        with self._beating:
            asked = elapsed()
            try:
                held = self._known(
                    lambda known: self._history.beat(run.sync_id, self._owner, known, self._clock(), _BEAT_SECONDS)
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
            if held:
                self._confirmed = asked
            else:
                self._lost = True

    def check_young(self) -> None:
        """Raises LockLost unless the run has lately said that it goes on, so that nobody can have taken it over.

        When it has not for too long, as after a stop of the process, it tries to say so now.
        """
        if not self._lost and self._is_old():
            with self._beating:
                pass  # another thread may be at it
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
        if transaction is None:
            self.check_young()
            held = self._known(lambda known: self._history.is_held(run.sync_id, self._owner, known))
        elif again:
            mine = str(uuid.uuid4())
            _attempts_here.add(mine)
            self._attempts.append(mine)
            held = self._known(lambda known: self._history.renew(run.sync_id, self._owner, known, mine, transaction))
        else:
            held = self._known(lambda known: self._history.is_held(run.sync_id, self._owner, known, transaction))
        if not held:
            self._lost = True
            raise self._error()

    def save(self, run: Run) -> Run:
        """Writes the run's entry, if it is still its own, and returns it as it stands now; may be repeated. Raises
        LockLost."""
        asked = elapsed()
        run = self._signed(run)
        if not self._known(lambda known: self._history.change(run, [self._owner], known)):
            self._lost = True
            raise self._error()
        self._confirmed = asked
        return run

    def leave(self) -> None:
        """Leaves the entry open for whoever wants to go on with it, at once; what fails here does no harm."""
        if self._run is None:
            return
        try:
            self._history.leave(self._run.sync_id, self._owner, self._attempts)
        except BackupError as error:
            event("run.not_left", level=logging.WARNING, service=self._run.service, error=error)

    def _known(self, is_one_of: Callable[[Sequence[str]], bool]) -> bool:
        """Whether the entry's attempt is one of this call's; asked again when another thread has named a new one while
        the server was asked about those before."""
        while True:
            known = list(self._attempts)
            if is_one_of(known):
                return True
            if len(self._attempts) == len(known):
                return False

    def _error(self) -> LockLost:
        service = self._run.service if self._run is not None else ""
        if self._lost:
            return LockLost(f"The run of {service} was taken over by another. What it had written before stays.")
        return LockLost(
            f"The run of {service} could not say for {OLD_SECONDS - 2 * HEARTBEAT_SECONDS:g} s that it goes on, and"
            " stopped. What it had written stays."
        )
