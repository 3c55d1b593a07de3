"""The T-SQL that is sent, word for word; needs no server."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.mssql.pyodbc import dialect as mssql_dialect
from sqlalchemy.pool.base import _AdhocProxiedConnection

from backup.core.errors import ConfigError, NotInitialized, SourceMissing, StoreError
from backup.core.masks import Mask, Masking
from backup.core.model import Chunk
from backup.core.retry import Retry
from backup.runs.history_entries import HISTORY
from backup.stores import Limits, Rules, Side, open_store
from backup.stores.connection import SqlServer, parse_connection
from backup.stores.grants import Grantee, Needed
from backup.stores.listing import ForeignKey, Listed, ListedColumn
from backup.stores.sibling import FieldType, Groups, Look, Shape
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_table_queries import FIELD_TYPES, app_table, next_query
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.batch import key_batches
from backup.stores.sql.declared import declare
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.mixing import MIXES, Mix
from backup.stores.sql.engines.mssql import rights
from backup.stores.sql.engines.mssql.connection import connect, text_from
from backup.stores.sql.engines.mssql.counters import own_identities
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.mssql.fingerprint import bucket_expression, content_hash, fingerprint_query, keyed_hash
from backup.stores.sql.engines.mssql.json import (
    JsonRows,
    add_row_statement,
    insert_statement,
    is_long,
    to_json,
    update_statement,
)
from backup.stores.sql.engines.mssql.kinds import KINDS
from backup.stores.sql.engines.mssql.leavable import LeavableConnection
from backup.stores.sql.engines.mssql.listing import list_tables
from backup.stores.sql.engines.mssql.parameters import forget_writes, send_many, send_one
from backup.stores.sql.engines.mssql.snapshot import anchor
from backup.stores.sql.engines.mssql.types import type_of
from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect
from backup.stores.sql.engines.prepared import Prepared
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.engines.utc_time import UtcTime
from backup.stores.sql.filters import filter_values
from backup.stores.sql.incremental import SqlIncremental
from backup.stores.sql.indexes import creation
from backup.stores.sql.masked import MaskedColumns
from backup.stores.sql.rows import first_rows
from backup.stores.sql.shaping import described_shape
from backup.stores.sql.table import TableShape
from backup.stores.values import SecondaryIndex


def column(name: str, type_name: str, length: int = 0, precision: int = 0, scale: int = 0, **more: Any) -> Column:
    collation = more.pop("collation", None)
    row = {
        "type_name": type_name,
        "base_name": more.pop("base_name", type_name),
        "max_length": length,
        "precision": precision,
        "scale": scale,
        "collation_name": collation,
        "has_openjson": more.pop("has_openjson", True),
    }
    return Column(name, type_of(name, row), nullable=more.pop("nullable", True), collation=collation, **more)


COLUMNS = [
    column("Id", "int", nullable=False),
    column("Region", "varchar", 10, collation="SQL_Latin1_General_CP1_CI_AS", nullable=False),
    column("Name", "nvarchar", 400, collation="Latin1_General_CI_AS"),
    column("Notes", "nvarchar", -1, collation="Latin1_General_CI_AS"),
    column("Amount", "decimal", 9, 18, 4),
    column("At", "datetime2", 8, 27, 7),
    column("Clock", "time", 5, 16, 7),
    column("Off", "datetimeoffset", 10, 34, 7),
    column("Doc", "xml", -1),
    column("Stamp", "timestamp", 8),
    column("Phone", "PhoneNumber", 20, collation="Latin1_General_CI_AS", base_name="varchar"),
    column("Node", "hierarchyid", 892),
    column("100% [odd]", "float", 8, 53),
    column("Version", "bigint"),
]


def shape(key: tuple[str, ...] = ("Id",), columns: list[Column] | None = None) -> TableShape:
    rules = Rules(version=("Version",), where={"Region": "EU"})
    columns = [replace(column, nullable=column.nullable and column.name not in key) for column in columns or COLUMNS]
    return TableShape(columns, key, rules, TableName("my shop", "Things"), "table")


def dialect() -> Any:
    """As it is once connected to SQL Server 2016 or later."""
    found = mssql_dialect(paramstyle="qmark")  # type: ignore[no-untyped-call]
    found._supports_offset_fetch = True
    return found


def text(statement: Any) -> str:
    compiled = statement.compile(dialect=dialect())
    return " ".join(str(compiled).split()).replace("[my shop].[Things]", "T")


def test_the_backup_table_has_the_types_collations_and_key_of_the_source() -> None:
    table = declare(
        TableName("my shop", "Things"), COLUMNS, ("Region", "Id"), sa.Column("SyncedAt", SqlServerDialect.utc_time)
    )
    assert text(sa.schema.CreateTable(table)) == (
        "CREATE TABLE T ( [Id] int NOT NULL, [Region] varchar(10) COLLATE SQL_Latin1_General_CP1_CI_AS NOT NULL,"
        " [Name] nvarchar(200) COLLATE Latin1_General_CI_AS NULL,"
        " [Notes] nvarchar(max) COLLATE Latin1_General_CI_AS NULL,"
        " [Amount] decimal(18, 4) NULL, [At] datetime2(7) NULL, [Clock] time(7) NULL, [Off] datetimeoffset(7) NULL,"
        " [Doc] xml NULL, [Stamp] binary(8) NULL, [Phone] varchar(20) COLLATE Latin1_General_CI_AS NULL,"
        " [Node] hierarchyid NULL, [100% [odd]]] float(53) NULL, [Version] bigint NULL, [SyncedAt] DATETIME2 NULL,"
        " PRIMARY KEY ([Region], [Id]) )"
    )


def test_a_filter_is_sent_as_the_columns_have_their_values() -> None:
    columns = [*COLUMNS, column("Flag", "bit")]
    rules = Rules(where={"region": "EU", "Id": 7, "Amount": 1.5, "Flag": True, "Name": True, "None": 1})
    values = filter_values(columns, rules, "table", plain=False)
    found = TableShape(columns, ("Id",), replace(rules, where=values), TableName("my shop", "Things"), "table")
    assert [text(condition).removeprefix("T.") for condition in found.filters] == [
        "[Region] = CAST(? COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000))",
        "[Id] = ?",
        "[Amount] = CAST(? AS decimal(18, 4))",
        "[Flag] = 1",
        "[Name] = ?",
    ]
    assert [*values.values()] == ["EU", 7, Decimal("1.5"), True, "true"]


def test_keys_share_the_parameters_of_a_statement_with_the_values_of_the_filter() -> None:
    names = tuple(f"name {n}" for n in range(600))
    rules = Rules(where={"Name": names})
    made = TableShape(COLUMNS, ("Region",), rules, TableName("my shop", "Things"), "table")
    given = SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False))
    parts = list(key_batches([(f"k{n}",) for n in range(3_000)], made, given, Limits(batch_size=5_000)))
    assert [len(part) for part in parts] == [1_400, 1_400, 200]
    described = Described(TableName("my shop", "Things"), [replace(COLUMNS[1], key_position=1), *COLUMNS[2:]])
    with pytest.raises(ConfigError, match="has 1,200 values"):
        described_shape(given, replace(rules, where={"Name": names * 2}), described, "table")


def test_a_masked_record_is_stamped_with_a_keyed_hash_and_the_mark_of_its_masks() -> None:
    masking = Masking({"Name": Mask("hmac")}, "a key of the masks")
    rules = Rules(version=("Version",), masking=masking, is_source=True)
    masked = MaskedColumns.checked(rules, COLUMNS, ("Id",), "table", "mssql")
    columns = [replace(column, nullable=False) if column.name == "Version" else column for column in COLUMNS]
    own = column("SourceStamp", "varbinary", 40)
    source = TableShape(columns, ("Id",), rules, TableName("my shop", "Things"), "table", masked=masked)
    stamped = TableShape([*columns, own], ("Id",), Rules(), TableName("my shop", "Things"), "table", own_stamp=own)
    stamped.match(source)
    collated, version = "AS nvarchar(max)) COLLATE Latin1_General_BIN2", "CAST(T.[Version] AS varchar(60))"
    pieces = (
        f"isnull((CAST(datalength(CAST({value} {collated}) AS nvarchar(20)) + N':') + CAST({value} {collated}, N'-')"
        for value in ("?", version)
    )
    hashed = f"CAST(hashbytes('SHA2_256', {' + '.join(pieces)}) + 0x{masking.mark} AS varbinary(40))"
    assert text(source.stamp_query(Hashing())) == f"SELECT T.[Id], {hashed} AS anon_1 FROM T"  # type: ignore[arg-type]
    assert (
        text(stamped.stamp_query(Hashing()))  # type: ignore[arg-type]
        == "SELECT T.[Id], coalesce(T.[SourceStamp], 0x) AS coalesce_1 FROM T"
    )
    assert text(source.reading(Hashing())[1]).endswith(f", {hashed} AS anon_1 FROM T")  # type: ignore[arg-type]


def test_without_version_fields_the_whole_content_is_hashed() -> None:
    without = TableShape(COLUMNS, ("Id",), Rules(), TableName("my shop", "Things"), "table")
    unlike = TableShape(COLUMNS, ("Id",), Rules(version=("None",)), TableName("my shop", "Things"), "table")
    statement = text(without.stamp_query(Hashing()))  # type: ignore[arg-type]
    assert "hashbytes" in statement.lower()
    assert statement == text(unlike.stamp_query(Hashing()))  # type: ignore[arg-type]
    assert (without.lacks_version, unlike.lacks_version, shape().lacks_version) == (False, True, False)


def test_the_next_chunk_is_found_by_a_seek() -> None:
    things = shape()
    query = sa.select(*things.key).where(*things.within(Chunk((7,))), *things.filters).order_by(*things.key)
    assert text(query.offset(99).limit(1)) == (
        "SELECT T.[Id] FROM T WHERE T.[Id] > ?"
        " AND T.[Region] = CAST(? COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000))"
        " ORDER BY T.[Id] OFFSET ? ROWS FETCH FIRST ? ROWS ONLY"
    )


def test_a_range_of_composite_keys_leads_with_what_seeks() -> None:
    things = shape(("Id", "Version"))
    assert text(sa.select(*things.key, *things.version).where(*things.within(Chunk((1, 2), (3, 4))))) == (
        "SELECT T.[Id], T.[Version], T.[Version] AS [Version__1] FROM T"
        " WHERE T.[Id] >= ? AND (T.[Id] > ? OR T.[Version] > ?) AND T.[Id] <= ? AND (T.[Id] < ? OR T.[Version] <= ?)"
    )


def test_a_key_of_a_code_page_is_compared_in_its_own_collation_and_never_cut() -> None:
    things = shape(("Region",))
    assert text(sa.select(*things.key).where(*things.within(Chunk(None, ("co-op",))))) == (
        "SELECT T.[Region] FROM T WHERE T.[Region] <= CAST(? COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000))"
    )


def test_times_are_read_as_text_and_sorted_as_times() -> None:
    things = shape(("Off",), [column("Off", "datetimeoffset", 10, 34, 7), COLUMNS[1], COLUMNS[-1]])
    query = (
        sa.select(*things.key)
        .where(*things.within(Chunk(("2024-01-01 00:00:00.0000000 +00:00",))))
        .order_by(*things.key)
    )
    assert text(query) == (
        "SELECT convert(varchar(40), T.[Off], 121) AS [Off] FROM T"
        " WHERE T.[Off] > convert(datetimeoffset(7), ?, 121) ORDER BY T.[Off]"
    )


def test_whole_rows_are_read_exactly() -> None:
    assert text(shape().select) == (
        "SELECT T.[Id], T.[Region], T.[Name], T.[Notes], T.[Amount], convert(varchar(40), T.[At], 121) AS [At],"
        " convert(varchar(20), T.[Clock]) AS [Clock], convert(varchar(40), T.[Off], 121) AS [Off],"
        " convert(nvarchar(max), T.[Doc], 1) AS [Doc], T.[Stamp], T.[Phone],"
        " CAST(T.[Node] AS varbinary(max)) AS [Node], T.[100% [odd]]], T.[Version] FROM T"
    )


def test_an_insert_converts_what_travels_as_text() -> None:
    things = shape()
    assert text(things.insert(things.names)) == (
        "INSERT INTO T"
        " ([Id], [Region], [Name], [Notes], [Amount], [At], [Clock], [Off], [Doc], [Stamp], [Phone], [Node],"
        " [100% [odd]]], [Version]) VALUES (?, CAST(? COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000)), ?, ?,"
        " CAST(? AS decimal(18, 4)), convert(datetime2(7), ?, 121), convert(time(7), ?),"
        " convert(datetimeoffset(7), ?, 121),"
        " convert(xml, ?, 1), ?, CAST(? COLLATE Latin1_General_CI_AS AS varchar(8000)), CAST(? AS hierarchyid), ?, ?)"
    )


def test_a_session_lets_identity_values_in_only_while_it_inserts_them() -> None:
    """Else a table that is renamed or dropped later could not be named to take it back."""
    asked: list[str] = []
    cx: Any = SimpleNamespace(info={}, exec_driver_sql=lambda statement, **_: asked.append(statement))
    with own_identities(cx, "dbo.[It's]"):
        asked.append("INSERT")
    on, off = "SET IDENTITY_INSERT dbo.[It's] ON", "SET IDENTITY_INSERT dbo.[It's] OFF"
    assert asked == [on, "INSERT", off]
    asked.clear()
    with pytest.raises(OSError, match="lost"), own_identities(cx, "dbo.[It's]"):
        raise OSError("lost")
    with own_identities(cx, "T"):
        asked.append("INSERT")
    undone = f"IF OBJECT_ID(N'dbo.[It''s]') IS NOT NULL {off}"
    assert asked == [on, undone, "SET IDENTITY_INSERT T ON", "INSERT", "SET IDENTITY_INSERT T OFF"]
    assert cx.info == {}


def test_an_entry_is_added_in_one_statement_if_it_is_the_next_of_its_group() -> None:
    fields: tuple[tuple[str, FieldType], ...] = (("Id", "name"), ("Of", "place"), ("No", "integer"), ("Status", "name"))
    runs = app_table("Runs", "Id", fields, (), "dbo", UtcTime())
    groups = Groups("Id", "Of", "No", ("Status", "x"), (), ("Status", "InProgress"))
    assert text(next_query(runs, groups, casts=True)) == (
        "INSERT INTO dbo.[Runs] ([Id], [Of], [No], [Status]) SELECT CAST(? AS NVARCHAR(200)) AS anon_1, "
        "CAST(? AS NVARCHAR(400)) AS anon_2, CAST(? AS BIGINT) AS anon_3, CAST(? AS NVARCHAR(200)) AS anon_4 "
        "WHERE NOT (EXISTS (SELECT * FROM dbo.[Runs] AS [Runs_1] WHERE [Runs_1].[Id] = ? AND [Runs_1].[Of] = ? "
        "AND ([Runs_1].[No] >= ? OR [Runs_1].[Status] = ?)))"
    )


def test_an_update_finds_its_row_by_the_key_it_had() -> None:
    assert text(shape(("Id", "At")).update(("Id", "At", "Version"))) == (
        "UPDATE T SET [Id]=?, [At]=convert(datetime2(7), ?, 121), [Version]=?"
        " WHERE T.[Id] = ? AND T.[At] = convert(datetime2(7), ?, 121)"
    )


def test_an_update_leaves_identity_columns_as_they_are() -> None:
    things = shape(columns=[column("Id", "int", nullable=False, identity=True), COLUMNS[1], COLUMNS[-1]])
    assert text(things.update(("Id", "Version"))) == "UPDATE T SET [Version]=? WHERE T.[Id] = ?"


def test_a_marked_row_is_left_out_of_every_query_and_marked_by_its_key() -> None:
    deleted = column("DeletedAt", "datetime2", 8, 27, 7)
    columns = [column("Id", "int", nullable=False), COLUMNS[-1], deleted]
    rules, name = Rules(version=("Version",), keeps_deleted=True), TableName("my shop", "Things")
    things = TableShape(columns, ("Id",), rules, name, "table", own_deleted=deleted)
    assert [*map(text, things.filters)] == ["T.[DeletedAt] IS NULL"]
    mark = things.table.update().where(things.is_one_of([(1,)])).values({"DeletedAt": "2026-01-02 03:04:05.678"})
    assert text(mark).startswith("UPDATE T SET [DeletedAt]=convert(datetime2(7), ?, 121) WHERE T.[Id] IN (")


def test_keys_are_looked_up_in_one_list_or_as_pairs() -> None:
    named = shape(("Name",))
    one = sa.delete(named.table).where(named.is_one_of([("a",)]))
    assert text(one).endswith("IN (__[POSTCOMPILE_one_of_1])")
    pairs = shape(("Id", "Version"))
    assert text(sa.delete(pairs.table).where(pairs.is_one_of([(1, 2), (3, 4)]))) == (
        "DELETE FROM T WHERE T.[Id] = ? AND T.[Version] = ? OR T.[Id] = ? AND T.[Version] = ?"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (column("A", "decimal", 9, 18, 4), column("A", "decimal", 9, 18, 2)),
        (column("A", "datetime2", 8, 27, 7), column("A", "datetime2", 8, 27, 3)),
        (column("A", "varchar", 9, collation="Latin1_CI_AS"), column("A", "varchar", 9, collation="Latin1_CS_AS")),
        (column("A", "time", 5, 16, 7), column("A", "datetime", 8)),
    ],
)  # fmt: skip
def test_types_declared_differently_share_no_cached_statement(one: Column, other: Column) -> None:
    assert one.type._static_cache_key != other.type._static_cache_key


class Cursor:
    """Records what the driver is given."""

    fast_executemany = False

    def setinputsizes(self, sizes: Any) -> None:
        self.sizes = sizes

    def execute(self, statement: str, values: Any) -> None:
        self.values = values

    executemany = execute


class Driver:
    SQL_WVARCHAR, SQL_VARBINARY, SQL_BIGINT, SQL_INTEGER, SQL_DOUBLE, SQL_BIT = (
        "text",
        "bytes",
        "bigint",
        "int",
        "float",
        "bit",
    )
    SQL_TYPE_DATE = "date"
    SQL_TYPE_TIMESTAMP = "time"
    BinaryNull = "NULL"


class Context:
    """As much of an execution as the functions look at."""

    def __init__(self, statement: Any, transaction: Any = None) -> None:
        """`transaction` stands for the connection that executes it: one of its own if there is none."""
        self.root_connection = transaction or SimpleNamespace(info={})
        self.dialect = dialect()
        self.dialect.dbapi = Driver
        self.compiled = statement.compile(dialect=self.dialect)
        self._expanded_parameters = self.compiled.construct_expanded_state(self.compiled.params).parameter_expansion
        self.execution_options = statement.get_execution_options()


def test_a_null_beside_several_lists_is_sent_with_its_type() -> None:
    # For a NULL without one pyodbc asks the server: an entry of SyncHistory has many.
    cursor, table = Cursor(), shape().table
    lists = (table.c.Id.in_([1, 2]), table.c.Name.in_(["a"]))
    assert send_one(cursor, "", (None, 1, 2, "a"), Context(table.update().values(Notes=None).where(*lists)))
    assert cursor.sizes == [("text", 16, 0), ("int", 0, 0), ("int", 0, 0), ("text", 16, 0)]


def test_every_parameter_is_sent_with_its_type_and_the_size_of_its_values() -> None:
    cursor, things = Cursor(), shape()
    names = ("Id", "Name", "Notes", "Amount", "At", "Stamp")
    row = (1, None, "x" * 4001, Decimal("1E+2"), "2024", b"12345678")
    assert send_one(cursor, "", row, Context(things.insert(names)))
    assert cursor.sizes == [
        ("int", 0, 0),
        ("text", 16, 0),
        ("text", 0, 0),
        ("text", 16, 0),
        ("text", 16, 0),
        ("bytes", 16, 0),
    ]
    assert cursor.values == [1, "NULL", "x" * 4001, "100", "2024", b"12345678"]


def test_sizes_are_those_of_the_longest_value_of_all_rows() -> None:
    cursor, things = Cursor(), shape()
    rows = [(1, None, None), (2, "a" * 17, None), (3, "ä" * 17, "b")]
    assert send_many(cursor, "", rows, Context(things.insert(("Id", "Name", "Notes"))))
    assert cursor.sizes == [("int", 0, 0), ("text", 64, 0), ("text", 16, 0)]


def test_values_beside_a_null_in_an_own_table_are_sent_whole() -> None:
    """Runs of several tables get their entries in one array; some have a note, some have none."""
    own = sa.Table("Runs", sa.MetaData(), *(sa.Column(name, FIELD_TYPES["text"]) for name in "abcdef"))
    now = datetime(2026, 1, 2, 3)  # noqa: DTZ001 - as the driver gets it
    rows = [(None,) * 6, ("n" * 40, 1 << 40, 0.5, now, "n" * 5_000, None)]
    cursor = Cursor()
    assert send_many(cursor, "", rows, Context(own.insert()))
    texts = [("text", 64, 0), ("bigint", 0, 0), ("float", 0, 0), ("time", 27, 7), ("text", 0, 0), ("text", 1, 0)]
    assert cursor.sizes == texts
    assert send_many(cursor, "", [("a",) * 6, ("b",) * 6], Context(own.insert()))
    assert cursor.sizes == [None] * 6


def test_a_list_of_keys_is_sent_with_one_type() -> None:
    cursor, things = Cursor(), shape(("Name",))
    query = sa.select(*things.key).where(things.is_one_of([("a",), ("ü" * 20,)]), *things.filters)
    assert send_one(cursor, "", ["a", "ü" * 20, "EU"], Context(query))
    assert [size[0] for size in cursor.sizes] == ["text"] * 3
    assert cursor.sizes[1][1] >= 20


@pytest.mark.parametrize(
    ("longest", "before", "array"),
    [
        (10, (), True),
        (4001, (), False),
        (10, ("SELECT Id FROM T", " select 1", "SET IDENTITY_INSERT T ON"), True),
        (10, ("UPDATE T SET Id = Id",), False),
        (10, ("SELECT 1", "INSERT INTO RecycleBin SELECT 1", "SELECT 1"), False),
        (10, ("WITH Kept AS (SELECT 1 AS One) DELETE FROM T",), False),
    ],
)
def test_only_the_first_write_of_a_transaction_and_only_a_small_one_is_an_array(
    longest: int, before: tuple[str, ...], array: bool
) -> None:
    things, transaction = shape(), SimpleNamespace(info={})
    rows = [("x" * longest, 1, 1), (None, 2, 2)]
    update = Context(things.update(("Notes", "Version")), transaction)
    forget_writes(transaction)
    for statement in before:
        send_one(Cursor(), statement, (), update)
    cursor = Cursor()
    assert send_many(cursor, "UPDATE T SET Notes = ?", rows, update)
    assert cursor.fast_executemany is array
    if array:
        later = Cursor()
        assert send_many(later, "UPDATE T SET Notes = ?", rows, update)
        assert not later.fast_executemany
        forget_writes(transaction)  # the next one begins
        assert send_many(later, "UPDATE T SET Notes = ?", rows, update)
        assert later.fast_executemany
    assert cursor.values[1][0] == (None if array else "NULL")


def test_the_first_questions_on_a_connection_are_sent_though_nothing_can_be_noted_on_it() -> None:
    """SQLAlchemy asks who the server is before its pool has the connection."""
    adhoc = _AdhocProxiedConnection(None, None)  # type: ignore[arg-type]
    assert send_one(Cursor(), "SELECT @@VERSION", (), Context(shape().select, adhoc)) is None


@pytest.mark.parametrize(("number", "hidden"), [(3903, True), (3902, False)])
def test_a_transaction_that_the_server_has_ended_hides_no_error_of_a_statement(number: int, hidden: bool) -> None:
    class Lost:
        def close(self) -> None: ...

        def rollback(self) -> None:
            raise sqlite3.OperationalError("25000", f"[25000] [SQL Server]no transaction ({number}) (SQLEndTran)")

    with nullcontext() if hidden else pytest.raises(sqlite3.OperationalError):
        LeavableConnection(Lost(), OSError).rollback()


def test_a_connection_goes_back_to_the_level_of_every_new_session_though_no_server_says_it() -> None:
    """Else SQLAlchemy would have none to go back to after SNAPSHOT, and the connection would be lost to the pool."""
    pytest.importorskip("pyodbc", exc_type=ImportError)
    server = SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False))
    level = server.engine.dialect.get_default_isolation_level(None)  # type: ignore[arg-type]
    server.close()
    assert level == "READ COMMITTED"


def test_an_array_that_would_take_much_memory_is_none() -> None:
    cursor, things = Cursor(), shape()
    assert send_many(cursor, "", [(1, "x" * 4000)] * 5000, Context(things.insert(("Id", "Notes"))))
    assert not cursor.fast_executemany


BROKEN = "half of \ud83c"


def test_half_a_surrogate_pair_is_read_and_sent_as_the_servers_own_bytes() -> None:
    cursor, things = Cursor(), shape()
    utf_16 = BROKEN.encode("utf-16-le", "surrogatepass")
    assert text_from(utf_16) == BROKEN
    assert send_one(cursor, "", (1, BROKEN), Context(things.insert(("Id", "Name"))))
    assert cursor.values == [1, utf_16]
    assert cursor.sizes[1] == ("text", 32, 0)
    assert send_many(cursor, "", [(1, BROKEN), (2, "plain")], Context(things.insert(("Id", "Name"))))
    assert not cursor.fast_executemany
    assert to_json([things.table.c.Name.type], [("plain",), (BROKEN,)]) is None


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("[42000] [M][SQL Server]Deadlock victim. (1205) (SQLExecDirectW)", "transient"),
        ("[42000] [M][SQL Server]No room in nvarchar(64). (8152) (SQLExecDirectW)", "refused"),
        ("[42000] [M]One. (3621) (SQLExecute); [42000] [M]Deadlock victim. (1205)", "transient"),
        (
            "[42000] [M][SQL Server]The INSERT permission was denied on the object 'T', database 'd', schema 's'. (229)"
            " (SQLExecDirectW)",
            "denied",
        ),
        # What a trigger throws may be about the row alone.
        ("[42000] [M][SQL Server]Row 5 does not have permission to go. (50000) (SQLExecDirectW)", "refused"),
    ],
)
def test_the_number_of_an_error_is_not_a_number_in_its_text(message: str, kind: str) -> None:
    failed = SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False)).failure
    assert failed(Exception("42000", message)).kind == kind


@pytest.mark.parametrize("number", [41332, 41368])
def test_a_table_in_memory_that_cannot_be_read_says_which_options_would_allow_it(number: int) -> None:
    failed = SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False)).failure
    failure = failed(Exception("42000", f"[42000] [M][SQL Server]Memory optimized tables. ({number}) (SQLExecDirectW)"))
    assert (failure.kind, "MEMORY_OPTIMIZED_ELEVATE_TO_SNAPSHOT" in (failure.hint or "")) == ("refused", True)


class Locks:
    """A connection to a server: it holds, or gives, the lock that it is asked for."""

    def __init__(self, held: str, free: int) -> None:
        self.asked: list[str] = []
        self._held, self._free = held, free

    def execute(self, statement: Any, names: Any) -> Any:
        self.asked.append(text(statement))
        return SimpleNamespace(one=lambda: (self._held if "MODE" in self.asked[-1] else self._free, 5))


@pytest.mark.parametrize(("free", "is_same"), [(0, True), (1, False)])
def test_one_database_is_told_by_a_lock_of_the_session_which_needs_no_transaction(free: int, is_same: bool) -> None:
    here, there = Locks("Exclusive", 1), Locks("NoLock", free)
    database = SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False))
    assert database.is_same_database(here, there) is is_same  # type: ignore[arg-type]
    assert here.asked == [
        "EXEC sp_getapplock @Resource = ?, @LockMode = 'Exclusive', @LockOwner = 'Session', @LockTimeout = 0",
        "SELECT APPLOCK_MODE('public', ?, 'Session'), DB_ID()",
        "EXEC sp_releaseapplock @Resource = ?, @LockOwner = 'Session'",
    ]
    with pytest.raises(StoreError, match="x/y gives no application lock"):
        database.is_same_database(Locks("NoLock", 1), there)  # type: ignore[arg-type]


# --- rows in one JSON parameter ---------------------------------------------------------------------------------------


def prepared(things: TableShape, what: str, names: tuple[str, ...]) -> Prepared:
    places = {f"v{i}": i for i in range(len(names))} | {f"k{i}": names.index(n) for i, n in enumerate(things.key_names)}
    statement = things.insert(names) if what == "insert" else things.update(names)
    return Prepared.of(statement, names, places, dialect())


def sent(things: TableShape, names: tuple[str, ...], *rows: tuple[Any, ...]) -> JsonRows:
    found = to_json([things.table.c[name].type for name in names], rows)
    assert found is not None
    return found


def spelled(statement: str) -> str:
    return " ".join(statement.split()).replace("[my shop].[Things]", "T")


EVERY_KIND = ("Id", "Region", "Notes", "Amount", "At", "Doc", "Stamp", "Node", "Version")


def test_rows_in_json_are_converted_as_parameters_are() -> None:
    things = shape()
    row = (1, "EU", "漢", Decimal("1E+2"), "2024-01-02", "<a/>", b"\x00\xff", b"\x58", 2**63 - 1)
    found = sent(things, EVERY_KIND, row, (-1, *(None,) * 8))
    assert found.text == (
        '[[1,"EU","漢","100","2024-01-02","<a/>","00ff","58",9223372036854775807],'
        "[-1,null,null,null,null,null,null,null,null]]"
    )
    assert spelled(insert_statement(prepared(things, "insert", EVERY_KIND), found.forms, dialect())) == (
        "INSERT INTO T ([Id], [Region], [Notes], [Amount], [At], [Doc], [Stamp], [Node], [Version])"
        " SELECT sent.c0, sent.c1, sent.c2, sent.c3, sent.c4, sent.c5, sent.c6, sent.c7, sent.c8 FROM ("
        "SELECT j.c0 AS c0, CAST(j.c1 COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000)) AS c1, j.c2 AS c2,"
        " CAST(j.c3 AS decimal(18, 4)) AS c3, convert(datetime2(7), j.c4, 121) AS c4, convert(xml, j.c5, 1) AS c5,"
        " convert(varbinary(max), CAST(j.c6 AS varchar(4000)), 2) AS c6,"
        " CAST(convert(varbinary(max), CAST(j.c7 AS varchar(4000)), 2) AS hierarchyid) AS c7,"
        " j.c8 AS c8 FROM OPENJSON(?) WITH (c0 bigint '$[0]', c1 nvarchar(4000) '$[1]', c2 nvarchar(4000) '$[2]',"
        " c3 nvarchar(4000) '$[3]', c4 nvarchar(4000) '$[4]', c5 nvarchar(4000) '$[5]', c6 nvarchar(4000) '$[6]',"
        " c7 nvarchar(4000) '$[7]', c8 bigint '$[8]') AS j) AS sent"
    )


def test_an_update_from_json_finds_its_rows_as_the_key_compares() -> None:
    names = ("Region", "Id", "Name")
    things = shape(("Region", "Id", "Name"))
    found = sent(things, names, ("EU", 1, "a"))
    assert spelled(update_statement(prepared(things, "update", names), found.forms, dialect())) == (
        "UPDATE T SET [Id]=sent.c1, [Region]=sent.c0, [Name]=sent.c2 FROM T, ("
        "SELECT CAST(j.c0 COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000)) AS c0, j.c1 AS c1, j.c2 AS c2"
        " FROM OPENJSON(?) WITH (c0 nvarchar(4000) '$[0]', c1 bigint '$[1]', c2 nvarchar(4000) '$[2]') AS j) AS sent"
        " WHERE T.[Region] = (sent.c0 COLLATE SQL_Latin1_General_CP1_CI_AS) AND T.[Id] = CAST(sent.c1 AS int)"
        " AND T.[Name] = (sent.c2 COLLATE Latin1_General_CI_AS)"
    )


def test_what_json_escapes_travels_as_characters_that_the_rows_do_not_have() -> None:
    things = shape()
    names = ("Id", "Name", "Notes")
    found = sent(things, names, (1, 'say "x"', "\ue000 and a\ttab"), (2, "C:\\", "plain"))
    assert found.text == '[[1,"say \ue002x\ue002","\ue000 and a\ue001tab"],[2,"C:\ue003","plain"]]'
    assert found.forms[1].replaced == (("\ue002", '"'), ("\ue003", "\\"))
    assert found.forms[2].replaced == (("\ue001", "\t"),)
    assert (
        "replace(replace(j.c1 COLLATE Latin1_General_BIN2, nchar(57346), nchar(34)), nchar(57347), nchar(92)) AS c1,"
        " replace(j.c2 COLLATE Latin1_General_BIN2, nchar(57345), nchar(9)) AS c2"
    ) in spelled(insert_statement(prepared(things, "insert", names), found.forms, dialect()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("100% [odd]", 0.1, id="float"),
        pytest.param("Notes", "a\0b", id="NUL"),
        pytest.param("Notes", "".join(map(chr, range(1, 8))), id="too many characters to be replaced"),
        pytest.param("Id", 2**63, id="no 64 bits"),
        pytest.param("Id", "1", id="no integer"),
        pytest.param("Stamp", "00", id="no bytes"),
    ],
)
def test_what_json_might_not_give_back_goes_another_way(name: str, value: Any) -> None:
    assert to_json([shape().table.c[name].type], [(None,), (value,)]) is None


def test_rows_of_many_columns_go_another_way() -> None:
    assert to_json([COLUMNS[0].type] * 91, [(1,) * 91]) is None
    assert to_json([COLUMNS[0].type] * 90, [(1,) * 90]) is not None


@given(st.lists(st.tuples(st.text(), st.integers(-(1 << 63), (1 << 63) - 1), st.binary()), min_size=1))
def test_no_escape_is_ever_sent(rows: list[tuple[str, int, bytes]]) -> None:
    found = to_json([shape().table.c[name].type for name in ("Notes", "Version", "Stamp")], rows)
    if found is None:
        assert len(set("".join(text for text, _, _ in rows)) & {*map(chr, range(32)), '"', "\\"}) > 6 or any(
            "\0" in text for text, _, _ in rows
        )
        return
    assert "\\" not in found.text
    back = str.maketrans(dict(found.forms[0].replaced))
    assert [(t.translate(back), n, bytes.fromhex(h)) for t, n, h in json.loads(found.text)] == rows


@pytest.mark.parametrize(
    ("value", "long"),
    [
        ("x" * 4000, False),
        ("x" * 4001, True),
        ("ä" * 2001, True),
        (b"x" * 2000, False),
        (b"x" * 2001, True),
        (1, False),
    ],
)
def test_long_values_are_known_by_the_places_they_take(value: Any, long: bool) -> None:
    assert is_long((None, value)) is long


def test_an_entry_with_a_long_text_is_added_by_parameters() -> None:
    table = sa.Table(
        "Bin",
        sa.MetaData(),
        sa.Column("Id", FIELD_TYPES["name"], primary_key=True),
        sa.Column("Record", FIELD_TYPES["text"]),
        sa.Column("At", SqlServerDialect.utc_time),
    )
    assert text(add_row_statement(table)) == (
        "INSERT INTO [Bin] ([Id], [Record], [At]) SELECT ? AS anon_1, ? AS anon_2, CAST(? AS DATETIME2) AS anon_3"
        " WHERE NOT (EXISTS (SELECT * FROM [Bin] WHERE [Bin].[Id] = ?))"
    )


def test_integer_keys_are_looked_up_by_one_parameter_of_their_type() -> None:
    things = shape()
    query = sa.select(*things.key).where(things.is_one_of([(1,), (-2,)]))
    compiled = query.compile(dialect=dialect())
    assert text(query) == "SELECT T.[Id] FROM T WHERE T.[Id] IN (SELECT v FROM OPENJSON(?) WITH (v int '$'))"
    assert compiled.params == {"sought": "[1, -2]"}
    assert "POSTCOMPILE" in text(sa.select(*things.key).where(things.is_one_of([(2**31,)])))


# --- fingerprints, hashes and reads -----------------------------------------------------------------------------------


class Hashing:
    """As much of the dialect as a shape asks for its stamps."""

    content_hash = staticmethod(content_hash)
    no_stamp = SqlServerDialect.no_stamp

    @staticmethod
    def keyed_hash(columns: Any, masking: Masking) -> Any:
        return keyed_hash(columns, masking.stamp_secret, masking.mark)


def stamps_of(things: TableShape) -> StampColumns:
    return things.stamps(Hashing())  # type: ignore[arg-type]


def mixed(*parts: str) -> str:
    """The two sums over these parts, each named in the subquery `stamps`."""

    def one(mix: Mix) -> str:
        chained = f"stamps.part0 % {cast(mix.first)}"
        for n in range(1, len(parts)):
            left = f"({chained})" if n == 1 else chained
            chained = f"({left} * {cast(mix.multiplier)} + stamps.part{n} % {cast(mix.rest)}) % {cast(mix.wrap)}"
        return f"sum({cast(mix.dividend)} % ({chained} + {cast(mix.first + mix.wrap)}))"

    return ", ".join(f"{one(mix)} AS sum_{n}" for n, mix in enumerate(MIXES, start=2))


def cast(number: int) -> str:
    return f"CAST({number} AS BIGINT)"


def test_the_fingerprint_of_integers_is_arithmetic() -> None:
    columns = [column("Id", "int", nullable=False), COLUMNS[1], column("Version", "bigint", nullable=False)]
    things = shape(columns=columns)
    assert text(fingerprint_query(stamps_of(things), things.within(Chunk((1,), (5,))))) == (
        "SELECT NULL AS anon_1, count_big(*) AS count_big_1,"
        f" sum(stamps.version & {cast(4294967295)}) AS sum_1, {mixed('Id', 'Version')}"
        " FROM (SELECT CAST(T.[Id] AS bigint) AS part0, CAST(T.[Version] AS bigint) AS part1,"
        " CAST(T.[Version] AS bigint) AS version FROM T WHERE T.[Id] > ? AND T.[Id] <= ?) AS stamps"
    )


def test_the_fingerprint_of_a_small_table_reads_one_row_more_than_such_a_table_has() -> None:
    columns = [column("Id", "int", nullable=False), COLUMNS[1], column("Version", "bigint", nullable=False)]
    query = fingerprint_query(stamps_of(shape(columns=columns)), (), None, 10)
    assert " FROM (SELECT TOP __[POSTCOMPILE_param_1] CAST(" in text(query)
    assert query.compile(dialect=dialect()).params["param_1"] == 11


REGION = (
    "CAST(substring(hashbytes('SHA2_256', CAST(T.[Region] AS nvarchar(max)) COLLATE Latin1_General_BIN2), 1, 8)"
    " AS BIGINT)"
)


@pytest.mark.parametrize(
    ("key", "number"),
    [
        (("Id",), f"(CAST(T.[Id] AS bigint) / {cast(64)}) % {cast(1021)}"),
        (("Region",), f"({REGION} / {cast(64)}) % {cast(1021)}"),
        (
            ("Region", "Id"),
            f"(((CAST(T.[Id] AS bigint) / {cast(64)}) % {cast(1021)}) * {cast(31)} + {REGION} % {cast(1021)})"
            f" % {cast(1021)}",
        ),
    ],
)
def test_buckets_are_numbers_made_of_the_key(key: tuple[str, ...], number: str) -> None:
    columns = [column("Id", "int", nullable=False), COLUMNS[1], column("Version", "bigint", nullable=False)]
    things = shape(key, columns)
    found = bucket_expression(things.key)
    statement = text(fingerprint_query(stamps_of(things), things.within(Chunk(None, (5,) * len(key))), found))
    assert statement.startswith("SELECT stamps.bucket, count_big(*) AS count_big_1, sum(stamps.version & ")
    assert f", {number} AS bucket FROM T WHERE " in statement
    assert statement.endswith(") AS stamps GROUP BY stamps.bucket")
    rows = things.stamp_query(Hashing()).where(found.type.has_one_of(found, [1, -2]))  # type: ignore[attr-defined, arg-type] # a ServerType
    assert text(rows).endswith(f" WHERE {number} IN (__[POSTCOMPILE_one_of_1])")


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        (column("K", "timestamp", 8, nullable=False), ["CAST(T.[K] AS bigint)"]),
        (column("K", "bit", nullable=False), ["CAST(T.[K] AS bigint)"]),
        (
            column("K", "uniqueidentifier", nullable=False),
            [f"CAST(substring(CAST(T.[K] AS binary(16)), {start}, 8) AS BIGINT)" for start in (1, 9)],
        ),
        (
            column("K", "varchar", 10, collation="Latin1_General_CI_AS", nullable=False),
            [
                "CAST(substring(hashbytes('SHA2_256', CAST(T.[K] AS nvarchar(max)) COLLATE Latin1_General_BIN2), 1, 8)"
                " AS BIGINT)"
            ],
        ),
        (
            column("K", "datetime2", 8, 27, 7, nullable=False),
            ["CAST(substring(hashbytes('SHA2_256', convert(varchar(40), T.[K], 121)), 1, 8) AS BIGINT)"],
        ),
    ],
)
def test_each_kind_of_key_has_its_integers(key: Column, parts: list[str]) -> None:
    things = shape(("K",), [key, COLUMNS[1], column("Version", "int", nullable=False)])
    inner = text(fingerprint_query(stamps_of(things), [])).partition(" FROM (SELECT ")[2]
    named = ", ".join(f"{part} AS part{n}" for n, part in enumerate(parts))
    assert inner.startswith(f"{named}, CAST(T.[Version] AS bigint) AS part{len(parts)}, ")


def test_a_row_without_a_version_has_the_hash_of_its_content() -> None:
    query = text(shape().stamp_query(Hashing()))  # type: ignore[arg-type]
    assert query.startswith("SELECT T.[Id], T.[Version], CASE WHEN (T.[Version] IS NULL) THEN hashbytes('SHA2_256', ")
    assert query.endswith(" END AS anon_1 FROM T")


def test_a_row_that_must_have_a_version_is_not_hashed() -> None:
    things = shape(columns=[*COLUMNS[:2], column("Version", "bigint", nullable=False)])
    assert text(things.stamp_query(Hashing())) == "SELECT T.[Id], T.[Version], NULL AS anon_1 FROM T"  # type: ignore[arg-type]


def test_contents_are_short_texts_before_an_end_and_others_behind_their_lengths() -> None:
    only = shape(columns=[COLUMNS[1], COLUMNS[0], COLUMNS[13]])
    region, version = only.table.c.Region, only.table.c.Version
    short, text_of = (
        "isnull(CAST(T.[Version] AS varchar(60)) + ';', '~')",
        "CAST({} AS nvarchar(max)) COLLATE Latin1_General_BIN2",
    )
    long = text_of.format("T.[Region]")
    hashed = [text(sa.select(content_hash(columns))) for columns in ([version], [region, version])]
    assert hashed == [
        f"SELECT hashbytes('SHA2_256', {short}) AS hashbytes_1 FROM T",
        f"SELECT hashbytes('SHA2_256', {text_of.format(short)}"
        f" + isnull((CAST(datalength({long}) AS nvarchar(20)) + N':') + {long}, N'-')) AS hashbytes_1 FROM T",
    ]


@pytest.mark.parametrize(
    ("type_", "of_each"), [("int", r"T\.(c\d+) AS varchar"), ("ntext", r"datalength\(.*?T\.(\w+)")]
)
def test_many_columns_are_strung_together_in_parts_of_the_same_text(type_: str, of_each: str) -> None:
    names = [f"c{i}" for i in range(130)]
    wide = shape(columns=[*COLUMNS[:2], *(column(name, type_) for name in names), COLUMNS[13]])
    hashed = text(sa.select(content_hash([wide.table.c[name] for name in names])))
    assert re.findall(of_each, hashed) == names
    assert max(itertools.accumulate({"(": 1, ")": -1}.get(c, 0) for c in hashed)) < 60


HALF = "CAST(CAST(substring(hashbytes('SHA2_256', CAST(T.[A] AS varbinary(max))), {}, 8) AS BIGINT) AS nvarchar(20))"


@pytest.mark.parametrize(
    ("one", "read"),
    [
        (column("A", "float", 8, 53), "CAST(CAST(CAST(CAST(T.[A] AS float) AS binary(8)) AS BIGINT) AS varchar(60))"),
        (column("A", "money", 8), "CAST(CAST(T.[A] AS decimal(19, 4)) AS varchar(60))"),
        (column("A", "date", 3), "convert(varchar(60), T.[A], 121)"),
        (column("A", "xml", -1), "convert(nvarchar(max), T.[A], 1)"),
        (column("A", "decimal", 9, 18, 4), "CAST(T.[A] AS varchar(60))"),
        (column("A", "ntext", 16, collation="Latin1_General_CI_AS"), "T.[A]"),
        (
            column("A", "varbinary", -1),
            f"({HALF.format(1)} + N',') + {HALF.format(9)}",
        ),
    ],
)
def test_every_type_has_an_exact_text(one: Column, read: str) -> None:
    things = shape(columns=[*COLUMNS[:2], COLUMNS[13], one])
    exact = one.type.exact_text(things.table.c.A)  # type: ignore[attr-defined]
    assert f"CAST({read} AS nvarchar(max))" in text(sa.select(exact))


def test_the_driver_is_told_who_asks_for_a_readable_secondary() -> None:
    asked: list[Any] = []

    class Odbc:
        SQL_CHAR = SQL_WCHAR = SQL_WVARCHAR = SQL_WLONGVARCHAR = 1

        def drivers(self) -> list[str]:
            return ["ODBC Driver 18 for SQL Server"]

        def connect(self, text: str, **_: Any) -> Odbc:
            asked.append(text)
            return self

        def execute(self, statement: str) -> Odbc:
            asked.append(statement)
            return self

        def close(self) -> None: ...

        def setdecoding(self, *_: Any, **__: Any) -> None: ...

        def add_output_converter(self, _: int, converter: Any) -> None:
            asked.append(converter)

    where = parse_connection(r"Server=x\y;Database=z;UID=u;PWD=a=b,}c;ApplicationIntent=ReadOnly", "TEST")
    connect(Odbc(), where, 600)  # type: ignore[arg-type]
    assert {"ApplicationIntent=ReadOnly", "Encrypt=yes", "PWD={a=b,}}c}"} <= set(asked[0].split(";"))
    assert asked[1:] == ["SET NOCOUNT OFF; SET LOCK_TIMEOUT 60000"]
    connect(Odbc(), where, 600, halves=True)  # type: ignore[arg-type]
    assert asked[4:] == [text_from] * 3


@pytest.mark.parametrize(
    ("answer", "level"),
    [([(1, 0)], "SNAPSHOT"), ([(1, 1)], None), ([(0, 0)], None), ([(0, 1)], None), ([], None), (None, None)],
)
def test_reads_are_snapshots_where_the_database_allows_them_and_needs_it(
    answer: list[tuple[int, int]] | None, level: str | None
) -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.connect() as cx:  # stands in for a server: a catalogue with this answer, or none
        cx.connection.create_function("DB_ID", 0, lambda: 5)
        cx.exec_driver_sql("ATTACH ':memory:' AS sys")
        if answer is not None:
            columns = "database_id, snapshot_isolation_state, is_read_committed_snapshot_on"
            cx.exec_driver_sql(f"CREATE TABLE sys.databases ({columns})")
            for row in answer:
                cx.exec_driver_sql("INSERT INTO sys.databases VALUES (5, ?, ?)", row)
            cx.commit()
    dialect = SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False))
    dialect._engines.__dict__["engine"] = engine
    assert dialect._engines.reading.get_execution_options().get("isolation_level") == level
    assert "isolation_level" not in dialect.engine.get_execution_options()  # with which it writes


_CATALOGUE = """
CREATE TABLE sys.schemas (schema_id, name);
CREATE TABLE sys.objects (object_id, schema_id, name, type, is_ms_shipped);
CREATE TABLE sys.columns (object_id, column_id, name, user_type_id, is_nullable);
CREATE TABLE sys.kinds (object_id, kind);
CREATE TABLE sys.types (user_type_id, name);
CREATE TABLE sys.partitions (object_id, index_id, rows);
CREATE TABLE sys.indexes (object_id, index_id, name, is_primary_key, is_unique, has_filter, is_disabled,
    is_hypothetical);
