"""Records that the server writes as images say: every value is what this process would write, or nothing was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from backup.core.errors import ConstraintRefused, LockLost
from backup.core.model import WHOLE, Action
from backup.stores import NotRelayed, RelayedPart, stamps_in
from backup.stores.sql import image_writes
from backup.stores.sql.engines.mssql.dialect import SqlServerDialect
from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from tests.contract import test_postgresql_types, test_sqlite_types
from tests.contract.benches import Item, PostgresBench, SqlBench, SqliteBench
from tests.contract.recycled import Recycled, recycled, run_at
from tests.contract.test_server_images import EXTREMES, numbers, text_of

MADE_BY = ("server", "process")


@pytest.fixture(autouse=True)
def also_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_writes, "FEWEST_IMAGES", 1)


@pytest.fixture
def images_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says who makes images of what is replaced: the server, or this process alone."""
    makers = [(dialect, dialect.make_images) for dialect in (PostgresqlDialect, SqliteDialect, SqlServerDialect)]

    def of(maker: str) -> None:
        for dialect, make in makers:
            monkeypatch.setattr(dialect, "make_images", make if maker == "server" else lambda *_: None)

    return of


def written(sides: Recycled, minutes: int, actions: Sequence[Action] = (Action.UPDATED, Action.DELETED)) -> list[int]:
    """How many records the server has written, in each transaction, as they were before that run."""
    return [part.inserted + part.updated for part in parts_of(sides, minutes, actions)]


def parts_of(
    sides: Recycled, minutes: int, actions: Sequence[Action] = (Action.UPDATED, Action.DELETED)
) -> list[RelayedPart]:
    """As `written`, with what the server left."""
    relational = sides.backup.relational
    assert relational is not None
    keep = sides.keep(minutes + 1)
    images = [sides.bin.images_to_write(run_at(minutes)[0].sync_id, action) for action in actions]
    return [part for each in images for part in relational.write_images(each, keep)]


def check_written(
    sides: Recycled, look: Callable[[], Any], forget: Callable[[], None], by: Callable[[str], None]
) -> None:
    """Copies the source; overwrites half of the copies by what `forget` leaves, and deletes the others. The server
    writes all of them as they were, and again as they were after that."""
    keys = sides.backup.keys.in_order([*stamps_in(sides.source, WHOLE)])
    sides.write(keys, 1)
    before = look()
    forget()
    for maker in MADE_BY:
        by(maker)
        sides.write(keys[::2], 2 if maker == "server" else 4)
        sides.delete(keys[1::2], 2 if maker == "server" else 4)
        by("server")
        after, minutes = look(), 2 if maker == "server" else 4
        assert after != before
        assert sum(written(sides, minutes)) == len(keys)
        assert look() == before
        kept = sides.actions(minutes + 1)
        assert kept == {**dict.fromkeys(keys[::2], Action.UPDATED), **dict.fromkeys(keys[1::2], Action.INSERTED)}
        assert sum(written(sides, minutes + 1)) == len(keys[::2])
        sides.delete(keys[1::2], 9)
        assert look() == after
        sides.put_back(minutes)


