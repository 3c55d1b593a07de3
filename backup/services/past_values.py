"""What the past of a service is told as: a record's past, a run and its changes, a purge. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backup.core.model import Action, Key, Record, SideName
from backup.core.run_values import Run
from backup.recycle_bin.entries import KeptImage


@dataclass(frozen=True)
class Shown:
    """One record's past: its key, the record now or at the time that the caller named, and its changes, oldest
    first."""

    key: list[Any]
    record: Record | None
    changes: Sequence[KeptImage]

    @property
    def is_known(self) -> bool:
        """Whether there is such a record, or the bin has an image of one."""
        return self.record is not None or len(self.changes) > 0


@dataclass(frozen=True)
class Ran:
    """A past run and some of its changes; whether it `has_more`, and whether images of it `may_be_purged`."""

    run: Run
    changes: Sequence[KeptImage]
    has_more: bool
    may_be_purged: bool
    key_to_json: Callable[[Key], list[Any]]


@dataclass(frozen=True)
class ChangedRecord:
    """One record that a run changed: what the run did to it, and the record before and after.

    - `side`: where the record is: in the backup, or in the place that a restore wrote to.
    - `old`: None for a record that the run inserted.
    - `new`: the record as the next later run found it, or else as the backup has it now. None if it was deleted.
    - `later_run`: the run that found it so; None for the backup's record of now.
    """

    run: Run
    key: list[Any]
    action: Action
    side: SideName
    at: datetime
    old: Record | None
    new: Record | None
    later_run: str | None


@dataclass(frozen=True)
class ChangedPage:
    """A page of what a run did: key, action and side of each record; the cursor of the next page, None at the end.

    `may_be_purged`: the run is older than the recycle bin keeps images, so the pages may lack some of its changes.
    """

    run: Run
    changes: Sequence[tuple[list[Any], Action, SideName]]
    cursor: str | None
    may_be_purged: bool


@dataclass(frozen=True)
class Purged:
    """How many images a purge deleted from the recycle bin, and how many runs from SyncHistory."""

    images: int = 0
    runs: int = 0
