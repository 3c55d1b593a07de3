"""Source and backup of a run, asked the same question at the same time. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from backup.core.model import WHOLE, Chunk, Fingerprint, Key, Proof, Record, StampRow, Stamps, Unread, unread_in
from backup.core.workers import Workers
from backup.mirror import proof
from backup.mirror.diff import Changes, compare, with_server_equality
from backup.mirror.set_aside import Refusal, read_apart, until_refused
from backup.stores import Store


@dataclass(frozen=True)
class Compared:
    """A piece of the key space: the rows of source and backup, the stamps that differ, what to change.

    With force `stamps` and `copies` are those of every record. The rows may be those of some `buckets` alone; then
    `equal` is the proof of the others. The changes have nothing of what is `unread` in the source, nor keys that are
    in the backup.
    """

    ours: set[StampRow]
    theirs: set[StampRow]
    stamps: Stamps
    copies: Stamps
    changes: Changes
    equal: Proof
    buckets: frozenset[int] | None
    unread: Mapping[Key, Unread]

    @property
    def wanted(self) -> int:
        """How many records the source has there."""
        return self.equal.source.records + len(self.ours)

    @property
    def misses_keys(self) -> bool:
        """Whether the source has keys there that could not be read."""
        return any(unread.of_key and key in self.stamps for key, unread in self.unread.items())

    @property
    def held(self) -> int:
        """How many records the backup has there."""
        return self.equal.backup.records + len(self.theirs)


def _pass_over(refused: Refusal) -> None:
    """A copy that cannot be read is not known to be the same; whoever writes it will find out."""


class Sides:
    """The two stores of a service. Errors are the stores' own."""

    def __init__(self, source: Store, backup: Store, workers: Workers) -> None:
        self.source, self.backup, self._workers = source, backup, workers

    def fingerprints(self, chunk: Chunk) -> tuple[Fingerprint | None, Fingerprint | None]:
        """Those of source and backup."""
        return self._workers.both(lambda: self.source.fingerprint(chunk), lambda: self.backup.fingerprint(chunk))

    def proven(self, chunk: Chunk) -> Proof | None:
        """The proof of the chunk if fingerprints give one."""
        mine, theirs = self.fingerprints(chunk)
        return proof.of_fingerprint(mine) if mine is not None and proof.alike(mine, theirs) else None

    def stamp_rows(self, piece: Chunk, buckets: frozenset[int] | None) -> tuple[set[StampRow], set[StampRow]]:
        """Those of source and backup, in all buckets (None) or some; keep the piece small enough to hold both."""
        if buckets is None:
            return self._workers.both(lambda: self.source.stamp_rows(piece), lambda: self.backup.stamp_rows(piece))
        if not buckets:
            return set(), set()
        mine, theirs = self.source.buckets, self.backup.buckets
        assert mine is not None  # noqa: S101 - for mypy; they have named the buckets
        assert theirs is not None  # noqa: S101 - the same
        return self._workers.both(lambda: mine.stamp_rows(piece, buckets), lambda: theirs.stamp_rows(piece, buckets))

    def proven_since(self, before: Compared) -> Proof | None:
        """The proof of a piece of which only the records that differed are read again; None if they still differ."""
        if before.unread:
            return None
        keys = list(before.stamps.keys() | before.copies.keys())
        ours, theirs = self._workers.both(
            lambda: self.source.stamp_rows_of(keys), lambda: self.backup.stamp_rows_of(keys)
        )
        return before.equal + proof.of_rows((before.ours & before.theirs) | ours) if ours == theirs else None

    def read(
        self, keys: frozenset[Key] | None, chunk: Chunk, refuse: Callable[[Refusal], None]
    ) -> Iterator[Sequence[Record]]:
        """The source's records as its `read` gives them, the next batch on its way while the last is written.

        `refuse` is told of those that cannot be read. Of all records (None) what lies behind the first of these is left
        out.
        """

        def batches(some: frozenset[Key] | None) -> Iterator[Sequence[Record]]:
            found = self.source.read(some, chunk)
            return found if self.source.traits.in_process else self._workers.ahead(found, _is_large)

        if keys is None:
            return until_refused(batches(None))
        return read_apart(keys, self.source.keys.of, batches, refuse)

    def compare(self, piece: Chunk, *, force: bool = False, narrow: bool = False) -> Compared:
        """What the stamps of both say of a piece. With `narrow`, fingerprints of its buckets say first which of them
        need not be read."""
        equal, buckets = self._equal_buckets(piece) if narrow else (Proof(), None)
        ours, theirs = self.stamp_rows(piece, buckets)
        if force:
            stamps, copies = self.source.keys.stamps(ours), self.backup.keys.stamps(theirs)
        else:
            stamps, copies = proof.split(self.source, ours, self.backup, theirs)
        unread = unread_in(stamps) | {key: one for key, one in unread_in(copies).items() if one.of_key}
        changes = compare(stamps, copies, force).without(unread.keys())
        if changes.insert and changes.delete:  # only then can one of each be the same key to the server
            changes = with_server_equality(changes, self.backup.matching(list(changes.insert)))
        skipped = equal.source.records + len(ours) - len(stamps) + changes.skipped
        return Compared(ours, theirs, stamps, copies, replace(changes, skipped=skipped), equal, buckets, unread)

    def same_content(self, touched: frozenset[Key], piece: Chunk) -> set[Key]:
        """Those of the touched whose record is the same on both sides, value for value. Reads both whole."""
        return (
            {key for records in self.read(touched, piece, _pass_over) for key in self.unchanged(records, touched)}
            if touched
            else set()
        )

    def unchanged(self, records: Sequence[Record], touched: Collection[Key]) -> set[Key]:
        """Those of the touched whose record here the backup has, value for value. Reads these copies whole."""
        contents = {
            key: self.source.copies.content(one) for one in records if (key := self.source.keys.of(one)) in touched
        }

        def copies(some: frozenset[Key]) -> Iterator[Sequence[Record]]:
            return self.backup.read(some, WHOLE)

        return {
            key
            for batch in read_apart(contents, self.backup.keys.of, copies, _pass_over)
            for copy in batch
            if contents[key := self.backup.keys.of(copy)] == self.backup.copies.content(copy)
        }

    def _equal_buckets(self, piece: Chunk) -> tuple[Proof, frozenset[int] | None]:
        """The proof of the piece's equal buckets, and the others; None of these if they are most or unknown."""
        ours, copies = self.source.buckets, self.backup.buckets
        if ours is None or copies is None:
            return Proof(), None
        mine, theirs = self._workers.both(lambda: ours.fingerprints(piece), lambda: copies.fingerprints(piece))
        if mine is None or theirs is None:
            return Proof(), None
        found = mine.keys() | theirs.keys()
        differing = frozenset(one for one in found if not proof.alike(mine.get(one), theirs.get(one)))
        if len(differing) * 2 > len(found):
            return Proof(), None
        equal = [proof.of_fingerprint(mine[one]) for one in mine.keys() - differing]
        return sum(equal, Proof()), differing


def _is_large(records: Sequence[Record]) -> bool:
    return getattr(records, "large", False)
