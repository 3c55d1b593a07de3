"""The rows that a restore relays into its place: the backup's own, or those that servers make of images in its bin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from backup.core.model import Fingerprint, Key
from backup.stores.sibling import ImagesOfKeys
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.engines.base import Dialect, StampColumns
from backup.stores.sql.engines.images_to_stage import ImageRows
from backup.stores.sql.engines.relayed import RelayedRows
from backup.stores.sql.image_writes import is_plain
from backup.stores.sql.relay import relayed_rows
from backup.stores.sql.table import TableShape

_READ_CONTENT = "read the fingerprint of the content"


class RowsToRestore(Protocol):
    """Rows of some keys, on the backup's server."""

    def readable(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Those of these keys whose rows the servers may be able to relay."""

    def of(self, keys: Sequence[Key], cx: sa.Connection, place: TableShape) -> RelayedRows | None:
        """The rows of these keys, for the table of this shape, which the connection leads to. None where the servers do
        not know them exactly."""

    def content(self, keys: Sequence[Key]) -> Fingerprint | None:
        """The fingerprint of all values that backup and place share, in the rows of these keys."""


class RowsOfCopies:
    """The rows of a backup's table."""

    def __init__(self, backup: SqlCatalog) -> None:
        self._backup = backup

    def readable(self, keys: Sequence[Key]) -> Sequence[Key]:
        return keys

    def of(self, keys: Sequence[Key], cx: sa.Connection, place: TableShape) -> RelayedRows:  # noqa: ARG002 - as any rows
        return relayed_rows(self._backup, place, self._conditions(keys), None)

    def content(self, keys: Sequence[Key]) -> Fingerprint | None:
        for attempt in self._backup.access.attempts(_READ_CONTENT, single=True):
            with attempt as cx:
                stamps = self._backup.shape.contents(self._backup.access.dialect)
                fingerprint = content_of(cx, self._backup.access.dialect, stamps, self._conditions(keys))
        return fingerprint

    def _conditions(self, keys: Sequence[Key]) -> list[sa.ColumnElement[bool]]:
        return [self._backup.shape.is_one_of(keys), *self._backup.shape.filters]


class RowsOfImages:
    """Rows as images in the bin of a backup say, which its server makes of them. Only of an image that the row itself
    would have there is one."""

    def __init__(self, backup: SqlCatalog, images: ImagesOfKeys) -> None:
        assert isinstance(images.table, SqlSibling)  # noqa: S101 - for mypy: it is beside a table
        self._backup, self._bin, self._entry_ids = backup, images.table.table, images.entry_ids

    def readable(self, keys: Sequence[Key]) -> Sequence[Key]:
        entry_id = self._bin.c["EntryId"]
        query = sa.select(entry_id).where(self._has_one_of(keys, entry_id), is_plain(self._bin))
        for attempt in self._backup.access.attempts("look for images that the server can read", single=True):
            with attempt as cx:
                plain = set(cx.scalars(query))
        return [key for key in keys if self._entry_ids[key] in plain]

    def of(self, keys: Sequence[Key], cx: sa.Connection, place: TableShape) -> RelayedRows | None:
        made = self._made(cx, self._backup.access.dialect)
        if made is None:
            return None
        rows = relayed_rows(self._backup, place, self._conditions(keys, made), None)
        of_images: Any = made.rows.c
        columns = [(of_images[column.name], taker) for column, taker in rows.columns]
        return rows._replace(columns=columns, key=[made.entry_id], own_condition=False)

    def content(self, keys: Sequence[Key]) -> Fingerprint | None:
        shape, dialect = self._backup.shape, self._backup.access.dialect
        for attempt in self._backup.access.attempts(_READ_CONTENT, single=True):
            with attempt as cx:
                made = self._made(cx, dialect)
                if made is None:
                    return None
                fingerprint = content_of(cx, dialect, shape.contents(dialect, made.rows), self._conditions(keys, made))
        return fingerprint

    def _made(self, cx: sa.Connection, dialect: Dialect) -> ImageRows | None:
        return dialect.rows_of_images(cx, self._bin, (*self._backup.shape.table.columns,))

    def _conditions(self, keys: Sequence[Key], made: ImageRows) -> list[sa.ColumnElement[bool]]:
        return [self._has_one_of(keys, made.entry_id), made.is_exact]

    def _has_one_of(self, keys: Sequence[Key], entry_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        return entry_id.in_([self._entry_ids[key] for key in keys])


def content_of(
    cx: sa.Connection, dialect: Dialect, stamps: StampColumns, conditions: Sequence[sa.ColumnElement[bool]]
) -> Fingerprint | None:
    """The fingerprint of the content of the rows that fulfil the conditions."""
    by_bucket = dialect.fingerprints(cx, stamps, conditions)
    return None if by_bucket is None else by_bucket[None]