def test_values_of_every_postgresql_type_are_written_by_the_server(
    postgresql_bench: PostgresBench, images_of: Callable[[str], None]
) -> None:
    bench = postgresql_bench
    # This process spells 1E-200, and the server all its zeros: such an image of this process is read by it.
    types = {
        type_: [value for value in values if "repeat('" not in value and value != "1e-200"]
        for type_, values in test_postgresql_types.VALUES.items()
    }
    columns = ", ".join(f'"c{n} ä""\\{{:%%" {type_}' for n, type_ in enumerate(types))
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, {columns})")
    for n in range(2 * max(map(len, types.values()))):
        row = ", ".join([*values, "NULL"][(n // 2) % (len(values) + 1)].replace("%", "%%") for values in types.values())
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({n}, 1, {row})")
    sides = recycled(bench)
    names = [f'"c{n} ä""\\{{:%"' for n in range(len(types))]
    exactly = ", ".join(f"{name}::text, pg_column_size({name})" for name in names)
    nothing = ", ".join(f"{name.replace('%', '%%')} = NULL" for name in names)
    check_written(
        sides,
        lambda: bench.rows("backup", f"SELECT id, version, {exactly} FROM {{table}} ORDER BY id"),
        lambda: bench.sql("source", f"UPDATE {{table}} SET version = 2, {nothing}"),
        images_of,
    )


def test_values_of_every_kind_that_sqlite_keeps_are_written_by_the_server(
    sqlite_bench: SqliteBench, images_of: Callable[[str], None]
) -> None:
    bench = sqlite_bench
    declared = test_sqlite_types.DECLARED
    # SQLite's JSON ends a text at a NUL: such an image is read by this process.
    values = [value for value in (*test_sqlite_types.VALUES[:-1], *EXTREMES) if "\0" not in str(value)]
    columns = ", ".join(f'"c{n} é\\\'{{:%?\n" {kind}' for n, kind in enumerate(declared))
    bench.sql("source", f"CREATE TABLE {{table}} (Id INTEGER PRIMARY KEY, Version INTEGER, {columns})")
    marks = ", ".join("?" * len(declared))
    rows = [(n, *[value] * len(declared)) for n, value in enumerate([value for value in values for _ in (0, 1)])]
    bench.sql("source", f"INSERT INTO {{table}} VALUES (?, 1, {marks})", rows)
    sides = recycled(bench)
    names = [f'"c{n} é\\\'{{:%?\n"' for n in range(len(declared))]
    exactly = ", ".join(f"typeof({name}), quote({name}), hex({name})" for name in names)
    nothing = ", ".join(f"{name} = NULL" for name in names)
    check_written(
        sides,
        lambda: bench.rows("backup", f"SELECT Id, Version, {exactly} FROM {{table}} ORDER BY Id"),
        lambda: bench.sql("source", f"UPDATE {{table}} SET Version = 2, {nothing}"),
        images_of,
    )


# --- what the server leaves -------------------------------------------------------------------------------------------


@pytest.fixture
def sides(sql_bench: SqlBench) -> Recycled:
    """A backup in which run 1 has updated the numbers 1 to 20 and deleted 21 to 30, all of which were old."""
    sql_bench.create(Item(n, 2, "new é") for n in range(1, 31))
    sides = recycled(sql_bench, batch_size=10, chunk_size=40)
    sides.backup.catalog.match(sides.source)
    sql_bench.put("backup", *(Item(n, 1, "old é") for n in range(1, 31)))
    sides.write(numbers(*range(1, 21)), 1)
    sides.delete(numbers(*range(21, 31)), 1)
    return sides


def changes_after(bench: SqlBench, event: str) -> str:
    """A statement that makes a trigger, which changes two rows of the table after that."""
    change = f"UPDATE {bench.quoted()} SET version = 77 WHERE id"
    if bench.kind == "sqlite":
        return f"CREATE TRIGGER changes AFTER {event} ON {{table}} WHEN NEW.Id IN (7, 27) BEGIN {change} = NEW.Id; END"
    if bench.kind == "mssql":
        of_new = "IN (SELECT Id FROM inserted WHERE Id IN (7, 27))"
        return f"CREATE TRIGGER {{schema}}.changes ON {{table}} AFTER {event} AS SET NOCOUNT ON; {change} {of_new}"
    return (
        f"CREATE FUNCTION {{schema}}.changes() RETURNS trigger AS $$ BEGIN IF NEW.id IN (7, 27) THEN {change} = NEW.id;"
        f" END IF; RETURN NULL; END $$ LANGUAGE plpgsql; CREATE CONSTRAINT TRIGGER changes AFTER {event} ON {{table}}"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (pg_trigger_depth() = 0)"
        " EXECUTE FUNCTION {schema}.changes()"
    )


@pytest.mark.parametrize("text", ["'zlib:eJyrrgUAAXUA+Q=='", "'parts:0:1:9'", "NULL"])
def test_only_the_images_that_no_server_can_read_are_left(sides: Recycled, sql_bench: SqlBench, text: str) -> None:
    bench, ids = sql_bench, {key: kept.entry_id for key, kept in sides.of(1).items()}
    bin_, record, key = bench.quoted("RecycleBin"), bench.quote("Record"), bench.quote("RecordKey")
    bench.sql("backup", f"UPDATE {bin_} SET {record} = {text} WHERE {key} IN ('[7]', '[8]', '[27]')")
    if bench.kind == "mssql":
        with pytest.raises(NotRelayed):
            parts_of(sides, 1)
        assert sides.of(2) == {}
        return
    parts = parts_of(sides, 1)
    assert [part.inserted + part.updated for part in parts] == [8, 10, 9]
    assert sorted(id_ for part in parts for id_ in part.left) == sorted(ids[key] for key in numbers(7, 8, 27))
    others = {*range(1, 31)} - {7, 8, 27}
    assert {item.n for item in bench.items("backup").values() if item.version == 1} == others
    assert sides.of(2).keys() == {*numbers(*others)}


LEFT = {
    "without a column": "ALTER TABLE {table} ADD later integer",
    "with another column": "UPDATE {bin} SET {Record} = replace({Record}, '{{\"', '{{\"gone\":1,\"')",
    "with a value of another type": "UPDATE {bin} SET {Record} = replace({Record}, '\"old é\"', '5')",
}


EVENTS = {Action.UPDATED: "UPDATE", Action.DELETED: "INSERT"}


@pytest.mark.parametrize("obstacle", [*LEFT, *EVENTS.values()])
def test_what_the_server_cannot_write_exactly_is_left_as_it_was(
    sides: Recycled, sql_bench: SqlBench, obstacle: str
) -> None:
    """Or what a trigger changes after the event."""
    bench = sql_bench
    statement = LEFT.get(obstacle) or changes_after(bench, obstacle)
    for name in ("Record", "RecordKey"):
        statement = statement.replace(f"{{{name}}}", bench.quote(name))
    for name, spelled in (("bin", bench.quoted("RecycleBin")), ("schema", bench.quote(bench.schema or ""))):
        statement = statement.replace(f"{{{name}}}", spelled)
    bench.sql("backup", statement.replace("{{", "{"))
    if obstacle == "without a column":
        assert sides.backup.relational is not None
        sides.backup.relational.forget()
    before = bench.rows("backup")
    for action, event in EVENTS.items():
        if obstacle in LEFT or obstacle == event:
            images = sides.bin.images_to_write(run_at(1)[0].sync_id, action)
            with pytest.raises(NotRelayed) as refused:
                written(sides, 1, [action])
            assert (refused.value.rest, refused.value.error) == (images, None)
            assert bench.rows("backup") == before
            assert sides.of(2) == {}


def test_what_a_constraint_refuses_is_left_as_it_was(sides: Recycled, sql_bench: SqlBench) -> None:
    sql_bench.sql("backup", "CREATE UNIQUE INDEX once ON {table} (name) WHERE version = 1")
    sql_bench.put("backup", Item(77, 1, "old é"))
    before = sql_bench.rows("backup")
    with pytest.raises(NotRelayed) as refused:
        written(sides, 1)
    assert isinstance(refused.value.error, ConstraintRefused)
    assert sql_bench.rows("backup") == before
    assert sides.of(2) == {}


def test_images_are_written_in_parts_behind_the_fence(sides: Recycled, sql_bench: SqlBench) -> None:
    sides.lose_lock_at(2)
    with pytest.raises(LockLost):
        written(sides, 1)
    assert {item.n for item in sql_bench.items("backup").values() if item.version == 1} == {*range(1, 11)}
    assert {text_of(kept) for kept in sides.of(2).values()} == {"new é"}
    assert sides.of(2).keys() == {*numbers(*range(1, 11))}


def test_images_fewer_than_pay_are_left(sides: Recycled, sql_bench: SqlBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_writes, "FEWEST_IMAGES", 11)
    with pytest.raises(NotRelayed) as refused:
        written(sides, 1)
    assert refused.value.error is None
    # A whole batch pays, whatever a batch is.
    assert {item.n for item in sql_bench.items("backup").values() if item.version == 1} == {*range(1, 11)}


@pytest.mark.parametrize("key", ["a varchar(20) NOT NULL", "a bigint NOT NULL, b varchar(20) NOT NULL"])
def test_records_under_any_key_are_written_by_the_server(making_bench: SqlBench, key: str) -> None:
    bench, names = making_bench, ["a", "b"][: key.count("NOT NULL")]
    key_list = ", ".join(names)
    bench.sql("source", f"CREATE TABLE {{table}} ({key}, version integer, note varchar(9), PRIMARY KEY ({key_list}))")
    sides = recycled(bench, batch_size=10, chunk_size=40)
    row = ", ".join([bench.mark] * (len(names) + 2))
    keys = [(f"kéy {n:02}",) if len(names) == 1 else (n // 4, f"'\\ {n}") for n in range(30)]
    bench.sql(
        "source", f"INSERT INTO {{table}} ({key_list}, version, note) VALUES ({row})", [(*k, 1, "é") for k in keys]
    )
    sides.backup.catalog.match(sides.source)
    sides.write(keys, 1)
    before = bench.rows("backup", f"SELECT * FROM {{table}} ORDER BY {key_list}")
    bench.sql("source", "UPDATE {table} SET version = 2, note = NULL")
    sides.write(keys[:20], 2)
    sides.delete(keys[20:], 2)
    assert sum(written(sides, 2)) == 30
    assert bench.rows("backup", f"SELECT * FROM {{table}} ORDER BY {key_list}") == before
    assert sorted(sides.of(3)) == sorted(keys)
