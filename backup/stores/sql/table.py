"""A table as its server's catalogue describes it, and the statements that need only its shape."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy as copy_of
from dataclasses import replace
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from backup.core.model import Chunk, Key, Record, StampRow, Stamps, Version
from backup.core.transforms import Stamping
from backup.stores.sql.declared import DELETED_AT, declare, own_column, time_type
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import Column, ServerType, named_column
from backup.stores.sql.engines.prepared import HAS_BYTES, Row
from backup.stores.sql.engines.tables import TableName, refusing
from backup.stores.sql.filters import fulfils
from backup.stores.sql.key_ranges import between
from backup.stores.sql.masked import SOURCE_STAMP, MaskedColumns
from backup.stores.sql.rows import Rows
from backup.stores.sql.transformed import TransformedColumns
from backup.stores.values import Drift, Rules

_MOMENT_SECONDS = 10.0


class TableShape:
    """A table's columns, key, version and filter. It looks a name up exactly first, then without regard to case."""

    def __init__(
        self,
        columns: Sequence[Column],
        key_names: tuple[str, ...],
        rules: Rules,
        table_name: TableName,
        label: str,
        left_out: Sequence[Column] = (),
        masked: MaskedColumns | None = None,
        own_stamp: Column | None = None,
        own_deleted: Column | None = None,
        transformed: TransformedColumns | None = None,
    ) -> None:
        """`left_out` are the table's columns that are not copied. `masked`: the masks of a source's records, or of a
        backup's images. `own_stamp`: a backup's SourceStamp. `own_deleted`: the DeletedAt of a backup where the copies
        of deleted records stay. `transformed`: the transform of a source's records."""
        self.columns, self.key_names, self.masked, self.transformed = columns, key_names, masked, transformed
        self.table = declare(table_name, columns, key_names)
        self.names = tuple(column.name for column in columns)
        self._exact = {column.name: column for column in columns}
        self._any_case = {column.name.lower(): column for column in columns}
        self.label = label
        self.key = [self.table.c[name] for name in key_names]
        self.exact_key = [_exactly(column) for column in self.key]
        """The key's columns as `ServerType.read_exactly` selects them."""
        self._table_name, self._rules, self._left_out = table_name, rules, left_out
        self.own_deleted = own_deleted
        self.marks = own_deleted
        """The column by which a row is known to be marked as deleted. `recognize_deleted` sets it, too."""
        self._apply_rules(version=self.names, where=self.names)
        self.key_may_repeat = False
        self.nullable_key = [self.table.c[c.name] for c in columns if c.name in key_names and c.nullable]
        """The key columns that may be NULL: SQLite allows it, and keys that a set names. Rows with NULL there are in no
        chunk."""
        self.identity = frozenset(column.name for column in columns if column.identity)
        has_bytes = any(bytes in getattr(column.type, "kinds", ()) for column in self.table.columns)
        self.select = sa.select(*map(_exactly, self.table.columns)).execution_options(**{HAS_BYTES: has_bytes})
        self.references: Sequence[Any] | None = None  # None until `references_to` reads them
        self.content: Mapping[str, str] = {name: name for name in self.names}
        """The columns that the hash of a row's content covers: the name in this table → the name in the source."""
        self.own_stamp = own_stamp
        self.rows_at_most: int | None = None
        self.origin = self
        """The shape of which this one is `anew`: two shapes of one origin were made of the same."""
        self.drift_from: tuple[TableShape, Drift] | None = None
        """Of an origin: the origin of a source of which this table has what it should have, and how it drifted."""
        self._read_at = time.monotonic()
        self._is_numbered = False  # whether the keys of both tables are the numbers of their rows
        self._stamping: Stamping | None = None  # of a source's records, if the backup keeps their stamps
        self._has_kept_stamps = False  # whether the stamps are those of the source's records, as the backup keeps them

    def anew(self) -> TableShape:
        """The same shape for another run, which has matched it with no other table yet. No run may have used this."""
        shape = copy_of(self)
        shape._read_at = time.monotonic()
        return shape

    def has_at_most(self, rows: int) -> bool:
        """Whether the table is known to have had no more rows a moment ago."""
        is_known = self.rows_at_most is not None and time.monotonic() - self._read_at < _MOMENT_SECONDS
        return is_known and (self.rows_at_most or 0) <= rows

    def key_of(self, record: Record) -> Key:
        return tuple(record[name] for name in self.key_names)

    def find(self, name: str) -> Column | None:
        """The column with exactly this name; else the column whose name differs only in case; else None."""
        return self._exact.get(name) or self._any_case.get(name.lower())

    @property
    def key_is_spelled_once(self) -> bool:
        """Whether two keys that the server takes for equal are known to be the same to this process."""
        return all(self._exact[name].spelled_once for name in self.key_names)

    def spells(self, key: Key) -> bool:
        """Whether a row spells the key so, if `key_is_spelled_once`."""
        return all(type_.spells(part) for type_, part in zip(self._types_of_key, key, strict=True))

    def spells_keys_like(self, other: TableShape) -> bool:
        """Whether keys that go from the other table into this one stay spelled as they are."""
        types = zip(self._types_of_key, other._types_of_key, strict=True)
        return all(type_.spells_like(other_type) for type_, other_type in types)

    @property
    def copied(self) -> Sequence[Column]:
        """The columns that a copy has: the table's own, or those that its transform gives."""
        return self.columns if self.transformed is None else self.transformed.columns

    def find_copied(self, name: str) -> Column | None:
        """As `find`, among the columns that a copy has."""
        return self.find(name) if self.transformed is None else named_column(self.copied, name)

    @property
    def needs_stamps(self) -> bool:
        """Whether a copy needs the column SourceStamp: it cannot be compared with its record by what it holds."""
        return self.masked is not None or self.transformed is not None

    def match(self, source: TableShape) -> None:
        """Makes versions and content hashes of both tables cover the columns that both have, under the source's names.

        The source decides which rows belong to the service: a filter column that only this table has is ignored.
        """
        shared = {copy.name: column.name for column in source.copied if (copy := self.find(column.name))}
        self.content, source.content = shared, {name: name for name in shared.values()}
        self._apply_rules(version=shared.keys(), where=shared.keys())
        source._apply_rules(version=shared.values() if source.transformed is None else source.names, where=source.names)
        has_stamps = self.own_stamp is not None and source.find_copied(self.own_stamp.name) is None
        is_kept = source._rules.is_source and (source.needs_stamps or has_stamps)
        source._stamping = source._rules.stamping if is_kept else None
        self._has_kept_stamps = is_kept and has_stamps
        key_types = [shape._exact[name].type for shape in (source, self) for name in shape.key_names]
        source._is_numbered = self._is_numbered = [type_.is_row_number for type_ in key_types] == [True, True]

    def _apply_rules(self, version: Collection[str], where: Collection[str]) -> None:
        columns = {field: c for field in (*self._rules.version, *self._rules.where) if (c := self.find(field))}
        names = [columns[field].name for field in self._rules.version if field in columns]
        first = columns.get(self._rules.version[0]) if self._rules.version else None
        # The further fields alone (a status) do not show that a row has changed.
        usable = first is not None and first.name in version
        self.version = [self.table.c[name] for name in names if name in version] if usable else []
        self.filters = [
            fulfils(self.table.c[columns[field].name], condition)
            for field, condition in self._rules.where.items()
            if field in columns and columns[field].name in where
        ]
        # A filter may ask about a column that is not copied.
        self.filters += [
            fulfils(sa.column(quoted_name(column.name, quote=True), column.type), condition)
            for field, condition in self._rules.where.items()
            if (column := named_column(self._left_out, field)) is not None
        ]
        if self._rules.where_sql is not None:
            self.filters.append(sa.literal_column(f"({self._rules.where_sql})"))
        if self.own_deleted is not None:
            self.filters.append(self.table.c[self.own_deleted.name].is_(None))
        parts = (part for condition in self.filters for part in sa.sql.visitors.iterate(condition))
        values = (part for part in parts if isinstance(part, sa.BindParameter))
        self.filter_parameters = sum(len(value.value or ()) if value.expanding else 1 for value in values)

    @property
    def stamping(self) -> Stamping:
        """How the rules of the service stamp the copies that they make."""
        return self._rules.stamping

    @property
    def keeps_deleted(self) -> bool:
        """Whether it is a backup in which the copies of deleted records stay."""
        return self._rules.keeps_deleted

    def is_deleted(self, record: Record) -> bool:
        """Whether the record is a copy that is marked as deleted."""
        return self.marks is not None and record.get(self.marks.name) is not None

    def recognize_deleted(self, dialect: Dialect) -> None:
        """Tells marked rows from others, also where they do not stay any more: they are records again, to be deleted.
        Only for a table that had such rows: a source may have had a column of this name once."""
        column = own_column(self.columns, DELETED_AT, time_type(dialect).declared, dialect)
        self.marks = column if column is not None and column.name not in self.content else None

    @property
    def lacks_version(self) -> bool:
        """Whether the service has version fields, but the table has no column for them."""
        return bool(self._rules.version) and not self.version

    @property
    def has_version(self) -> bool:
        """Whether each row has a version."""
        return bool(self.version) and not self._exact[self.version[0].name].nullable

    def stamps(self, dialect: Dialect) -> StampColumns:
        """The columns and the hash that stamps consist of. The hash covers the columns that source and backup share.

        Where the backup keeps the stamps of the source's records, a stamp is a keyed hash of the record's version, or
        of its content if it has none.
        """
        if self._has_kept_stamps and self.own_stamp is not None:
            kept = self.table.c[self.own_stamp.name]
            return StampColumns(self.key, [], sa.func.coalesce(kept, dialect.no_stamp))
        if self.has_version and self._stamping is None:
            return StampColumns(self.key, self.version, None, self._is_numbered)
        shared = self.shared()
        if self._stamping is None:
            return StampColumns(self.key, self.version, dialect.content_hash(shared), self._is_numbered)
        hashed = self.version if self.has_version else shared
        return StampColumns(self.key, [], dialect.keyed_hash(hashed, self._stamping))

    def reading(self, dialect: Dialect) -> tuple[tuple[str, ...], sa.Select[Any]]:
        """The names of a record's values, and the query for them. Where the backup keeps the stamps of the source's
        records, a record of the source has its stamp, too."""
        if self._stamping is None:
            return self.names, self.select
        stamp = self.stamps(dialect).content
        assert stamp is not None  # noqa: S101 - for mypy; `stamps` hashes
        return (*self.names, SOURCE_STAMP), self.select.add_columns(stamp)

    @property
    def reads_as_stored(self) -> bool:
        """Whether a record has the values of its row and nothing else: no mask and no transform, and no stamp."""
        return self.masked is None and self.transformed is None and self._stamping is None

    @property
    def has_own_condition(self) -> bool:
        """Whether the filter has a condition in the language of the server."""
        return self._rules.where_sql is not None

    def records(self, names: tuple[str, ...], rows: list[Row], *, large: bool = False) -> Rows:
        """The rows that a query for these names has read, as records. Those of a source are masked."""
        if self.masked is not None and self._rules.is_source:
            rows = self.masked.rows(names, rows)
        return Rows(names, rows, large=large)

    def may_write(self, column: Column) -> bool:
        """Whether a write gives the column a value. A source's masked column keeps the value that it has."""
        return not (column.computed or (self.withholds and column.name in self.withheld))

    @property
    def withholds(self) -> bool:
        """Whether the table is a source with masked or transformed columns. Nobody has the values of a new record for
        it."""
        return self.needs_stamps and self._rules.is_source

    @property
    def withheld(self) -> frozenset[str]:
        """The names of the columns that masks or the transform may change, in the source and in the copy."""
        masked = () if self.masked is None else self.masked.names
        return frozenset(masked).union(() if self.transformed is None else self.transformed.touched)

    def image(self, record: Record) -> Record:
        """The record as the bin may keep it: masked, unless it is a copy that the service's masks have made."""
        if self.masked is None or self._rules.is_source:
            return record  # `records` has masked it
        stamp = record.get(self.own_stamp.name) if self.own_stamp is not None else None
        return record if self.masked.made(stamp) else self.masked.image(record, self.key_names)

    @cached_property
    def whole(self) -> TableShape:
        """The same table with all its columns and without masks: for what is read only to be put back at once."""
        if self.masked is None and self.transformed is None and not self._left_out:
            return self
        columns = [*self.columns, *self._left_out]
        return TableShape(columns, self.key_names, Rules(), self._table_name, self.label)

    def contents(self, dialect: Dialect, rows: sa.FromClause | None = None) -> StampColumns:
        """As `stamps`, but with the hash of the row's content in the place of its version. `rows` may stand in for the
        table, with columns of the same names and types."""
        columns: Any = (self.table if rows is None else rows).c
        key = [columns[name] for name in self.key_names]
        return StampColumns(key, [], dialect.content_hash([columns[column.name] for column in self.shared()]))

    def shared(self) -> list[sa.Column[Any]]:
        """The columns that source and backup share, in the order of both."""
        # A transform reads all columns, and the copy may have each under another name.
        content = self.content if self.transformed is None else dict.fromkeys(self.names, "")
        return [self.table.c[name] for name in sorted(content, key=lambda name: content[name] or name)]

    def stamp_query(self, dialect: Dialect) -> sa.Select[Any]:
        """Selects stamps as flat rows: the key, the version's fields, and a last part. This is the hash of the row's
        content if the row has no version, else NULL."""
        _, version, content, _ = self.stamps(dialect)
        key = self.exact_key
        if content is None:
            return sa.select(*key, *version, sa.null())
        return sa.select(*key, *version, sa.case((version[0].is_(None), content)) if version else content)

    def stamps_of(self, rows: Iterable[StampRow]) -> Stamps:
        """The stamps in these rows of `stamp_query`."""
        width = len(self.key)
        return {row[:width]: Version(row[width:-1] if row[-1] is None else (None, row[-1])) for row in rows}

    @cached_property
    def _types_of_key(self) -> list[ServerType]:
        return [self._exact[name].type for name in self.key_names]

    @property
    def key_types(self) -> list[str]:
        """The declared types of the key's columns."""
        return [self._exact[name].type.declared for name in self.key_names]

    def insert(self, names: Sequence[str]) -> sa.Insert:
        """An insert of these columns. Its parameters are `v0`, `v1` …, for a column's name may be any text."""
        return refusing(self.table.insert()).values(self._values(names))

    def update(self, names: Sequence[str]) -> sa.Update:
        """An update of these columns in the row whose key is `k0`, `k1` …; it does not change identity columns. Its
        further parameters are those of `insert`."""
        key = (column == sa.bindparam(f"k{i}", type_=column.type) for i, column in enumerate(self.key))
        return refusing(self.table.update()).where(*key).values(self._values(names, without=self.identity))

    def _values(self, names: Sequence[str], without: frozenset[str] = frozenset()) -> dict[sa.Column[Any], Any]:
        columns = [self.table.c[name] for name in names]
        return {c: sa.bindparam(f"v{i}", type_=c.type) for i, c in enumerate(columns) if c.name not in without}

    def is_one_of(
        self, keys: Sequence[Key], columns: Sequence[sa.ColumnElement[Any]] | None = None
    ) -> sa.ColumnElement[bool]:
        """The condition that a row has one of these keys, as the server compares keys. `columns` may stand in for the
        table's key columns, for example those of an alias."""
        key_columns = columns or self.key
        if len(key_columns) == 1:
            type_ = self._exact[self.key_names[0]].type
            return type_.has_one_of(key_columns[0], [key[0] for key in keys])
        if keys and self.lists(keys):
            types = self._types_of_key
            return sa.tuple_(*key_columns).in_(types[0].listed(types, keys))
        conditions = ([column == part for column, part in zip(key_columns, key, strict=True)] for key in keys)
        return sa.or_(*(sa.and_(*conditions_of_key) for conditions_of_key in conditions))

    def is_none_of(self, keys: Sequence[Key]) -> list[sa.ColumnElement[bool]]:
        """The conditions that a row has none of these keys, which the shape `lists`. A server looks each row up in a
        list that it has sorted or hashed once."""
        if not keys:
            return []
        whole_key = self.key[0] if len(self.key) == 1 else sa.tuple_(*self.key)
        return [sa.not_(whole_key.in_(self._types_of_key[0].listed(self._types_of_key, keys)))]

    def lists(self, keys: Sequence[Key]) -> bool:
        """Whether `is_one_of`, for several columns, and `is_none_of` name these keys shortly, however many they are."""
        if len(self.key_names) > 1 and not self._types_of_key[0].lists_whole_keys:
            return False
        values = zip(*keys, strict=True) if keys else [()] * len(self.key_names)
        return all(type_.may_list(parts) for type_, parts in zip(self._types_of_key, values, strict=True))

    def within(self, chunk: Chunk) -> list[sa.ColumnElement[bool]]:
        """The chunk's conditions: lexicographic over the key columns. Each begins with a condition on the first key
        column, so that the server seeks in the key's index."""
        conditions: list[sa.ColumnElement[bool]] = [column.is_not(None) for column in self.nullable_key]
        return [*conditions, *between(self.key, chunk)]


def _exactly(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    exact: sa.ColumnElement[Any] = column.type.read_exactly(column)  # type: ignore[attr-defined] # a ServerType
    return exact


def loosened(source: TableShape) -> list[Column]:
    """The columns of a backup's table. All but the key's may be NULL: the source may drop or loosen any column."""
    return [column if column.name in source.key_names else replace(column, nullable=True) for column in source.copied]
