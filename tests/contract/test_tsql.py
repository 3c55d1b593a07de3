"""The T-SQL for the rows of a table, word for word. Needs no server."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.errors import ConfigError
from backup.core.model import Chunk
from backup.runs.history_entries import HISTORY
from backup.stores import Limits, Rules
from backup.stores.connection import SqlServer, parse_connection
from backup.stores.sibling import Shape
from backup.stores.sql.app_table_queries import app_table
from backup.stores.sql.batch import key_batches
from backup.stores.sql.copies import SqlCopies
from backup.stores.sql.declared import declare
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.mssql.altering import MSSQL, alter_column
from backup.stores.sql.engines.mssql.counters import advance, own_identities
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.mssql.snapshot import anchor
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.engines.utc_time import UtcTime
from backup.stores.sql.filters import filter_values
from backup.stores.sql.indexes import creation
from backup.stores.sql.shaping import described_shape
from backup.stores.sql.table import TableShape
from backup.stores.values import SecondaryIndex
from tests.contract.tsql import COLUMNS, Session, column, dialect, shape, text, unasked_server


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
    things = TableShape(columns, ("Id",), replace(rules, where=values), TableName("my shop", "Things"), "table")
    assert [text(condition).removeprefix("T.") for condition in things.filters] == [
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
    given = unasked_server()
    parts = list(key_batches([(f"k{n}",) for n in range(3_000)], made, given, Limits(batch_size=5_000)))
    assert [len(part) for part in parts] == [1_400, 1_400, 200]
    described = Described(TableName("my shop", "Things"), [replace(COLUMNS[1], key_position=1), *COLUMNS[2:]])
    with pytest.raises(ConfigError, match="has 1,200 values"):
        described_shape(given, replace(rules, where={"Name": names * 2}), described, "table")


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
    delete = sa.delete(named.table).where(named.is_one_of([("a",)]))
    assert text(delete).endswith("IN (__[POSTCOMPILE_one_of_1])")
    pairs = shape(("Id", "Version"))
    assert text(sa.delete(pairs.table).where(pairs.is_one_of([(1, 2), (3, 4)]))) == (
        "DELETE FROM T WHERE T.[Id] = ? AND T.[Version] = ? OR T.[Id] = ? AND T.[Version] = ?"
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (column("A", "decimal", 9, 18, 4), column("A", "decimal", 9, 18, 2)),
        (column("A", "datetime2", 8, 27, 7), column("A", "datetime2", 8, 27, 3)),
        (column("A", "varchar", 9, collation="Latin1_CI_AS"), column("A", "varchar", 9, collation="Latin1_CS_AS")),
        (column("A", "time", 5, 16, 7), column("A", "datetime", 8)),
    ],
)  # fmt: skip
def test_types_declared_differently_share_no_cached_statement(first: Column, second: Column) -> None:
    assert first.type._static_cache_key != second.type._static_cache_key


@pytest.mark.parametrize(("gaps", "hint"), [(True, "UPDLOCK, HOLDLOCK"), (False, "UPDLOCK")])
def test_rows_that_are_asked_about_are_locked_until_the_transaction_ends(gaps: bool, hint: str) -> None:
    parsed = parse_connection("Server=db;Database=shop;User Id=app;Password=x", "Source")
    assert isinstance(parsed, SqlServer)
    things = shape(columns=[COLUMNS[0], COLUMNS[-1]])
    query = SqlServerDialect(parsed).locked(things.select, gaps=gaps).where(things.is_one_of([(1,)]))
    assert f"FROM [my shop].[Things] WITH ({hint}) \nWHERE" in str(query.compile(dialect=dialect()))


def test_a_schema_with_a_dot_is_one_name_and_not_that_of_a_database_too() -> None:
    name = TableName("my.sh[op", "Things")
    table = TableShape(COLUMNS, ("Id",), Rules(), name, "table").table
    of_app = app_table(Shape("SyncHistory", "", HISTORY.key, "", {"SyncId": "name"}), name.schema, UtcTime())
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
    ("current", "step", "farthest", "is_behind"),
    [(5, 1, 9, True), (9, 1, 5, False), (-5, -1, -9, True), (-9, -1, -5, False), (5, 1, None, False)],
)
def test_a_counter_is_set_where_it_is_behind_in_its_own_direction(
    current: int, step: int, farthest: int | None, is_behind: bool
) -> None:
    session = Session((current, step), (farthest,))
    told = advance(session, shape().table, "Id", MSSQL)  # type: ignore[arg-type]
    assert session.asked[1].startswith(f"SELECT {'max' if step > 0 else 'min'}(")
    assert (bool(told), len(session.asked) == 3) == (is_behind, is_behind)
    assert not is_behind or session.asked[2].endswith(f", RESEED, {farthest})")


def test_a_column_of_the_key_stays_one_that_is_never_null() -> None:
    altered = alter_column(shape().table, COLUMNS[0], column("Id", "bigint"), "")
    assert altered == [
        "drop the primary key of [my shop].[Things]",
        "ALTER TABLE [my shop].[Things] ALTER COLUMN [Id] bigint NOT NULL",
        "ALTER TABLE [my shop].[Things] ADD PRIMARY KEY ([Id])",
    ]


def test_a_date_is_the_same_as_the_text_that_a_transform_makes_of_it() -> None:
    things = shape(columns=[column("Id", "int"), column("Day", "date", 3), column("Region", "nvarchar", 20)])
    copies = SqlCopies(SimpleNamespace(shape=things, declared=frozenset()))  # type: ignore[arg-type]
    of_function, of_driver, other = (
        copies.content({"Id": 1, "Day": day}) for day in ("2024-02-29", date(2024, 2, 29), "2024-03-01")
    )
    assert of_function == of_driver != other