CREATE TABLE sys.index_columns (object_id, index_id, column_id, key_ordinal);
CREATE TABLE sys.foreign_keys (object_id, name, parent_object_id, referenced_object_id, is_disabled,
    delete_referential_action_desc, update_referential_action_desc);
CREATE TABLE sys.foreign_key_columns (constraint_object_id, constraint_column_id, parent_object_id, parent_column_id,
    referenced_object_id, referenced_column_id);
INSERT INTO sys.schemas VALUES (1, 'dbo'), (2, 'my.shop'), (4, 'sys');
INSERT INTO sys.objects VALUES (10, 1, 'Line', 'U', 0), (11, 2, 'Order', 'U', 0), (12, 1, 'Open', 'V', 0),
    (13, 1, 'shipped', 'U', 1), (14, 4, 'inner', 'U', 0), (15, 1, 'pk', 'PK', 0);
INSERT INTO sys.types VALUES (56, 'int'), (189, 'timestamp');
INSERT INTO sys.columns VALUES (10, 2, 'B', 56, 0), (10, 1, 'A', 56, 0), (10, 3, 'V', 189, 0), (10, 4, 'N', 56, 1),
    (11, 1, 'Id', 56, 0), (12, 1, 'Id', 999, 0), (13, 1, 'Id', 56, 0), (14, 1, 'Id', 56, 0);
