"""How a run ended, its observers, and how long one call of it may take. Plain values, no store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backup.core.errors import BackupError, Locked
from backup.core.log import event
from backup.core.model import Key
from backup.core.run_values import Counts, Proof, Run
from backup.mirror.steps import no_end
from backup.mirror.verification import Report


@dataclass(frozen=True)
class Outcome:
    """How a run ended, with its error if it failed: the answer takes its status and hint from that.

    `changes` are the first thousand keys of each kind that a dry run would change or a restore left alone. `report`
    is the result of a verify. Keys in both are values of JSON. `recorded` says whether the run has an entry in
    SyncHistory. `left_open`: only this call of the run has ended; its entry is in progress, for a call that resumes it.
    """

    run: Run
    error: BackupError | None = None
    changes: Sequence[tuple[Key, str]] = ()
    report: Report | None = None
    recorded: bool = False
    left_open: bool = False

    @property
    def in_progress(self) -> bool:
        """Whether the run has not ended: it runs in the background, or another call will resume it."""
        return self.run.completed_at is None


class Unchanged(NamedTuple):
    """What a run without anything to do proves and notes, and the watermark that it leaves."""

    proof: Proof
    notes: tuple[str, ...] = ()
    watermark: str | None = None


def tell_end(outcome: Outcome) -> None:
    """Writes the end of the run into the log."""
    run, error = outcome.run, outcome.error
    locked = isinstance(error, Locked)  # another run is in progress; that is not a failure of this run
    event(
        f"{run.verb}.{'locked' if locked else 'failed' if error else 'completed'}",
        level=logging.ERROR if error and not locked else logging.INFO,
        service=run.service,
        sync_id=run.sync_id,
        **vars(run.counts),
        verified=run.verified,
        dry_run=run.dry_run,
        duration_ms=run.duration_ms,
        **({} if run.request_charge is None else {"request_charge": run.request_charge}),
        **({"error_kind": run.error_kind, "error": error, "hint": error.hint} if error else {}),
    )


class Observer:
    """A run tells it how it goes, in the thread that runs it; `progress` from other threads as well. This class does
    nothing."""

    def expects(self, services: int) -> None:
        """Called before the first of so many services has its turn."""

    def started(self, run: Run) -> None:
        """Called when the run has its lock, and its entry in SyncHistory. A resumed run has the counts of its earlier
        calls."""

    def progress(self, service: str, counts: Counts) -> None:
        """Called after every batch, with what the run has done so far."""

    def walked(self, run: Run) -> None:
        """Called when the run's entry says again how far it is (`run.percent`)."""

    def ended(self, outcome: Outcome) -> None:
        """Called when this call of the run has ended, also when it could not start."""

    def closed(self, run: Run) -> None:
        """Called when the run has failed because it was left open by a process that died, before another run begins."""


NOBODY = Observer()


class Observers(Observer):
    """Several observers as one, called one after the other."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def expects(self, services: int) -> None:
        """As `Observer` says."""
        for observer in self._observers:
            observer.expects(services)

    def started(self, run: Run) -> None:
        """As `Observer` says."""
        for observer in self._observers:
            observer.started(run)

    def progress(self, service: str, counts: Counts) -> None:
        """As `Observer` says."""
        for observer in self._observers:
            observer.progress(service, counts)

    def walked(self, run: Run) -> None:
        """As `Observer` says."""
        for observer in self._observers:
            observer.walked(run)

    def ended(self, outcome: Outcome) -> None:
        """As `Observer` says."""
        for observer in self._observers:
            observer.ended(outcome)

    def closed(self, run: Run) -> None:
        """As `Observer` says."""
        for observer in self._observers:
            observer.closed(run)


@dataclass(frozen=True)
class Turn:
    """How long one call of a run may take, in seconds (None: no limit), and how many of these seconds it waits for a
    lock that another run has."""

    seconds: float | None = None
    wait_seconds: float = 0

    def countdown(self) -> Callable[[], float]:
        """Returns a function that says how many seconds are left; they count from this call."""
        if self.seconds is None:
            return no_end
        ends_at = time.monotonic() + self.seconds
        return lambda: ends_at - time.monotonic()


WHOLE_TURN = Turn()
