"""Images restore the exact values, of every type and however long."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from azure.cosmos import ContainerProxy

from backup.core.errors import StoreError
from backup.core.model import Action, Chunk, Image
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.stores import stamps_in
from backup.stores.cosmos.document_parts import join_entry, split_entry
from tests.contract import test_postgresql_types, test_sqlite_types
from tests.contract.benches import (
    SQL_SERVER,
    Bench,
    CosmosBench,
    Item,
    PostgresBench,
    SqlBench,
    SqliteBench,
    SqlServerBench,
)
from tests.contract.recycled import Recycled, content_of_backup, keys, moment, recycled
from tests.emulators.partitioned import Partitioned


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
    declared = test_sqlite_types.DECLARED
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
    for module in ("mssql.images", "postgresql.dialect", "sqlite.images", "sqlite.quick_images"):
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