INSERT INTO sys.partitions VALUES (10, 1, 4), (10, 1, 3), (10, 2, 7), (11, 0, -1);
INSERT INTO sys.indexes VALUES (10, 1, 'PK', 1, 1, 0, 0, 0), (10, 2, 'one', 0, 1, 0, 0, 0),
    (10, 3, 'null', 0, 1, 0, 0, 0),
    (10, 4, 'filtered', 0, 1, 1, 0, 0), (10, 5, 'off', 0, 1, 0, 1, 0), (10, 6, 'many', 0, 0, 0, 0, 0),
    (10, 7, 'hypothetical', 0, 1, 0, 0, 1), (12, 1, 'of a view', 0, 1, 0, 0, 0);
INSERT INTO sys.index_columns VALUES (10, 1, 1, 2), (10, 1, 2, 1), (10, 2, 2, 1), (10, 2, 1, 0), (10, 3, 4, 1),
    (10, 4, 1, 1), (10, 5, 1, 1), (10, 6, 1, 1), (10, 7, 1, 1), (12, 1, 1, 1);
INSERT INTO sys.foreign_keys VALUES (20, 'FK', 10, 11, 0, 'SET_NULL', 'NO_ACTION'), (21, 'off', 10, 11, 1, '', '');
INSERT INTO sys.foreign_key_columns VALUES (20, 1, 10, 2, 11, 1), (21, 1, 10, 1, 11, 1);
"""


def catalogue() -> sa.Connection:
    """Stands in for a server: its catalogue, as far as the statements ask about it. It has the kinds of its tables in a
    table of their own."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    cx = engine.connect()
    cx.exec_driver_sql("ATTACH ':memory:' AS sys")
    for statement in filter(str.strip, _CATALOGUE.split(";")):
        cx.exec_driver_sql(statement)

    def with_kinds(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
        return statement.replace(KINDS, "sys.kinds"), parameters

    sa.event.listen(engine, "before_cursor_execute", with_kinds, retval=True)
    return cx


def test_all_tables_of_a_database_are_listed_in_three_statements_that_need_no_parameter() -> None:
    asked: list[str] = []
    with catalogue() as cx:
        sa.event.listen(cx.engine, "before_execute", lambda _, clause, *__: asked.append(text(clause)))
        line, view, order = list_tables(cx)
    assert line == Listed(
        "dbo.Line",
        columns=[ListedColumn(name, type_, nullable) for name, type_, nullable in LINE],
        primary_key=("B", "A"),
        unique_keys={"PK": ("B", "A"), "one": ("B",)},
        row_version="V",
        records=7,
        foreign_keys=(ForeignKey("FK", "dbo.Line", ["B"], "[my.shop].Order", ["Id"], "SET NULL"),),
    )
    assert view == Listed("dbo.Open", "view", columns=[ListedColumn("Id", "", False)])
    assert order == Listed("[my.shop].Order", columns=[ListedColumn("Id", "int", False)])
    assert asked == LISTING


@pytest.mark.parametrize(
    ("kind", "listed"),
    [("history table", "history table"), ("external table", "external table"), ("node table", "table")],
)
def test_tables_that_somebody_else_writes_are_of_a_kind_of_their_own(kind: str, listed: str) -> None:
    """A plan says of others why they are refused."""
    with catalogue() as cx:
        cx.exec_driver_sql(f"INSERT INTO sys.kinds VALUES (11, '{kind}')")
        assert [table.kind for table in list_tables(cx)] == ["table", "view", listed]


LINE = [("A", "int", False), ("B", "int", False), ("V", "timestamp", False), ("N", "int", True)]
LISTING = [
    "SELECT CAST(s.name AS nvarchar(128)), CAST(o.name AS nvarchar(128)), o.type, g.kind, r.row_count,"
    " CAST(c.name AS nvarchar(128)), CAST(t.name AS nvarchar(128)), c.is_nullable FROM sys.objects o"
    " JOIN sys.schemas s ON s.schema_id = o.schema_id JOIN sys.columns c ON c.object_id = o.object_id"
    " LEFT JOIN sys.types t ON t.user_type_id = c.user_type_id LEFT JOIN ( SELECT p.object_id, SUM(p.rows) AS row_count"
    " FROM sys.partitions p WHERE p.index_id IN (0, 1) GROUP BY p.object_id ) r ON r.object_id = o.object_id"
    f" LEFT JOIN {' '.join(KINDS.split())} g ON g.object_id = o.object_id"
    " WHERE o.type IN ('U', 'V') AND o.is_ms_shipped = 0 AND s.name NOT IN ('sys', 'INFORMATION_SCHEMA')"
    " ORDER BY s.name, o.name, c.column_id",
    "SELECT CAST(s.name AS nvarchar(128)), CAST(o.name AS nvarchar(128)), CAST(i.name AS nvarchar(128)),"
    " i.is_primary_key, CAST(c.name AS nvarchar(128)) FROM sys.indexes i"
    " JOIN sys.objects o ON o.object_id = i.object_id"
    " JOIN sys.schemas s ON s.schema_id = o.schema_id JOIN sys.index_columns k ON k.object_id = i.object_id"
    " AND k.index_id = i.index_id JOIN sys.columns c ON c.object_id = k.object_id AND c.column_id = k.column_id"
    " WHERE o.type = 'U' AND o.is_ms_shipped = 0 AND i.is_unique = 1 AND i.has_filter = 0 AND i.is_disabled = 0"
    " AND i.is_hypothetical = 0 AND k.key_ordinal > 0 ORDER BY s.name, o.name, i.name, k.key_ordinal",
    "SELECT CAST(f.name AS nvarchar(128)), CAST(s.name AS nvarchar(128)), CAST(o.name AS nvarchar(128)),"
    " CAST(q.name AS nvarchar(128)), CAST(t.name AS nvarchar(128)), f.delete_referential_action_desc,"
    " f.update_referential_action_desc, CAST(p.name AS nvarchar(128)), CAST(r.name AS nvarchar(128))"
    " FROM sys.foreign_keys f JOIN sys.objects o ON o.object_id = f.parent_object_id"
    " JOIN sys.schemas s ON s.schema_id = o.schema_id JOIN sys.objects t ON t.object_id = f.referenced_object_id"
    " JOIN sys.schemas q ON q.schema_id = t.schema_id"
    " JOIN sys.foreign_key_columns k ON k.constraint_object_id = f.object_id"
    " JOIN sys.columns p ON p.object_id = k.parent_object_id AND p.column_id = k.parent_column_id"
    " JOIN sys.columns r ON r.object_id = k.referenced_object_id AND r.column_id = k.referenced_column_id"
    " WHERE f.is_disabled = 0 ORDER BY s.name, o.name, f.name, k.constraint_column_id",
]


def test_a_server_that_does_not_answer_is_not_one_that_offers_no_snapshots() -> None:
    def refuse() -> Any:
        raise sqlite3.OperationalError("08001", "no answer")

    dialect = SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False))
    dialect._engines.__dict__["engine"] = sa.create_engine("sqlite://", creator=refuse)
    for _ in range(2):
        with pytest.raises(sa.exc.OperationalError):
            _ = dialect._engines.reading


