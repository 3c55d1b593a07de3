"""Finds the records of a batch that cannot be read or written, so that they do not stop the others.

A batch that is refused is halved, and each half again, until the single records that are refused are known: `bisect`
is for code that writes or deletes a batch, `read_bisecting` for code that reads one. Neither decides what a run does
with a refused record: `Tally.set_aside` counts and names it.
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

_PARTS_AT_FIRST = 16

RECORDS_WAITING_AT_MOST = 10
"""How many records may wait for another try at most: this many times the limit of records set aside. Each record that
waits costs a transaction or more."""

Read = Callable[[frozenset[Key]], Iterator[Sequence[Record]]]
"""Yields the records of these keys in batches. Keys without a record are left out."""


@dataclass(frozen=True)
class Refusal:
    """Keys whose records were refused together, and why. It has several keys only if a constraint refused them."""

    keys: Sequence[Key]
    error: BackupError

    @property
    def may_exchange(self) -> bool:
        """Whether the records may fit once others give up unique values, perhaps in exchange for theirs."""
        return isinstance(self.error, ConstraintRefused) and self.error.unique

    @property
    def may_pass(self) -> bool:
        """Whether the records may fit once others are written or deleted."""
        return isinstance(self.error, ConstraintRefused)


def smallest_part_at_first(items: Sequence[Item]) -> int:
    """Returns how far `bisect` halves what a constraint refuses in a first try: to a sixteenth of the batch.

    That part waits until all others are written or deleted, and then most of it passes. So in a batch of a thousand a
    refused record costs eight transactions and not twenty.
    """
    return max(1, len(items) // _PARTS_AT_FIRST)


def bisect(
    items: Sequence[Item],
    key_of: Callable[[Item], Key],
    work: Callable[[Sequence[Item]], None],
    done: Callable[[Sequence[Item]], None],
    smallest_part: int = 1,
) -> Iterator[Refusal]:
    """Does the work on all items. If that is refused, it does the work on each half. Yields what is refused in the end.

    `work` must do all of its items or none; only RecordRefused names the items that were not done. `done` is called
    with the items that were done. Items that a constraint refuses are not halved further once they are `smallest_part`
    or fewer. Cost: one call of `work` if nothing is refused, else about twice the logarithm of the number of items for
    each refused item. Raises errors of `work` that are not about its items, such as StoreUnavailable or LockLost; what
    was done before stays.
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
        if len(items) <= (smallest_part if isinstance(caught, ConstraintRefused) else 1):
            yield Refusal([key_of(item) for item in items], _in_words(caught))
            return
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            yield from bisect(half, key_of, work, done, smallest_part)
    else:
        done(items)


def read_bisecting(
    keys: Collection[Key], key_of: Callable[[Record], Key], read: Read, refuse: Callable[[Refusal], None]
) -> Iterator[Sequence[Record]]:
    """Yields the records of these keys in batches. Calls `refuse` for each record that cannot be read.

    Cost and errors are those of `bisect`.
    """
    unread, refused = set(keys), True
    while refused:  # a batch that names the records that were refused has given the others
        refused = False
        try:
            for records in read(frozenset(unread)):
                unread.difference_update(map(key_of, records))
                yield records
                del records  # else it stays in memory beside the next batch
        except RecordRefused as error:
            refused = not unread.isdisjoint(error.refused)
            unread.difference_update(error.refused)
            for refusal in _each(error):
                refuse(refusal)
        except Exception as caught:
            _raise_if_of_all(caught)
            if len(unread) <= 1:
                refuse(Refusal(list(unread), _in_words(caught)))
                return
            middle, listed = len(unread) // 2, list(unread)
            for half in (listed[:middle], listed[middle:]):
                yield from read_bisecting(half, key_of, read, refuse)


def until_refused(batches: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
    """Yields the batches up to the first that cannot be read. Raises errors that are not about single records."""
    try:
        yield from batches
    except Exception as caught:
        _raise_if_of_all(caught)


def _each(error: RecordRefused) -> Iterator[Refusal]:
    return (
        Refusal([key], ConstraintRefused(reason, unique=True) if key in error.in_the_way else StoreError(reason))
        for key, reason in error.refused.items()
    )


def _raise_if_of_all(error: Exception) -> None:
    """Raises the error again unless it may be about single records. A driver may raise any type for a bad value."""
    if isinstance(error, StoreError) and not isinstance(error, StoreUnavailable | RightMissing):
        return
    if isinstance(error, BackupError | Stopped | OSError | MemoryError | AssertionError):
        raise error


def _in_words(error: Exception) -> BackupError:
    """Returns the error as one of the app's own. Leaves out a foreign error's message, which may quote a value."""
    if isinstance(error, BackupError):
        return error
    where = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:])
    event("record.unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    return StoreError(f"Unexpected {type(error).__name__}: the driver cannot read or write a value of this record.")
