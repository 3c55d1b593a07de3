"""PostgreSQL through psycopg: what has no exact Python value travels as the server's own text, and so comes back the
same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from backup.models import Fingerprint
from backup.stores.dialects.base import (
    CONNECTIONS,
    Column,
    Failure,
    Prepared,
    Relation,
    ServerType,
    StampColumns,
    create_database_if_missing,
    digits,
    driver_text,
    drop_database,
    missing_driver,
    spelled_column,
    spelled_table,
    type_parts,
)
from backup.stores.dialects.mixing import bucket_of
from backup.stores.dialects.postgresql_copy import SPELLING, Copying, send_copied

# Types whose Python value is exact in both directions. All others (times with infinity, intervals with months, json,
# arrays, ranges, enums …) are read as text and cast back.
_NATIVE = {"int2", "int4", "int8", "bool", "text", "varchar", "bpchar", "bytea", "numeric", "uuid"}
_INTEGERS = ("smallint", "integer", "bigint")
_TEXTS = ("character varying", "text")
_FIRST_WITH_HASHES = 11
_SEEDS = (0x1B873593CC9E2D51, 0x2545F4914F6CDD1D)
_TOKEN_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"  # noqa: S105 - a scope, not a token

_EXISTS = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
# A domain is the type beneath it. The database's own collation is named, but not declared: it is the default.
_COLUMNS = sa.text(
    """
    SELECT a.attname, b.typname, format_type(b.oid, CASE WHEN b.oid = t.oid THEN a.atttypmod ELSE t.typtypmod END),
           n.nspname = 'pg_catalog', NOT a.attnotnull,
           a.attidentity <> '', a.attgenerated <> '', a.atthasdef,
           CASE WHEN c.collname <> 'default' AND (a.attcollation <> t.typcollation OR t.oid <> b.oid)
                THEN quote_ident(cn.nspname) || '.' || quote_ident(c.collname) END,
           CASE WHEN c.collname = 'default'
                THEN (SELECT coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate)
                      FROM pg_database d WHERE d.datname = current_database())
                ELSE quote_ident(cn.nspname) || '.' || quote_ident(c.collname) END,
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
    """
)


class TextType(ServerType):
    """A column read as the server's text for it and cast back when written."""

    cache_ok = True

    def column_expression(self, column: Any) -> Any:
        return sa.cast(column, sa.Text)

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.cast(sa.cast(bindvalue, sa.Text), ServerType(self.declared.split(" COLLATE ")[0]))