@pytest.mark.parametrize(("side", "first"), [("source", "Check the names"), ("backup", "Run initialize")])
def test_a_table_that_is_not_found_may_be_one_that_the_login_does_not_see(side: Any, first: str) -> None:
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, creator=lambda: LeavableConnection(memory, OSError))
    with engine.connect() as cx:  # stands in for a server: a catalogue that shows nothing
        cx.exec_driver_sql("ATTACH ':memory:' AS sys")
        for table in ("objects (name, type, schema_id)", "schemas (name, schema_id)"):
            cx.exec_driver_sql(f"CREATE TABLE sys.{table}")
        cx.connection.create_function("SCHEMA_NAME", 0, lambda: "dbo")
        cx.commit()
    where = Side("customer", side, "X", "Server=db;Database=shop;User Id=app;Password=x", "crm.Customers")
    store: Any = open_store(where, Rules(("Version",)), Limits())
    store.access.dialect._engines.__dict__ |= {"engine": engine, "reading": engine}
    with pytest.raises((SourceMissing, NotInitialized), match="does not exist") as caught:
        store.count()
    assert caught.value.hint.startswith(first)
    assert "GRANT SELECT ON [crm].[Customers] TO [app]." in caught.value.hint


def test_rows_that_are_fetched_one_by_one_change_threads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    connection = LeavableConnection(memory, OSError)
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, creator=lambda: connection)
    calls: list[object] = []
    call = connection.call

    def noted(work: Any) -> Any:
        calls.append(work)
        return call(work)

    monkeypatch.setattr(connection, "call", noted)
    rows = sa.text("WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 900) SELECT n FROM t")
    with engine.connect() as cx:
        fetched = first_rows(cx, rows.columns(sa.column("n")).subquery().select(), 1 << 20, None)
        before = len(calls)
    assert (fetched.rows, fetched.complete) == ([(n,) for n in range(1, 901)], True)
    assert before < 10


