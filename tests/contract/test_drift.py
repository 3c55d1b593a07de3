"""The backup's columns follow the source's: added, widened, removed, refused; on every SQL store."""

from __future__ import annotations

from typing import Any

import pytest

from backup.core.errors import SchemaMismatch, StoreError, StoreUnavailable
from backup.core.model import Chunk
from backup.stores import Drift, Rules, stamps_in
from backup.stores.sql.store import SqlStore
from tests.contract.benches import (
    NOTE,
    ONE_TRY,
    PostgresBench,
    ServerBench,
    SqlBench,
    SqliteBench,
    SqlServerBench,
)
from tests.contract.conftest import SQL_KINDS
from tests.contract.test_store import run_sync

SERVERS = [kind for kind in SQL_KINDS if kind != "sqlite"]  # which enforce sizes, and alter types
KEY = "Id INTEGER NOT NULL PRIMARY KEY, Version INTEGER"


@pytest.fixture(params=SERVERS)
def server_bench(request: pytest.FixtureRequest) -> ServerBench:
    """Each SQL store but SQLite in turn."""
    chosen: ServerBench = request.getfixturevalue(f"{request.param}_bench")
    return chosen


def start(bench: SqlBench, more: str = ", N varchar(10)", values: str = ", 'old'") -> None:
    """A source of two rows and its backup, in sync."""
    bench.sql("source", f"CREATE TABLE {{table}} ({KEY}{more})")
    bench.sql("source", f"INSERT INTO {{table}} VALUES (1, 1{values})")
    bench.sql("source", f"INSERT INTO {{table}} VALUES (2, 1{values})")
    source, backup = bench.pair()
    assert run_sync(source, backup) == (2, 0, 0, 0)


def add(bench: SqlBench, column: str) -> None:
    """Adds a column to the source, and changes every row so that a sync copies it."""
    word = "ADD" if bench.kind == "mssql" else "ADD COLUMN"
    bench.sql("source", f"ALTER TABLE {{table}} {word} {column}")
    bench.sql("source", "UPDATE {table} SET Version = Version + 1")


def retype(bench: SqlBench, role: Any, name: str, declared: str) -> None:
    """Gives a column another type, on a server that can."""
    word = "TYPE " if bench.kind == "postgresql" else ""
    bench.sql(role, f"ALTER TABLE {{table}} ALTER COLUMN {name} {word}{declared}")


def drift(bench: SqlBench, on_new_column: Any = "add") -> tuple[SqlStore, SqlStore, Drift]:
    """Both stores as a run opens them, and the drift that it finds."""
    source, backup = bench.open("source"), bench.open("backup")
    assert isinstance(source, SqlStore)
    assert isinstance(backup, SqlStore)
    return source, backup, backup.catalog.drift(source, on_new_column)


def follow(bench: SqlBench) -> Drift:
    """One run; afterwards each of the source's columns has the source's values in the backup."""
    source, backup, changes = drift(bench)
    backup.catalog.adapt(changes)
    assert run_sync(source, backup) == (0, 2, 0, 0)
    assert copied(bench, "backup") == copied(bench, "source")
    assert drift(bench)[2].changes_nothing
    return changes


def copied(bench: SqlBench, role: Any) -> list[dict[str, Any]]:
    """The rows by the names of the source's columns, as the store reads them."""
    store = bench.open(role)
    names = bench.open("source").shape.names  # type: ignore[attr-defined]
    (records,) = store.read(frozenset(stamps_in(store, Chunk())), Chunk())
    return sorted(
        ({name: record[name] for name in names} for record in records),
        key=lambda record: int(record[next(iter(names))]),
    )


def nullable(bench: SqlBench, role: Any) -> dict[str, bool]:
    store = bench.open(role)
    assert isinstance(store, SqlStore)
    return {column.name: column.nullable for column in store.shape.columns}