class IntegerType(ServerType):
    """Integers. Many are looked up by one parameter: a list of a thousand takes the driver longer than the server."""

    cache_ok = True

    def has_one_of(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
        if any(type(value) is not int for value in values):
            return super().has_one_of(column, values)
        # Through a query, or the planner takes a new table, of which it knows nothing, from end to end for each batch.
        any_of = sa.text("ANY (ARRAY(SELECT unnest(CAST(:sought AS bigint[]))))")
        return column.op("=", is_comparison=True)(any_of.bindparams(sought=f"{{{','.join(map(str, values))}}}"))


_BIGINT = ServerType("bigint")
_FIRST_COLUMN: Any = sa.literal_column("1")


class PostgresqlDialect:
    """One PostgreSQL database."""

    kind = "postgresql"
    product = "PostgreSQL"
    default_schema: str | None = "public"
    max_parameters = 30_000
    in_process = False

    def __init__(self, url: URL, connections: int = CONNECTIONS) -> None:
        self._url, self._connections = url, connections
        self._copying = Copying()

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
                connect_args={"connect_timeout": 30, "application_name": "backup"},
                hide_parameters=True,
                paramstyle="format",  # by position, so that rows are tuples
                **options,
            )
        except ImportError as error:
            raise missing_driver("psycopg", "Install it: pip install 'psycopg[binary]'.") from error
        sa.event.listen(engine, "connect", _settle_text_formats)
        sa.event.listen(engine, "do_execute", send_copied)
        sa.event.listen(engine, "do_executemany", send_copied)
        if not url.password and (url.host or "").endswith(".database.azure.com"):
            sa.event.listen(engine, "do_connect", _log_in_with_token)
        return engine

    def _server(self) -> sa.Engine:
        return self._engine(self._url.set(database="postgres"), isolation_level="AUTOCOMMIT")

    def ensure_database(self) -> None:
        create_database_if_missing(self, str(self._url.database), _EXISTS, self._server)

    def drop_database(self) -> None:
        drop_database(self, str(self._url.database), _EXISTS, self._server)

    def beside(self, name: str) -> PostgresqlDialect:
        return PostgresqlDialect(self._url.set(database=name), self._connections)

    def reading(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    def writing(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

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

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        found = cx.execute(_COLUMNS, {"table": table, "schema": schema or self.default_schema}).all()
        return [
            Column(
                name=name,
                type=_type_of(base, declared if builtin else "text", builtin, spelled),
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

    def has_schema(self, cx: sa.Connection, schema: str) -> bool:
        return sa.inspect(cx).has_schema(schema)

    def content_hash(self, columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
        whole = sa.cast(sa.func.row(*columns), sa.Text)  # the server's own text of a row tells all values apart
        return sa.func.encode(sa.func.sha256(sa.func.convert_to(whole, "UTF8")), "hex")

    def bucket(self, key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any] | None:
        parts = [_big(c) if isinstance(c.type, IntegerType) else sa.func.hashtextextended(_text(c), 0) for c in key]
        return sa.type_coerce(bucket_of(parts, _number), _BIGINT)

    def fingerprints(
        self,
        cx: sa.Connection,
        stamps: StampColumns,
        conditions: Sequence[sa.ColumnElement[bool]],
        bucket: sa.ColumnElement[Any] | None = None,
    ) -> Mapping[Any, Fingerprint] | None:
        server: Any = cx.dialect.server_version_info
        if server[0] < _FIRST_WITH_HASHES:
            return None
        sums = [sa.func.sum(_mixed(stamps, seed, seed == _SEEDS[0])) for seed in _SEEDS]
        first, *_ = [*stamps.version, None]
        if first is not None and isinstance(first.type, IntegerType):
            sums = [sa.func.sum(first), *sums]
        query = sa.select(sa.null() if bucket is None else bucket, sa.func.count(), *sums).where(*conditions)
        if bucket is not None:
            query = query.group_by(_FIRST_COLUMN)
        return {
            number: Fingerprint(f"PostgreSQL {server[0]}", records, tuple(int(one or 0) for one in found))
            for number, records, *found in cx.execute(query)
        }

    def relation(self, source: Column, copy: Column) -> Relation:
        return _relation(source.type.declared, copy.type.declared)

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
        if state in ("42P01", "3F000"):
            return Failure("missing", text)
        refused = "authentication failed" in whole or "pg_hba.conf" in whole or ("role" in whole and not state)
        if state[:2] == "28" or refused:
            return Failure("unavailable", text)
        if state[:2] in ("08", "53", "57") or state in ("40001", "40P01", "55P03"):
            return Failure("transient", text)
        if not state and type(error).__name__ == "OperationalError":  # no answer from a server at all
            return Failure("transient", text)
        return Failure("refused", text)


def _mixed(stamps: StampColumns, seed: int, is_first: bool) -> sa.ColumnElement[Any]:
    """A hash of a stamp, chained from part to part: each is the seed of the next."""
    key, version, content = stamps
    mixed: sa.ColumnElement[Any] = sa.literal(seed, sa.BigInteger)
    for column in key:
        mixed = _hashed(column, mixed, is_first)
    if not version:
        return sa.func.hashtextextended(content, mixed)
    start = mixed
    for column in version:
        # Of an integer in first place there is an exact sum, too.
        found = _hashed(column, mixed, is_first or column is version[0])
        null = sa.func.hashint8extended(mixed, seed)
        mixed = sa.func.coalesce(found, null) if column.nullable else found
    if content is None:
        return mixed
    return sa.case((version[0].is_(None), sa.func.hashtextextended(content, start)), else_=mixed)


def _hashed(column: sa.Column[Any], seed: sa.ColumnElement[Any], is_folded: bool) -> sa.ColumnElement[Any]:
    if isinstance(column.type, IntegerType):
        value = _big(column)
        if column.type.declared == "bigint" and not is_folded:
            # The server folds 64 bits into 32 before it hashes them. Two values that are one then are two this way.
            value = value.op("#")(value.op(">>")(sa.literal_column("32")))
        return sa.func.hashint8extended(value, seed)
    return sa.func.hashtextextended(_text(column), seed)


def _big(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(column, sa.BigInteger)


def _text(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.collate(sa.cast(column, sa.Text), "C")  # another collation may take two texts for one


def _number(value: int) -> sa.ColumnElement[Any]:
    return sa.literal_column(str(value), sa.BigInteger)


def _relation(source: str, copy: str) -> Relation:
    (name, has, _), (was, had, _) = type_parts(source), type_parts(copy)
    if (name, has) == (was, had):
        return "same"
    if name in _INTEGERS and was in _INTEGERS:
        wider = _INTEGERS.index(name) > _INTEGERS.index(was)
    elif name in _TEXTS and was in _TEXTS:
        wider = _size(has) >= _size(had)
    elif name == was == "numeric":
        wider = all(now >= before for now, before in zip(digits(has), digits(had), strict=True))
    elif name == was and name.startswith("time"):
        wider = _size(has, 6) >= _size(had, 6)
    elif name == was == "character":
        wider = _size(has) >= _size(had)
    else:
        wider = (was, name) == ("real", "double precision")
    return "wider" if wider else "other"


def _size(sizes: tuple[float, ...], default: float = float("inf")) -> float:
    return sizes[0] if sizes else default


@cache  # so that the columns of a table read twice are equal
def _type_of(base: str, declared: str, builtin: bool, collation: str | None) -> ServerType:
    spelled = f"{declared} COLLATE {collation}" if collation else declared
    if not (builtin and base in _NATIVE):
        return TextType(spelled)
    return IntegerType(spelled) if declared in _INTEGERS else ServerType(spelled)


def _settle_text_formats(connection: Any, _record: Any) -> None:
    # Both sides must spell values alike, whatever a server's or role's defaults are.
    with connection.cursor() as cursor:
        for statement in (
            "SET DateStyle TO 'ISO, YMD'",
            "SET IntervalStyle TO 'postgres'",
            "SET TimeZone TO 'UTC'",
            "SET extra_float_digits TO 1",
            "SET bytea_output TO 'hex'",
            "SET lc_monetary TO 'C'",
        ):
            cursor.execute(statement)
    connection.commit()


def _log_in_with_token(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
    from backup.stores.identity import credential

    parameters["password"] = credential().get_token(_TOKEN_SCOPE).token
