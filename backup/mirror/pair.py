"""Asks the source and the backup of a run the same question at the same time. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from backup.core.key_ranges import EqualRanges
from backup.core.model import WHOLE, Chunk, Fingerprint, Key, Record, StampRow, Stamps, Unread, unread_in
from backup.core.run_values import Proof
from backup.core.workers import Workers
from backup.mirror import proof
from backup.mirror.diff import Changes, compare, with_server_equality
from backup.mirror.set_aside import Refusal, read_apart, until_refused
from backup.stores import Store
from backup.stores.abilities import KeyBlocks

_NEIGHBOURS = 64  # records of a block, about


@dataclass(frozen=True)
class Differing:
    """The parts of a piece whose fingerprints differ.

    `equal` is the proof of all other parts. `buckets` are the numbers of the parts: of buckets, or, with a `width`, the
    names of blocks of so many keys.
    """

    equal: Proof
    buckets: frozenset[int]
    width: int | None = None


@dataclass(frozen=True)
class Compared:
    """A piece of the key space, compared.

    - `source_rows`, `backup_rows`: the stamp rows that were read. Both are of the same `parts`; None stands for all.
    - `source_stamps`, `backup_stamps`: the stamps that differ; with force, those of all rows.
    - `equal`: the proof of the buckets that were not read, because their fingerprints are equal.
    - `unread`: the records of the source that could not be read, and the keys of the backup that could not.
    - `changes`: what to change. No key of `unread` is in it.
    - `left_out`: the stamp rows of records that the source's transform leaves out. They count as if the source did not
      have them, so `source_rows` and `source_stamps` lack them.
    """

    source_rows: set[StampRow]
    backup_rows: set[StampRow]
    source_stamps: Stamps
    backup_stamps: Stamps
    changes: Changes
    equal: Proof
    parts: Differing | None
    unread: Mapping[Key, Unread]
    left_out: frozenset[StampRow] = frozenset()

    @property
    def source_records(self) -> int:
        """How many records the source has in the piece."""
        return self.equal.source.records + len(self.source_rows)

    @property
    def has_unread_keys(self) -> bool:
        """Whether the source has keys in the piece that could not be read."""
        return any(unread.of_key and key in self.source_stamps for key, unread in self.unread.items())

    @property
    def backup_records(self) -> int:
        """How many records the backup has in the piece."""
        return self.equal.backup.records + len(self.backup_rows)


def _pass_over(refusal: Refusal) -> None:
    """Leaves out a record that cannot be read. It then counts as changed, and the write of it says what is wrong."""


class Sides:
    """The two stores of a service. Its methods raise what the stores raise."""

    def __init__(self, source: Store, backup: Store, workers: Workers) -> None:
        self.source, self.backup, self._workers = source, backup, workers

    def fingerprints(self, chunk: Chunk) -> tuple[Fingerprint | None, Fingerprint | None]:
        """Returns the fingerprints of source and backup; None for a side that cannot make one."""
        return self._workers.both(lambda: self.source.fingerprint(chunk), lambda: self.backup.fingerprint(chunk))

    def counts(self) -> tuple[int, int]:
        """Returns how many records source and backup have."""
        return self._workers.both(self.source.count, self.backup.count)

    def proven(self, chunk: Chunk) -> Proof | None:
        """Returns the proof of the chunk if the fingerprints of both sides are equal, else None."""
        of_source, of_backup = self.fingerprints(chunk)
        if of_source is None or not proof.are_equal(of_source, of_backup):
            return None
        return proof.of_fingerprint(of_source)

    def stamp_rows(self, piece: Chunk, parts: Differing | None) -> tuple[set[StampRow], set[StampRow]]:
        """Returns the stamp rows of source and backup, in these parts of the piece; None stands for all.

        Holds the rows of both sides in memory, so they must be few enough for that.
        """
        if parts is None:
            return self._workers.both(lambda: self.source.stamp_rows(piece), lambda: self.backup.stamp_rows(piece))
        if not parts.buckets:
            return set(), set()
        buckets, width = parts.buckets, parts.width
        if width is not None:
            starts, (blocks_of_source, blocks_of_backup) = sorted(buckets), self._blocks()
            return self._workers.both(
                lambda: blocks_of_source.stamp_rows(starts, width), lambda: blocks_of_backup.stamp_rows(starts, width)
            )
        of_source, of_backup = self.source.buckets, self.backup.buckets
        assert of_source is not None  # noqa: S101 - for mypy; the buckets were named by both sides
        assert of_backup is not None  # noqa: S101 - the same
        return self._workers.both(
            lambda: of_source.stamp_rows(piece, buckets), lambda: of_backup.stamp_rows(piece, buckets)
        )

    def proven_since(self, before: Compared) -> Proof | None:
        """Reads again the stamps that differed in a piece. Returns the proof of the piece; None if some differ."""
        if before.unread:
            return None
        keys = list(before.source_stamps.keys() | before.backup_stamps.keys())
        source_rows, backup_rows = self._workers.both(
            lambda: self.source.stamp_rows_of(keys), lambda: self.backup.stamp_rows_of(keys)
        )
        if source_rows != backup_rows:
            return None
        return before.equal + proof.of_rows((before.source_rows & before.backup_rows) | source_rows)

    def not_written(self, keys: Collection[Key], before: Compared) -> int:
        """Returns how many of these keys, which were just written, do not have the source's stamp in the backup.

        Leaves out records that the source has changed since `before`. Reads the stamps of the keys on both sides.
        """
        source_rows, backup_rows = self._workers.both(
            lambda: self.source.stamp_rows_of(list(keys)), lambda: self.backup.stamp_rows_of(list(keys))
        )
        source_stamps, backup_stamps = proof.split(self.source, source_rows, self.backup, backup_rows)
        differing = proof.differences(source_stamps, backup_stamps)
        return sum(source_stamps.get(key) == before.source_stamps.get(key) for key in differing)

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
        return read_apart(keys, self.source.keys.of, batches, refuse)

    def compare(
        self, piece: Chunk, *, force: bool = False, narrow: bool = False, parts: Differing | None = None
    ) -> Compared:
        """Compares the stamps of both sides in a piece, or in these `parts` of it.

        With `narrow` it first compares fingerprints of the piece's buckets, and reads no stamps of equal buckets. With
        `force` every record in both sides is an update.
        """
        parts = self._differing_buckets(piece) if narrow and parts is None else parts
        equal = Proof() if parts is None else parts.equal
        source_rows, backup_rows = self.stamp_rows(piece, parts)
        if force:
            source_stamps, backup_stamps = self.source.keys.stamps(source_rows), self.backup.keys.stamps(backup_rows)
        else:
            source_stamps, backup_stamps = proof.split(self.source, source_rows, self.backup, backup_rows)
        unread_keys = {key: unread for key, unread in unread_in(backup_stamps).items() if unread.of_key}
        unread = unread_in(source_stamps) | unread_keys
        changes = compare(source_stamps, backup_stamps, force).without(unread.keys())
        if changes.insert and changes.delete:  # only then can an insert and a delete be the same key to the server
            changes = with_server_equality(changes, self.backup.matching(list(changes.insert)))
        left_out = frozenset[StampRow]()
        if self.source.transforming is not None and changes.write:
            transformed = self.source.transforming.left_out(list(changes.write))
            changes = changes.without_source(transformed.keys).without(transformed.failed)
            unread |= {key: Unread(reason) for key, reason in transformed.failed.items()}
            left_out = rows_of(self.source, source_rows if force else source_rows - backup_rows, transformed.keys)
            source_rows, source_stamps = source_rows - left_out, proof.without(source_stamps, transformed.keys)
        skipped = equal.source.records + len(source_rows) - len(source_stamps) + changes.skipped
        return Compared(
            source_rows,
            backup_rows,
            source_stamps,
            backup_stamps,
            replace(changes, skipped=skipped),
            equal,
            parts,
            unread,
            left_out,
        )

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
            for batch in read_apart(contents, self.backup.keys.of, copies, _pass_over)
            for copy in batch
            if contents[key := self.backup.keys.of(copy)] == self.backup.copies.content(copy)
        }

    @property
    def has_blocks(self) -> bool:
        """Whether both sides have blocks."""
        return all(side.relational is not None and side.relational.blocks for side in (self.source, self.backup))

    def _blocks(self) -> tuple[KeyBlocks, KeyBlocks]:
        of_sides = [side.relational.blocks for side in (self.source, self.backup) if side.relational is not None]
        of_source, of_backup = of_sides
        assert of_source is not None  # noqa: S101 - for mypy; `has_blocks` has said so
        assert of_backup is not None  # noqa: S101 - the same
        return of_source, of_backup

    def differing_blocks(self, part: Chunk, records: int, at_most: int) -> Differing | None:
        """Returns the blocks that differ in a part of the key space with about so many records. Call it only where
        `has_blocks`.

        None where the blocks that differ have more records than `at_most`, or a side cannot make fingerprints of them.
        """
        of_source, of_backup = self._blocks()
        ends = self._workers.both(lambda: of_source.ends(part), lambda: of_backup.ends(part))
        known = [both_ends for both_ends in ends if both_ends is not None]
        if not known:
            return None
        first, last = min(start for start, _ in known), max(end for _, end in known)
        # A block has some of the records, however far apart their keys are, so that the blocks are not too many.
        blocks = EqualRanges(first, last, max(_NEIGHBOURS, -(-_NEIGHBOURS * (last - first + 1) // max(1, records))))
        source_fingerprints, backup_fingerprints = self._workers.both(
            lambda: of_source.fingerprints(blocks), lambda: of_backup.fingerprints(blocks)
        )
        differing = _differing(source_fingerprints, backup_fingerprints)
        if differing is None or source_fingerprints is None or backup_fingerprints is None:
            return None
        for fingerprints in (source_fingerprints, backup_fingerprints):
            in_them = (fingerprints[block].records for block in differing if block in fingerprints)
            if sum(in_them) > at_most:
                return None
        equal = _together(source_fingerprints[block] for block in source_fingerprints.keys() - differing)
        return Differing(equal, differing, blocks.width)

    def _differing_buckets(self, piece: Chunk) -> Differing | None:
        """Returns the buckets of the piece that differ; None if most of them do, or a side has no buckets."""
        of_source, of_backup = self.source.buckets, self.backup.buckets
        if of_source is None or of_backup is None:
            return None
        source_fingerprints, backup_fingerprints = self._workers.both(
            lambda: of_source.fingerprints(piece), lambda: of_backup.fingerprints(piece)
        )
        differing = _differing(source_fingerprints, backup_fingerprints)
        if differing is None or source_fingerprints is None or backup_fingerprints is None:
            return None
        if len(differing) * 2 > len(source_fingerprints.keys() | backup_fingerprints.keys()):
            return None
        equal = _together(source_fingerprints[bucket] for bucket in source_fingerprints.keys() - differing)
        return Differing(equal, differing)


def _differing(
    of_source: Mapping[int, Fingerprint] | None, of_backup: Mapping[int, Fingerprint] | None
) -> frozenset[int] | None:
    """The numbers of the parts whose fingerprints differ; None if a side has none."""
    if of_source is None or of_backup is None:
        return None
    numbers = of_source.keys() | of_backup.keys()
    return frozenset(n for n in numbers if not proof.are_equal(of_source.get(n), of_backup.get(n)))


def _together(fingerprints: Iterable[Fingerprint]) -> Proof:
    """The proof of parts with these fingerprints on both sides."""
    some = list(fingerprints)
    if any(fingerprint.digest for fingerprint in some):
        return sum(map(proof.of_fingerprint, some), Proof())
    sums = zip(*(fingerprint.sums for fingerprint in some), strict=True)
    records = sum(fingerprint.records for fingerprint in some)
    return proof.of_fingerprint(Fingerprint(some[0].functions, records, tuple(map(sum, sums)))) if some else Proof()


def _is_large(records: Sequence[Record]) -> bool:
    return getattr(records, "large", False)


def rows_of(store: Store, rows: Iterable[StampRow], keys: frozenset[Key]) -> frozenset[StampRow]:
    """Returns those of the store's stamp rows that have one of these keys."""
    return frozenset(row for row in rows if not keys.isdisjoint(store.keys.stamps({row}))) if keys else frozenset()


def belonging(source: Store, keys: Sequence[Key]) -> set[Key]:
    """Returns the keys that have a record in the source that belongs to the copy, as the server compares keys. A record
    that the transform fails on belongs to it."""
    present = source.matching(keys)
    return present - source.transforming.left_out([*present]).keys if source.transforming and present else present
