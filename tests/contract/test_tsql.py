"""The T-SQL that is sent, word for word; needs no server."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.mssql.pyodbc import dialect as mssql_dialect

from backup.models import Chunk
from backup.stores import Rules
from backup.stores.dialects.base import Column
from backup.stores.dialects.mssql_parameters import send_many, send_one
from backup.stores.dialects.mssql_types import type_of
from backup.stores.sql_sibling import FIELD_TYPES
from backup.stores.sql_table import TableShape, declare


def column(name: str, type_name: str, length: int = 0, precision: int = 0, scale: int = 0, **more: Any) -> Column:
    collation = more.pop("collation", None)
    row = {
        "type_name": type_name,
        "base_name": more.pop("base_name", type_name),
        "max_length": length,
        "precision": precision,
        "scale": scale,
        "collation_name": collation,
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
    return TableShape(columns or COLUMNS, key, rules, "Things", "my shop", "table")


def dialect() -> Any:
    """As it is once connected to SQL Server 2016 or later."""
    found = mssql_dialect(paramstyle="qmark")  # type: ignore[no-untyped-call]
    found._supports_offset_fetch = True
    return found


def text(statement: Any) -> str:
    compiled = statement.compile(dialect=dialect())
    return " ".join(str(compiled).split()).replace("[my shop].[Things]", "T")


def test_the_backup_table_has_the_types_collations_and_key_of_the_source() -> None:
    table = declare("Things", "my shop", COLUMNS, ("Region", "Id"), sa.Column("SyncedAt", FIELD_TYPES["time"]))
    assert text(sa.schema.CreateTable(table)) == (
        "CREATE TABLE T ( [Id] int NOT NULL, [Region] varchar(10) COLLATE SQL_Latin1_General_CP1_CI_AS NOT NULL,"
        " [Name] nvarchar(200) COLLATE Latin1_General_CI_AS NULL,"
        " [Notes] nvarchar(max) COLLATE Latin1_General_CI_AS NULL,"
        " [Amount] decimal(18, 4) NULL, [At] datetime2(7) NULL, [Clock] time(7) NULL, [Off] datetimeoffset(7) NULL,"
        " [Doc] xml NULL, [Stamp] binary(8) NULL, [Phone] varchar(20) COLLATE Latin1_General_CI_AS NULL,"
        " [Node] hierarchyid NULL, [100% [odd]]] float(53) NULL, [Version] bigint NULL, [SyncedAt] DATETIME2 NULL,"
        " PRIMARY KEY ([Region], [Id]) )"
    )


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


def test_an_update_finds_its_row_by_the_key_it_had() -> None:
    assert text(shape(("Id", "At")).update(("Id", "At", "Version"))) == (
        "UPDATE T SET [Id]=?, [At]=convert(datetime2(7), ?, 121), [Version]=?"
        " WHERE T.[Id] = ? AND T.[At] = convert(datetime2(7), ?, 121)"
    )


def test_an_update_leaves_identity_columns_as_they_are() -> None:
    things = shape(columns=[column("Id", "int", nullable=False, identity=True), COLUMNS[1], COLUMNS[-1]])
    assert text(things.update(("Id", "Version"))) == "UPDATE T SET [Version]=? WHERE T.[Id] = ?"


def test_keys_are_looked_up_in_one_list_or_as_pairs() -> None:
    one = sa.delete(shape().table).where(shape().is_one_of([(1,)]))
    assert text(one).endswith("IN (__[POSTCOMPILE_Id_1])")
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
    BinaryNull = "NULL"


class Context:
    """As much of an execution as the functions look at."""

    def __init__(self, statement: Any) -> None:
        self.dialect = dialect()
        self.dialect.dbapi = Driver
        self.compiled = statement.compile(dialect=self.dialect)
        self.execution_options = statement.get_execution_options()


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


def test_a_list_of_keys_is_sent_with_one_type() -> None:
    cursor, things = Cursor(), shape(("Name",))
    query = sa.select(*things.key).where(things.is_one_of([("a",), ("ü" * 20,)]), *things.filters)
    assert send_one(cursor, "", ["a", "ü" * 20, "EU"], Context(query))
    assert [size[0] for size in cursor.sizes] == ["text"] * 3
    assert cursor.sizes[1][1] >= 20


@pytest.mark.parametrize(("longest", "later", "array"), [(10, False, True), (4001, False, False), (10, True, False)])
def test_only_the_first_write_of_a_transaction_and_only_a_small_one_is_an_array(
    longest: int, later: bool, array: bool
) -> None:
    cursor, things = Cursor(), shape()
    rows = [("x" * longest, 1, 1), (None, 2, 2)]
    statement = things.update(("Notes", "Version")).execution_options(later_write=later)
    assert send_many(cursor, "", rows, Context(statement))
    assert cursor.fast_executemany is array
    assert cursor.values[1][0] == (None if array else "NULL")


def test_an_array_that_would_take_much_memory_is_none() -> None:
    cursor, things = Cursor(), shape()
    assert send_many(cursor, "", [(1, "x" * 4000)] * 5000, Context(things.insert(("Id", "Notes"))))
    assert not cursor.fast_executemany
