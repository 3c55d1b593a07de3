"""A set with indexes = true: the backup's tables get the secondary indexes of the source's, as plain ones."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.mssql.pyodbc import dialect as mssql_dialect

from backup.core.run_values import Run
from backup.services.service_plans import plan_of
from backup.stores.connection import SqlServer
from backup.stores.sql.engines.mssql import dialect as mssql
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.indexes import creation, index_plan
from backup.stores.values import SecondaryIndex
from tests.scenarios import places
from tests.scenarios.shops import Shop

LONG = "a very long name of an index, which some servers cut " + "ä" * 20
ROWS = f"""
CREATE TABLE "Thing" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40), "Fax" VARCHAR(9), "Size" INTEGER UNIQUE);
CREATE TABLE "Other" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40));
CREATE INDEX "{LONG[:60]}" ON "Thing" ("Name", "Size");
CREATE INDEX "ByFax" ON "Thing" ("Fax");
CREATE INDEX "OfSome" ON "Thing" ("Name") WHERE "Size" > 1;
CREATE INDEX "Lower" ON "Thing" (lower("Name"));
CREATE UNIQUE INDEX "OtherName" ON "Other" ("Name" DESC);
INSERT INTO "Thing" VALUES (1, 'one', '1', 1)
"""
LINES = ("indexes = true", '[set.shop.table."Thing"]', 'columns = { exclude = ["Fax"] }')


@pytest.fixture(params=["sqlite_shop", "postgres_shop"])
def shop(request: pytest.FixtureRequest) -> Shop:
    """A shop on each server, whose tables have indexes of many kinds."""
    shop: Shop = request.getfixturevalue(request.param)
    shop.run(ROWS)
    return shop


def sync(shop: Shop, *lines: str) -> dict[str, Run]:
    outcomes = shop.sync(*(lines or LINES))
    assert [outcome.error for outcome in outcomes.values()] == [None, None]
    return {name: outcome.run for name, outcome in outcomes.items()}


def notes(shop: Shop, table: str) -> list[str]:
    [plan] = plan_of(shop.registry(*LINES), shop.name(table)).services
    return [note for note in plan.notes if " index " in note]


def indexes(shop: Shop, table: str) -> dict[tuple[str | None, ...], bool]:
    """The indexes of the backup's table: columns, and whether it is unique."""
    existing = sa.inspect(places.engine(shop.backup)).get_indexes(table)
    return {tuple(index["column_names"]): bool(index["unique"]) for index in existing}


def test_the_backup_gets_plain_indexes_and_the_plan_says_which_are_left_out(shop: Shop) -> None:
    planned = notes(shop, "Thing")
    assert len([note for note in planned if note.startswith("The sync makes the index")]) == 2
    left_out = {note for note in planned if "is left out" in note}
    assert left_out == {
        "The index ByFax of the source is left out: the column Fax is not copied.",
        "The index OfSome of the source is left out: it is for a part of the rows, and other rows may not fit into it.",
        "The index Lower of the source is left out: it is over an expression.",
    }
    runs = sync(shop)
    assert indexes(shop, "Thing") == {("Name", "Size"): False, ("Size",): False}
    assert indexes(shop, "Other") == {("Name",): False}
    assert any("was made, over Name" in note for note in runs["Other"].notes)
    assert {*notes(shop, "Thing")} == left_out
    again = sync(shop)
    assert not [note for run in again.values() for note in run.notes if "index" in note]
    shop.run('CREATE INDEX "Later" ON "Other" ("Id", "Name"); DROP INDEX "OtherName"')
    sync(shop)
    assert indexes(shop, "Other") == {("Name",): False, ("Id", "Name"): False}
    [gone] = notes(shop, "Other")
    assert "is gone from the source; the backup's stays" in gone


def test_without_the_option_no_index_is_made_and_one_that_is_refused_fails_no_run(
    sqlite_shop: Shop,
) -> None:
    sqlite_shop.run(ROWS)
    sync(sqlite_shop, "indexes = false", *LINES[1:])
    assert indexes(sqlite_shop, "Other") == {}
    plan = notes(sqlite_shop, "Other")
    name = plan[0].removeprefix("The sync makes the index ").partition(",")[0]
    sqlite_shop.run(f'CREATE INDEX "{name}" ON "Thing" ("Id", "Size")', "backup")  # somebody has taken the name
    runs = sync(sqlite_shop)
    assert any(f"The index {name} could not be made" in note for note in runs["Other"].notes)


def test_an_index_of_sql_server_that_is_no_tree_of_keys_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: dict[str, Any] = {"mssql_include": [], "mssql_clustered": False}
    listed = [
        {"name": name, "column_names": [name], "dialect_options": options}
        for name, options in [("a", plain), ("b", {})]
    ]
    monkeypatch.setattr(mssql, "inspected_indexes", lambda *_: listed)
    server = mssql.SqlServerDialect(SqlServer({"Server": "x", "Database": "y"}, token=False))
    [indexes] = server.indexes(None, [TableName("dbo", "T")])  # type: ignore[arg-type]
    plan = index_plan(indexes, [], {"a": "a", "b": "b"}, ["id"], "dbo.T")
    assert [index.columns for index in plan.missing] == [("a",)]
    assert plan.left_out == {"b": "its kind is xml, spatial or hash"}


def test_kinds_that_only_some_servers_have_are_left_out_and_names_differ_by_table() -> None:
    of_kind = [
        {"name": "a", "column_names": ["x"], "dialect_options": {"postgresql_using": "gin"}},
        {"name": "b", "column_names": ["x"], "dialect_options": {"mssql_columnstore": True}},
        {"name": "c", "column_names": ["x"], "dialect_options": {"postgresql_using": "btree", "mssql_where": None}},
    ]
    plan = index_plan(of_kind, [], {"x": "X"}, ["id"], "dbo.One")
    assert plan.left_out == {"a": "its kind is gin", "b": "it holds whole columns"}
    [index] = plan.missing
    [other] = index_plan(of_kind, [], {"x": "X"}, ["id"], "dbo.Two").missing
    assert index.columns == other.columns == ("X",)
    assert index.name != other.name
    statement = creation(TableName("my shop", "Things"), SecondaryIndex("n]", ("X", "two words")))
    compiled = str(statement.compile(dialect=mssql_dialect()))  # type: ignore[no-untyped-call]
    assert compiled == "CREATE INDEX [n]]] ON [my shop].[Things] ([X], [two words])"