def declared(bench: SqlBench, name: str) -> list[str | None]:
    """The column's type in source and backup."""
    columns = [store.shape.find(name) for store in drift(bench)[:2]]
    return [column.type.declared if column else None for column in columns]


# --- added ------------------------------------------------------------------------------------------------------------


def test_a_new_column_is_added(sql_bench: SqlBench) -> None:
    start(sql_bench)
    add(sql_bench, "Extra varchar(20)")
    sql_bench.sql("source", "UPDATE {table} SET Extra = 'new' WHERE Id = 1")
    assert [name.lower() for name in follow(sql_bench).added] == ["extra"]
    assert sql_bench.rows("backup", "SELECT Extra FROM {table} ORDER BY Id") == [("new",), (None,)]


def test_a_new_column_that_is_not_null_and_has_a_default_is_added_without_both(sql_bench: SqlBench) -> None:
    start(sql_bench)
    add(sql_bench, "Extra INTEGER DEFAULT 7 NOT NULL")
    _, backup, changes = drift(sql_bench)
    backup.catalog.adapt(changes)
    assert sql_bench.rows("backup", "SELECT Extra FROM {table}") == [(None,), (None,)]
    follow(sql_bench)
    assert sql_bench.rows("backup", "SELECT Extra FROM {table}") == [(7,), (7,)]


def test_a_new_column_that_is_computed_is_added_as_a_plain_one(sql_bench: SqlBench) -> None:
    start(sql_bench)
    computed = {
        "sqlite": "Extra INTEGER GENERATED ALWAYS AS (Version * 10) VIRTUAL",
        "postgresql": "Extra integer GENERATED ALWAYS AS (Version * 10) STORED",
        "mssql": "Extra AS (Version * 10) PERSISTED",
    }[sql_bench.kind]
    add(sql_bench, computed)
    follow(sql_bench)
    assert sql_bench.rows("backup", "SELECT Extra FROM {table}") == [(20,), (20,)]
    sql_bench.sql("backup", "UPDATE {table} SET Extra = 5")


def test_a_new_identity_column_is_added_as_a_plain_one(server_bench: ServerBench) -> None:
    start(server_bench)
    identity = {"postgresql": "integer GENERATED ALWAYS AS IDENTITY", "mssql": "int IDENTITY(5, 1) NOT NULL"}
    add(server_bench, f"Extra {identity[server_bench.kind]}")
    follow(server_bench)
    server_bench.sql("backup", "UPDATE {table} SET Extra = NULL")


def test_a_new_rowversion_is_added_as_plain_bytes(mssql_bench: SqlServerBench) -> None:
    start(mssql_bench)
    add(mssql_bench, "Extra rowversion")
    follow(mssql_bench)
    mssql_bench.sql("backup", "UPDATE {table} SET Extra = NULL")


def test_a_new_column_may_have_any_name(sql_bench: SqlBench) -> None:
    start(sql_bench)
    quote = sql_bench.engines["source"].dialect.identifier_preparer.quote_identifier
    names = ["a b", "100%", "%s", "%(x)s", ":p", "?", "ä 漢", "select", 'say "x"']
    source, backup = sql_bench.open("source"), sql_bench.open("backup")
    with sql_bench.engines["source"].begin() as cx:
        word = "ADD" if sql_bench.kind == "mssql" else "ADD COLUMN"
        for name in names:
            quoted = quote(name).replace("%%", "%")
            statement = f"ALTER TABLE {sql_bench.quoted()} {word} {quoted} varchar(5)"
            cx.exec_driver_sql(statement, execution_options={"no_parameters": True})
    relational = backup.relational
    assert relational is not None
    changes = relational.drift(source, "add")
    relational.adapt(changes)
    assert changes.added == tuple(names)
    assert [name for name in sql_bench.open("backup").shape.names if name in names] == names  # type: ignore[attr-defined]


# --- widened ----------------------------------------------------------------------------------------------------------