def test_a_fence_keeps_the_runs_entry_as_it_is_until_its_transaction_ends() -> None:
    asked: list[str] = []

    class Transaction:
        def execute(self, query: Any, _: Mapping[str, Any]) -> Any:
            asked.append(str(query.compile(dialect=dialect())))
            return self

        def first(self) -> None:
            return None

    server = SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False))
    entries = SqlSibling(SqlAccess(server, Retry(), ConfigError, "backup"), HISTORY, lambda _: "dbo")
    assert not entries.holds("id", {"Owner": ["one"], "Attempt": ["a", None]}, Transaction())
    [text] = asked
    assert " ".join(text.split()).startswith(
        "SELECT dbo.[SyncHistory].[SyncId] FROM dbo.[SyncHistory] WITH (REPEATABLEREAD, ROWLOCK) WHERE"
    )


@pytest.mark.parametrize("server", [SqlServerDialect, PostgresqlDialect])
def test_a_servers_time_is_aware_utc_whatever_its_driver_gives(server: Any) -> None:
    clock = server.server_clock.fget(None)
    time = datetime(2026, 1, 2, 3, tzinfo=UTC)
    for value in (time.replace(tzinfo=None), time.astimezone(timezone(timedelta(hours=2)))):
        assert clock.type.process_result_value(value, dialect()) == time


