"""With which types and sizes parameters go to SQL Server, and which rows go as an array. Needs no server."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool.base import _AdhocProxiedConnection

from backup.stores.sql.app_table_queries import FIELD_TYPES
from backup.stores.sql.engines.mssql.connection import text_from
from backup.stores.sql.engines.mssql.json import to_json
from backup.stores.sql.engines.mssql.parameters import forget_writes, send_many, send_one
from tests.contract.tsql import dialect, shape, text


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


def test_rows_that_would_take_much_memory_are_not_sent_as_an_array() -> None:
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


def test_integer_keys_are_looked_up_by_one_parameter_of_their_type() -> None:
    things = shape()
    query = sa.select(*things.key).where(things.is_one_of([(1,), (-2,)]))
    compiled = query.compile(dialect=dialect())
    assert text(query) == "SELECT T.[Id] FROM T WHERE T.[Id] IN (SELECT v FROM OPENJSON(?) WITH (v int '$'))"
    assert [*compiled.params.values()] == ["[1, -2]"]
    assert "POSTCOMPILE" in text(sa.select(*things.key).where(things.is_one_of([(2**31,)])))


def test_integer_keys_to_leave_out_are_one_parameter_beside_those_to_look_up() -> None:
    things = shape()
    query = sa.select(*things.key).where(things.is_one_of([(1,), (2,)]), *things.is_none_of([(2,), (3,)]))
    assert text(query).endswith("AND (T.[Id] NOT IN (SELECT v FROM OPENJSON(?) WITH (v int '$') WHERE v IS NOT NULL))")
    assert [*query.compile(dialect=dialect()).params.values()] == ["[1, 2]", "[2, 3]"]
    assert things.lists([(2,), (3,)])
    assert not things.lists([(2**31,)])
    assert not shape(("Id", "Version")).lists([(1, 2)])  # the server compares no two columns at once with a list