def test_a_longer_text_is_widened(server_bench: ServerBench) -> None:
    start(server_bench)
    retype(server_bench, "source", "N", "varchar(20)")
    server_bench.sql("source", "UPDATE {table} SET N = 'longer than that', Version = 2")
    assert [name.lower() for name in follow(server_bench).widened] == ["n"]
    assert len(set(declared(server_bench, "N"))) == 1


def test_a_longer_number_is_widened(server_bench: ServerBench) -> None:
    start(server_bench, ", N INTEGER", ", 5")
    retype(server_bench, "source", "N", "bigint")
    server_bench.sql("source", "UPDATE {table} SET N = 9007199254740993, Version = 2")
    assert [name.lower() for name in follow(server_bench).widened] == ["n"]
    assert declared(server_bench, "N") == ["bigint", "bigint"]


def test_a_column_with_an_index_on_both_sides_is_widened(server_bench: ServerBench) -> None:
    start(server_bench)
    for role in ("source", "backup"):
        server_bench.sql(role, "CREATE INDEX an_index ON {table} (N)")
    retype(server_bench, "source", "N", "varchar(20)")
    server_bench.sql("source", "UPDATE {table} SET N = 'longer than that', Version = 2")
    assert [name.lower() for name in follow(server_bench).widened] == ["n"]


def test_a_key_is_widened_where_the_server_can(postgresql_bench: PostgresBench) -> None:
    start(postgresql_bench)
    retype(postgresql_bench, "source", "Id", "bigint")
    postgresql_bench.sql("source", "UPDATE {table} SET Version = 2")
    assert follow(postgresql_bench).widened == ("id",)


def test_a_key_that_widens_on_sql_server_fails_with_the_steps(mssql_bench: SqlServerBench) -> None:
    mssql_bench.sql("source", "CREATE TABLE {table} (Id bigint NOT NULL PRIMARY KEY, Version int)")
    mssql_bench.sql("backup", f"CREATE SCHEMA {mssql_bench.quote(mssql_bench.schema or '')}")
    mssql_bench.sql("backup", "CREATE TABLE {table} (Id int NOT NULL PRIMARY KEY, Version int)")
    with pytest.raises(SchemaMismatch, match=r"key column (?i:Id) is int, in the source bigint") as caught:
        drift(mssql_bench)
    assert "ALTER COLUMN [ID] BIGINT NOT NULL" in caught.value.hint.upper()


def test_more_room_on_sqlite_needs_nothing(sqlite_bench: SqliteBench) -> None:
    sqlite_bench.sql("source", f"CREATE TABLE {{table}} ({KEY}, N varchar(20))")
    sqlite_bench.sql("backup", f"CREATE TABLE {{table}} ({KEY}, N varchar(10))")
    sqlite_bench.sql("source", "INSERT INTO {table} VALUES (1, 1, 'longer than that')")
    source, backup, changes = drift(sqlite_bench)
    assert changes == Drift()
    assert run_sync(source, backup) == (1, 0, 0, 0)
    assert sqlite_bench.rows("backup") == [(1, 1, "longer than that")]


# --- removed, and NULL ------------------------------------------------------------------------------------------------


def test_a_removed_column_stays_and_is_null_in_new_rows(sql_bench: SqlBench) -> None:
    start(sql_bench, ", N varchar(10) NOT NULL")
    sql_bench.sql("source", "ALTER TABLE {table} DROP COLUMN N")
    sql_bench.sql("source", "INSERT INTO {table} VALUES (3, 1)")
    source, backup, changes = drift(sql_bench)
    assert [name.lower() for name in changes.removed] == ["n"]
    assert changes.changes_nothing
    assert run_sync(source, backup) == (1, 0, 0, 2)
    assert sql_bench.rows("backup", "SELECT Id, N FROM {table} ORDER BY Id") == [(1, "old"), (2, "old"), (3, None)]


