"""What the catalogue of SQL Server is asked about tables, and what its answers mean. Needs no server."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.errors import NotInitialized, SourceMissing
from backup.stores import Limits, Rules
from backup.stores.listing import ForeignKey, Listed, ListedColumn
from backup.stores.sides import Side, open_store
from backup.stores.sql.engines.mssql import system_tables
from backup.stores.sql.engines.mssql.kinds import KINDS
from backup.stores.sql.engines.mssql.leavable import LeavableConnection
from backup.stores.sql.engines.mssql.listing import list_tables
from tests.contract.tsql import text

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


@pytest.mark.parametrize(("side", "first"), [("source", "Check the names"), ("backup", "Run initialize")])
def test_a_table_that_is_not_found_may_be_one_that_the_login_does_not_see(
    monkeypatch: pytest.MonkeyPatch, side: Any, first: str
) -> None:
    monkeypatch.setattr(system_tables, "describe_named", lambda *_: None)
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    memory.execute("ATTACH ':memory:' AS sys")  # stands in for a server: a catalogue that shows nothing
    for table in ("objects (name, type, schema_id)", "schemas (name, schema_id)"):
        memory.execute(f"CREATE TABLE sys.{table}")
    memory.create_function("SCHEMA_NAME", 0, lambda: "dbo")
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, creator=lambda: LeavableConnection(memory, OSError))
    where = Side("customer", side, "X", "Server=db;Database=shop;User Id=app;Password=x", "crm.Customers")
    store: Any = open_store(where, Rules(("Version",)), Limits())
    store.access.dialect._engines.__dict__ |= {"engine": engine, "reading": engine}
    with pytest.raises((SourceMissing, NotInitialized), match="does not exist") as caught:
        store.count()
    assert caught.value.hint.startswith(first)
    assert "GRANT SELECT ON [crm].[Customers] TO [app]." in caught.value.hint


@pytest.mark.parametrize(
    ("schema", "name"), [(None, "[my.t]"), ("crm", "[crm].[my.t]"), ("a]b", "[a]]b].[my.t]"), ("o'x", "[o'x].[my.t]")]
)
def test_a_name_means_what_it_means_in_a_statement_and_its_parts_are_quoted(schema: str | None, name: str) -> None:
    asked: list[Any] = []

    class Catalogue:
        def execute(self, query: Any, values: Any) -> Any:
            asked.append((" ".join(str(query).split()), values))
            return self

        mappings = all = lambda self: self

        def __iter__(self) -> Any:
            return iter([{"schema_name": schema or "app", "table_name": "My.T", "name": "c"}])

    table = system_tables.describe_named(Catalogue(), schema, "my.t")  # type: ignore[arg-type]
    [(statement, values)] = asked
    assert statement.count("object_id = OBJECT_ID(:name)") == 2
    assert "x.key_ordinal = 1 AND i.type IN (1, 2) AND i.has_filter = 0 AND i.is_disabled = 0 AND i.is_hyp" in statement
    assert values == {"name": name}
    assert table is not None
    assert (table[0].schema, table[0].name, len(table[1])) == (schema or "app", "My.T", 1)


def test_a_table_that_no_name_stands_for_is_none() -> None:
    class Catalogue:
        execute = mappings = lambda self, *_: self

        def all(self) -> Any:
            return []

    assert system_tables.describe_named(Catalogue(), "crm", "t") is None  # type: ignore[arg-type]
