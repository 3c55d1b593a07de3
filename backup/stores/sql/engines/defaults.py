"""What a dialect does where its server is like most others. An engine overrides what its own server does otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa

from backup.core.model import Fingerprint
from backup.stores.listing import PassedOver
from backup.stores.sql.engines.base import Dialect, PlannedWrite, ServerBlocks, StampColumns
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.failures import Failure
from backup.stores.sql.engines.images_to_stage import ImageRows
from backup.stores.sql.engines.relayed import RelayedRows, StagedRows
from backup.stores.sql.engines.secondary_indexes import inspected_together
from backup.stores.sql.engines.tables import TableName

# ruff: noqa: ARG002 - a default needs less than the servers that have more to do


class DialectDefaults(Dialect):
    """Members of `Dialect` for a server that does nothing special there. `Dialect` says what each returns."""

    kin: sa.TextClause | None = None
    relays_outside = False
    chooses_images = True
    blocks: ServerBlocks | None = None
    opens_quickly: bool = False

    def asking(self) -> AbstractContextManager[sa.Connection]:
        return self.reading()

    def reading(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    def writing(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    def writing_over(self, held: Callable[[], sa.Connection]) -> AbstractContextManager[sa.Connection]:
        return self.writing()

    def forget_file(self) -> None:
        return

    def leads_there(self, cx: sa.Connection) -> bool:
        return True

    def lock(self, cx: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]) -> None:
        """Does nothing: what `locked` and `writing` lock is enough."""

    def is_one_file(self, other: Dialect) -> bool:
        return False

    def read_any_text(self) -> bool:
        return False

    def overlay(self, cx: sa.Connection, rows: RelayedRows, source: Dialect, number: int | None) -> StagedRows | None:
        return None

    def reaches(self, source: Dialect) -> bool:
        return True

    def reads_images_of(self, source: Dialect) -> bool:
        return False

    def rows_of_images(
        self, cx: sa.Connection, images: sa.Table, columns: tuple[sa.Column[Any], ...]
    ) -> ImageRows | None:
        return None

    def refusal(self, cx: sa.Connection, table: sa.Table, write: PlannedWrite) -> Failure | None:
        cx.exec_driver_sql(f"EXPLAIN {write.text}")  # it plans the statement, with its rights
        return None

    def run_waiting(self, cx: sa.Connection) -> None:
        """Does nothing: no trigger waits."""

    def is_one_of(self, column: sa.Column[Any], values: Sequence[str]) -> sa.ColumnElement[bool]:
        return column.in_(values)

    def insert_entries(self, cx: sa.Connection, table: sa.Table, entries: Sequence[Mapping[str, Any]]) -> None:
        cx.execute(table.insert(), [dict(entry) for entry in entries])

    def read_plainly(self, cx: sa.Connection, query: sa.Executable, values: Mapping[str, Any]) -> Any | None:
        return None

    def unseen_hint(self, schema: str | None, table: str) -> str:
        return ""

    def describe(self, cx: sa.Connection, schema: str | None, table: str) -> Described | None:
        existing = self.find(cx, schema, table)
        return None if existing is None else Described(existing)

    def fitted(self, cx: sa.Connection, columns: Sequence[Column], key_names: Sequence[str]) -> list[Column]:
        return list(columns)

    def has_schema(self, cx: sa.Connection, schema: str) -> bool:
        return sa.inspect(cx).has_schema(schema)

    def bytes_of(self, column: sa.Column[Any]) -> sa.ColumnElement[Any] | None:
        return None

    def small_fingerprints(
        self, cx: sa.Connection, tables: Sequence[StampColumns], at_most: Sequence[int | None]
    ) -> Sequence[Fingerprint | None]:
        return [None] * len(tables)

    def reads_in_parts(self, stamps: StampColumns) -> bool:
        return True

    def largest_row_bytes(
        self, cx: sa.Connection, table: sa.Table, query: sa.Select[Any], values: Mapping[str, Any] | None = None
    ) -> int | None:
        return None

    def list_left_out(self, cx: sa.Connection) -> Sequence[PassedOver]:
        return ()

    def indexes(self, cx: sa.Connection, tables: Sequence[TableName]) -> Sequence[Sequence[Mapping[str, Any]]]:
        return inspected_together(cx, tables)
