"""Copies parts of a chunk from server to server: the rows, the keys for the bin, and the fence in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from backup.core.errors import NotInitialized, RightMissing, StoreError, StoreUnavailable, TransientStoreError
from backup.core.key_ranges import NumberedKeys
from backup.core.model import Chunk, Key
from backup.stores.chunk_size import ChunkSize
from backup.stores.codecs import CopyNote
from backup.stores.keeping import Keep
from backup.stores.sibling import ImagesToWrite
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.copies import mark_of, milliseconds
from backup.stores.sql.engines.relayed import Relayed, RelayedRows
from backup.stores.sql.key_ranges import ends_query
from backup.stores.sql.rows import each_row
from backup.stores.sql.server_images import ServerImages, refuse_others
from backup.stores.sql.table import TableShape
from backup.stores.values import Limits, NotRelayed, RelayedPart

_GROWTH = 4
_KEYS_AT_ONCE = 10_000
_FEWEST_HALVED = 200  # keys: of fewer, to read and to send the records costs as much
_PATIENCE = 8


_Rest = TypeVar("_Rest", Chunk, Sequence[Key], ImagesToWrite)


class OthersWrote(StoreError):
    """Others have written the same records on one of the sides a moment ago. To try it record by record is no news."""


_OF_ALL = (NotInitialized, StoreUnavailable, RightMissing)
"""Refusals that are not about single records."""


class RelayedParts:
    """The parts that go from server to server in a transaction each, for any number of threads.

    The first has as many rows as a batch, and each further one up to four times as many: as many as a chunk, or as fit
    into half of `max_statement_seconds`.
    """

    def __init__(self, limits: Limits) -> None:
        self._chunk_size, self.first = limits.chunk_size, min(limits.batch_size, limits.chunk_size)
        self.size, self._rows = ChunkSize(limits.chunk_size, limits.max_statement_seconds), self.first
        self._patience = _PATIENCE

    def of(
        self,
        rest: _Rest,
        cut: Callable[[_Rest, int], tuple[_Rest, _Rest | None]],
        relay: Callable[[_Rest], RelayedPart | None],
    ) -> Iterator[RelayedPart]:
        """Has `relay` pass on one part after the other. Yields what it returns. `cut` gives the first so many rows of
        the rest, and what is left. Raises NotRelayed, with the rest, where `relay` returns None or a server refuses."""
        left: _Rest | None = rest
        while left is not None:
            try:
                part, following = cut(left, self._rows)
                relayed = relay(part)
            except TransientStoreError:
                raise
            # Also where a disk is full or a file cannot be written: that may be the one of temporary tables alone.
            except (StoreError, NotInitialized) as error:
                self._rows = self.first  # the next try may be as vain
                said = None if isinstance(error, OthersWrote) else error
                raise NotRelayed(left, said, None if isinstance(error, _OF_ALL) else part) from None
            if relayed is None:
                self._rows = self.first
                raise NotRelayed(left)
            yield relayed
            rows = max(self._rows, relayed.inserted + relayed.updated + relayed.skipped)
            self._rows, left = min(self.size.chunk_size, rows * _GROWTH), following

    def of_keys(
        self, keys: Sequence[Key], at_most: int, relay: Callable[[Sequence[Key]], RelayedPart | None]
    ) -> Iterator[RelayedPart]:
        """As `of`, for keys, no more than `at_most` at once. Of a part that is refused it tries each half, down to
        those that are too few to pay; these are the rest, and not what comes behind them. It gives up where more is
        refused than passes. Cost: of one record that is refused, two transactions for each halving."""

        def cut(rest: Sequence[Key], rows: int) -> tuple[Sequence[Key], Sequence[Key] | None]:
            number = min(rows, at_most)
            return rest[:number], rest[number:] or None

        waiting, left, error = [keys], list[Key](), None
        while waiting:
            try:
                for relayed in self.of(waiting.pop(), cut, relay):
                    self._patience = min(self._patience + 1, _PATIENCE)
                    yield relayed
            except NotRelayed as refused:
                error = error or refused.error
                number = len(refused.part or ())
                self._patience -= 1
                if not number or self._patience < 0:
                    self._patience = max(self._patience, 0)
                    left += [key for rest in (refused.rest, *reversed(waiting)) for key in rest]
                    break
                half, following = number // 2, refused.rest[number:]
                waiting += [following] if following else []
                if number <= _FEWEST_HALVED:
                    left += refused.part
                else:
                    waiting += [refused.part[half:], refused.part[:half]]
        if left:
            raise NotRelayed(left, error)

    def of_chunk(
        self, source: SqlCatalog, chunk: Chunk, relay: Callable[[Chunk], RelayedPart | None]
    ) -> Iterator[RelayedPart]:
        """As `of`, for a chunk, cut by the source's keys."""

        def cut(rest: Chunk, rows: int) -> tuple[Chunk, Chunk | None]:
            bound = _bound(source, rest, rows) if rows < self._chunk_size else None
            if bound is None or bound == rest.upto:
                return rest, None
            return Chunk(rest.after, bound), Chunk(bound, rest.upto)

        return self.of(chunk, cut, relay)


