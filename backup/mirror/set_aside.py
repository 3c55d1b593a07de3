"""Records that cannot be read or written, found among the others of their batch, so that these are not held up by them.

`apart` is for whatever writes or deletes a batch, `read_apart` for whatever reads one. Neither knows what a run does
with what was refused: `Tally.set_aside` counts and names it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from backup.core.errors import (
    BackupError,
    ConstraintRefused,
    RecordRefused,
    RightMissing,
    Stopped,
    StoreError,
    StoreUnavailable,
)
from backup.core.log import event
from backup.core.model import Key, Record

Item = TypeVar("Item")

Read = Callable[[frozenset[Key]], Iterator[Sequence[Record]]]
"""Gives the records of these keys that are there, in batches."""


@dataclass(frozen=True)
class Refusal:
    """Keys whose records were refused together, and why; several only where a constraint refused them."""

    keys: Sequence[Key]
    error: BackupError

    @property
    def may_exchange(self) -> bool:
        """Whether the records may fit once others gave up values that are unique, perhaps for theirs."""
        return isinstance(self.error, ConstraintRefused) and self.error.unique

    @property
    def may_pass(self) -> bool:
        """Whether the records may fit once others were written or deleted."""
        return isinstance(self.error, ConstraintRefused)


def apart(
    items: Sequence[Item],
    key_of: Callable[[Item], Key],
    work: Callable[[Sequence[Item]], None],
    done: Callable[[Sequence[Item]], None],
    constrained: int = 1,
) -> Iterator[Refusal]:
    """Does the work on the items, and, where it is refused, on their halves; gives those on which it cannot be done.

    `work` does all of its items or none, but for RecordRefused, which names those it did not; `done` is told of those
    it did. What a constraint refuses is no more halved once it is `constrained` items or less. Cost: one piece of work
    if none is refused, else about twice the logarithm of their number for each that is. Raises what `work` raises that
    is not about its items: that the database cannot be reached, that the lock is lost.
    """
    if not items:
        return
    try:
        work(items)
    except RecordRefused as error:
        done([item for item in items if key_of(item) not in error.refused])
        yield from _each(error)
    except Exception as caught:
        _raise_if_of_all(caught)
        if len(items) <= (constrained if isinstance(caught, ConstraintRefused) else 1):
            yield Refusal([key_of(item) for item in items], _in_words(caught))
            return
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            yield from apart(half, key_of, work, done, constrained)
    else:
        done(items)


def read_apart(
    keys: Collection[Key], key_of: Callable[[Record], Key], read: Read, refuse: Callable[[Refusal], None]
) -> Iterator[Sequence[Record]]:
    """The records of these keys, in batches; `refuse` is told of each that cannot be read. Cost and errors as of
    `apart`."""
    left = set(keys)
    try:
        for records in read(frozenset(left)):
            left.difference_update(map(key_of, records))
            yield records
            del records  # or it would be held beside the next
    except Exception as caught:
        _raise_if_of_all(caught)
        if len(left) <= 1:
            refuse(Refusal(list(left), _in_words(caught)))
            return
        middle, listed = len(left) // 2, list(left)
        for half in (listed[:middle], listed[middle:]):
            yield from read_apart(half, key_of, read, refuse)


def until_refused(batches: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
    """The batches up to the first that cannot be read. Raises what is not about single records."""
    try:
        yield from batches
    except Exception as caught:
        _raise_if_of_all(caught)


def _each(error: RecordRefused) -> Iterator[Refusal]:
    return (Refusal([key], StoreError(reason, hint=error.hint)) for key, reason in error.refused.items())


def _raise_if_of_all(error: Exception) -> None:
    """Raises the error again if it cannot be about single records. A value that no driver takes raises anything."""
    if isinstance(error, StoreError) and not isinstance(error, StoreUnavailable | RightMissing):
        return
    if isinstance(error, BackupError | Stopped | OSError | MemoryError | AssertionError):
        raise error


def _in_words(error: Exception) -> BackupError:
    """The error as the app's own. The message of another may quote a value, so it is not told."""
    if isinstance(error, BackupError):
        return error
    where = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:])
    event("record.unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    return StoreError(f"Unexpected {type(error).__name__}: a value that cannot be carried.")
