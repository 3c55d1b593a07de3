"""The relay of a first copy: records go from server to server, and nothing that a batch promises is lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from backup.core.errors import LockLost
from backup.core.model import WHOLE, Action, Chunk, Image, Key
from backup.core.run_values import Run
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import RECYCLE_BIN, of_one
from backup.stores import NotRelayed, RelayedPart, Rules, Store, stamps_in
from backup.stores.sql import relay
from backup.stores.sql.catalog import catalog_of
from backup.stores.sql.engines.postgresql import relay as postgresql
from backup.stores.sql.engines.postgresql.dialect import PostgresqlDialect
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sql.reads import SqlReads
from backup.stores.sql.relayed_back import SqlRelaysBack
from tests.contract.benches import NOTE, NOW, ROLES, RUN, Item, PostgresBench, SqlBench, SqliteBench
from tests.contract.test_postgresql_types import VALUES

CHUNKS = {"chunk_size": 40, "batch_size": 10}
KEYS = {
    "integer": "{n}",
    "varchar(20)": "'K\xe9y {n}'",
    "uuid": "'6f9619ff-8b86-d011-b42d-00c04fc{n:05}'",
    "varchar(20) and integer": "'Key {n}'",
}


def reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every read of a chunk's whole records fail."""

    def read(*_: Any) -> Any:
        raise AssertionError("records were read")

    monkeypatch.setattr(SqlReads, "read", read)


def synced(source: Store, backup: Store, run: Run = RUN) -> Tally:
    """What a sync has counted and noted."""
    backup.catalog.match(source)
    recycled = RecycleBin(backup, RUN.service)
    recycled.create()
    tally = Tally(tell=lambda counts: None)
    keep = recycled.recorder(run, lambda: NOW)
    sync_stores(source, backup, run, tally, Guard(), Steps(lambda: None, lambda: NOW, keep, parallelism=2))
    return tally


def inserted(backup: Store) -> list[Any]:
    """The keys of the run's entries in the bin, each of which says that its record was inserted."""
    kept = [kept for page in RecycleBin(backup, RUN.service).of_run(RUN.sync_id) for kept in page]
    assert {image.action for image in kept} <= {Action.INSERTED}
    return sorted(image.key for image in kept)


@pytest.mark.parametrize("type_", KEYS)
def test_a_first_copy_reads_no_record_and_keeps_every_key(
    sql_bench: SqlBench, monkeypatch: pytest.MonkeyPatch, type_: str
) -> None:
    bench, numbers = sql_bench, [n for n in range(1, 131) if n not in (15, 63)]
    declared, *others = ("uniqueidentifier" if (bench.kind, type_) == ("mssql", "uuid") else type_).split(" and ")
    columns = f"id {declared} NOT NULL, part integer NOT NULL, version integer, note varchar(9)"
    key = "id, part" if others else "id"
    bench.sql("source", f"CREATE TABLE {{table}} ({columns}, PRIMARY KEY ({key}))")
    for n in numbers:
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({KEYS[type_].format(n=n)}, {-n * 10}, {n % 3}, NULL)")
    source, backup = bench.pair(**CHUNKS)
    if bench.relays:
        reads_nothing(monkeypatch)
        if type_ != "integer" and bench.kind != "mssql":
            monkeypatch.setattr(relay, "each_row", None)  # not called: no key becomes a value of this process
    tally = synced(source, backup)
    assert (tally.counts.inserted, tally.counts.processed, tally.notes) == (len(numbers), len(numbers), [])
    assert tally.proof is not None
    assert tally.proof.verified
    query = "SELECT id, part, version, note FROM {table} ORDER BY id"
    assert bench.rows("backup", query) == bench.rows("source", query)
    keys = sorted(row[: 1 + len(others)] for row in bench.rows("source", query))
    assert [*map(list, inserted(backup))] == [*map(list, keys)]
    kept = backup.sibling(RECYCLE_BIN).find({}, order_by="EntryId", limit=1_000)
    expected = sorted(of_one(RUN.sync_id, "backup", Image(key, Action.INSERTED)).items() for key in inserted(backup))
    names = dict(expected[0]).keys()
    assert type_ == "integer" or sorted([(n, entry[n]) for n in names] for entry in kept) == sorted(map(list, expected))


