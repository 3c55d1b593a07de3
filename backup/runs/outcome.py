"""How a run ended, who is told of it as it goes, and how long a call of it may take. Plain values, no store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backup.core.errors import BackupError
from backup.core.model import Counts, Key, Run
from backup.mirror.comparison import Report
from backup.mirror.writing import no_end


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and the error if it failed: for the answer's status and hint.

    `changes` are the first thousand keys that a dry run would change, or a restore left alone, and how; `report` is
    what a verify found. The keys in both are values that JSON has. `recorded` is whether the run has an entry in
    SyncHistory.
    """

    run: Run
    error: BackupError | None = None
    changes: Sequence[tuple[Key, str]] = ()
    report: Report | None = None
    recorded: bool = False

    @property
    def in_progress(self) -> bool:
        """Whether the run has not ended: it goes on in the background, or another call goes on with it."""
        return self.run.completed_at is None


class Observer:
    """Is told of a run as it goes, in the thread that runs it; `progress` also from others. This one does nothing."""

    def started(self, run: Run) -> None:
        """The run has its lock, and its entry in SyncHistory."""

    def progress(self, service: str, counts: Counts) -> None:
        """What the run has done so far; after every batch."""

    def ended(self, outcome: Outcome) -> None:
        """How this call of the run ended, also if it did not start."""


NOBODY = Observer()


class Observers(Observer):
    """Tells several, one after the other."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def started(self, run: Run) -> None:
        """As `Observer` says."""
        for observer in self._observers:
            observer.started(run)

    def progress(self, service: str, counts: Counts) -> None:
        """As `Observer` says."""
        for observer in self._observers:
            observer.progress(service, counts)

    def ended(self, outcome: Outcome) -> None:
        """As `Observer` says."""
        for observer in self._observers:
            observer.ended(outcome)


@dataclass(frozen=True)
class Turn:
    """How long a call of a run may take, in seconds (None: as long as it takes), and how long of them it waits for a
    lock that is held."""

    seconds: float | None = None
    wait_seconds: float = 0

    def countdown(self) -> Callable[[], float]:
        """The seconds left, from now on."""
        if self.seconds is None:
            return no_end
        ends_at = time.monotonic() + self.seconds
        return lambda: ends_at - time.monotonic()


WHOLE_TURN = Turn()
