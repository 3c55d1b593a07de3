"""The recycle bin beside every kind of store: which images a change leaves, and that they restore the exact values."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.cosmos import ContainerProxy

from backup.core.errors import ConstraintRefused, StoreError
from backup.core.model import Action, Chunk, Image, Key, Record
from backup.core.run_values import Run
from backup.core.timeline import Timeline
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.recycle_bin import entry_pages, kept_batches
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import RECYCLE_BIN, Kept
from backup.stores import CopyNote, Keep, Shape, Store, stamps_in
from backup.stores.cosmos.document_parts import join_entry, split_entry
from tests.contract import test_postgresql_types, test_sqlite_types
from tests.contract.benches import (
    ROLES,
    RUN,
    SQL_SERVER,
    Bench,
    CosmosBench,
    Item,
    PostgresBench,
    SqlBench,
    SqliteBench,
    SqlServerBench,
)
from tests.contract.memory_bench import MemoryBench
from tests.emulators.partitioned import Partitioned
from tests.unit.memory_store import MemoryStore

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
SYSTEM = {"_rid", "_self", "_etag", "_ts", "_attachments"}


def moment(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def run_at(minutes: int) -> tuple[Run, Callable[[], datetime]]:
    """A run, and its clock, which always says that minute."""
    return replace(RUN, sync_id=f"{minutes:08}-0000-4000-8000-000000000000"), lambda: moment(minutes)


class Recycled:
    """The bin of a backup, and runs that change the backup. The number of a run is the minute of its changes."""

    def __init__(self, source: Store, backup: Store, service: str = "contract") -> None:
        self.source, self.backup = source, backup
        self.bin = RecycleBin(backup, service)
        self.bin.create()

    def keep(self, minutes: int) -> Keep:
        return self.bin.recorder(*run_at(minutes))

    def copies(self, keys: Sequence[Key], minutes: int) -> Sequence[Record]:
        """The source's records of these keys, as the backup keeps them."""
        run, now = run_at(minutes)
        records = [record for batch in self.source.read(frozenset(keys), Chunk()) for record in batch]
        return self.backup.copies.of(records, CopyNote(run.sync_id, now()))

    def write(self, keys: Sequence[Key], minutes: int) -> None:
        self.backup.write(self.copies(keys, minutes), self.keep(minutes))

    def delete(self, keys: Sequence[Key], minutes: int) -> None:
        self.backup.delete(keys, self.keep(minutes))

    def of(self, minutes: int) -> dict[Key, Kept]:
        """The entries of a run by key. A key has one entry."""
        all_kept = [kept for page in self.bin.of_run(run_at(minutes)[0].sync_id) for kept in page]
        by_key = {kept.key: kept for kept in all_kept}
        assert len(by_key) == len(all_kept)
        return by_key

    def actions(self, minutes: int) -> dict[Key, Action]:
        return {key: kept.action for key, kept in self.of(minutes).items()}

    def put_back(self, minutes: int) -> None:
        """Writes the run's images back. That write itself leaves no image."""
        images = [kept.record for kept in self.of(minutes).values() if kept.record is not None]
        self.backup.write([self.backup.copies.as_it_was(record) for record in images])

    def add(self, keys: Iterable[Any], minutes: int) -> None:
        """Adds entries without a change, as if a run had inserted these keys."""
        self.keep(minutes)([], None, [(key,) for key in keys])


def recycled(bench: Bench, **limits: Any) -> Recycled:
    """The bench's pair, the backup initialized, and its bin."""
    return Recycled(*bench.pair(**limits))


def content_of_backup(bench: Bench) -> Any:
    """Everything in the backup, as the driver reads it: with the app's own marks, without the server's."""
    if isinstance(bench, CosmosBench):
        documents = bench.documents("backup")
        return sorted(json.dumps({k: v for k, v in document.items() if k not in SYSTEM}) for document in documents)
    if isinstance(bench, MemoryBench):
        return bench.rows("backup")
    assert isinstance(bench, SqlBench)
    return bench.rows("backup")


def keys(bench: Bench, *numbers: int) -> list[Key]:
    return [bench.key(n) for n in numbers]


# --- what a change leaves ---------------------------------------------------------------------------------------------


def test_each_record_that_a_run_changes_leaves_one_image_of_what_it_did(bench: Bench) -> None:
    bench.create(Item(n, version=2) for n in (1, 2, 3))
    sides = recycled(bench)
    bench.put("backup", Item(2), Item(4), Item(5))
    sides.write(keys(bench, 1, 2, 3), 1)
    sides.delete(keys(bench, 4, 77), 1)
    one, two, three, four = keys(bench, 1, 2, 3, 4)
    expected = {one: Action.INSERTED, two: Action.UPDATED, three: Action.INSERTED, four: Action.DELETED}
    assert sides.actions(1) == expected
    assert bench.items("backup").keys() == {1, 2, 3, 5}