@pytest.mark.parametrize("form", ["binary", "text"])
def test_postgresql_relays_every_type_in_either_form(
    postgresql_bench: PostgresBench, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Types without a binary form that is the same everywhere are left out of the first."""
    bench = postgresql_bench
    if form == "text":
        monkeypatch.setattr(postgresql, "_PLAIN", frozenset())
        monkeypatch.setattr(postgresql, "_BLOCK_BYTES", 16)  # rows go in pieces, as large ones do
    types = [name for name in VALUES if form == "text" or (is_plain(bench, name) and " to " not in name)]
    assert len(types) > 20
    columns = ", ".join(f"c{n} {name}" for n, name in enumerate(types))
    bench.sql("source", f'CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, {columns}, "%%" integer)')
    for place in range(max(map(len, VALUES.values())) + 1):
        values = [VALUES[name][place] if place < len(VALUES[name]) else "NULL" for name in types]
        bench.sql(
            "source", f"INSERT INTO {{table}} VALUES ({place}, 1, {', '.join(values)}, {place})".replace("%", "%%")
        )
    source, backup = bench.pair()
    forms, blocks = set[str](), postgresql._blocks

    def noted(copy: Any, *others: Any) -> postgresql.Blocks:
        forms.add(copy.formatter.format.name)
        return blocks(copy, *others)

    monkeypatch.setattr(postgresql, "_blocks", noted)
    reads_nothing(monkeypatch)
    assert synced(source, backup).notes == []
    assert forms == {form.upper()}
    texts = ", ".join(f"c{n}::text, pg_typeof(c{n})::text" for n in range(len(types)))
    query = f"SELECT id, {texts} FROM {{table}} ORDER BY id"
    assert bench.rows("backup", query) == bench.rows("source", query)
    comes_back(bench, source, backup, query)
    if form == "text":
        monkeypatch.setattr(PostgresqlDialect, "make_images", lambda *_: None)  # this process makes them
    assert comes_back_from_images(bench, source, backup, query) == [(2,), (3,)]  # which are large


@pytest.mark.parametrize(
    ("type_", "later", "value"),
    [
        ("integer", "real", "1001"),
        ("integer", "numeric", "1.5"),
        ("varchar(5)", "text", "'longer than that'"),
        ("date", "timestamp", "'2026-01-01 10:00:00'"),
        ("integer[]", "real[]", "'{1001}'"),
    ],
)
@pytest.mark.parametrize("form", ["binary", "text"])
def test_a_type_that_changes_after_a_look_at_the_catalogue_leaves_no_other_value(
    postgresql_bench: PostgresBench, monkeypatch: pytest.MonkeyPatch, form: str, type_: str, later: str, value: str
) -> None:
    bench = postgresql_bench
    if form == "text":
        monkeypatch.setattr(postgresql, "_is_same_in_binary", lambda *_: False)
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, a {type_})")
    source, backup = bench.pair(**CHUNKS)
    backup.catalog.match(source)
    bench.sql("source", f"ALTER TABLE {{table}} ALTER a TYPE {later}; INSERT INTO {{table}} VALUES (1, 1, {value})")
    with pytest.raises(NotRelayed):
        relayed(source, backup, None)
    assert bench.rows("backup") == []


def comes_back(bench: SqlBench, source: Store, backup: Store, query: str) -> None:
    """Asserts that relays back into the emptied source, and into one of which half is missing and half has changed, as
    a restore does them, give what the query gave before; and that the fingerprints of both contents are equal then, and
    no more once a value has changed."""
    before, ends = bench.rows("source", query), [source.relational, backup.relational]
    bench.sql("source", "DELETE FROM {table}")
    assert ends[0] is not None
    assert sum(part.inserted for part in ends[0].relay(backup, WHOLE, None, None)) == len(before)
    assert bench.rows("source", query) == before
    assert len({end and end.content_fingerprint(WHOLE) for end in ends}) == 1
    others = emptied(bench, source)
    bench.sql("source", f"UPDATE {{table}} SET version = 0, {others} WHERE (id & 1) = 1")
    bench.sql("source", "DELETE FROM {table} WHERE (id & 1) = 0")
    stamps, kept = stamps_in(source, WHOLE), list[Image]()
    new = [key for key in stamps_in(backup, WHOLE) if key not in stamps]
    assert sum(part.inserted for part in ends[0].relay_new(backup, new)) == len(new)
    over = ends[0].relay_over(backup, stamps, lambda images, *_: kept.extend(images))
    assert sum(part.updated for part in over) == len(kept) == len(before) - len(new)
    assert {image.key: image.stamp for image in kept} == stamps
    assert bench.rows("source", query) == before
    bench.sql("source", "UPDATE {table} SET version = version + 1 WHERE id = 1")
    assert len({end and end.content_fingerprint(WHOLE) for end in ends}) == 2
    bench.sql("source", "UPDATE {table} SET version = version - 1 WHERE id = 1")


def emptied(bench: SqlBench, source: Store) -> str:
    """What an UPDATE sets to empty all columns but the first two."""
    names = (name for name in catalog_of(source).shape.names if name not in ("id", "version"))
    return ", ".join(f"{bench.quote(name)} = NULL" for name in names)


def comes_back_from_images(bench: SqlBench, source: Store, backup: Store, query: str) -> list[Key]:
    """Deletes all copies. Asserts that relays of their images give each record that the source lacks, or that has
    changed there, what the query gave before; or do nothing. Returns the keys whose images the servers cannot read."""
    before, place = {row[0]: row for row in bench.rows("source", query)}, source.relational
    recycled, run = RecycleBin(backup, RUN.service), replace(RUN, sync_id="another")
    assert place is not None
    backup.delete([*stamps_in(backup, WHOLE)], recycled.recorder(run, lambda: NOW))
    kept = {image.key: image for page in recycled.of_run(run.sync_id, records=False) for image in page}
    assert len(kept) == len(before)
    others = emptied(bench, source)
    unread, replaced = list[Key](), list[Image]()

    def keep(images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        replaced.extend(images)

    for key in sorted(kept):
        bench.sql("source", f"DELETE FROM {{table}} WHERE id = {key[0]}")
        try:
            assert [*place.relay_new(backup, [key], recycled.images_of(kept))] == [RelayedPart(1)]
        except NotRelayed as refused:
            unread += refused.rest
    relayed_rows = [row for number, row in sorted(before.items()) if (number,) not in unread]
    assert bench.rows("source", query) == relayed_rows
    for is_changed, change in ((True, f"version = 0, {others}"), (False, "version = version")):
        bench.sql("source", f"UPDATE {{table}} SET {change}")
        stamps = stamps_in(source, WHOLE)
        over = [*place.relay_over(backup, stamps, keep, recycled.images_of(kept))]
        assert [sum(part.updated for part in over), sum(part.skipped for part in over)] == (
            [len(relayed_rows), 0] if is_changed else [0, len(relayed_rows)]
        )
        assert bench.rows("source", query) == relayed_rows
    assert sorted(image.key for image in replaced) == [(row[0],) for row in relayed_rows]
    return unread


OBSTACLES = {
    "of another shape": "ALTER TABLE {table} ADD COLUMN later integer",
    "of other values": "UPDATE {bin} SET {Record} = replace({Record}, '\"name 7\"', '7')",
    "compressed": "UPDATE {bin} SET {Record} = 'zlib:eJyrrgUAAXUA+Q==' WHERE {RecordKey} = '[7]'",
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_images_that_the_servers_do_not_read_exactly_are_left(
    making_bench: SqlBench, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    bench = making_bench
    monkeypatch.setattr(relay, "_FEWEST_HALVED", 1)
    tried, insert = list[Any](), SqlRelaysBack._insert

    def noted(*part: Any) -> Any:
        tried.append(part)
        return insert(*part)

    monkeypatch.setattr(SqlRelaysBack, "_insert", noted)
    bench.create(Item(n, 1, f"name {n}") for n in range(1, 11))
    source, backup = bench.pair(batch_size=4)
    synced(source, backup)
    recycled, run = RecycleBin(backup, RUN.service), replace(RUN, sync_id="another")
    backup.delete([(n,) for n in range(1, 11)], recycled.recorder(run, lambda: NOW))
    kept = {image.key: image for page in recycled.of_run(run.sync_id, records=False) for image in page}
    statement = OBSTACLES[obstacle].replace("{bin}", bench.quoted("RecycleBin"))
    for name in ("Record", "RecordKey"):
        statement = statement.replace(f"{{{name}}}", bench.quote(name))
    bench.sql("backup", statement)
    bench.sql("source", "DELETE FROM {table}")
    source, backup = bench.pair(batch_size=4)
    backup.catalog.match(source)
    assert source.relational is not None
    with pytest.raises(NotRelayed) as refused:
        [*source.relational.relay_new(backup, sorted(kept), recycled.images_of(kept))]
    left = {"of another shape": range(1, 11), "of other values": [7], "compressed": [7]}[obstacle]
    assert (refused.value.rest, refused.value.error) == ([(n,) for n in left], None)
    assert bench.items("source").keys() == {*range(1, 11)} - {*left}
    assert len(tried) <= 9, "what is refused altogether was halved to the end"


def is_plain(bench: PostgresBench, type_: str) -> bool:
    """Whether the server's name of the type is one of those that are relayed in binary form."""
    [[name]] = bench.rows("source", f"SELECT format_type('{type_}'::regtype, NULL)")
    return postgresql._is_plain(name)


@pytest.mark.parametrize("maker", ["server", "process"])
def test_sqlite_relays_what_lies_in_a_row_byte_by_byte(
    sqlite_bench: SqliteBench, monkeypatch: pytest.MonkeyPatch, maker: str
) -> None:
    bench = sqlite_bench
    bench.sql("source", "CREATE TABLE {table} (id INTEGER PRIMARY KEY, version INTEGER, a, b TEXT, c NUMERIC, d REAL)")
    odd = "CAST(X'ff00fe' AS TEXT), CAST(X'ff' AS TEXT), 'no number', -0.0"
    whole = "9223372036854775807, '12.50', 1e400, -9223372036854775808"
    for n, values in enumerate([odd, whole, "X'00ff', '', '1.0', 'x'", "'1', 1, 1, 1", "NULL, NULL, NULL, NULL"]):
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({n}, 1, {values})")
    source, backup = bench.pair()
    reads_nothing(monkeypatch)
    assert synced(source, backup).notes == []
    stored = ", ".join(f"typeof({name}), hex({name}), quote({name}) IS NULL" for name in "abcd")
    query = f"SELECT id, version, {stored} FROM {{table}} ORDER BY id"
    assert bench.rows("backup", query) == bench.rows("source", query)
    comes_back(bench, source, backup, query)
    if maker == "process":
        monkeypatch.setattr(SqliteDialect, "make_images", lambda *_: None)
    for side in ROLES:  # a text that is not valid has no image that the server reads
        bench.sql(side, "DELETE FROM {table} WHERE id = 0")
    source, backup = bench.pair()
    backup.catalog.match(source)
    assert comes_back_from_images(bench, source, backup, query) == []


@pytest.mark.parametrize("type_", ["INT", "NUMERIC", ""])
def test_sqlite_keeps_the_keys_that_are_no_integers_between_integers(sqlite_bench: SqliteBench, type_: str) -> None:
    bench = sqlite_bench
    bench.sql("source", f"CREATE TABLE {{table}} (id {type_} NOT NULL PRIMARY KEY, version INTEGER)")
    bench.sql("source", "INSERT INTO {table} VALUES (1, 1), (1.5, 1), (3, 1)")
    source, backup = bench.pair()
    assert synced(source, backup).counts.inserted == 3
    assert inserted(backup) == [(1,), (1.5,), (3,)]


@pytest.mark.parametrize("clause", ["REPLACE", "IGNORE"])
def test_a_table_of_sqlite_that_passes_over_conflicts_refuses_them_all_the_same(
    sqlite_bench: SqliteBench, clause: str
) -> None:
    bench = sqlite_bench
    bench.create(Item(n, 1, f"name {n}") for n in range(100))
    bench.sql("source", "UPDATE {table} SET Name = 'name 5' WHERE Id = 6")
    columns = "Id INTEGER PRIMARY KEY, Version INTEGER"
    bench.sql("backup", f"CREATE TABLE {{table}} ({columns}, Name varchar(2000) UNIQUE ON CONFLICT {clause})")
    source, backup = bench.pair(**CHUNKS)
    tally = synced(source, backup)
    assert (tally.counts.inserted, tally.counts.failed, len(tally.aside)) == (99, 1, 1)
    assert bench.items("backup").keys() == {*range(100)} - {number for (number,) in tally.aside}
    assert inserted(backup) == sorted((n,) for n in bench.items("backup"))


def test_a_part_of_which_a_trigger_deletes_rows_is_not_relayed(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.create(Item(n) for n in range(20))
    source, backup = bench.pair()
    backup.catalog.match(source)
    bench.sql(
        "backup",
        "CREATE TRIGGER loses AFTER INSERT ON {table} WHEN NEW.Id = 9 BEGIN DELETE FROM {table} WHERE Id = 7; END",
    )
    keep = RecycleBin(backup, RUN.service)
    keep.create()
    with pytest.raises(NotRelayed):
        relayed(source, backup, keep.recorder(RUN, lambda: NOW))
    assert (bench.items("backup"), inserted(backup)) == ({}, [])


def test_what_the_server_refuses_is_copied_record_by_record_and_said_once(sql_bench: SqlBench) -> None:
    bench = sql_bench
    if not bench.relays:
        pytest.skip("its sides are on two servers")
    bench.create(Item(n, 1, f"name {n}") for n in range(100))
    source, backup = bench.pair(**CHUNKS)
    bench.sql("backup", f"CREATE UNIQUE INDEX one_name ON {bench.quoted()} (Name)")
    bench.sql("source", "UPDATE {table} SET Name = 'name 7' WHERE Id IN (9, 70)")
    tally = synced(source, backup)
    aside = {number for (number,) in tally.aside}
    assert (tally.counts.inserted, tally.counts.failed, len(aside & {7, 9, 70})) == (98, 2, 2)
    [note] = tally.notes
    assert note.startswith("The servers refused to copy parts of the table by themselves")
    assert f"Could not relay records in the {backup.place.label}" in note
    assert "name 7" not in note
    assert bench.items("backup").keys() == {*range(100)} - aside
    assert inserted(backup) == sorted((n,) for n in bench.items("backup"))


def test_a_part_that_is_not_empty_after_all_is_left_as_it_is(sql_bench: SqlBench) -> None:
    bench = sql_bench
    if not bench.relays:
        pytest.skip("its sides are on two servers")
    bench.create(Item(n) for n in range(5, 25))
    source, backup = bench.pair()
    backup.catalog.match(source)
    bench.put("backup", Item(2, 1, "of somebody else"))
    keep = RecycleBin(backup, RUN.service)
    keep.create()
    with pytest.raises(NotRelayed) as refused:
        relayed(source, backup, keep.recorder(RUN, lambda: NOW))
    assert refused.value.rest == WHOLE
    assert "Others wrote 1 record " in str(refused.value.error)
    assert bench.items("backup").keys() == {2}
    assert inserted(backup) == []


def relayed(source: Store, backup: Store, keep: Any, chunk: Chunk = WHOLE) -> list[int]:
    assert backup.relational is not None
    return [part.inserted for part in backup.relational.relay(source, chunk, NOTE, keep)]


class Taken:
    """A fence that lets no more than `transactions` pass."""

    def __init__(self, beside: Store, transactions: int) -> None:
        self.beside, self.left = beside, transactions

    def check_young(self) -> None: ...

    def check_last(self, transaction: Any, again: bool) -> None:
        if transaction is not None:
            if self.left == 0:
                raise LockLost
            self.left -= 1


def test_a_key_that_the_run_has_deleted_before_keeps_that_image(making_bench: SqlBench) -> None:
    bench = making_bench
    bench.sql("source", "CREATE TABLE {table} (id varchar(9) PRIMARY KEY, version integer)")
    source, backup = bench.pair(**CHUNKS)
    backup.catalog.match(source)
    for role in ROLES:
        bench.sql(role, f"INSERT INTO {{table}} (id, version) VALUES ({bench.mark}, 1)", [("a",), ("\xe9",)])
    bench.sql("source", "INSERT INTO {table} VALUES ('c', 1)")
    kept = RecycleBin(backup, RUN.service)
    kept.create()
    keep = kept.recorder(RUN, lambda: NOW)
    backup.delete([("a",), ("\xe9",)], keep)
    assert sum(relayed(source, backup, keep)) == 3
    of_run = {image.key[0]: image.action for page in kept.of_run(RUN.sync_id) for image in page}
    assert of_run == {"a": Action.DELETED, "\xe9": Action.DELETED, "c": Action.INSERTED}


def test_a_run_that_was_taken_over_commits_no_further_part(sql_bench: SqlBench) -> None:
    bench = sql_bench
    if not bench.relays:
        pytest.skip("its sides are on two servers")
    bench.create(Item(n) for n in range(100))
    source, backup = bench.pair(**CHUNKS)
    backup.catalog.match(source)
    recycled = RecycleBin(backup, RUN.service)
    recycled.create()
    backup.fence_by(Taken(backup, 1))
    with pytest.raises(LockLost):
        relayed(source, backup, recycled.recorder(RUN, lambda: NOW))
    assert bench.items("backup").keys() == {*range(10)}
    assert inserted(backup) == [(n,) for n in range(10)]


def test_a_condition_that_may_name_tables_is_asked_of_the_source_alone(sqlite_bench: SqliteBench) -> None:
    bench, rules = sqlite_bench, Rules(version=("Version",), where_sql="Id IN (SELECT n FROM Others)")
    bench.create(Item(n) for n in range(5))
    bench.sql("source", "CREATE TABLE Others (n INTEGER)")
    bench.sql("backup", "CREATE TABLE Others (n INTEGER)")
    bench.sql("source", "INSERT INTO Others VALUES (1)")
    bench.sql("backup", "INSERT INTO Others VALUES (2)")
    source, backup = bench.open("source", rules=rules), bench.open("backup")
    backup.catalog.initialize(source)
    tally = synced(source, backup)
    assert (tally.counts.inserted, tally.counts.processed, tally.notes) == (1, 1, [])
    assert bench.items("backup").keys() == {1}


def test_a_relay_leaves_no_trace_in_its_source_and_attaches_it_no_longer(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.create(Item(n) for n in range(100))
    before = (bench.folder / "source.db").read_bytes()
    source, backup = bench.pair(**CHUNKS)
    synced(source, backup)
    assert (bench.folder / "source.db").read_bytes() == before
    assert bench.rows("backup", "SELECT name FROM pragma_database_list WHERE name NOT IN ('main', 'temp')") == []


def test_a_relay_whose_connection_is_lost_gives_it_back(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.create(Item(n) for n in range(5))
    source, backup = bench.pair()
    backup.catalog.match(source)

    def keep(_: Any, cx: Any, __: Any) -> None:
        cx.invalidate()  # as SQLAlchemy does when a statement is interrupted
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relayed(source, backup, keep)
    assert bench.items("backup") == {}
