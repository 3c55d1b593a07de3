"""What a restore compares: the key space in pieces, with the stamps of the backup and of the place. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from backup.core.batched import batched
from backup.core.errors import StoreError
from backup.core.model import WHOLE, Chunk, Key, Stamps, unread_in
from backup.mirror.proof import without
from backup.mirror.set_aside import Refusal
from backup.mirror.walk import chunks_of
from backup.recycle_bin.changed_keys import ChangedKeys
from backup.runs.session import Session
from backup.stores import Store, stamps_in
from backup.verbs.past_run import PastRun

FEWEST_AT_ONCE = 100
"""Keys of a piece, where each of them is asked for."""

LEFT_OUT_AT_MOST = 10_000
"""Keys that the servers leave out of a chunk: they hold the list in memory."""


class Piece(NamedTuple):
    """A part of the key space. `named_keys` are those of its keys that the spec names, or its run changed.

    `is_as_now`: the place should have the copies as they are now. Else images may have what is wanted.
    `are_all_changed`: some piece has each key that has changed, so also those of records that neither side has now.
    """

    chunk: Chunk
    named_keys: Sequence[Key]
    backup_stamps: Stamps
    place_stamps: Stamps
    is_as_now: bool = False
    are_all_changed: bool = False


class Pieces:
    """Reads the pieces of one restore."""

    def __init__(self, session: Session, into: Store, keys_at_once: int, *, into_exists: bool) -> None:
        """`into` is the store of the place; `into_exists` may be False in a dry run. `keys_at_once`: how many keys have
        the pieces of which images may have what is wanted."""
        self._backup, self._tally, self._keys_at_once = session.backup, session.tally, keys_at_once
        self._into, self._into_exists = into, into_exists

    def of_keys(self, keys: Sequence[Key]) -> Piece:
        """The piece of these keys."""
        place_stamps = _stamps_of(self._into, keys) if self._into_exists else {}
        return Piece(WHOLE, keys, _stamps_of(self._backup, keys), place_stamps)

    def of_many_keys(self, keys: Sequence[Key]) -> Iterator[Piece]:
        """The pieces of these keys, a hundred keys each."""
        yield from map(self.of_keys, batched(keys, FEWEST_AT_ONCE))

    def of_run(self, past: PastRun) -> Iterator[Piece]:
        """The pieces of the records that the run changed."""
        keys = chain.from_iterable(past.changed_keys())
        while part := [*islice(keys, self._keys_at_once)]:
            yield self.of_keys(part)

    def of_all(
        self, changed: ChangedKeys | None, rest_of: Callable[[Chunk, Sequence[Key]], Chunk | None] | None
    ) -> Iterator[Piece]:
        """The pieces of the whole key space. Sets aside keys that cannot be read.

        The place should not have the copies of the keys in `changed`: they come last. Of all others it yields what
        `rest_of` leaves of each chunk; of one with more than 10,000 such keys, all. If nobody knows which have changed
        (None), all come in parts, for the bin is asked for each of their keys.
        """
        for whole in chunks_of(self._backup, self._into) if self._into_exists else self._backup.chunks():
            but = () if changed is None else changed.near(whole, LEFT_OUT_AT_MOST)
            chunk = whole if rest_of is None or but is None else rest_of(whole, but)
            if chunk is None:
                continue
            backup_stamps = self._readable(stamps_in(self._backup, chunk))
            place_stamps = self._readable(stamps_in(self._into, chunk)) if self._into_exists else {}
            if changed is not None:
                yield Piece(chunk, (), without(backup_stamps, changed), without(place_stamps, changed), is_as_now=True)
                continue
            for keys in batched(list(backup_stamps.keys() | place_stamps.keys()), self._keys_at_once):
                yield Piece(chunk, (), _stamps_at(backup_stamps, keys), _stamps_at(place_stamps, keys))
        for keys in () if changed is None else changed.batches(self._keys_at_once):
            yield self.of_keys(keys)._replace(are_all_changed=True)

    def _readable(self, stamps: Stamps) -> Stamps:
        """The stamps without those whose keys cannot be read; it sets these aside. A record whose key alone can be read
        stays; in doubt it is newer than its copy."""
        unread_keys = {key: unread for key, unread in unread_in(stamps).items() if unread.of_key}
        for key, unread in unread_keys.items():
            self._tally.set_aside(Refusal([key], StoreError(unread.reason)))
        return without(stamps, unread_keys)


def only_of(stamps: Stamps, keys: Container[Key]) -> Stamps:
    """The stamps of these keys."""
    return {key: version for key, version in stamps.items() if key in keys}


def _stamps_at(stamps: Stamps, keys: Sequence[Key]) -> Stamps:
    """The stamps of these keys, which are few among many stamps."""
    return {key: stamps[key] for key in keys if key in stamps}


def _stamps_of(store: Store, keys: Sequence[Key]) -> Stamps:
    """The stamps of those of these keys that the service has, spelled as the store spells them."""
    return store.keys.stamps(store.stamp_rows_of(keys))