def test_an_image_is_the_record_before_the_change_and_an_inserts_is_none(bench: Bench) -> None:
    bench.create(Item(n, version=7, text="new") for n in (1, 2))
    sides = recycled(bench)
    bench.put("backup", Item(2, 3, "old é🎉  "), Item(4, None, "gone"))
    was = {
        sides.backup.keys.of(record): record
        for page in sides.backup.images(keys(bench, 2, 4), Action.UPDATED)
        for record in [image.record for image in page]
        if record is not None
    }
    stamps = stamps_in(sides.backup, Chunk())
    sides.write(keys(bench, 1, 2), 1)
    sides.delete(keys(bench, 4), 1)
    kept = sides.of(1)
    assert (kept[bench.key(1)].record, kept[bench.key(1)].version) == (None, None)
    assert {key: kept[key].record for key in keys(bench, 2, 4)} == was
    assert kept[bench.key(2)].version == stamps[bench.key(2)].value
    assert (kept[bench.key(4)].version or ("?",))[0] is None
    sides.put_back(1)
    assert {n: item for n, item in bench.items("backup").items() if n != 1} == {
        2: Item(2, 3, "old é🎉  "),
        4: Item(4, None, "gone"),
    }


def test_entries_say_when_by_which_run_and_on_which_side(bench: Bench) -> None:
    bench.create([Item(1)])
    sides = recycled(bench)
    sides.write(keys(bench, 1), 3)
    run, _ = run_at(4)
    sides.bin.recorder(run, lambda: moment(4), "source")([Image(bench.key(1), Action.UPDATED, {"id": "x"}, (1,))], None)
    [of_backup], [of_source] = sides.of(3).values(), sides.of(4).values()
    assert (of_backup.sync_id, of_backup.at) == (run_at(3)[0].sync_id, moment(3))
    assert (of_backup.side, of_backup.key) == ("backup", bench.key(1))
    assert (of_source.sync_id, of_source.at) == (run.sync_id, moment(4))
    assert (of_source.side, of_source.version) == ("source", (1,))


def test_a_run_that_tells_a_change_again_keeps_the_first_image(bench: Bench) -> None:
    bench.create([Item(1, 2, "second")])
    sides = recycled(bench)
    bench.put("backup", Item(1, 1, "first"))
    before = content_of_backup(bench)
    sides.write(keys(bench, 1), 1)
    bench.put("source", Item(1, 3, "third"))
    sides.write(keys(bench, 1), 1)
    sides.delete(keys(bench, 1), 1)
    assert sides.actions(1) == {bench.key(1): Action.UPDATED}
    sides.put_back(1)
    assert content_of_backup(bench) == before


def test_each_run_keeps_an_image_of_its_own(bench: Bench) -> None:
    bench.create([Item(1, 2, "second")])
    sides = recycled(bench)
    sides.write(keys(bench, 1), 1)
    second = content_of_backup(bench)
    bench.put("source", Item(1, 3, "third"))
    sides.write(keys(bench, 1), 2)
    third = content_of_backup(bench)
    sides.delete(keys(bench, 1), 3)
    assert [sides.actions(n)[bench.key(1)] for n in (1, 2, 3)] == [Action.INSERTED, Action.UPDATED, Action.DELETED]
    sides.put_back(3)
    assert content_of_backup(bench) == third
    sides.put_back(2)
    assert content_of_backup(bench) == second


def test_without_a_keeper_nothing_is_kept(bench: Bench) -> None:
    bench.create([Item(1)])
    sides = recycled(bench)
    sides.backup.write(sides.copies(keys(bench, 1), 1))
    sides.backup.delete(keys(bench, 1))
    assert sides.of(1) == {}


def test_a_sync_that_changes_nothing_puts_nothing_into_the_bin(bench: Bench) -> None:
    bench.create(Item(n) for n in (1, 2, 3))
    sides = recycled(bench)
    for minutes in (1, 2):
        run, now = run_at(minutes)
        steps = Steps(lambda: None, now, sides.keep(minutes))
        sync_stores(sides.source, sides.backup, run, Tally(tell=lambda counts: None), Guard(), steps)
    assert sides.actions(1) == dict.fromkeys(keys(bench, 1, 2, 3), Action.INSERTED)
    assert sides.of(2) == {}


def test_the_services_of_one_backup_have_bins_of_their_own(bench: Bench) -> None:
    bench.create([Item(1)])
    sides = recycled(bench)
    other_service = Recycled(sides.source, sides.backup, "other")
    sides.write(keys(bench, 1), 1)
    assert other_service.of(1) == {}
    assert other_service.bin.of_keys([bench.key(1)]) == []
    assert other_service.bin.purge(moment(9)) == 0
    assert len(sides.of(1)) == 1


# --- with the change or not at all ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_bytes", [1, 8_000_000])  # some images are kept before the change, or all after it
def test_a_write_that_fails_leaves_no_image(sql_bench: SqlBench, batch_bytes: int) -> None:
    bench = sql_bench
    bench.create(Item(n, 2, "twice") for n in range(1, 9))
    sides = recycled(bench, batch_bytes=batch_bytes)
    bench.put("backup", *(Item(n, 1, f"text {n}") for n in range(1, 6)))
    bench.sql("backup", "CREATE UNIQUE INDEX OnlyOnce ON {table} (Name)")
    records, before = sides.copies(keys(bench, *range(1, 9)), 1), content_of_backup(bench)
    with pytest.raises(StoreError):
        sides.backup.write(records, sides.keep(1))
    assert sides.of(1) == {}
    assert content_of_backup(bench) == before


