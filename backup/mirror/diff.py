"""Stamps of both sides → what a run has to change. Pure; knows no database."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from backup.core.model import Key, Stamps, Version


@dataclass(frozen=True)
class Changes:
    """What makes the backup's part of a chunk equal to the source's. The first three sets are disjoint.

    `touched` are those to update of which only the etag says that they were written: perhaps with what they had.
    """

    insert: frozenset[Key]
    update: frozenset[Key]
    delete: frozenset[Key]
    skipped: int
    touched: frozenset[Key] = frozenset()

    @property
    def write(self) -> frozenset[Key]:
        """Keys whose records are read from the source and written to the backup."""
        return self.insert | self.update

    def without(self, keys: Collection[Key]) -> Changes:
        """The same changes, but none of these keys."""
        if not keys:
            return self
        left = {name: getattr(self, name).difference(keys) for name in ("insert", "update", "delete", "touched")}
        return replace(self, **left)


def compare(source: Stamps, backup: Stamps, force: bool) -> Changes:
    """The changes of one chunk.

    In both → update when `changed`, else skip; `force` updates every common record. Only in source → insert. Only in
    backup → delete. Keys are compared as Python sees them; `with_server_equality` corrects
    what the server sees as equal.
    """
    common = source.keys() & backup.keys()
    update = common if force else {key for key in common if has_changed(source[key], backup[key])}
    return Changes(
        insert=frozenset(source.keys() - common),
        update=frozenset(update),
        delete=frozenset(backup.keys() - common),
        skipped=len(common) - len(update),
        touched=frozenset(key for key in update if only_touched(source[key], backup[key])),
    )


def has_changed(source: Version, backup: Version) -> bool:
    """Whether the source's record must be copied again.

    The version fields decide; where they agree, the etag does, so that two writes within one tick of the
    application's clock are both seen. A copy with no recorded etag counts as current only if the record has a version.
    """
    if not _same(source.value, backup.value):
        return True
    if source.etag is None:
        return False
    if backup.etag is None:
        return source.is_missing
    return source.etag != backup.etag


def only_touched(source: Version, backup: Version) -> bool:
    """Whether the etag alone says that the source's record was written since it was copied.

    A restore does that, and whoever writes what was there: only the content tells whether it changed.
    """
    return source.value == backup.value and source.etag is not None and source.etag != backup.etag


def with_server_equality(changes: Changes, present_in_backup: Iterable[Key]) -> Changes:
    """The same changes, with inserts turned into updates for keys that the backup's server already knows.

    A server may take `A` and `a ` for one key where Python sees two: an insert and a delete of what is one record.
    `present_in_backup` are the inserts the server matches. The counterpart stays in `delete`: it is looked up in the
    source before deleting, where the server finds it again.
    """
    known = changes.insert.intersection(present_in_backup)
    return replace(changes, insert=changes.insert - known, update=changes.update | known)


def went_back(source: Version, backup: Version) -> bool:
    """Whether the source's version is lower than the backup's: worth naming in the log."""
    try:
        return bool(source.value[0] < backup.value[0])  # a second field, as a status, has no order
    except (TypeError, ArithmeticError, IndexError):  # of two kinds, a decimal that is no number, or no version fields
        return False


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether the values are the same; also those that are unequal to themselves, as NaN is."""
    try:
        return one == other or (repr(one) == repr(other) and any(value != value for value in one))
    except ArithmeticError:  # a signalling NaN is not even compared
        return repr(one) == repr(other)