def test_a_removed_column_of_version_or_filter_makes_no_record_differ(sql_bench: SqlBench) -> None:
    rules = Rules(version=("Version", "Status"), where={"Type": "Order"})
    more = ", Status varchar(10), Type varchar(10)"
    sql_bench.sql("source", f"CREATE TABLE {{table}} ({KEY}{more})")
    sql_bench.sql("source", "INSERT INTO {table} VALUES (1, 1, 'a', 'Order')")
    sql_bench.sql("source", "INSERT INTO {table} VALUES (2, NULL, 'a', 'Order')")
    source, backup = sql_bench.open("source", rules=rules), sql_bench.open("backup", rules=rules)
    backup.catalog.initialize(source)
    assert run_sync(source, backup) == (2, 0, 0, 0)
    for name in ("Status", "Type"):
        sql_bench.sql("source", f"ALTER TABLE {{table}} DROP COLUMN {name}")
    sql_bench.sql("source", "INSERT INTO {table} VALUES (3, 1)")
    source, backup = sql_bench.open("source", rules=rules), sql_bench.open("backup", rules=rules)
    assert run_sync(source, backup) == (1, 0, 0, 2)
    assert run_sync(source, backup) == (0, 0, 0, 3)


def test_a_column_of_the_backups_own_that_fills_itself_goes_on_doing_so(sql_bench: SqlBench) -> None:
    start(sql_bench)
    sql_bench.drop("backup")
    sql_bench.sql(
        "backup", f"CREATE TABLE {{table}} ({KEY}, N varchar(10) DEFAULT 'x', Own INTEGER DEFAULT 5 NOT NULL)"
    )
    source, backup, changes = drift(sql_bench)
    assert [name.lower() for name in changes.removed] == ["own"]
    assert changes.changes_nothing
    assert run_sync(source, backup) == (2, 0, 0, 0)
    assert sql_bench.rows("backup", "SELECT Own FROM {table}") == [(5,), (5,)]


def test_a_backup_is_made_nullable_beyond_its_key(sql_bench: SqlBench) -> None:
    start(sql_bench, ", N varchar(10) NOT NULL")
    assert {name.lower(): may for name, may in nullable(sql_bench, "backup").items()} == {
        "id": False,
        "version": True,
        "n": True,
        "syncedat": True,
    }


@pytest.mark.parametrize("in_source", [True, False])
def test_an_older_backup_is_let_be_null(sql_bench: SqlBench, in_source: bool) -> None:
    if isinstance(sql_bench, SqlServerBench) and sql_bench.stands_in:
        pytest.skip("Babelfish knows neither NULL nor COLLATE in ALTER COLUMN")
    start(sql_bench)
    sql_bench.drop("backup")
    sql_bench.sql("backup", f"CREATE TABLE {{table}} ({KEY}, N varchar(10) NOT NULL)")
    if not in_source:
        sql_bench.sql("source", "ALTER TABLE {table} DROP COLUMN N")
    if isinstance(sql_bench, SqliteBench):
        with pytest.raises(SchemaMismatch, match="column N is NOT NULL") as caught:
            drift(sql_bench)
        assert "RENAME TO" in caught.value.hint
        return
    source, backup, changes = drift(sql_bench)
    assert (len(changes.statements), changes.widened) == (1, ())
    backup.catalog.adapt(changes)
    bench_rows = "UPDATE {table} SET N = NULL" if in_source else "UPDATE {table} SET Version = 2"
    sql_bench.sql("source", bench_rows)
    assert run_sync(source, backup) == (2, 0, 0, 0)
    assert sql_bench.rows("backup", "SELECT N FROM {table}") == [(None,), (None,)]


# --- refused ----------------------------------------------------------------------------------------------------------


def refuse(bench: SqlBench, on_new_column: Any = "add") -> SchemaMismatch:
    """The refusal; the backup is as it was."""
    bench.sql("source", "UPDATE {table} SET Version = 2")
    before = bench.rows("backup"), nullable(bench, "backup")
    with pytest.raises(SchemaMismatch, match=r"Nothing was changed\.$") as caught:
        drift(bench, on_new_column)
    if on_new_column == "add":
        with pytest.raises(SchemaMismatch):
            run_sync(bench.open("source"), bench.open("backup"))
    assert (bench.rows("backup"), nullable(bench, "backup")) == before
    return caught.value


