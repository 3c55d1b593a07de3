"""PostgreSQL through psycopg."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from functools import cached_property
from secrets import randbits
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from backup.models import Fingerprint
from backup.stores.dialects import base, postgresql_counters, postgresql_fingerprint
from backup.stores.dialects.base import (
    CALL_SECONDS,
    CONNECTIONS,
    Column,
    Dialect,
    Failure,
    Prepared,
    Relation,
    StampColumns,
    driver_text,
    missing_driver,
    named,
    spelled_column,
    spelled_table,
)
from backup.stores.dialects.databases import create_database_if_missing, drop_database
from backup.stores.dialects.policies import refuse_hidden_on_postgresql
from backup.stores.dialects.postgresql_collations import DEFAULT, OF_ITS_OWN, fitted
from backup.stores.dialects.postgresql_connection import listen, ways
from backup.stores.dialects.postgresql_copy import SPELLING, Copying, send_copied
from backup.stores.dialects.postgresql_types import relation, size_of, type_of
from backup.stores.dialects.rights import postgresql_hint, row_security_hint
from backup.stores.dialects.tables import Found

# libpq's own words: such errors have no state.
_UNANSWERED = (
    *("Connection refused", "could not translate host name", "failed to resolve host", "Name or service not known"),
    *("No route to host", "Network is unreachable", "No such file or directory"),
)
_NOT_VERIFIED = (
    *("server does not support SSL", "certificate verify failed", "root certificate", "server certificate for"),
    *("weak sslmode", "SSL error: certificate"),
)
_NOT_VERIFIED_HINT = (
    "A server that is not on this machine must prove who it is, so that no password goes to another. Give it a "
    "certificate of a known authority, or name your own: ?sslrootcert=/path/root.crt. Or say ?sslmode=require in the "
    "connection string (encrypted, to whomever), or ?sslmode=disable."
)
_EXISTS = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
# A domain is the type beneath it. The database's own collation is named, but not declared: it is the default.
_FIND = sa.text(
    """
    SELECT n.nspname, c.relname, c.relkind = 'r'
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = :table AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND (n.nspname = :schema OR (CAST(:schema AS text) IS NULL AND n.nspname = ANY (current_schemas(false))))
    ORDER BY array_position(current_schemas(false), n.nspname) LIMIT 1
    """
)
_HOME = sa.text("SELECT coalesce(current_schema(), :default)")
_COLUMNS = sa.text(
    f"""
    SELECT a.attname, b.typname, format_type(b.oid, CASE WHEN b.oid = t.oid THEN a.atttypmod ELSE t.typtypmod END),
           n.nspname = 'pg_catalog', NOT a.attnotnull,
           a.attidentity <> '', a.attgenerated <> '', a.atthasdef,
           CASE WHEN c.collname <> 'default' AND (a.attcollation <> t.typcollation OR t.oid <> b.oid)
                THEN quote_ident(cn.nspname) || '.' || quote_ident(c.collname) END,
           CASE WHEN c.collname = 'default'
                THEN (SELECT {DEFAULT} FROM pg_database d WHERE d.datname = current_database())
                WHEN c.oid IS NOT NULL THEN {OF_ITS_OWN} END,
           array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], a.attnum)
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_type b ON b.oid = CASE WHEN t.typbasetype <> 0 THEN t.typbasetype ELSE t.oid END
    JOIN pg_namespace n ON n.oid = b.typnamespace
    LEFT JOIN pg_collation c ON c.oid = a.attcollation
    LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = (SELECT r.oid FROM pg_class r JOIN pg_namespace s ON s.oid = r.relnamespace
                        WHERE r.relname = :table AND s.nspname = :schema AND r.relkind IN ('r', 'p', 'v', 'm', 'f'))
      AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
    """  # noqa: S608 - of the expressions of another module
)


_REFERENCES = sa.text(
    """
    SELECT c.conname, n.nspname, r.relname,
           CASE c.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT'
                              WHEN 'r' THEN 'RESTRICT' ELSE 'NO ACTION' END,
           a.attname, b.attname
    FROM pg_constraint c
    JOIN pg_class r ON r.oid = c.conrelid
    JOIN pg_namespace n ON n.oid = r.relnamespace
    CROSS JOIN LATERAL unnest(c.conkey, c.confkey) WITH ORDINALITY AS k (mine, theirs, place)
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.mine
    JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = k.theirs
    WHERE c.contype = 'f' AND c.conparentid = 0
      AND c.confrelid = (SELECT t.oid FROM pg_class t JOIN pg_namespace s ON s.oid = t.relnamespace
                         WHERE t.relname = :table AND s.nspname = :schema)
    ORDER BY n.nspname, r.relname, c.conname, k.place
    """
)

_DELETE_TRIGGERS = sa.text(
    """
    SELECT g.tgname FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid JOIN pg_namespace s ON s.oid = t.relnamespace
    WHERE t.relname = :table AND s.nspname = :schema AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 8 <> 0
    """
)

# Locks of this kind are of one database; nobody else asks for the number, which is drawn for each question.
_LOCK = sa.text("SELECT pg_try_advisory_xact_lock(:number)")
_SMALL = 16 * 1024
# What is too large for a row's page lies elsewhere; partitions have such places of their own.
_HAS_LARGE = sa.text(
    "SELECT relkind = 'p' OR pg_relation_size(reltoastrelid) > 0 FROM pg_class WHERE oid = CAST(:name AS regclass)"
)


class PostgresqlDialect:
    """One PostgreSQL database."""

    kind = "postgresql"
    product = "PostgreSQL"
    default_schema: str | None = "public"
    max_parameters = 30_000
    max_columns = 1_600
    in_process = False
    references = _REFERENCES
    delete_triggers = _DELETE_TRIGGERS
    can_be_cut = True
    row_count: sa.ColumnElement[int] = sa.func.count()

    def __init__(self, url: URL, connections: int = CONNECTIONS, call_seconds: float = CALL_SECONDS) -> None:
        self._url, self._connections, self._call_seconds = url, connections, call_seconds
        self._copying = Copying()
        self._has_large: dict[str, bool] = {}  # of each table asked for; that may change during a run, but seldom does

    @property
    def location(self) -> str:
        host = self._url.host or self._url.query.get("host", "local socket")
        return f"{host}:{self._url.port or 5432}/{self._url.database}"

    @cached_property
    def engine(self) -> sa.Engine:
        return self._engine(self._url, pool_size=self._connections, max_overflow=0)

    def _engine(self, url: URL, **options: Any) -> sa.Engine:
        try:
            engine = sa.create_engine(
                url,
                connect_args=ways(url, self._call_seconds),
                hide_parameters=True,
                paramstyle="format",  # by position, so that rows are tuples
                **options,
            )
        except ImportError as error:
            raise missing_driver("psycopg", "Install it: pip install 'psycopg[binary]'.") from error
        listen(engine, url, self._call_seconds)
        sa.event.listen(engine, "do_execute", send_copied)
        sa.event.listen(engine, "do_executemany", send_copied)
        return engine

    def _server(self) -> sa.Engine:
        return self._engine(self._url.set(database="postgres"), isolation_level="AUTOCOMMIT")

    def is_same_database(self, one: sa.Connection, other: sa.Connection) -> bool:
        """By a lock: who cannot get it asks the database that has given it away."""
        number = {"number": randbits(63)}
        return bool(one.scalar(_LOCK, number)) and not other.scalar(_LOCK, number)

    @property
    def server_clock(self) -> sa.ColumnElement[datetime] | None:
        return sa.func.clock_timestamp(type_=sa.DateTime(timezone=True))

    def ensure_database(self, like: Dialect | None = None) -> None:  # noqa: ARG002 - the server has its own rights
        create_database_if_missing(self, str(self._url.database), _EXISTS, self._server)

    def drop_database(self) -> None:
        drop_database(self, str(self._url.database), _EXISTS, self._server)

    def beside(self, name: str) -> PostgresqlDialect:
        return PostgresqlDialect(self._url.set(database=name), self._connections, self._call_seconds)

    def reading(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    def writing(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    def cut(self, cx: sa.Connection) -> Callable[[], None]:
        driver: Any = cx.connection.driver_connection

        def shut() -> None:
            # Whoever waits on the connection finds it broken. A server that is stopped answers to nothing else.
            with suppress(Exception), socket.fromfd(driver.fileno(), socket.AF_INET, socket.SOCK_STREAM) as way:
                way.shutdown(socket.SHUT_RDWR)

        return shut

    def locked(self, query: sa.Select[Any]) -> sa.Select[Any]:
        return query.with_for_update()

    def lock(self, cx: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]) -> None:
        """`locked` does."""

    def advance_counters(self, cx: sa.Connection, table: sa.Table, identity: Collection[str]) -> list[str]:  # noqa: ARG002
        return postgresql_counters.advance(cx, table, self.default_schema or "public")

    def is_one_file(self, other: base.Dialect) -> bool:  # noqa: ARG002 - there are none
        return False

    def read_halves(self) -> bool:
        return False

    def insert_rows(
        self,
        cx: sa.Connection,
        insert: Prepared,
        rows: Sequence[tuple[Any, ...]],
        *,
        identity: bool,  # noqa: ARG002 - COPY writes what it is given
        first: bool,  # noqa: ARG002 - a write like any other
    ) -> None:
        self._copying.insert(cx, insert, rows)

    def update_rows(
        self,
        cx: sa.Connection,
        update: Prepared,
        rows: Sequence[tuple[Any, ...]],
        *,
        first: bool,  # noqa: ARG002 - a write like any other
    ) -> None:
        self._copying.update(cx, update, rows)

    def add_rows(self, cx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        self._copying.add(cx, table, rows)

    def find(self, cx: sa.Connection, schema: str | None, table: str) -> Found | None:
        found = cx.execute(_FIND, {"table": table, "schema": schema}).first()
        return None if found is None else Found(*found)

    def home(self, cx: sa.Connection) -> str | None:
        return str(cx.scalar(_HOME, {"default": self.default_schema}))

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        schema = schema or "public"
        refuse_hidden_on_postgresql(cx, schema, table)
        found = cx.execute(_COLUMNS, {"table": table, "schema": schema}).all()
        return [
            Column(
                name=name,
                type=type_of(base, declared, builtin, spelled),
                nullable=nullable,
                key_position=key,
                collation=collation,
                identity=identity,
                computed=computed,
                defaulted=defaulted,
                sortable=builtin,
            )
            for name, base, declared, builtin, nullable, identity, computed, defaulted, spelled, collation, key in found
        ]

    def fitted(self, cx: sa.Connection, columns: Sequence[Column], key_names: Sequence[str]) -> list[Column]:
        return fitted(cx, columns, key_names)

    def has_schema(self, cx: sa.Connection, schema: str) -> bool:
        return sa.inspect(cx).has_schema(schema)

    def content_hash(self, columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
        return postgresql_fingerprint.content_hash(columns)

    def bytes_of(self, column: sa.Column[Any]) -> sa.ColumnElement[Any] | None:
        return postgresql_fingerprint.bytes_of(column)

    def bucket(self, key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any] | None:
        return postgresql_fingerprint.bucket(key)

    def fingerprints(
        self,
        cx: sa.Connection,
        stamps: StampColumns,
        conditions: Sequence[sa.ColumnElement[bool]],
        bucket: sa.ColumnElement[Any] | None = None,
    ) -> Mapping[Any, Fingerprint] | None:
        return postgresql_fingerprint.fingerprints(cx, stamps, conditions, bucket)

    def largest(
        self, cx: sa.Connection, table: sa.Table, query: sa.Select[Any], values: Mapping[str, Any] | None = None
    ) -> int | None:
        if table.fullname not in self._has_large:
            name = {"name": spelled_table(SPELLING, table)}
            self._has_large[table.fullname] = bool(cx.scalar(_HAS_LARGE, name))
        if not self._has_large[table.fullname]:
            return _SMALL
        sizes = [size for column in query.selected_columns if (size := size_of(column)) is not None]
        total = sum(sizes, start=sa.literal_column("0", sa.BigInteger))
        found = query.with_only_columns(total.label("size")).subquery()
        return cx.scalar(sa.select(sa.func.max(found.c.size)), values or {}) or 0

    def relation(self, source: Column, copy: Column) -> Relation:
        return relation(source.type.declared, copy.type.declared)

    def can_alter(self, table: sa.Table, column: Column) -> bool:  # noqa: ARG002 - a key's columns too
        return True

    def add(self, table: sa.Table, column: Column) -> str:
        spelled = spelled_column(SPELLING, table, column.name, column.type)
        return f"ALTER TABLE {spelled_table(SPELLING, table)} ADD COLUMN {spelled}"

    def alter(self, table: sa.Table, old: Column, new: Column) -> list[str]:
        name = spelled_column(SPELLING, table, old.name)
        start = f"ALTER TABLE {spelled_table(SPELLING, table)} ALTER COLUMN {name}"
        statements = []
        if new.type.declared != old.type.declared:
            plain = new.type.declared.split(" COLLATE ")[0]
            # Only where nothing else would do: this cast cuts what is too long, where an assignment would refuse it.
            unlike = {self.relation(new, old), self.relation(old, new)} == {"other"}
            using = f" USING CAST({name} AS {plain})" if unlike else ""
            statements.append(f"{start} TYPE {new.type.declared}{using}")
        if new.nullable and not old.nullable:
            statements.append(f"{start} DROP NOT NULL")
        return statements

    def failure(self, error: Exception) -> Failure:
        state = getattr(error, "sqlstate", None) or ""
        diagnosis = getattr(error, "diag", None)
        text = driver_text(Exception(getattr(diagnosis, "message_primary", None) or str(error)))
        whole = str(error)
        if state == "3D000" or (not state and "FATAL" in whole and "does not exist" in whole and "database" in whole):
            return Failure("database_missing", text)
        if state in ("42P01", "3F000") and getattr(diagnosis, "statement_position", None):
            # Else it is not the statement that names it but a value or a function.
            return Failure("missing", text, name=named(text))
        if state == "22021":  # a database of SQL_ASCII has bytes that are no UTF-8
            return Failure("undecoded", text)
        if state == "42501":
            policy = re.search(r"row-level security policy for table (.+?)\.?$", text)
            login = self._url.username
            hint = row_security_hint(policy[1], login) if policy else postgresql_hint(text, login)
            return Failure("refused", text, hint)
        if not state and any(words in whole for words in _NOT_VERIFIED):
            return Failure("unavailable", text, _NOT_VERIFIED_HINT)
        if not state and any(words in whole for words in _UNANSWERED):
            return Failure("unanswered", text)
        if not state and type(error).__name__ == "ProgrammingError":  # an option of the URL that libpq does not know
            return Failure("unavailable", text)
        refused = "authentication failed" in whole or "pg_hba.conf" in whole or ("role" in whole and not state)
        if state[:2] == "28" or refused:
            return Failure("unavailable", text)
        if state[:2] in ("08", "53", "57") or state in ("40001", "40P01", "55P03", "25P03", "25P04"):
            return Failure("transient", text)
        if not state and type(error).__name__ == "OperationalError":  # no answer from a server at all
            return Failure("transient", text)
        if state == "23505":
            return Failure("unique", text)
        return Failure("constraint" if state[:2] == "23" else "refused", text)