def test_a_delete_that_fails_leaves_no_image(sql_bench: SqlBench) -> None:
    bench = sql_bench
    bench.create(Item(n) for n in range(1, 9))
    sides = recycled(bench, batch_bytes=1, batch_size=3)
    sides.write(keys(bench, *range(1, 9)), 1)
    bench.sql("backup", f"CREATE TABLE {bench.quoted('Using')} (Id INTEGER REFERENCES {{table}} (Id))")
    bench.sql("backup", f"INSERT INTO {bench.quoted('Using')} VALUES (7)")
    if isinstance(bench, SqliteBench):  # it checks references only if a pragma says so
        bench.sql(
            "backup",
            "CREATE TRIGGER Used BEFORE DELETE ON {table} WHEN OLD.Id = 7 BEGIN SELECT RAISE(ABORT, 'used'); END",
        )
    with pytest.raises(StoreError):
        sides.delete(keys(bench, *range(1, 9)), 2)
    assert sides.of(2) == {}
    assert len(bench.items("backup")) == 8
    bench.sql("backup", f"DROP TABLE {bench.quoted('Using')}")


@pytest.mark.parametrize("name", ["other", "Thing"])
def test_a_record_that_others_refer_to_is_not_deleted_whatever_the_tables_name(
    sqlite_bench: SqliteBench, name: str
) -> None:
    bench = sqlite_bench
    bench.name = name
    bench.create(Item(n) for n in range(1, 4))
    sides = recycled(bench)
    bench.sql("backup", "ALTER TABLE {table} ADD Parent INTEGER REFERENCES {table} (Id)")
    sides.write(keys(bench, 1, 2, 3), 1)
    bench.sql("backup", "UPDATE {table} SET Parent = 1 WHERE Id = 2")
    with pytest.raises(ConstraintRefused, match="refer to"):
        sides.delete(keys(bench, 1), 2)