def test_what_a_run_reads_of_history_is_one_query() -> None:
    """By SQL Server's rules: a subquery that is sorted has TOP; every part of UNION ALL has the same columns of the
    same table, so neither a type nor a collation has to be agreed on, and no NULL without a type; the whole is sorted
    by columns of the first part."""
    asked: list[str] = []

    class Connection:
        def execute(self, query: Any, values: Mapping[str, Any]) -> Any:
            sent = query.compile(dialect=dialect()).construct_expanded_state(values)
            asked.append(" ".join(sent.statement.split()))
            asked.append(repr(sent.positional_parameters))
            return SimpleNamespace(mappings=lambda: [])

    server = SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False))
    access = SqlAccess(server, Retry(), ConfigError, "backup")
    access.attempts = lambda *_, **__: [nullcontext(Connection())]  # type: ignore[assignment]
    fields: dict[str, FieldType] = {"Id": "name", "Place": "place", "Number": "integer", "At": "time", "Notes": "json"}
    entries = SqlSibling(access, Shape("Runs", "runs", "Id", "Place", fields), lambda _: "dbo")
    seen = entries.look(
        [
            Look({"Place": "p", "Id": ["a", "b"]}, "Number", 30, descending=True),
            Look({"Place": None}, "At", 1),
        ]
    )
    assert seen.entries == [[], []]

    def part(number: int, top: int, condition: str, order: str) -> str:
        columns = ", ".join(f"look{number}.[{name}]" for name in fields)
        inner = ", ".join(f"dbo.[Runs].[{name}] AS [{name}]" for name in fields)
        return (
            f"SELECT {columns}, look{number}.place_in_look, {number} AS look_number, sysutcdatetime() AS server_time"
            f" FROM (SELECT TOP {top} {inner}, row_number() OVER (ORDER BY {order}) AS place_in_look"
            f" FROM dbo.[Runs] WHERE {condition} ORDER BY {order}) AS look{number}"
        )

    first = part(0, 30, "dbo.[Runs].[Place] = ? AND dbo.[Runs].[Id] IN (?, ?)", "dbo.[Runs].[Number] DESC")
    second = part(1, 1, "dbo.[Runs].[Place] IS NULL", "dbo.[Runs].[At]")
    assert asked == [f"{first} UNION ALL {second} ORDER BY look_number, place_in_look", "('p', 'a', 'b')"]