def run_hint(bench: SqlBench, hint: str) -> None:
    """Does what the hint says."""
    statements = hint.removeprefix("Run on the backup: ").partition(". Then run initialize")[0]
    for statement in statements.split("; "):
        bench.sql("backup", statement)
    bench.open("backup").catalog.initialize(bench.open("source"))


def test_a_narrowed_column_fails_the_run_with_the_statement_to_run(sql_bench: SqlBench) -> None:
    start(sql_bench, ", N varchar(20), Same INTEGER", ", 'old', 1")
    sql_bench.drop("source")
    sql_bench.sql("source", f"CREATE TABLE {{table}} ({KEY}, N varchar(10), Same INTEGER)")
    sql_bench.sql("source", "INSERT INTO {table} VALUES (1, 1, 'a', 1)")
    sql_bench.sql("source", "INSERT INTO {table} VALUES (2, 1, 'b', 1)")
    error = refuse(sql_bench)
    assert "column n " in str(error).lower()
    run_hint(sql_bench, error.hint)
    renamed = isinstance(sql_bench, SqliteBench)
    source, backup, changes = drift(sql_bench)
    assert changes == Drift()
    assert run_sync(source, backup) == ((2, 0, 0, 0) if renamed else (0, 2, 0, 0))


def test_another_type_fails_the_run_with_the_statement_to_run(sql_bench: SqlBench) -> None:
    start(sql_bench, ", N varchar(20)", ", '5'")
    sql_bench.drop("source")
    sql_bench.sql("source", f"CREATE TABLE {{table}} ({KEY}, N INTEGER)")
    run_hint(sql_bench, refuse(sql_bench).hint)
    assert drift(sql_bench)[2] == Drift()


def test_another_collation_fails_the_run_with_the_statement_to_run(server_bench: ServerBench) -> None:
    if isinstance(server_bench, SqlServerBench) and server_bench.stands_in:
        pytest.skip("Babelfish knows neither NULL nor COLLATE in ALTER COLUMN")
    old, new = {
        "postgresql": ('COLLATE "C"', 'COLLATE "und-x-icu"'),
        "mssql": ("COLLATE Latin1_General_CI_AS", "COLLATE Latin1_General_CS_AS"),
    }[server_bench.kind]
    start(server_bench, f", N varchar(10) {old}")
    retype(server_bench, "source", "N", f"varchar(10) {new}")
    error = refuse(server_bench)
    assert "collation" in str(error)
    assert new.removeprefix("COLLATE ") in error.hint
    run_hint(server_bench, error.hint)
    assert drift(server_bench)[2] == Drift()


def test_a_new_column_fails_the_run_when_that_is_wanted(sql_bench: SqlBench) -> None:
    start(sql_bench)
    add(sql_bench, "Extra varchar(20)")
    error = refuse(sql_bench, "fail")
    assert "column extra " in str(error).lower()
    run_hint(sql_bench, error.hint)
    assert drift(sql_bench, "fail")[2] == Drift()


def test_a_new_column_is_left_out_when_that_is_wanted(sql_bench: SqlBench) -> None:
    start(sql_bench)
    add(sql_bench, "Extra varchar(20)")
    sql_bench.sql("source", "UPDATE {table} SET Version = NULL, Extra = 'new' WHERE Id = 1")
    for updated in (2, 0):
        source, backup, changes = drift(sql_bench, "ignore")
        assert [name.lower() for name in changes.ignored] == ["extra"]
        backup.catalog.adapt(changes)
        stamps, copies = stamps_in(source, Chunk()), stamps_in(backup, Chunk())
        differ = [key for key in stamps if stamps[key] != copies[key]]
        assert len(differ) == updated
        for records in source.read(frozenset(differ), Chunk()):
            backup.write(backup.copies.of(records, NOTE))
    assert "extra" not in {name.lower() for name in nullable(sql_bench, "backup")}


