"""PostgreSQL through psycopg."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from secrets import randbits
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from backup.core.model import Fingerprint
from backup.core.transforms import Stamping
from backup.stores.listing import Listed, PassedOver
from backup.stores.pools import PoolKey
from backup.stores.sql.engines import base
from backup.stores.sql.engines.base import Dialect, StampColumns
from backup.stores.sql.engines.column import Column, Relation, ServerType, spelled_column, spelled_table
from backup.stores.sql.engines.databases import create_database_if_missing, drop_database
from backup.stores.sql.engines.defaults import DialectDefaults
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.failures import Failure, missing_driver
from backup.stores.sql.engines.images_to_make import LARGEST_BYTES, ImagesToMake
from backup.stores.sql.engines.images_to_stage import ImageRows, ImagesToStage, StagedImages
from backup.stores.sql.engines.leased import LeasedEngine
from backup.stores.sql.engines.opening import CALL_SECONDS, CONNECTIONS, DialectOptions
from backup.stores.sql.engines.pairs import is_same_by
from backup.stores.sql.engines.postgresql import counters, fingerprint, listing, system_tables
from backup.stores.sql.engines.postgresql.blocks import PostgresqlBlocks
from backup.stores.sql.engines.postgresql.collations import fitted
from backup.stores.sql.engines.postgresql.connection import connect_options, cut, listen, pool_of
from backup.stores.sql.engines.postgresql.copy import SPELLING, Copying, send_copied, staging_table
from backup.stores.sql.engines.postgresql.errors import failure
from backup.stores.sql.engines.postgresql.images import make_images
from backup.stores.sql.engines.postgresql.relay import pass_blocks, relay_rows
from backup.stores.sql.engines.postgresql.snapshot import export
from backup.stores.sql.engines.postgresql.staged_images import count_equal, rows_of_images, stage_images
from backup.stores.sql.engines.postgresql.types import relation, size_expression
from backup.stores.sql.engines.postgresql.values import ask_for_bytes
from backup.stores.sql.engines.prepared import Prepared
from backup.stores.sql.engines.relayed import Relayed, RelayedRows, StagedRows
from backup.stores.sql.engines.snapshot import Snapshot
from backup.stores.sql.engines.tables import TableName, quoted_parts, send_ddl
from backup.stores.sql.engines.utc_time import UtcTime
from backup.stores.sql.pool import SharedPool

_EXISTS = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
# Such a lock belongs to one database of one server. The number is random, so nobody else asks for it.
_LOCK = sa.text("SELECT pg_try_advisory_xact_lock(:number), pg_is_in_recovery()")
# Of a standby and its primary all of it is the same. A copy that became a primary itself has another timeline.
_IDENTITY = sa.text(
    "SELECT system_identifier, timeline_id, (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "FROM pg_control_system(), pg_control_checkpoint()"
)
_UTC_TIME = UtcTime(with_zone=True)
_CLOCK = sa.func.clock_timestamp(type_=_UTC_TIME)
_SMALL = 16 * 1024  # bytes: two pages of the server; a row without values in a TOAST table fits on one
# Values too large for a row's page lie in a TOAST table; each partition has its own.
_HAS_LARGE = sa.text(
    "SELECT relkind = 'p' OR pg_relation_size(reltoastrelid) > 0 FROM pg_class WHERE oid = CAST(:name AS regclass)"
)


class PostgresqlDialect(DialectDefaults):
    """One PostgreSQL database."""

    kind = "postgresql"
    product = "PostgreSQL"
    default_schema: str | None = "public"
    max_parameters = 30_000
    max_columns = 1_600
    folds_names = False
    in_process = False
    opens_quickly = True
    blocks = PostgresqlBlocks()
    references = system_tables.REFERENCES
    delete_triggers = system_tables.DELETE_TRIGGERS
    write_triggers = system_tables.WRITE_TRIGGERS
    kin: sa.TextClause | None = system_tables.KIN
    utc_time = _UTC_TIME
    stamp_type = ServerType("text")
    no_stamp: sa.ColumnElement[Any] = sa.literal_column("''")
    row_count: sa.ColumnElement[int] = sa.func.count()

    def __init__(self, url: URL, connections: int = CONNECTIONS, call_seconds: float = CALL_SECONDS) -> None:
        self._url, self._connections, self._call_seconds = url, connections, call_seconds
        self._leased = LeasedEngine(connections)
        self._copying = Copying()
        self._has_large: dict[str, bool] = {}  # by table; a table without large values seldom gets some during a run

    @property
    def location(self) -> str:
        host = self._url.host or self._url.query.get("host", "local socket")
        return f"{host}:{self._url.port or 5432}/{self._url.database}"

    @property
    def engine(self) -> sa.Engine:
        return self._leased.get(self._key, lambda: pool_of(self._engine(self._url, poolclass=SharedPool), self._url))

    def _key(self) -> PoolKey:
        url = self._url.render_as_string(hide_password=False)
        return PoolKey.of(self.kind, self.location, url, self._call_seconds)

    def close(self) -> None:
        self._leased.release()

    def _engine(self, url: URL, **options: Any) -> sa.Engine:
        try:
            engine = sa.create_engine(
                url,
                connect_args=connect_options(url, self._call_seconds),
                hide_parameters=True,
                paramstyle="format",  # by position, so that rows are tuples
                use_native_hstore=False,  # such a value is read as text; to look for the type costs a query
                **options,
            )
        except ImportError as error:
            raise missing_driver("psycopg", "Install it: pip install 'psycopg[binary]'.") from error
        listen(engine, url, self._call_seconds)
        sa.event.listen(engine, "do_execute", send_copied)
        sa.event.listen(engine, "do_execute", pass_blocks)
        sa.event.listen(engine, "do_execute", ask_for_bytes)
        sa.event.listen(engine, "do_executemany", send_copied)
        return engine

    def _server(self) -> sa.Engine:
        return self._engine(self._url.set(database="postgres"), isolation_level="AUTOCOMMIT")

    def is_same_database(self, here: sa.Connection, there: sa.Connection) -> bool:
        """Takes a lock on one connection. If the other one cannot take it, both are in the same database. So they are
        if one is on a standby of the other's server: what it shows is written there."""
        number = {"number": randbits(63)}

        def ask() -> bool:
            locked_here, is_standby_here = here.execute(_LOCK, number).one()
            locked_there, is_standby_there = there.execute(_LOCK, number).one()
            if is_standby_here or is_standby_there:
                return here.execute(_IDENTITY).one() == there.execute(_IDENTITY).one()
            return bool(locked_here and not locked_there)

        return is_same_by(here, there, ask)

    @property
    def server_clock(self) -> sa.ColumnElement[datetime] | None:
        return _CLOCK

    def ensure_database(self, like: Dialect | None = None) -> None:  # noqa: ARG002 - the server has its own permissions
        create_database_if_missing(self, str(self._url.database), _EXISTS, self._server)

    def drop_database(self) -> None:
        drop_database(self, str(self._url.database), _EXISTS, self._server)

    def beside(self, name: str) -> PostgresqlDialect:
        return PostgresqlDialect(self._url.set(database=name), self._connections, self._call_seconds)

    @contextmanager
    def asking(self) -> Iterator[sa.Connection]:
        with self.engine.connect() as cx:
            yield cx.execution_options(isolation_level="AUTOCOMMIT")  # the driver sends neither BEGIN nor COMMIT

    def begin_snapshot(self, tables: Sequence[TableName]) -> Snapshot:
        return export(self.engine, tables)

    def reading_in(self, snapshot: Snapshot) -> AbstractContextManager[sa.Connection]:
        return snapshot.reading(self.engine)

    def cut(self, cx: sa.Connection) -> Callable[[], None]:
        return cut(cx.connection.driver_connection)

    def locked(self, query: sa.Select[Any], *, gaps: bool = True) -> sa.Select[Any]:  # noqa: ARG002
        return query.with_for_update()

    @staticmethod
    def locked_for_share(query: sa.Select[Any]) -> sa.Select[Any]:
        return query.with_for_update(read=True)

    def advance_counters(self, cx: sa.Connection, table: sa.Table, identity: Collection[str]) -> list[str]:  # noqa: ARG002
        return counters.advance(cx, table, self.default_schema or "public")

    def insert_rows(
        self,
        cx: sa.Connection,
        insert: Prepared,
        rows: Sequence[tuple[Any, ...]],
        *,
        identity: bool,  # noqa: ARG002 - COPY writes identity columns
    ) -> None:
        self._copying.insert(cx, insert, rows)

    def relay(self, cx: sa.Connection, rows: RelayedRows, source: base.Dialect) -> Relayed | None:  # noqa: ARG002 - by its connection
        self._copying.refuse_copy(cx, rows.copy)
        return Relayed(relay_rows(cx, rows))

    def stage(self, cx: sa.Connection, rows: RelayedRows, source: base.Dialect) -> StagedRows | None:  # noqa: ARG002 - by its connection
        self._copying.refuse_stage(cx)
        staged = staging_table(cx, rows.copy, rows.names)
        return StagedRows(staged, relay_rows(cx, rows, staged))

    def stage_images(self, cx: sa.Connection, images: ImagesToStage) -> StagedImages | None:
        self._copying.refuse_stage(cx)
        return stage_images(cx, images)

    def reads_images_of(self, source: base.Dialect) -> bool:  # noqa: ARG002 - of any
        return True

    def rows_of_images(
        self,
        cx: sa.Connection,  # noqa: ARG002 - for SQLite
        images: sa.Table,
        columns: tuple[sa.Column[Any], ...],
    ) -> ImageRows | None:
        return rows_of_images(images, columns)

    def run_waiting(self, cx: sa.Connection) -> None:
        cx.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))

    def count_equal(self, cx: sa.Connection, staged: StagedImages) -> int:
        self.run_waiting(cx)
        return count_equal(cx, staged)

    def make_images(self, cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> int | None:
        if images.columns:
            largest = self.largest_row_bytes(cx, images.table, sa.select(*images.columns).where(condition))
            if (largest or 0) > LARGEST_BYTES:
                return None
        return make_images(cx, images, condition)

    def update_rows(self, cx: sa.Connection, update: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        self._copying.update(cx, update, rows)

    def add_rows(self, cx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
        return self._copying.add(cx, table, rows)

    def find(self, cx: sa.Connection, schema: str | None, table: str) -> TableName | None:
        return system_tables.find(cx, schema, table)

    def list_tables(self, cx: sa.Connection) -> Sequence[Listed]:
        return listing.list_tables(cx)

    def list_left_out(self, cx: sa.Connection) -> Sequence[PassedOver]:
        return listing.list_left_out(cx)

    def describe(self, cx: sa.Connection, schema: str | None, table: str) -> Described | None:
        return system_tables.describe(cx, schema, table)

    def describe_all(self, cx: sa.Connection, names: Sequence[TableName]) -> Sequence[Described | None]:
        return system_tables.describe_all(cx, names)

    def login_schema(self, cx: sa.Connection) -> str | None:
        return system_tables.login_schema(cx, self.default_schema)

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        return system_tables.columns(cx, schema or "public", table)

    def fitted(self, cx: sa.Connection, columns: Sequence[Column], key_names: Sequence[str]) -> list[Column]:
        return fitted(cx, columns, key_names)

    def content_hash(self, columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
        return fingerprint.content_hash(columns)

    def keyed_hash(self, columns: Sequence[sa.Column[Any]], stamping: Stamping) -> sa.ColumnElement[Any]:
        secret, mark = (sa.cast(sa.literal(text), sa.Text) for text in (stamping.stamp_secret, stamping.mark))
        return fingerprint.content_hash([secret, *columns]).op("||")(mark)

    def bytes_of(self, column: sa.Column[Any]) -> sa.ColumnElement[Any] | None:
        return fingerprint.bytes_of(column)

    def bucket(self, key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any] | None:
        return fingerprint.bucket_expression(key)

    def fingerprints(
        self,
        cx: sa.Connection,
        stamps: StampColumns,
        conditions: Sequence[sa.ColumnElement[bool]],
        bucket: sa.ColumnElement[Any] | None = None,
        at_most: int | None = None,
        *,
        in_parts: bool = False,  # noqa: ARG002 - the rows stay in the server
    ) -> Mapping[Any, Fingerprint] | None:
        return fingerprint.fingerprints(cx, stamps, conditions, bucket, at_most)

    def small_fingerprints(
        self, cx: sa.Connection, tables: Sequence[StampColumns], at_most: Sequence[int | None]
    ) -> Sequence[Fingerprint | None]:
        return fingerprint.small_fingerprints(cx, tables, at_most)

    def largest_row_bytes(
        self, cx: sa.Connection, table: sa.Table, query: sa.Select[Any], values: Mapping[str, Any] | None = None
    ) -> int | None:
        if table.fullname not in self._has_large:
            name = {"name": spelled_table(SPELLING, table)}
            self._has_large[table.fullname] = bool(cx.scalar(_HAS_LARGE, name))
        if not self._has_large[table.fullname]:
            return _SMALL
        sizes = [size for column in query.selected_columns if (size := size_expression(column)) is not None]
        total = sum(sizes, start=sa.literal_column("0", sa.BigInteger))
        rows = query.with_only_columns(total.label("size"), maintain_column_froms=True).subquery()
        return cx.scalar(sa.select(sa.func.max(rows.c.size)), values or {}) or 0

    def relation(self, source: Column, copy: Column) -> Relation:
        return relation(source.type.declared, copy.type.declared)

    def can_alter(self, table: sa.Table, column: Column) -> bool:  # noqa: ARG002 - the same for every column
        return True

    def add(self, table: sa.Table, column: Column) -> str:
        spelled = spelled_column(SPELLING, table, column.name, column.type)
        return f"ALTER TABLE {spelled_table(SPELLING, table)} ADD COLUMN {spelled}"

    def has_index_by(self, cx: sa.Connection, table: TableName, column: str) -> bool:
        return system_tables.has_index_by(cx, table, column)

    def rename(self, cx: sa.Connection, table: TableName, new: TableName) -> None:
        if table.schema != new.schema:
            send_ddl(
                cx, f"ALTER TABLE {quoted_parts(SPELLING, *table[:2])} SET SCHEMA {quoted_parts(SPELLING, new.schema)}"
            )
        if table.name != new.name:
            moved = quoted_parts(SPELLING, new.schema, table.name)
            send_ddl(cx, f"ALTER TABLE {moved} RENAME TO {quoted_parts(SPELLING, new.name)}")

    def alter(self, table: sa.Table, old: Column, new: Column) -> list[str]:
        name = spelled_column(SPELLING, table, old.name)
        start = f"ALTER TABLE {spelled_table(SPELLING, table)} ALTER COLUMN {name}"
        statements = []
        if new.type.declared != old.type.declared:
            plain = new.type.declared.split(" COLLATE ")[0]
            # Only between unlike types: this cast cuts a text that is too long, an assignment refuses it.
            unlike = {self.relation(new, old), self.relation(old, new)} == {"other"}
            using = f" USING CAST({name} AS {plain})" if unlike else ""
            statements.append(f"{start} TYPE {new.type.declared}{using}")
        if new.nullable and not old.nullable:
            statements.append(f"{start} DROP NOT NULL")
        return statements

    def failure(self, error: Exception) -> Failure:
        return failure(error, self._url.username)


def opened(url: URL, options: DialectOptions) -> PostgresqlDialect:
    """The dialect of a PostgreSQL database."""
    return PostgresqlDialect(url, options.connections, options.call_seconds)