# --- rows that nobody else may change ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("gaps", "hint"), [(True, "UPDLOCK, HOLDLOCK"), (False, "UPDLOCK")])
def test_rows_that_are_asked_about_are_locked_until_the_transaction_ends(gaps: bool, hint: str) -> None:
    found = parse_connection("Server=db;Database=shop;User Id=app;Password=x", "Source")
    assert isinstance(found, SqlServer)
    things = shape(columns=[COLUMNS[0], COLUMNS[-1]])
    query = SqlServerDialect(found).locked(things.select, gaps=gaps).where(things.is_one_of([(1,)]))
    assert f"FROM [my shop].[Things] WITH ({hint}) \nWHERE" in str(query.compile(dialect=dialect()))


def test_rights_are_spelled_for_any_name_and_a_named_identity() -> None:
    client_id = UUID("00112233-4455-6677-8899-aabbccddeeff")
    needed = Needed("source", ("sh]op's",), unmasks=True)
    texts = [statement.sql for statement in rights.grant_statements(Grantee("a]pp'", client_id=client_id), needed)]
    sid = "0x33221100554477668899AABBCCDDEEFF"
    assert texts == [
        "IF EXISTS (SELECT 1 FROM sys.database_principals WHERE name = N'a]pp''' AND sid <> "
        f"{sid}) RAISERROR(N'[a]]pp''] is the user of another identity. DROP USER it first.', 16, 1)",
        f"IF DATABASE_PRINCIPAL_ID(N'a]pp''') IS NULL CREATE USER [a]]pp'] WITH SID = {sid}, TYPE = E",
        "GRANT SELECT ON SCHEMA::[sh]]op's] TO [a]]pp']",
        "GRANT VIEW DEFINITION TO [a]]pp']",
        "GRANT UNMASK TO [a]]pp']",
    ]
    of_object = rights.grant_statements(Grantee("app", object_id=client_id), Needed("backup", ("a'b",)))
    external = f"CREATE USER [app] FROM EXTERNAL PROVIDER WITH OBJECT_ID = '{client_id}'"
    assert [statement.sql for statement in of_object][:2] == [
        "IF SCHEMA_ID(N'a''b') IS NULL EXEC(N'CREATE SCHEMA [a''b]')",
        f"IF DATABASE_PRINCIPAL_ID(N'app') IS NULL {external}",
    ]
    with_password = rights.grant_statements(Grantee("app", has_password=True), Needed("source", ("dbo",)))
    assert with_password[0].sql == "IF DATABASE_PRINCIPAL_ID(N'app') IS NULL CREATE USER [app] FOR LOGIN [app]"


