"""A store on Cosmos DB with several physical partitions answers as a plain look at the documents does."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.core.model import WHOLE, Action, Chunk, Image, Key, Version
from backup.core.run_values import Status, Trigger
from backup.mirror.verification import Depth
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service import Options
from backup.stores import Shape, stamps_in
from backup.stores.cosmos.store import CosmosStore
from backup.verbs.restore_spec import RestoreSpec
from tests.contract.benches import NOTE, ROLES, CosmosBench
from tests.emulators.clients import cosmos_client
from tests.emulators.partitioned import Partitioned
from tests.scenarios import places

CUSTOMERS: list[Any] = [None, "", "1", 1, 0, 2.5, True, False, "it's", "grüße", *(f"c{n}" for n in range(10))]
SYSTEM = {"_rid", "_self", "_etag", "_ts", "_attachments"}
NOT_THERE = [('"nobody"', "000001"), ('"c1"', "999999"), ("undefined", "000001")]


def order(n: int, customer: Any, **properties: Any) -> dict[str, Any]:
    return {"id": f"{n:06}", "type": "Order", "customer": {"id": customer}, "status": {"id": n % 3}, **properties}


# Each id is under two customers. The order with no customer has another partition key than the one whose is null.
ORDERS = [
    *(order(n // 2, CUSTOMERS[n * 7 % len(CUSTOMERS)], lastModified=f"2024-01-01T{n:02}:00:00Z") for n in range(60)),
    {"id": "loose", "type": "Order", "status": "New"},
]
OTHERS = [{**order(n, f"c{n}"), "type": "Quote"} for n in range(90, 96)]


@dataclass
class Filled:
    """A source with the orders and others, and a backup with copies of the orders, which have seconds from 1000 on."""

    bench: CosmosBench
    source: CosmosStore
    backup: CosmosStore


def opened(bench: CosmosBench, **limits: Any) -> tuple[CosmosStore, CosmosStore]:
    source, backup = bench.open("source", **limits), bench.open("backup", **limits)
    assert isinstance(source, CosmosStore)
    assert isinstance(backup, CosmosStore)
    return source, backup


def bench_at(accounts: tuple[Partitioned, Partitioned], partition_path: Any = "/customer/id") -> CosmosBench:
    source, backup = accounts
    return CosmosBench({"source": source.account, "backup": backup.account}, partition_path)


@pytest.fixture(scope="module")
def filled(accounts: tuple[Partitioned, Partitioned]) -> Iterator[Filled]:
    """For reading alone."""
    bench = bench_at(accounts)
    bench.create()
    bench.put_documents("source", *ORDERS, *OTHERS)
    source, backup = opened(bench, chunk_size=7, batch_size=10)
    backup.catalog.initialize(source)
    seconds = random.Random(1).sample(range(1000, 1000 + len(ORDERS)), len(ORDERS))
    records = [{**document, "_etag": f"e{n}", "_ts": seconds[n]} for n, document in enumerate(ORDERS)]
    backup.write(backup.copies.of(records, NOTE))
    yield Filled(bench, source, backup)
    bench.close()


@pytest.fixture
def bench(accounts: tuple[Partitioned, Partitioned]) -> Iterator[CosmosBench]:
    """Two empty sides, to be changed."""
    made = bench_at(accounts)
    made.create()
    yield made
    made.close()


def plain_key(document: dict[str, Any]) -> Key:
    customer = json.dumps(document["customer"]["id"], ensure_ascii=False) if "customer" in document else "undefined"
    return (customer, document["id"])


def plain_stamps(documents: Sequence[dict[str, Any]], *, copies: bool = False) -> dict[Key, Version]:
    """What the stamps of the orders among the documents are."""

    def text(document: dict[str, Any], name: str) -> str | None:
        return json.dumps(document[name], sort_keys=True) if name in document else None

    def etag(document: dict[str, Any]) -> str:
        value: str = document["_backup"]["etag"] if copies else document["_etag"]
        return value

    return {
        plain_key(document): Version((text(document, "lastModified"), text(document, "status")), etag(document))
        for document in documents
        if document["type"] == "Order"
    }


def content(document: Any) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in SYSTEM | {"_backup"}}


def by_key(documents: Any) -> dict[Key, dict[str, Any]]:
    return {plain_key(document): content(document) for document in documents}


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_documents_lie_in_every_partition(filled: Filled) -> None:
    for role in ("source", "backup"):
        container = filled.bench.container(role)
        documents_by_range = [
            list(container.query_items("SELECT * FROM c", feed_range=feed_range))
            for feed_range in container.read_feed_ranges()
        ]
        assert len(documents_by_range) == 3
        assert min(map(len, documents_by_range)) > 8


@pytest.mark.parametrize("role", ["source", "backup"])
def test_stamps_and_their_number_are_those_of_all_partitions(filled: Filled, role: Any) -> None:
    store, copies = getattr(filled, role), role == "backup"
    plain = plain_stamps(filled.bench.documents(role), copies=copies)
    assert len(plain) == len(ORDERS)
    assert stamps_in(store, WHOLE) == plain
    assert store.count() == len(plain)
    some = random.Random(2).sample(sorted(plain), 20)
    assert store.keys.stamps(store.stamp_rows_of(some + NOT_THERE)) == {key: plain[key] for key in some}
    assert store.matching(some + NOT_THERE) == set(some)


@pytest.mark.parametrize("role", ["source", "backup"])
def test_chunks_go_through_the_ids_of_all_partitions_in_order(filled: Filled, role: Any) -> None:
    store = getattr(filled, role)
    plain = plain_stamps(filled.bench.documents(role), copies=role == "backup")
    chunks = list(store.chunks())
    bounds = [chunk.upto[0] for chunk in chunks[:-1] if chunk.upto is not None]
    assert bounds == sorted(key[1] for key in plain)[6::7]
    assert [chunk.after for chunk in chunks] == [None, *((bound,) for bound in bounds)]
    assert chunks[-1].upto is None
    for chunk in chunks:
        low, high = (bound[0] if bound else None for bound in chunk)
        inside = {
            key: version for key, version in plain.items() if (not low or key[1] > low) and (not high or key[1] <= high)
        }
        assert stamps_in(store, chunk) == inside
    within = Chunk(("000004",), ("000020",))
    assert {key for chunk in store.chunks(within) for key in stamps_in(store, chunk)} == {
        key for key in plain if "000004" < key[1] <= "000020"
    }


@pytest.mark.parametrize("many", [False, True])
def test_a_fingerprint_adds_up_all_partitions(filled: Filled, monkeypatch: pytest.MonkeyPatch, many: bool) -> None:
    if many:
        monkeypatch.setattr("backup.stores.cosmos.chunks._MANY", 5)
    for role, store in zip(ROLES, (filled.source, filled.backup), strict=True):
        documents = [document for document in filled.bench.documents(role) if document["type"] == "Order"]
        for chunk in (WHOLE, Chunk(None, ("000009",)), Chunk(("000020",), None), Chunk(("z",), None)):
            low, high = (bound[0] if bound else None for bound in chunk)
            inside = [
                document
                for document in documents
                if (not low or document["id"] > low) and (not high or document["id"] <= high)
            ]
            seconds = [document["_ts"] if role == "source" else document["_backup"]["ts"] for document in inside]
            fingerprint = store.fingerprint(chunk)
            assert fingerprint is not None
            assert (fingerprint.records, fingerprint.sums) == (len(inside), (0, sum(seconds)))


def test_the_watermark_is_the_greatest_of_all_partitions(filled: Filled) -> None:
    assert filled.backup.incremental
    assert filled.source.incremental
    assert filled.backup.incremental.watermark() == str(1000 + len(ORDERS) - 1)
    plain = max(document["_ts"] for document in filled.bench.documents("source") if document["type"] == "Order")
    assert filled.source.incremental.watermark() == str(plain)


def test_the_watermark_of_documents_in_one_partition_alone_is_theirs(bench: CosmosBench) -> None:
    source = bench.open("source")
    assert source.incremental
    assert source.incremental.watermark() is None
    assert source.count() == 0
    bench.put_documents("source", order(1, "c1"))
    assert source.incremental.watermark() == str(bench.documents("source")[0]["_ts"])
    assert source.count() == 1


@pytest.mark.parametrize("since", [1000, 1030, 1059, 1060, 1061])
def test_recent_goes_through_all_partitions_in_the_order_of_writes(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, since: int
) -> None:
    monkeypatch.setattr("backup.stores.cosmos.container._STAMPS_AT_ONCE", 7)
    documents = filled.bench.documents("backup")
    second_of = {plain_key(document): document["_backup"]["ts"] for document in documents}
    seconds = []
    for rows in filled.backup.incremental.recent(str(since + 2), 1.5):
        assert filled.backup.keys.stamps(rows).items() <= plain_stamps(documents, copies=True).items()
        assert len(rows) <= 7
        seconds += sorted(second_of[row[:2]] for row in rows)
    assert seconds == list(range(since, 1000 + len(ORDERS)))


def test_all_documents_are_read_and_those_of_keys(filled: Filled) -> None:
    plain = by_key(ORDERS)
    batches = list(filled.source.read(None, WHOLE))
    assert by_key(document for batch in batches for document in batch) == plain
    assert sum(map(len, batches)) == len(plain)
    assert max(map(len, batches)) <= 10
    some = random.Random(3).sample(sorted(plain), 25)
    read = [document for batch in filled.source.read(frozenset(some + NOT_THERE), WHOLE) for document in batch]
    assert by_key(read) == {key: plain[key] for key in some}
    assert len(read) == 25


# --- writing ----------------------------------------------------------------------------------------------------------


def test_what_is_written_and_deleted_is_found_in_its_partition(bench: CosmosBench) -> None:
    source, _ = opened(bench, batch_size=25)
    kept: list[Image] = []
    new: list[Key] = []

    def keep(images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        kept.extend(images)
        new.extend(inserted)

    source.write(ORDERS, keep)
    assert by_key(bench.documents("source")) == by_key(ORDERS)
    assert (kept, sorted(new)) == ([], sorted(by_key(ORDERS)))

    new.clear()
    changed = [{**document, "text": "changed"} for document in ORDERS[::3]]
    source.write([*changed, order(700, "new")], keep)
    now = {**by_key(ORDERS), **by_key(changed), **by_key([order(700, "new")])}
    assert by_key(bench.documents("source")) == now
    assert {image.key: image.record for image in kept} == by_key(ORDERS[::3])
    assert {image.action for image in kept} == {Action.UPDATED}
    assert new == [('"new"', "000700")]

    kept.clear()
    gone = sorted(by_key(ORDERS))[::4]
    source.delete([*gone, *NOT_THERE], keep)
    assert by_key(bench.documents("source")) == {key: document for key, document in now.items() if key not in gone}
    assert {image.key: image.record for image in kept} == {key: now[key] for key in gone}
    source.delete(gone)
    assert len(bench.documents("source")) == len(now) - len(gone)


LEVELS = [
    {"id": f"{n % 4}", "type": "Order", "a": a, "b": {"c": c}}
    for n, (a, c) in enumerate((a, c) for a in ("x", "1", 1) for c in ("y", None, 1, "1", True, 2, 3))
]


def level_key(document: Any) -> Key:
    return (json.dumps(document["a"]), json.dumps(document["b"]["c"]), document["id"])


def test_a_hierarchical_key_is_taken_level_by_level(accounts: tuple[Partitioned, Partitioned]) -> None:
    bench = bench_at(accounts, ["/a", "/b/c"])
    try:
        bench.create()
        source, backup = opened(bench)
        backup.catalog.initialize(source)
        assert backup.catalog.partition_paths == [["a"], ["b", "c"]]
        backup.write(LEVELS)
        plain = {level_key(document): content(document) for document in LEVELS}
        assert {level_key(document): content(document) for document in bench.documents("backup")} == plain
        assert set(stamps_in(backup, WHOLE)) == backup.matching(list(plain)) == set(plain)
        gone = sorted(plain)[::2]
        backup.delete(gone)
        assert {level_key(document) for document in bench.documents("backup")} == set(plain) - set(gone)
        assert backup.count() == len(plain) - len(gone)
    finally:
        bench.close()


# --- what is beside ---------------------------------------------------------------------------------------------------

NOTES = Shape("Notes", "notes", "NoteId", "NoteId", {"NoteId": "name", "Subject": "name", "At": "time"})


def test_entries_of_all_partitions_are_found_in_order_counted_and_deleted(bench: CosmosBench) -> None:
    notes = bench.open("source").sibling(NOTES)
    notes.create()
    times = [datetime(2024, 1, 1, hour, minute, tzinfo=UTC) for hour in range(3) for minute in range(10)]
    shuffled = random.Random(4).sample(times, len(times))
    entries: list[dict[str, Any]] = [
        {"NoteId": f"n{n:02}", "Subject": f"s{n % 3}", "At": at} for n, at in enumerate(shuffled)
    ]
    notes.put(entries)
    notes.add([{**entries[0], "Subject": "not this"}])
    plain = sorted((entry for entry in entries if entry["Subject"] in ("s0", "s1")), key=lambda entry: entry["At"])
    where = {"Subject": ["s0", "s1"]}
    assert notes.find(where, order_by="At", limit=100) == plain
    assert notes.find(where, order_by="At", limit=7, descending=True) == plain[::-1][:7]
    inside = [entry for entry in plain if times[4] < entry["At"] < times[20]]
    assert notes.find(where, order_by="At", limit=100, above=times[4], below=times[20]) == inside
    assert notes.count({"Subject": "s0"}, "At", times[4], times[20]) == sum(
        entry["Subject"] == "s0" for entry in inside
    )
    [newest] = notes.find({}, order_by="At", limit=1, descending=True, fields=("At",))
    assert newest == {"At": times[-1]}
    notes.delete([entry["NoteId"] for entry in plain[::2]])
    assert notes.find(where, order_by="At", limit=100) == plain[1::2]


# --- a run ------------------------------------------------------------------------------------------------------------

SETTINGS = {"BackupRetry__BaseSeconds": "0.01", "BackupSync__ChunkSize": "12", "BackupSync__BatchSize": "20"}


def test_runs_mirror_every_partition(accounts: tuple[Partitioned, Partitioned], tmp_path: Path) -> None:
    service = places.with_orders_on_cosmos(tmp_path, accounts[0].account, accounts[1].account).order
    assert isinstance(service.source, places.Cosmos)
    assert isinstance(service.backup, places.Cosmos)
    name_of_backup = service.backup.database
    registry = Registry(load_settings({**SETTINGS, **service.settings}))
    documents = ORDERS[:20]

    def synced(expected: Sequence[dict[str, Any]]) -> tuple[int, int, int, int]:
        [outcome] = registry.sync("order", Trigger.CLI)
        assert outcome.error is None
        assert outcome.run.status is Status.COMPLETED
        with cosmos_client(accounts[1].account) as client:
            copies = client.get_database_client(name_of_backup).get_container_client("orders")
            assert by_key(copies.read_all_items()) == by_key(expected)
        counts = outcome.run.counts
        return counts.inserted, counts.updated, counts.deleted, counts.skipped

    with cosmos_client(accounts[0].account) as client:
        database = client.create_database(service.source.database)
        container = database.create_container("orders", PartitionKey("/customer/id"))
        for document in [*documents, *OTHERS[:3]]:
            container.upsert_item(dict(document))
        registry.get("order").initialize()
        assert synced(documents) == (20, 0, 0, 0)

        changed = [{**document, "text": "changed"} for document in documents[:6]]
        for document in [*changed, order(500, "new")]:
            container.upsert_item(dict(document))
        for document in documents[6:9]:
            container.delete_item(document["id"], partition_key=document["customer"]["id"])
        left = [*changed, *documents[9:], order(500, "new")]
        assert synced(left) == (1, 6, 3, 11)
    assert service.statuses == ["Completed"] * 2


def test_every_verb_takes_ids_that_no_address_can_name(
    accounts: tuple[Partitioned, Partitioned], tmp_path: Path
) -> None:
    place = places.with_orders_on_cosmos(tmp_path, accounts[0].account, accounts[1].account).order
    assert isinstance(place.source, places.Cosmos)
    ceiling = {"BackupSync__MaxRequestUnitsPerSecond": "1000000"}  # without one most of them go in batches anyway
    service = Registry(load_settings({**SETTINGS, **ceiling, **place.settings})).get("order")
    first = [{"id": name, "type": "Order", "customer": {"id": "c"}} for name in ("a/b", "what?", "..", "tab\t", "end ")]
    second = [{**document, "text": "changed"} for document in first[:3]]

    def done(outcome: Outcome) -> Outcome:
        assert outcome.error is None
        return outcome

    with cosmos_client(accounts[0].account) as client:
        container = client.create_database(place.source.database).create_container(
            "orders", PartitionKey("/customer/id")
        )
        container.execute_item_batch([("upsert", (document,)) for document in first], "c")
        service.initialize()
        done(service.sync(Trigger.CLI))
        gone = [("delete", (document["id"],)) for document in first[3:]]
        container.execute_item_batch([*(("upsert", (document,)) for document in second), *gone], "c")
        changed = done(service.sync(Trigger.CLI, Options(allow_mass_delete=True)))
        assert place.backup.contents() == {document["id"]: document for document in second}
        done(service.undo(changed.run.sync_id))
        assert place.backup.contents() == {document["id"]: document for document in first}
        done(service.restore(RestoreSpec(overwrite_newer=True)))
        assert place.source.contents() == {document["id"]: document for document in first}
        again = done(service.restore(RestoreSpec()))  # the etags alone say that what was just restored is newer
        assert (again.changes, again.run.counts.skipped) == ((), len(first))
        done(service.verify(Depth(full=True), drilled=True))
        assert done(service.sync(Trigger.CLI)).run.counts.skipped == len(first)
