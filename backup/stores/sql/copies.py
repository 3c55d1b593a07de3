"""A source's rows as a backup's table keeps them, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from backup.core.errors import SourceMissing
from backup.core.model import Record
from backup.stores.codecs import CopyNote
from backup.stores.exact_json import comparable, comparable_number
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.declared import SYNCED_AT
from backup.stores.sql.engines.column import Column
from backup.stores.sql.rows import Rows, values_of
from backup.stores.sql.table import TableShape


class SqlCopies:
    """The copies in one table, by its shape as it is now."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog

    def of(self, records: Sequence[Record], note: CopyNote) -> Sequence[Record]:
        """The records as the backup holds them: with SyncedAt, if only the backup's table has this column. Where copies
        of deleted records stay, they have no mark of a delete."""
        shape = self._catalog.shape
        names = (*records[0],) if records else ()
        in_source = [*map(shape.find, names)]
        marks = (shape.find(SYNCED_AT), milliseconds(note.at)), (shape.own_deleted, None)
        own = {mark.name: value for mark, value in marks if mark is not None and mark not in in_source}
        if not records or not own:
            return records  # the source's own SyncedAt wins
        rows = Rows(names, values_of(records, names), large=getattr(records, "large", False))
        for name, value in own.items():
            rows = rows.with_value(name, value)
        return rows

    def original(self, record: Record) -> Record:
        return record  # `write` leaves out values for which the table has no column

    def as_it_was(self, record: Record) -> Record:
        return {**dict.fromkeys(self._catalog.shape.names), **record}

    def content(self, record: Record) -> Mapping[str, str]:
        names, declared = self._catalog.shape.content, self._catalog.declared
        return {
            names[name]: comparable(comparable_number(value) if names[name] in declared else _as_transformed(value))
            for name, value in record.items()
            if name in names
        }

    @property
    def masked(self) -> frozenset[str]:
        names = frozenset(self._catalog.withheld)
        try:
            return self._catalog.shape.withheld if names else names
        except SourceMissing:
            return names

    @property
    def filled(self) -> frozenset[str]:
        shape = self._catalog.shape
        names = shape.content
        return frozenset(names[column.name] for column in shape.columns if column.computed and column.name in names)


def _as_transformed(value: Any) -> Any:
    """The value as a transform leaves it: of a date, which one server's driver gives as such, its text."""
    return value.isoformat() if type(value) is date else value


def mark_of(shape: TableShape, names: Sequence[str]) -> Column | None:
    """The column SyncedAt of a backup's table; None if it has none.

    None also if records with these names have a value for it: the source's own SyncedAt wins.
    """
    mark = shape.find(SYNCED_AT)
    return None if mark is None or mark in map(shape.find, names) else mark


def milliseconds(now: datetime) -> str:
    """The time as text, which every column type of SyncedAt and DeletedAt takes."""
    return now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{now.microsecond // 1000:03}"