def test_a_new_column_that_is_left_out_makes_no_record_differ(sql_bench: SqlBench) -> None:
    start(sql_bench)
    add(sql_bench, "Status varchar(10)")
    rules = Rules(version=("Version", "Status"))
    source, backup = sql_bench.open("source", rules=rules), sql_bench.open("backup", rules=rules)
    backup.catalog.match(source)
    assert {version.value for version in stamps_in(source, Chunk()).values()} == {(2,)}


# --- adapting ---------------------------------------------------------------------------------------------------------


def test_adapting_may_be_repeated(sql_bench: SqlBench) -> None:
    start(sql_bench)
    add(sql_bench, "Extra varchar(20)")
    if not isinstance(sql_bench, SqliteBench):
        retype(sql_bench, "source", "N", "varchar(20)")
    source, backup, changes = drift(sql_bench)
    backup.catalog.adapt(changes)
    backup.catalog.adapt(changes)
    opened_anew = sql_bench.open("backup").relational
    assert opened_anew is not None
    opened_anew.adapt(changes)
    assert run_sync(source, backup) == (0, 2, 0, 0)


def test_adapting_goes_on_where_it_was_cut_off(sql_bench: SqlBench) -> None:
    start(sql_bench)
    add(sql_bench, "First varchar(20)")
    add(sql_bench, "Second varchar(20)")
    _, backup, changes = drift(sql_bench)
    sql_bench.sql("backup", changes.statements[0])
    backup.catalog.adapt(changes)
    assert {"first", "second"} <= {name.lower() for name in nullable(sql_bench, "backup")}


def test_a_server_that_refuses_to_alter_is_told_with_what_to_run(postgresql_bench: PostgresBench) -> None:
    bench = postgresql_bench
    start(bench)
    bench.sql("backup", f"CREATE VIEW {bench.quoted('a_view')} AS SELECT N FROM {{table}}")
    add(bench, "Extra varchar(20)")
    retype(bench, "source", "N", "varchar(20)")
    _, backup, changes = drift(bench)
    with pytest.raises(StoreError, match=r"Could not alter the columns .* used by a view") as caught:
        backup.catalog.adapt(changes)
    assert "; ".join(changes.statements) in caught.value.hint
    assert drift(bench)[2] == changes  # nothing was done by halves
    bench.sql("backup", f"DROP VIEW {bench.quoted('a_view')}")
    follow(bench)


def test_a_server_that_is_away_is_not_taken_for_one_that_refuses(sql_bench: SqlBench) -> None:
    relational = sql_bench.open("backup", connection_string=sql_bench.nowhere(), retry=ONE_TRY).relational
    assert relational is not None
    with pytest.raises(StoreUnavailable):
        relational.adapt(Drift(statements=("ALTER TABLE x ADD y int",)))


def test_rows_without_a_version_are_compared_with_the_new_column_at_once(sql_bench: SqlBench) -> None:
    start(sql_bench)
    add(sql_bench, "Extra varchar(20)")
    sql_bench.sql("source", "UPDATE {table} SET Version = NULL, Extra = 'new'")
    source, backup, changes = drift(sql_bench)
    backup.catalog.adapt(changes)
    stamps = stamps_in(source, Chunk())
    (records,) = source.read(frozenset(stamps), Chunk())
    assert stamps_in(backup, Chunk()) != stamps
    backup.write(backup.copies.of(records, NOTE))
    assert stamps_in(backup, Chunk()) == stamps


def test_initialize_adds_no_column_to_a_backup_that_is_there(sql_bench: SqlBench) -> None:
    start(sql_bench)
    add(sql_bench, "Extra varchar(20)")
    sql_bench.open("backup").catalog.initialize(sql_bench.open("source"))
    assert [name.lower() for name in drift(sql_bench)[2].added] == ["extra"]
