"""Compares the stamps of both sides and says what a run has to change. Pure: it knows no database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backup.core.model import Key, Stamps, Version


@dataclass(frozen=True)
class Changes:
    """The keys to insert, update and delete so that a chunk of the backup equals the source. No key is in two of them.

    `skipped` is the number of records that are equal. `touched` is the part of `update` where only the etag differs.
    The content of such a record may be the same.
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
        """Returns the changes without these keys."""
        if not keys:
            return self
        key_sets = {name: getattr(self, name).difference(keys) for name in ("insert", "update", "delete", "touched")}
        return replace(self, **key_sets)

    def without_source(self, keys: Collection[Key]) -> Changes:
        """Returns the changes if the source did not have the records of these keys, which are all to be written."""
        if not keys:
            return self
        others = self.without(keys)
        return replace(others, delete=others.delete.union(self.update.intersection(keys)))

    def within(
        self, room: int, free: Collection[Key], in_order: Callable[[Collection[Key]], Sequence[Key]]
    ) -> tuple[Changes, frozenset[Key]]:
        """Returns the changes without the writes that do not fit into `room`, and the keys of those writes.

        The first `room` changes fit, with their keys `in_order`. Keys of `free` always fit, and take no room. A delete
        takes room like a write, and stays among the changes even if it does not fit: a run makes its deletes last.
        """
        fits = frozenset(in_order((self.write | self.delete).difference(free))[:room]).union(free)
        not_fitting = self.write - fits
        return self.without(not_fitting), not_fitting


def compare_stamps(source: Stamps, backup: Stamps, force: bool) -> Changes:
    """Returns the changes of one chunk.

    A key in both stamps is an update if `has_changed` says so, else it is skipped; `force` updates all of them. A key
    only in the source is an insert, a key only in the backup a delete. Keys are compared as Python sees them.
    `with_server_equality` corrects the result for keys that the server takes for equal.
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
    """Returns whether the source's record must be copied again.

    The version fields decide first. If they agree, the etag decides: it tells two writes apart that fall into one tick
    of the application's clock. A copy with no recorded etag counts as current only if the record has a version.
    """
    if not _same(source.value, backup.value):
        return True
    if source.etag is None:
        return False
    if backup.etag is None:
        return source.is_missing
    return source.etag != backup.etag


def only_touched(source: Version, backup: Version) -> bool:
    """Returns whether only the etag says that the source's record was written since it was copied.

    A restore does that, and so does a write of the same values. Only the content tells whether the record changed.
    """
    return source.value == backup.value and source.etag is not None and source.etag != backup.etag


def with_server_equality(changes: Changes, present_in_backup: Iterable[Key]) -> Changes:
    """Returns the changes with updates in place of inserts for keys that the backup's server already knows.

    A server may take `A` and `a ` for the same key. Python sees two keys, so one record looks like an insert and a
    delete. `present_in_backup` are the keys of `insert` that the server finds in the backup. The other spelling stays
    in `delete`. It does no harm: before a delete the key is looked up in the source, and the server finds it there.
    """
    existing = changes.insert.intersection(present_in_backup)
    return replace(changes, insert=changes.insert - existing, update=changes.update | existing)


def went_back(source: Version, backup: Version) -> bool:
    """Returns whether the source's version is lower than the backup's. Two versions that have no order give False."""
    try:
        return bool(source.value[0] < backup.value[0])  # a second field, such as a status, has no order
    except (TypeError, ArithmeticError, IndexError):  # two types, a decimal that is not a number, or no version fields
        return False


def _same(source: tuple[Any, ...], backup: tuple[Any, ...]) -> bool:
    """Whether the values are the same. A NaN, which does not equal itself, counts as the same as a NaN."""
    try:
        return source == backup or (repr(source) == repr(backup) and any(value != value for value in source))
    except ArithmeticError:  # the comparison of a signalling NaN raises
        return repr(source) == repr(backup)
