"""What a run needs at every step of a sync."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backup.core.model import CheckLock, Now
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.looked import Looked
from backup.stores import Keep


def no_end() -> float:
    """Returns infinity: the seconds left of a run without a time limit."""
    return float("inf")


def forget(at: Checkpoint) -> None:
    """Does not save the checkpoint."""


@dataclass(frozen=True)
class Steps:
    """What a run needs at every step.

    - `check_lock`: called before every batch; raises LockLost once the run has lost its lock.
    - `now`: the clock. `keep`: puts images into the recycle bin.
    - `parallelism`: how many chunks are settled at the same time.
    - `since`: the watermark. Changes of the source from `overlap_seconds` before it are read first. None: no watermark.
    - `quiet_records`: how many records the source has, if it probably has not changed since the last run, or not beyond
      what is read first; else 0.
    - `quiet_seconds`: how long the last sync took.
    - `records`: how many records the source had then; 0 if nobody knows.
    - `looked`: what a look at all of a quiet source has shown, before the run had its entry: that something differs.
      None: nobody has looked.
    - `counts`: what is read first is copied, and then equal numbers of records settle everything.
    - `full`: only stamps settle a chunk, never fingerprints.
    - `seconds_left`: returns how long the run may still work before it has to stop.
    - `save`: called with every checkpoint.
    """

    check_lock: CheckLock
    now: Now
    keep: Keep
    parallelism: int = 1
    since: str | None = None
    overlap_seconds: float = 0.0
    quiet_records: int = 0
    quiet_seconds: float = float("inf")
    records: int = 0
    looked: Looked | None = None
    counts: bool = False
    full: bool = False
    seconds_left: Callable[[], float] = no_end
    save: Callable[[Checkpoint], None] = forget
