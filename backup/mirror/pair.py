"""Asks the source and the backup of a run the same question at the same time. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from backup.core.model import WHOLE, Chunk, Fingerprint, Key, Record, StampRow
from backup.core.run_values import Proof
from backup.core.workers import Workers
from backup.mirror import proof
from backup.mirror.set_aside import Refusal, read_bisecting, until_refused
from backup.stores import Store
from backup.stores.calls import long_here

T = TypeVar("T")


class StorePair:
    """The two stores of a service. Its methods raise what the stores raise."""

    def __init__(self, source: Store, backup: Store, workers: Workers) -> None:
        self.source, self.backup, self._workers = source, backup, workers

    def both(self, ask: Callable[[Store], T]) -> tuple[T, T]:
        """Asks both stores at the same time. Returns the answers of source and backup."""
        return self._workers.both(lambda: ask(self.source), lambda: ask(self.backup))

    def fingerprints(self, chunk: Chunk) -> tuple[Fingerprint | None, Fingerprint | None]:
        """Returns the fingerprints of source and backup; None for a side that cannot make one."""
        return self.both(lambda store: store.fingerprint(chunk))

    def begun(self, ask: Callable[[Store], T]) -> Callable[[], T]:
        """Begins to ask the source what takes long, and returns what waits for its answer. The source can be asked
        other questions meanwhile."""

        def ask_source() -> T:
            with long_here():
                return ask(self.source)

        return self._workers.begun(ask_source)

    def counts(self, of_source: Callable[[], int] | None = None) -> tuple[int, int]:
        """Returns how many records source and backup have. `of_source` waits for the source's answer, if that was asked
        before."""
        if of_source is not None:
            return self._workers.both(of_source, self.backup.count)
        return self.both(lambda store: store.count())

    def stamp_rows_of(self, keys: Sequence[Key]) -> tuple[set[StampRow], set[StampRow]]:
        """Returns the stamp rows of these keys in source and backup. Keys without a record are left out."""
        return self.both(lambda store: store.stamp_rows_of(keys))

    def proven(self, chunk: Chunk, asked: Callable[[], Fingerprint | None] | None = None) -> Proof | None:
        """Returns the proof of the chunk if the fingerprints of both sides are equal, else None. `asked` waits for that
        of the source, if it was asked before."""
        if asked is not None:
            of_source, of_backup = self._workers.both(asked, lambda: self.backup.fingerprint(chunk))
        else:
            of_source, of_backup = self.fingerprints(chunk)
        if of_source is None or not proof.are_equal(of_source, of_backup):
            return None
        return proof.of_fingerprint(of_source)

    @property
    def records_at_once(self) -> int:
        """About so many records may be looked at once, as `Relational.records_at_once` of both sides; 0 for others."""
        sides = (self.source.relational, self.backup.relational)
        return min(0 if side is None else side.records_at_once() for side in sides)

    def parts_at_once(self, part: Chunk, records: int) -> Iterator[Chunk]:
        """Yields a part of about so many records in parts that may be looked at once, in order. The next is cut off
        while the caller works on the current one. Ends early where `records_at_once` is 0."""
        return self._workers.ahead(self._parts_at_once(part, records), lambda _: False)

    def _parts_at_once(self, part: Chunk, records: int) -> Iterator[Chunk]:
        while (at_once := self.records_at_once) and (source := self.source.relational) is not None:
            first = part if 0 < records <= at_once else source.beginning(part, at_once)
            yield first
            if first.upto == part.upto:
                return
            part, records = Chunk(first.upto, part.upto), records - at_once

    def read(
        self, keys: frozenset[Key] | None, chunk: Chunk, refuse: Callable[[Refusal], None]
    ) -> Iterator[Sequence[Record]]:
        """Yields the source's records in batches. The next batch is read while the caller works on the current one.

        With `keys`, it calls `refuse` for each record that cannot be read. Without (None), it reads all records of the
        chunk, and ends at the first batch that cannot be read; `refuse` is not called.
        """

        def batches(part: frozenset[Key] | None) -> Iterator[Sequence[Record]]:
            read = self.source.read(part, chunk)
            return read if self.source.traits.in_process else self._workers.ahead(read, _is_large)

        if keys is None:
            return until_refused(batches(None))
        return read_bisecting(keys, self.source.keys.of, batches, refuse)

    def same_content(self, touched: frozenset[Key], piece: Chunk) -> set[Key]:
        """Returns the touched keys whose records have equal values on both sides. Reads the whole records of both."""
        return (
            {key for records in self.read(touched, piece, _pass_over) for key in self.unchanged(records, touched)}
            if touched
            else set()
        )

    def unchanged(self, records: Sequence[Record], touched: Collection[Key]) -> set[Key]:
        """Returns the touched keys whose copy has the values of the source's record in `records`.

        Reads the whole copies of those keys.
        """
        contents = {
            key: self.source.copies.content(record)
            for record in records
            if (key := self.source.keys.of(record)) in touched
        }

        def copies(part: frozenset[Key]) -> Iterator[Sequence[Record]]:
            return self.backup.read(part, WHOLE)

        return {
            key
            for batch in read_bisecting(contents, self.backup.keys.of, copies, _pass_over)
            for copy in batch
            if contents[key := self.backup.keys.of(copy)] == self.backup.copies.content(copy)
        }


def _pass_over(refusal: Refusal) -> None:
    """Leaves out a record that cannot be read. It then counts as changed, and the write of it says what is wrong."""


def _is_large(records: Sequence[Record]) -> bool:
    return getattr(records, "large", False)


def belonging(source: Store, keys: Sequence[Key]) -> set[Key]:
    """Returns the keys that have a record in the source that belongs to the copy, as the server compares keys. A record
    that the transform fails on belongs to it."""
    present = source.matching(keys)
    return present - source.transforming.left_out([*present]).keys if source.transforming and present else present