def test_a_change_whose_image_a_trigger_swallows_is_not_made(sql_bench: SqlBench) -> None:
    bench = sql_bench
    bench.create(Item(n, 2) for n in range(1, 4))
    sides = recycled(bench)
    bench.put("backup", *(Item(n, 1) for n in range(1, 4)))
    before, trigger = content_of_backup(bench), f"CREATE TRIGGER g BEFORE INSERT ON {bench.quoted('RecycleBin')}"
    if isinstance(bench, SqliteBench):
        bench.sql("backup", f"{trigger} BEGIN SELECT RAISE(IGNORE); END")
    elif isinstance(bench, SqlServerBench):
        bench.sql("backup", f"CREATE TRIGGER g ON {bench.quoted('RecycleBin')} INSTEAD OF INSERT AS SET NOCOUNT ON")
    else:
        bench.sql("backup", "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
        bench.sql("backup", f"{trigger} FOR EACH ROW EXECUTE FUNCTION f()")
    with pytest.raises(StoreError, match="not there"):
        sides.write(keys(bench, 1, 2), 1)
    with pytest.raises(StoreError, match="not there"):
        sides.delete(keys(bench, 3), 2)
    assert content_of_backup(bench) == before


def counting(keep: Keep) -> tuple[Keep, list[tuple[int, Any]]]:
    """The keeper, and a list of its calls: how many images, and with which transaction."""
    calls: list[tuple[int, Any]] = []

    def count(images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        calls.append((len(images) + len(inserted), transaction))
        keep(images, transaction, inserted)

    return count, calls


@pytest.mark.parametrize("change", ["write", "delete"])
def test_a_batch_beyond_the_byte_limit_keeps_every_image_in_one_transaction(bench: Bench, change: str) -> None:
    numbers = range(1, 9)
    bench.create(Item(n, 2, f"new {n}") for n in numbers)
    sides = recycled(bench, batch_bytes=2_000)
    bench.put("backup", *(Item(n, 1, f"{n} " * 500) for n in numbers if n != 3))
    before = content_of_backup(bench)
    keep, calls = counting(sides.keep(1))
    if change == "write":
        sides.backup.write(sides.copies(keys(bench, *numbers), 1), keep)
        assert sides.actions(1) == {bench.key(n): Action.INSERTED if n == 3 else Action.UPDATED for n in numbers}
    else:
        sides.backup.delete(keys(bench, *numbers), keep)
        assert sides.actions(1) == {bench.key(n): Action.DELETED for n in numbers if n != 3}
    assert len(calls) > 3  # the images were not all in memory at once
    assert len({id(transaction) for _, transaction in calls}) == 1
    assert (calls[0][1] is None) == (bench.kind == "cosmos")
    sides.put_back(1)
    sides.backup.delete(keys(bench, 3))
    assert content_of_backup(bench) == before


# --- the exact values -------------------------------------------------------------------------------------------------


def check_values_come_back(bench: Bench, sides: Recycled, forget: Callable[[], None]) -> None:
    """Copies the source. Overwrites the copies by what `forget` leaves, then deletes them. Restores them each time."""
    everything = list(stamps_in(sides.source, Chunk()))
    sides.write(everything, 1)
    before = content_of_backup(bench)
    forget()
    sides.write(everything, 2)
    assert content_of_backup(bench) != before
    sides.put_back(2)
    assert content_of_backup(bench) == before
    sides.delete(everything, 3)
    assert content_of_backup(bench) == []
    sides.put_back(3)
    assert content_of_backup(bench) == before


def quoted_rows(bench: SqliteBench, columns: int) -> list[tuple[Any, ...]]:
    parts = ", ".join(f"typeof(C{n}), quote(C{n})" for n in range(columns))
    return bench.rows("backup", f"SELECT Id, {parts} FROM {{table}} ORDER BY Id")


def test_values_of_every_kind_that_sqlite_keeps_come_back(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    declared = [kind for kind in test_sqlite_types.DECLARED if not kind.startswith(("[", "POINT"))]
    values = [value for value in test_sqlite_types.VALUES if not isinstance(value, str) or len(value) < 1_000]
    columns = [f"C{n} {kind}" for n, kind in enumerate(declared)]
    bench.sql("source", f"CREATE TABLE {{table}} (Id INTEGER PRIMARY KEY, Version INTEGER, {', '.join(columns)})")
    marks = ", ".join("?" for _ in range(len(declared) + 1))
    rows = [(n, *[value] * len(declared)) for n, value in enumerate(values)]
    bench.sql("source", f"INSERT INTO {{table}} VALUES ({marks.replace('?', '?, 1', 1)})", rows)
    sides = recycled(bench)
    sides.backup.write(sides.copies(list(stamps_in(sides.source, Chunk())), 1))
    exactly = quoted_rows(bench, len(declared))
    assert len({row[1:3] for row in exactly}) > 15
    sides.backup.delete(list(stamps_in(sides.source, Chunk())))
    nothing = ", ".join(f"C{n} = NULL" for n in range(len(declared)))
    check_values_come_back(bench, sides, lambda: bench.sql("source", f"UPDATE {{table}} SET Version = 2, {nothing}"))
    assert quoted_rows(bench, len(declared)) == exactly


def test_values_of_every_postgresql_type_come_back(postgresql_bench: PostgresBench) -> None:
    bench, types = postgresql_bench, test_postgresql_types.VALUES
    columns = ", ".join(f"c{n} {type_}" for n, type_ in enumerate(types))
    bench.sql("source", f"CREATE TABLE {{table}} (id integer PRIMARY KEY, version integer, {columns})")
    for n in range(max(map(len, types.values())) + 1):
        row = ", ".join((values[n] if n < len(values) else "NULL").replace("%", "%%") for values in types.values())
        bench.sql("source", f"INSERT INTO {{table}} VALUES ({n}, 1, {row})")
    sides = recycled(bench)
    sides.backup.write(sides.copies(list(stamps_in(sides.source, Chunk())), 1))
    as_text = f"SELECT id, {', '.join(f'c{n}::text' for n in range(len(types)))} FROM {{table}} ORDER BY id"
    exactly = bench.rows("backup", as_text)
    assert exactly == bench.rows("source", as_text)
    sides.backup.delete(list(stamps_in(sides.source, Chunk())))
    nothing = ", ".join(f"c{n} = NULL" for n in range(len(types)))
    # Read as text: the driver cannot give the infinite times and the years beyond 9999 among these values.
    bench.rows = lambda role, query=as_text: PostgresBench.rows(bench, role, query)  # type: ignore[method-assign]
    check_values_come_back(bench, sides, lambda: bench.sql("source", f"UPDATE {{table}} SET version = 2, {nothing}"))
    assert content_of_backup(bench) == exactly


@pytest.mark.skipif(SQL_SERVER is None, reason="needs TEST_SQLSERVER_SOURCE and TEST_SQLSERVER_BACKUP")
def test_values_of_every_sql_server_type_come_back(mssql_bench: SqlServerBench) -> None:
    from tests.contract import test_sqlserver_types

    bench = mssql_bench
    for number, (type_, values) in enumerate(test_sqlserver_types.VALUES.items()):
        bench.name = f"Things{number}"
        bench.sql("source", f"CREATE TABLE {{table}} (Id int NOT NULL PRIMARY KEY, V {type_} NULL, Version int)")
        for n, value in enumerate(["NULL", *values]):
            bench.sql("source", f"INSERT INTO {{table}} (Id, V, Version) VALUES ({n}, {value}, 1)")
        sides = recycled(bench)
        as_bytes = f"SELECT Id, Version, {test_sqlserver_types.exact_sql(type_)} FROM {{table}} ORDER BY Id"
        bench.rows = lambda role, query=as_bytes: SqlServerBench.rows(bench, role, query)  # type: ignore[method-assign]
        check_values_come_back(
            bench,
            sides,
            lambda: bench.sql("source", "UPDATE {table} SET Version = 2, V = NULL"),
        )
        for minutes in (1, 2, 3):  # the next type's rows have the same keys
            sides.backup.sibling(RECYCLE_BIN).delete([kept.entry_id for kept in sides.of(minutes).values()])


def test_documents_of_every_kind_come_back(cosmos_bench: CosmosBench) -> None:
    bench = cosmos_bench
    bench.create()
    order = {"type": "Order", "customer": {"id": "c"}, "lastModified": "2024-01-01T00:00:00Z"}
    documents: list[dict[str, Any]] = [
        {**order, "id": "nested", "items": [{"a": [1, 2.5, None, [], {}]}, "x", True], "deep": {"er": {"est": {}}}},
        {**order, "id": "text", "unicode": "é漢🎉\u2028\\\"'\n", "empty": "", "spaces": "  a  ", "ключ 漢": 1},
        {**order, "id": "numbers", "n": [0, -1, 1.5, 1e300, 1e-7, 2**53, 0.1], "big": 2**53, "small": -1e-7},
        {**order, "id": "nothing", "null": None, "list": [], "object": {}},
        {**order, "id": "tags", "a": {"$decimal": "1"}, "b": {"$json": {"$bytes": "x"}}, "$float": "nan"},
        {**order, "id": "large", "text": "ä" * 180_000},
        {**order, "id": "status", "status": {"name": "Paid", "id": 2}},
        *({**order, "id": "same", "customer": {"id": customer}} for customer in ("a", "b")),
        *({**order, "id": f"under {customer!r}", "customer": {"id": customer}} for customer in (None, 1.5, False, "")),
        {"type": "Order", "id": "under nothing", "lastModified": None},
    ]
    bench.put_documents("source", *documents)
    sides = recycled(bench)
    marks = {name: value for name, value in order.items() if name != "customer"}
    check_values_come_back(
        bench,
        sides,
        lambda: bench.put_documents(
            "source",
            *(
                {
                    "id": document["id"],
                    **marks,
                    "over": "written",
                    **{name: document[name] for name in ("customer",) if name in document},
                }
                for document in documents
            ),
        ),
    )


def test_an_image_larger_than_a_document_may_be_is_kept_in_parts(partitioned: Partitioned) -> None:
    bench = CosmosBench({"source": partitioned.account, "backup": partitioned.account})
    try:
        bench.create()
        sides = recycled(bench)
        text = random.Random(1)
        documents: list[dict[str, Any]] = [
            {"id": "random", "text": base64.b64encode(text.randbytes(1_560_000)).decode()},
            {"id": "many escapes", "text": '"' * 490_000, "status": {"text": '"' * 490_000}},
            {"id": "small", "text": "x"},
        ]
        copies = [{**document, "type": "Order", "customer": {"id": "c"}} for document in documents]
        sides.backup.write(copies)
        before = content_of_backup(bench)
        sides.backup.write([{**copy, "text": "over", "status": "written"} for copy in copies], sides.keep(1))
        entries = bench.container("backup", "recycle-bin")
        assert len(list(entries.read_all_items())) > 3
        assert {kept.record["id"]: kept.version for kept in sides.of(1).values() if kept.record} == {
            document["id"]: (None, json.dumps(document["status"]) if "status" in document else None)
            for document in documents
        }
        sides.put_back(1)
        assert content_of_backup(bench) == before
        assert sides.bin.purge(moment(1)) == 0
        assert sides.bin.purge(moment(2)) == 3
        assert list(entries.read_all_items()) == []
    finally:
        bench.close()


def test_parts_that_another_program_has_changed_are_no_entry() -> None:
    text = "x" * 2_000_000
    document, parts = split_entry({"id": "e", "record": text}, {})
    first, *others = (part["_part"] for part in parts)
    assert join_entry(document, [first, *others]) == {**document, "record": text}
    with pytest.raises(StoreError, match="not what was written"):
        join_entry(document, [first.replace("x", "y"), *others])


def test_parts_of_images_never_mix_and_none_is_left(cosmos_bench: CosmosBench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_MAX_BYTES": 900, "_LONG": 100, "_PIECE": 400}.items():
        monkeypatch.setattr(f"backup.stores.cosmos.document_parts.{name}", value)
    bench = cosmos_bench
    bench.create()
    sides = recycled(bench)

    def image(text: str, key: str = "a") -> Image:
        return Image(('"c"', key), Action.UPDATED, {"id": key, "text": text * 1_000})

    with monkeypatch.context() as dying:
        create = ContainerProxy.create_item

        def dies(self: ContainerProxy, body: dict[str, Any], **options: Any) -> Any:
            if "_part" not in body:  # the parts were written, the entry was not
                raise KeyboardInterrupt
            return create(self, body, **options)

        dying.setattr(ContainerProxy, "create_item", dies)
        with pytest.raises(KeyboardInterrupt):
            sides.keep(1)([image("x"), image("o", "orphan")], None)
    assert sides.of(1) == {}
    for text in "yz":
        sides.keep(1)([image(text)], None)
    [kept] = sides.of(1).values()
    assert kept.record == {"id": "a", "text": "y" * 1_000}
    assert sides.bin.newest() == moment(1)
    assert sides.bin.purge(moment(2)) == 2
    assert list(bench.container("backup", "recycle-bin").read_all_items()) == []


def test_a_long_image_is_kept_in_rows_of_its_own(sql_bench: SqlBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = sql_bench
    bench.create(Item(n, version=2) for n in (1, 2, 3))
    sides = recycled(bench)
    texts = {n: f"{n} " + base64.b64encode(random.Random(n).randbytes(1_000)).decode() for n in (1, 2, 3)}
    bench.put("backup", *(Item(n, 1, text) for n, text in texts.items()))
    before = content_of_backup(bench)
    sides.write(keys(bench, 1), 1)  # as a release without parts keeps it
    monkeypatch.setattr("backup.stores.exact_json._LONG", 100)
    for module in ("postgresql.dialect", "sqlite.images"):
        monkeypatch.setattr(f"backup.stores.sql.engines.{module}.LARGEST_BYTES", 100)
    monkeypatch.setattr("backup.stores.sql.entry_parts._PIECE", 300)
    sides.write(keys(bench, 2, 3), 1)
    [[later]] = sides.backup.images(keys(bench, 2), Action.UPDATED)
    assert later.record is not None
    name = next(name for name in later.record if name.lower() == "name")
    sides.keep(1)([replace(later, record={**later.record, name: "x" * 1_000})], None)
    rows = f"SELECT {bench.quote('EntryId')} FROM {bench.quoted('RecycleBin')}"
    assert len(bench.rows("backup", rows)) > 3 + 2 * 3
    assert {kept.record[name] for kept in sides.of(1).values() if kept.record} == {*texts.values()}
    of_keys = sides.bin.of_keys(keys(bench, 1, 2, 3))
    assert [kept.key for kept in of_keys] == keys(bench, 1, 2, 3)
    assert len({kept.entry_id for kept in of_keys}) == 3
    assert (sides.bin.newest(), sides.bin.oldest()) == (moment(1), moment(1))
    sides.put_back(1)
    assert content_of_backup(bench) == before
    [entry] = (kept.entry_id for kept in of_keys if kept.key == bench.key(3))
    bench.sql("backup", f"DELETE FROM {bench.quoted('RecycleBin')} WHERE {bench.quote('EntryId')} = '{entry}part1'")
    with pytest.raises(StoreError, match="lacks a part"):
        sides.of(1)
    assert sides.bin.purge(moment(1)) == 0
    assert sides.bin.purge(moment(2)) == 3
    assert bench.rows("backup", rows) == []


# --- keys -------------------------------------------------------------------------------------------------------------


def check_respelled(bench: SqlBench, text: str, old: str, new: str) -> None:
    """A key changes only in what its collation ignores. Its image has the old spelling, and both spellings find it."""
    bench.sql("source", f"CREATE TABLE {{table}} (Id {text} NOT NULL PRIMARY KEY, Version INTEGER)")
    insert = f"INSERT INTO {{table}} (Id, Version) VALUES ({bench.mark}, {bench.mark})"
    bench.sql("source", insert, [(old, 1), ("b", 1)])
    sides = recycled(bench)
    sides.write([(old,), ("b",)], 1)
    before = content_of_backup(bench)
    bench.sql("source", f"UPDATE {{table}} SET Id = {bench.mark}, Version = 2 WHERE Id = {bench.mark}", [(new, old)])
    sides.write([(new,)], 2)
    assert sorted(row[0] for row in bench.rows("backup")) == sorted([new, "b"])
    [kept] = sides.of(2).values()
    assert (kept.key, kept.action) == ((new,), Action.UPDATED)
    assert kept.record is not None
    assert sides.backup.keys.of(kept.record) == (old,)
    assert sides.bin.first_after([(new,)], moment(1)) == {(new,): kept, (old,): kept}
    assert sides.bin.first_after([(old,)], moment(1)) == {(new,): kept, (old,): kept}
    assert sides.bin.first_after([(old,), ("b",)], moment(2)) == {}
    sides.put_back(2)
    assert content_of_backup(bench) == before


@pytest.mark.parametrize(
    ("collation", "old", "new"), [("NOCASE", "A", "a"), ("RTRIM", "a", "a  "), ("NOCASE", "a", "A")]
)
def test_sqlite_keeps_a_respelled_keys_old_spelling(
    sqlite_bench: SqliteBench, collation: str, old: str, new: str
) -> None:
    check_respelled(sqlite_bench, f"TEXT COLLATE {collation}", old, new)


@pytest.mark.parametrize(("old", "new"), [("A", "a"), ("ä", "Ä")])
def test_postgresql_keeps_a_respelled_keys_old_spelling(postgresql_bench: PostgresBench, old: str, new: str) -> None:
    bench = postgresql_bench
    bench.sql("backup", f"CREATE SCHEMA {bench.quote(bench.schema or '')}")
    options = "(provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    for role in ROLES:
        bench.sql(role, f"CREATE COLLATION {bench.quoted('alike')} {options}")
    check_respelled(bench, f"text COLLATE {bench.quoted('alike')}", old, new)


@pytest.mark.parametrize(("old", "new"), [("A", "a "), ("a ", "A"), ("É", "é")])
@pytest.mark.skipif(SQL_SERVER is None, reason="needs TEST_SQLSERVER_SOURCE and TEST_SQLSERVER_BACKUP")
def test_sql_server_keeps_a_respelled_keys_old_spelling(mssql_bench: SqlServerBench, old: str, new: str) -> None:
    check_respelled(mssql_bench, "nvarchar(40) COLLATE Latin1_General_CI_AS", old, new)


def test_a_resumed_run_finds_its_image_of_a_key_that_has_another_spelling_since(sqlite_bench: SqliteBench) -> None:
    """The first call deleted the copy; the next one inserts it as the source spells it by then."""
    bench = sqlite_bench
    bench.sql("source", "CREATE TABLE {table} (Id TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, Version INTEGER)")
    bench.sql("source", "INSERT INTO {table} VALUES ('A', 1)")
    sides = recycled(bench)
    sides.write([("A",)], 1)
    sides.delete([("A",)], 2)
    bench.sql("source", "UPDATE {table} SET Id = 'a', Version = 2")
    run, now = run_at(2)
    sides.backup.write(sides.copies([("a",)], 2), sides.bin.recorder(run, now, resumed=True))
    assert [row[:2] for row in bench.rows("backup")] == [("a", 2)]
    assert sides.actions(2) == {("A",): Action.DELETED}


def test_keys_that_the_server_tells_apart_keep_images_of_their_own(sqlite_bench: SqliteBench) -> None:
    bench = sqlite_bench
    bench.sql("source", "CREATE TABLE {table} (Id TEXT PRIMARY KEY, Version INTEGER)")
    bench.sql("source", "INSERT INTO {table} VALUES (?, ?)", [("A", 1), ("a", 2), ("a ", 3)])
    sides = recycled(bench)
    sides.write([("A",), ("a",), ("a ",)], 1)
    sides.delete([("A",)], 2)
    sides.delete([("a",)], 3)
    first = sides.bin.first_after([("A",)], moment(1))
    assert {key: (kept.key, kept.version) for key, kept in first.items()} == {
        ("A",): (("A",), (1,)),
        ("a",): (("a",), (2,)),
    }


def test_composite_keys_leave_images_and_are_put_back(sql_bench: SqlBench) -> None:
    bench = sql_bench
    text = "nvarchar(20)" if bench.kind == "mssql" else "varchar(20)"
    bench.sql(
        "source", f"CREATE TABLE {{table}} (A INTEGER NOT NULL, B {text} NOT NULL, Version INTEGER, PRIMARY KEY (B, A))"
    )
    insert = f"INSERT INTO {{table}} (A, B, Version) VALUES ({bench.mark}, {bench.mark}, {bench.mark})"
    bench.sql("source", insert, [(a, b, 1) for a in range(4) for b in ("", "x", "ä")])
    sides = recycled(bench, batch_size=2)
    sides.write(list(stamps_in(sides.source, Chunk())), 1)
    assert sides.actions(1) == {(b, a): Action.INSERTED for a in range(4) for b in ("", "x", "ä")}
    before = sorted(content_of_backup(bench))
    bench.sql("source", "UPDATE {table} SET Version = 2")
    sides.write([("x", 1), ("", 3)], 2)
    sides.delete([("ä", 0), ("x", 0), ("y", 0)], 2)
    expected = {("x", 1): Action.UPDATED, ("", 3): Action.UPDATED, ("ä", 0): Action.DELETED, ("x", 0): Action.DELETED}
    assert sides.actions(2) == expected
    assert {kept.version for kept in sides.of(2).values()} == {(1,)}
    assert sides.bin.first_after([("x", 1)], moment(1)).keys() == {("x", 1)}
    sides.put_back(2)
    assert sorted(content_of_backup(bench)) == before


# --- looking into it, and emptying it ---------------------------------------------------------------------------------


@pytest.fixture
def many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> int:
    """A number of entries that needs several pages. Cosmos DB gets smaller pages, since each entry is a request."""
    if bench.kind != "cosmos":
        return 2_300
    monkeypatch.setattr(entry_pages, "_FIRST_PAGE", 2)
    monkeypatch.setattr(entry_pages, "PAGE", 5)
    monkeypatch.setattr(entry_pages, "_HASHES_AT_ONCE", 6)
    return 20


def test_of_run_gives_every_entry_once_a_page_at_a_time(bench: Bench, many: int) -> None:
    bench.create()
    sides = recycled(bench)
    sides.add(map(str, range(many)), 1)
    sides.add(map(str, range(many, many + 5)), 2)
    pages = list(sides.bin.of_run(run_at(1)[0].sync_id))
    assert sorted(int(kept.key[0]) for page in pages for kept in page) == [*range(many)]
    assert max(map(len, pages)) <= many / 4


def test_pages_of_large_records_are_small(sqlite_bench: SqliteBench, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_bench.create()
    sides = recycled(sqlite_bench)
    monkeypatch.setattr(entry_pages, "_PAGE_CHARACTERS", 10_000)
    images = [Image((n,), Action.DELETED, {"Id": n, "Name": "x" * 3_000}, (1,)) for n in range(50)]
    sides.keep(1)(images, None)
    sizes = [len(page) for page in sides.bin.of_run(run_at(1)[0].sync_id)]
    assert sum(sizes) == 50
    assert max(sizes[1:]) <= 3


def test_pages_of_small_records_grow_fourfold_up_to_the_most(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create()
    sides = recycled(bench)
    monkeypatch.setattr(entry_pages, "_FIRST_PAGE", 1)
    monkeypatch.setattr(entry_pages, "PAGE", 6)
    sides.add(map(str, range(14)), 1)
    sync_id = run_at(1)[0].sync_id
    assert [len(page) for page in sides.bin.of_run(sync_id)] == [1, 4, 6, 3]
    assert [len(page) for page in sides.bin.of_run(sync_id, records=False)] == [6, 6, 2]


def test_a_batch_ends_after_the_record_that_makes_it_too_large(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create(Item(n) for n in range(7))
    sides = recycled(bench)
    sides.write(keys(bench, *range(7)), 1)
    sides.delete(keys(bench, *range(7)), 2)
    sync_id = run_at(2)[0].sync_id
    [size] = {kept_batches._size(kept) for kept in sides.of(2).values()}
    monkeypatch.setattr(kept_batches, "_BYTES_AT_ONCE", 2 * size)
    assert [len(batch) for batch in sides.bin.of_run(sync_id)] == [3, 3, 1]
    without = [kept for batch in sides.bin.of_run(sync_id, records=False) for kept in batch]
    batches = list(sides.bin.with_records(without))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert {kept.key: kept.record for batch in batches for kept in batch} == {
        key: kept.record for key, kept in sides.of(2).items()
    }


def test_records_without_texts_come_in_batches_as_large_as_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_batches, "_AT_ONCE", 2)
    images = RecycleBin(MemoryStore("backup", batch_size=3), "customer")
    images.create()
    run, now = run_at(1)
    images.recorder(run, now)([Image((n,), Action.DELETED, {"id": n, "content": "x"}, (1,)) for n in range(7)], None)
    assert [len(batch) for batch in images.of_run(run.sync_id)] == [2, 2, 2, 1]
    assert [len(batch) for batch in images.of_run(run.sync_id, records=False)] == [3, 3, 1]


def test_of_keys_gives_the_backups_entries_of_these_keys_oldest_first(bench: Bench, many: int) -> None:
    bench.create()
    sides = recycled(bench)
    for minutes in (3, 1, 2):
        sides.add([7, 8, 9], minutes)
    sides.add(map(str, range(100, 100 + many)), 1)
    run, now = run_at(4)
    sides.bin.recorder(run, now, "source")([Image((7,), Action.UPDATED, {"id": "x"})], None)
    of_keys = sides.bin.of_keys((n,) for n in (9, 7, 5))
    assert [kept.at for kept in of_keys] == [moment(n) for n in (1, 1, 2, 2, 3, 3)]
    assert {kept.key for kept in of_keys} == {(7,), (9,)}
    later = sides.bin.of_keys([(7,)], after=moment(1))
    assert [kept.at for kept in later] == [moment(2), moment(3)]
    assert len(sides.bin.of_keys((str(n),) for n in range(100, 100 + many))) == many


def test_first_after_gives_each_keys_first_change_since(bench: Bench) -> None:
    bench.create()
    sides = recycled(bench)
    sides.add([1, 2], 1)
    sides.add([1, 3], 2)
    sides.add([1, 2], 3)
    keys = [(n,) for n in (1, 2, 3, 4)]

    def first(minutes: int) -> dict[Key, datetime]:
        return {key: kept.at for key, kept in sides.bin.first_after(keys, moment(minutes)).items()}

    assert first(0) == {(1,): moment(1), (2,): moment(1), (3,): moment(2)}
    assert first(1) == {(1,): moment(2), (2,): moment(3), (3,): moment(2)}
    assert first(2) == {(1,): moment(3), (2,): moment(3)}
    assert first(3) == {}


def test_purge_deletes_only_what_is_older_a_batch_at_a_time(
    bench: Bench, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.create()
    sides = recycled(bench)
    sides.add(map(str, range(many)), 1)
    sides.add(["at the time"], 2)
    sides.add(["later"], 3)
    sibling, batches = type(sides.backup.sibling(RECYCLE_BIN)), []
    delete = sibling.delete

    def spied(self: Any, entries: Sequence[str]) -> None:
        batches.append(len(entries))
        delete(self, entries)

    monkeypatch.setattr(sibling, "delete", spied)
    assert sides.bin.purge(moment(2)) == many
    assert [len(sides.of(n)) for n in (1, 2, 3)] == [0, 1, 1]
    assert sum(batches) == many
    assert max(batches) <= many / 4
    assert sides.bin.purge(moment(2)) == 0


def test_purge_passes_over_pages_of_a_run_whose_clock_was_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create()
    sides = recycled(bench)
    runs = [replace(run_at(n)[0], started_at=moment(n), number=n) for n in (1, 2, 3)]
    runs[1] = replace(runs[1], started_at=moment(-9_000))  # it was between the others
    sides.add(["old"], 1)
    for n in range(4):
        sides.bin.recorder(runs[1], lambda n=n: moment(n - 9_000))([], None, [(f"young {n}",)])  # type: ignore[misc]
    monkeypatch.setattr(entry_pages, "PAGE", 2)
    of_all_runs = RecycleBin(sides.backup, "contract", lambda: Timeline(runs, moment(4)))
    assert of_all_runs.purge(moment(3)) == 1  # the others count as begun then: they are not older
    assert [len(sides.of(n)) for n in (1, 2)] == [0, 4]


@pytest.mark.parametrize(
    "odd", [{"Action": "Odd"}, {"RecordKey": "{{"}, {"Version": "["}, {"Record": "no JSON"}, {"RecordKey": "[[1]]"}]
)
def test_an_entry_that_cannot_be_read_is_named_and_purged_when_it_is_old(
    sqlite_bench: SqliteBench, odd: dict[str, str]
) -> None:
    sqlite_bench.create()
    sides = recycled(sqlite_bench)
    sides.add(["a"], 1)
    sides.add(["b"], 3)
    sibling = sides.backup.sibling(RECYCLE_BIN)
    [entry, _] = sibling.find({}, order_by="RecycledAt", limit=9)
    sibling.put([{**entry, **odd}, {**entry, "EntryId": "of nobody", "SyncId": "of nobody"}])
    with pytest.raises(StoreError, match=entry["EntryId"]):
        sides.of(1)
    assert sides.bin.purge(moment(2)) == 2
    assert [entry["RecycledAt"] for entry in sibling.find({}, order_by="RecycledAt", limit=9)] == [moment(3)]


# --- an older release's table -----------------------------------------------------------------------------------------


def test_create_completes_what_an_older_release_made_and_keeps_its_entries(bench: Bench) -> None:
    bench.create()
    backup = bench.pair()[1]
    early = Shape("Notes", "notes", "NoteId", "Subject", {"NoteId": "name", "Subject": "name", "At": "time"})
    late = replace(early, fields={**early.fields, "Done": "flag", "Text": "text", "Size": "integer", "Until": "time"})
    backup.sibling(early).create()
    old = {"NoteId": "a", "Subject": "x", "At": moment(1)}
    backup.sibling(early).put([old])
    notes = backup.sibling(late)
    for _ in range(2):
        notes.create()
    new = {"NoteId": "b", "Subject": "x", "At": moment(2), "Done": True, "Text": "Tëxt", "Size": 7, "Until": moment(9)}
    notes.put([new])
    nothing = {"Done": None, "Text": None, "Size": None, "Until": None}
    assert notes.find({"Subject": "x"}, order_by="At", limit=9) == [{**old, **nothing}, new]