class SqlRelay:
    """The relays into parts of one table that are empty, for any number of threads."""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, limits: Limits) -> None:
        self._access, self._catalog, self._parts = access, catalog, RelayedParts(limits)

    def insert(
        self, source: SqlCatalog, chunk: Chunk, note: CopyNote | None, keep: Keep | None, but: Sequence[Key]
    ) -> Iterator[RelayedPart]:
        """As `Relational.relay`."""
        if not may_relay(source, self._access):
            raise NotRelayed(chunk)
        return self._parts.of_chunk(source, chunk, lambda part: self._transaction(source, part, note, keep, but))

    def _transaction(
        self, source: SqlCatalog, part: Chunk, note: CopyNote | None, keep: Keep | None, but: Sequence[Key]
    ) -> RelayedPart | None:
        shape, original = self._catalog.shape, source.shape
        conditions = [*original.within(part), *original.is_none_of(but), *original.filters]
        rows = relayed_rows(source, shape, conditions, note)
        for attempt in self._access.attempts("relay records", writes=True):
            with attempt as cx, self._parts.size.measuring() as measured:
                relayed = self._access.dialect.relay(cx, rows, source.access.dialect)
                if relayed is not None and relayed.number:
                    measured.records = relayed.number
                    if keep is not None:
                        self._keep_keys(cx, part, relayed, keep)
        return None if relayed is None else RelayedPart(relayed.number)

    def _keep_keys(self, cx: sa.Connection, part: Chunk, relayed: Relayed, keep: Keep) -> None:
        """Puts the keys of the relayed rows into the bin. They are all that the part has, or the part was not empty."""
        shape, images = self._catalog.shape, ServerImages(self._access.dialect)
        condition = sa.and_(sa.true(), *shape.within(part), *shape.filters)
        if images.make_inserted(cx, shape, keep, shape.key, condition, relayed.number):
            return
        kept = 0
        for keys in _keys(cx, shape, part, relayed):
            keep([], cx, keys)
            kept += len(keys)
        refuse_others(kept - relayed.number, shape)


def _bound(source: SqlCatalog, rest: Chunk, rows: int) -> Key | None:
    """The key of the source's row at this place of the chunk; None if the chunk has fewer rows."""
    shape = source.shape
    query = sa.select(*shape.exact_key).where(*shape.within(rest), *shape.filters).order_by(*shape.key)
    for attempt in source.access.attempts("find the next part", single=True):
        with attempt as cx:
            row = cx.execute(query.offset(rows - 1).limit(1)).first()
    return None if row is None else tuple(row)


def may_relay(source: SqlCatalog, access: SqlAccess) -> bool:
    """Whether the records of a source may go from server to server: into a table of the same product, and as they are
    in their rows."""
    original = source.access
    is_outside = original.snapshot is not None and original.dialect.relays_outside
    return original.dialect.kind == access.dialect.kind and source.shape.reads_as_stored and not is_outside


def relayed_rows(
    source: SqlCatalog, copy: TableShape, conditions: Sequence[sa.ColumnElement[bool]], note: CopyNote | None
) -> RelayedRows:
    """The source's rows that fulfil the conditions, for the table of this shape. With a `note` they get the mark of a
    copy. Without, they go from a backup into the place of a restore. Meanwhile others write to the backup: this
    process its heartbeats, for which the restore's own fence would wait, and they for its lock."""
    original = source.shape
    pairs = [(original.table.c[name], column) for name in original.names if (column := copy.find(name))]
    mark = None if note is None else mark_of(copy, original.names)
    return RelayedRows(
        [(column, copy.table.c[taker.name]) for column, taker in pairs if copy.may_write(taker)],
        None if note is None or mark is None else (copy.table.c[mark.name], milliseconds(note.at)),
        conditions,
        original.key,
        original.has_own_condition,
        lambda: source.access.once("read records", single=True),
        apart=note is None,
        identity=bool(copy.identity),
    )


def _keys(cx: sa.Connection, shape: TableShape, part: Chunk, relayed: Relayed) -> Iterator[Sequence[Key]]:
    conditions = [*shape.within(part), *shape.filters]
    if len(shape.key) == 1:
        [key] = shape.key
        first, last = cx.execute(ends_query(key, conditions)).one()
        without_gaps = type(first) is int and type(last) is int and last - first + 1 == relayed.number
        # As many different integers are there as fit between these two, if none was deleted. Else they are counted.
        all_are_there = relayed.alone and shape.key[0].type.is_row_number  # type: ignore[attr-defined] # a ServerType
        if without_gaps and (all_are_there or _integers(cx, key, conditions) == relayed.number):
            yield NumberedKeys(range(first, last + 1))
            return
    yield from each_row(cx, sa.select(*shape.exact_key).where(*conditions), _KEYS_AT_ONCE)


def _integers(cx: sa.Connection, key: sa.Column[Any], conditions: Sequence[sa.ColumnElement[bool]]) -> int | None:
    """How many rows of the part have an integer as key. Counted, for a trigger of the table may have deleted some.

    On SQLite a key may be a fraction or a text under any declared type.
    """
    is_integer = [] if getattr(key.type, "kinds", ()) == (int,) else [key == sa.cast(key, sa.BigInteger)]
    return cx.scalar(sa.select(sa.func.count()).select_from(key.table).where(*conditions, *is_integer))