class _Rows(list[Any]):
    def one(self) -> Any:
        return self[0]


class _Catalogue:
    """Answers the queries of rights like a server on which the user is what the test says."""

    def __init__(
        self,
        database: dict[str, int],
        tables: list[dict[str, Any]],
        masked: int = 0,
        schema: dict[str, Any] | None = None,
    ) -> None:
        self.database, self.tables, self.masked = database, tables, masked
        self.schema = schema or {"id": 5, "ALTER": 1}
        self.sent: list[str] = []

    def execute(self, query: sa.TextClause, values: Mapping[str, Any] | None = None) -> Any:
        compiled = str(query.compile(dialect=mssql_dialect()))  # type: ignore[no-untyped-call]
        self.sent.append(compiled)
        rows = [self.database] if "IS_ROLEMEMBER" in compiled else self.tables
        rows = [self.schema] if "SCHEMA_ID" in compiled else rows
        return SimpleNamespace(mappings=lambda: _Rows(rows))

    def scalar(self, query: sa.TextClause, values: Mapping[str, Any] | None = None) -> int:
        return self.masked

    def exec_driver_sql(self, text: str, execution_options: Any = None) -> None:
        self.sent.append(text)


RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "ALTER")


@pytest.mark.parametrize(
    ("role", "granted", "expected"),
    [
        ("source", ("SELECT",), []),
        ("source", (), ["missing SELECT"]),
        ("source", ("SELECT", "INSERT", "ALTER"), ["excess INSERT", "excess ALTER"]),
        ("backup", RIGHTS, []),
        ("backup", ("SELECT", "INSERT"), ["missing UPDATE", "missing DELETE", "later ALTER"]),
    ],
)
def test_rights_on_tables_that_are_missing_or_too_many(role: Any, granted: Sequence[str], expected: list[str]) -> None:
    table = {"schema_name": "dbo", "table_name": "T", **{right: right in granted for right in RIGHTS}}
    cx: Any = _Catalogue({"definition": 1, "unmask": 1, "owner": 0}, [table, {**table, "table_name": "Other"}])
    seen = rights.look_at_rights(cx, Needed(role, ("dbo",), (("dbo", "T"),)), "o'app")
    assert [f"{right.kind} {right.right}" for right in seen] == expected
    assert {right.of for right in seen} <= {"dbo.T"}
    assert (cx.sent[0], cx.sent[-1]) == ("EXECUTE AS USER = N'o''app'", "REVERT")


def test_what_a_login_needs_to_make_the_tables_of_a_backup_is_missing_only_while_they_are() -> None:
    table = {"schema_name": "DBO", "table_name": "t", **dict.fromkeys(RIGHTS, 1)}
    needed = Needed("backup", ("dbo",), (("dbo", "T"), ("dbo", "SyncHistory")))
    history = {**table, "table_name": "SyncHistory"}
    rights_of = {"definition": 1, "unmask": 1, "owner": 0, "make_table": 0, "make_schema": 0}
    for tables, database, schema, expected in (
        ([table, history], {}, {}, []),  # it may be revoked once they are made, but for the new tables of a set
        ([table], {}, {}, ["CREATE TABLE on the database"]),
        ([], {}, {"ALTER": 0}, ["ALTER on schema dbo", "CREATE TABLE on the database"]),
        ([], {}, {"id": None, "ALTER": None}, ["CREATE SCHEMA on the database", "CREATE TABLE on the database"]),
        ([], {"make_table": 1, "make_schema": 1}, {"id": None, "ALTER": None}, []),
    ):
        cx: Any = _Catalogue({**rights_of, **database}, tables, schema={"id": 5, "ALTER": 1, **schema})
        seen = rights.look_at_rights(cx, needed, None)
        assert [f"{right.right} on {right.of}" for right in seen if right.kind == "missing"] == expected, expected
    of_set: Any = _Catalogue(rights_of, [table, history])
    [later] = rights.look_at_rights(of_set, replace(needed, grows=True), None)
    assert later == ("later", "CREATE TABLE", "the database")
    assert "QUOTENAME(DB_NAME())" in of_set.sent[0], "of `shop.2026` the server would know nothing"


def test_masked_columns_an_owner_and_hidden_definitions_are_seen() -> None:
    cx: Any = _Catalogue({"definition": 0, "unmask": 0, "owner": 1}, [], masked=2)
    seen = rights.look_at_rights(cx, Needed("source", ("dbo",)), None)
    expected = ["missing VIEW DEFINITION", "excess db_owner", "missing UNMASK"]
    assert [f"{right.kind} {right.right}" for right in seen] == expected


def test_a_schema_with_a_dot_is_one_name_and_not_that_of_a_database_too() -> None:
    name = TableName("my.sh[op", "Things")
    table = TableShape(COLUMNS, ("Id",), Rules(), name, "table").table
    of_app = app_table("SyncHistory", HISTORY.key, (("SyncId", "name"),), (), name.schema, UtcTime())
    statements = [
        sa.select(table.c.Id),
        sa.select(of_app),
        anchor(name),
        creation(name, SecondaryIndex("IX", ("Id",))),
        sa.schema.CreateTable(of_app),
        sa.schema.CreateSchema(of_app.schema or ""),
    ]
    assert ["[my.sh[op]" in text(statement) for statement in statements] == [True] * 6
    assert not [text(statement) for statement in statements if "[my]" in text(statement)]


@pytest.mark.parametrize(
    ("version", "is_indexed", "named", "is_used"),
    [
        ("Stamp", True, "", True),
        ("Stamp", False, "", False),
        ("Version", True, "", False),
        ("Stamp", False, "At", True),  # and says of what use it is
    ],
)
def test_a_rowversion_is_asked_without_being_told_if_it_is_the_version_and_indexed(
    version: str, is_indexed: bool, named: str, is_used: bool
) -> None:
    columns = [COLUMNS[0], *(replace(column, leads_index=is_indexed) for column in (COLUMNS[9], COLUMNS[-1]))]
    things = TableShape(columns, ("Id",), Rules(version=(version,)), TableName("dbo", "Things"), "table")
    catalog: Any = SimpleNamespace(shape=things)
    access = SqlAccess(
        SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False)), Retry(), ConfigError, ""
    )
    found = SqlIncremental(access, catalog, Limits(), named)
    assert found.is_usable is is_used
    assert (found.obstacle is None) is (named == "")


def test_what_was_written_lately_is_found_by_a_seek_and_below_what_is_still_open() -> None:
    asked: list[str] = []

    class Answer(list[Any]):
        def one(self) -> Any:
            return ("9999-12-31 00:00:00.0000000", datetime(2026, 3, 1, 12, tzinfo=UTC))

        def scalar_one(self) -> Any:
            return b"\x00" * 7 + b"\x11"

    class Connection:
        def execute(self, query: Any) -> Any:
            asked.append(text(query))
            return Answer()

        def scalar(self, query: Any) -> Any:
            asked.append(text(query))
            return "2026-03-01 11:59:59.0000001"

    access = SqlAccess(
        SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False)), Retry(), ConfigError, ""
    )
    access.once = lambda *_, **__: nullcontext(Connection())  # type: ignore[assignment]
    things = shape(columns=[*COLUMNS[:2], COLUMNS[5], COLUMNS[9], column("Version", "bigint", nullable=False)])

    def last_page(name: str) -> tuple[str | None, str]:
        catalog: Any = SimpleNamespace(shape=things)
        found = SqlIncremental(access, catalog, Limits(), name)
        found.__dict__["_reason"] = None
        mark = found.watermark()
        assert [*found.recent(mark or "", 300)] == [set()]
        return mark, asked.pop()

    region = " AND T.[Region] = CAST(? COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(8000))"
    first = "SELECT TOP __[POSTCOMPILE_param_1] T.[Id], T.[Version], NULL AS anon_1,"
    assert last_page("at") == (
        "At 2026-03-01 11:59:59.0000001",
        f"{first} convert(varchar(40), T.[At], 121) AS [At] FROM T"
        f" WHERE T.[At] >= convert(datetime2(7), ?, 121){region} ORDER BY T.[At] DESC",
    )
    newest = "SELECT convert(varchar(40), max(T.[At]), 121) AS max_1"
    assert asked == [
        f"{newest}, sysutcdatetime() AS sysutcdatetime_1 FROM T",
        f"{newest} FROM T WHERE T.[At] <= convert(datetime2(7), ?, 121)",
    ]
    asked.clear()
    assert last_page("stamp") == (
        "Stamp 0000000000000011",
        f"{first} T.[Stamp] FROM T WHERE T.[Stamp] >= ?{region} ORDER BY T.[Stamp] DESC",
    )
    assert asked == ["SELECT MIN_ACTIVE_ROWVERSION() AS [MIN_ACTIVE_ROWVERSION_1]"]
