"""Copies on Cosmos DB under another partition key than their source's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import RecordRefused, SchemaMismatch
from backup.core.model import WHOLE, Action, PartitionPaths
from backup.core.run_values import Trigger
from backup.mirror.verification import Depth
from backup.recycle_bin.bin import RecycleBin
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service_plans import plan_of
from backup.stores import Rules, Store
from backup.stores.cosmos.addresses import Moves
from backup.stores.cosmos.store import CosmosStore
from backup.stores.cosmos.writes import CosmosWrites
from tests.contract.benches import NOTE, NOW, RUN, CosmosBench
from tests.contract.test_store import run_sync
from tests.emulators.partitioned import Partitioned

RULES = Rules(
    version=("lastModified",), where={"type": "Order"}, partition_paths=PartitionPaths(("/customer",), ("/tenant/id",))
)


@pytest.fixture(scope="module")
def accounts(plain_cosmos_server: str, plain_cosmos_server_backup: str) -> Iterator[tuple[Partitioned, Partitioned]]:
    """Of two partitions a container: with each a question costs a request more."""
    with (
        Partitioned(plain_cosmos_server, partitions=2).running() as source,
        Partitioned(plain_cosmos_server_backup, partitions=2).running() as backup,
    ):
        yield source, backup


@pytest.fixture
def bench(accounts: tuple[Partitioned, Partitioned]) -> Iterator[CosmosBench]:
    made = CosmosBench({"source": accounts[0].account, "backup": accounts[1].account}, "/customer")
    made.rules = RULES
    made.create()
    yield made
    made.close()


def order(n: int, customer: Any, tenant: Any, version: int = 1) -> dict[str, Any]:
    own = {} if tenant is None else {"tenant": {"id": tenant}}
    return {"id": f"{n:03}", "type": "Order", "customer": customer, "lastModified": version, **own}


def plain(bench: CosmosBench, role: Any) -> dict[tuple[str, str], dict[str, Any]]:
    shown = {}
    for document in bench.documents(role):
        own = {name: value for name, value in document.items() if not name.startswith("_")}
        shown[str(own["customer"]), str(own["id"])] = own
    return shown


def pair(bench: CosmosBench) -> tuple[Store, Store]:
    return bench.pair(chunk_size=4, batch_size=3)


def again(bench: CosmosBench, run: str) -> tuple[int, int, int, int]:
    return run_sync(bench.open("source"), bench.open("backup"), replace(RUN, sync_id=run))


def image_keys(backup: Store, run: str) -> list[tuple[Any, Action]]:
    kept = RecycleBin(backup, RUN.service).of_run(run)
    return sorted((image.key, image.action) for images in kept for image in images)


def test_copies_follow_their_documents_and_are_known_by_the_sources_key(bench: CosmosBench) -> None:
    orders = [order(n % 7, f"c{n}", ["a", "b", None][n % 3] if n < 7 else f"t{n}") for n in range(12)]
    bench.put_documents("source", *orders)
    source, backup = pair(bench)
    assert run_sync(source, backup) == (12, 0, 0, 0)
    assert plain(bench, "backup") == plain(bench, "source")
    properties = bench.container("backup").read()
    assert properties["partitionKey"]["paths"] == ["/tenant/id"]
    assert backup.fingerprint(WHOLE) == source.fingerprint(WHOLE)
    assert run_sync(source, backup) == (0, 0, 0, 12)
    bench.put_documents("source", order(0, "c0", "moved", 2), order(1, "c1", None, 2), order(2, "c2", "x", 2))
    bench.put_documents("source", order(3, "c3", "a", 2))  # stays where it is
    bench.container("source").delete_item("004", partition_key="c4")
    assert again(bench, "2") == (0, 4, 1, 7)
    assert plain(bench, "backup") == plain(bench, "source")
    changed = [(f'"c{n}"', f"{n:03}") for n in range(5)]
    assert image_keys(backup, "2") == [(key, Action.DELETED if key[1] == "004" else Action.UPDATED) for key in changed]
    kept = [image for images in RecycleBin(backup, RUN.service).of_run("2") for image in images]
    backup.write([image.record for image in kept if image.record])
    assert plain(bench, "backup") == {(document["customer"], document["id"]): document for document in orders}


def test_two_documents_never_get_one_place(bench: CosmosBench) -> None:
    bench.put_documents("source", order(1, "a", "t"), order(2, "a", "t"), order(2, "b", "u"))
    source, backup = pair(bench)
    run_sync(source, backup)
    records = [{**order(1, "0", "t"), "_etag": "e", "_ts": 1}, {**order(1, "c", "u"), "_etag": "e", "_ts": 1}]
    with pytest.raises(RecordRefused, match=r'the copy of \["a", "001"\] lies') as raised:
        backup.write(backup.copies.of(records, NOTE))
    assert set(raised.value.refused) == {('"0"', "001")}
    lying = {**plain(bench, "source"), ("c", "001"): order(1, "c", "u")}
    assert plain(bench, "backup") == lying
    # What lies there may be written, and two may exchange their places; but who stays keeps others out.
    moved = [order(2, "a", "u", 2), order(2, "b", "t", 2), order(1, "a", "t", 2), order(1, "c", "t", 2)]
    copies = backup.copies.of([{**document, "_etag": "e2", "_ts": 2} for document in moved], NOTE)
    with pytest.raises(RecordRefused) as raised:
        backup.write(copies)
    assert set(raised.value.refused) == {('"c"', "001")}
    assert plain(bench, "backup") == {
        **lying,
        **{(document["customer"], document["id"]): document for document in moved[:3]},
    }
    # Of several that come, one gets it for whose own place another one waits.
    moved = [order(1, "a", "u", 3), order(1, "c", "x", 3), order(1, "d", "u", 3)]
    backup.write(backup.copies.of([{**order(1, "d", "x"), "_etag": "e", "_ts": 1}], NOTE))
    with pytest.raises(RecordRefused) as raised:
        backup.write(backup.copies.of([{**document, "_etag": "e3", "_ts": 3} for document in moved], NOTE))
    assert set(raised.value.refused) == {('"a"', "001")}


def test_of_two_threads_that_write_to_one_place_the_server_refuses_one(
    bench: CosmosBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, backup = pair(bench)
    assert isinstance(backup, CosmosStore)
    records = [{**order(1, customer, "t"), "_etag": "e", "_ts": 1} for customer in "ab"]
    with monkeypatch.context() as patch:  # neither sees the other
        patch.setattr("backup.stores.cosmos.writes.moves_of", lambda *_: _free([('"a"', "001"), ('"b"', "001")]))
        backup.write(backup.copies.of(records[:1], NOTE))
        backup.write(backup.copies.of(records[:1], NOTE))  # an answer that was lost
        with pytest.raises(RecordRefused, match="lies"):
            backup.write(backup.copies.of(records[1:], NOTE))
    assert plain(bench, "backup") == {("a", "001"): order(1, "a", "t")}


def _free(keys: Any) -> Any:
    return Moves([], {}, frozenset(keys))


def test_a_copy_that_leaves_its_place_never_takes_the_next_one_with_it(bench: CosmosBench) -> None:
    _, backup = pair(bench)
    assert isinstance(backup, CosmosStore)
    copies = [{**order(1, customer, "t"), "_etag": "e", "_ts": 1} for customer in "ab"]
    backup.write(backup.copies.of(copies[:1], NOTE))
    writes, container = backup._writes, backup._container
    [lying] = container.lying([('"a"', "001")])
    backup.delete([lying.key])
    backup.write(backup.copies.of(copies[1:], NOTE))  # by another thread, after a delete whose answer was lost
    writes.upsert([], Moves([lying], {}, frozenset()))
    assert plain(bench, "backup") == {("b", "001"): order(1, "b", "t")}
    [lying] = container.lying([('"b"', "001")])
    writes.upsert([], Moves([lying._replace(etag="older")], {}, frozenset()))  # somebody has changed it since
    assert bench.documents("backup") == []


def test_a_run_that_ends_while_a_copy_moves_loses_nothing(bench: CosmosBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put_documents("source", order(1, "a", "t"))
    source, backup = pair(bench)
    run_sync(source, backup)
    bench.put_documents("source", order(1, "a", "u", 2))
    carry_out = CosmosWrites._carry_out

    def ends(self: CosmosWrites, operation: str, writes: Any) -> Any:
        if operation == "write documents":
            raise KeyboardInterrupt
        return carry_out(self, operation, writes)

    with monkeypatch.context() as patch:
        patch.setattr(CosmosWrites, "_carry_out", ends)
        with pytest.raises(KeyboardInterrupt):
            again(bench, "2")
    assert bench.documents("backup") == []
    again(bench, "2")
    assert plain(bench, "backup") == plain(bench, "source")
    [kept] = [image for images in RecycleBin(backup, RUN.service).of_run("2") for image in images]
    assert (kept.action, kept.record and kept.record["tenant"]) == (Action.UPDATED, {"id": "t"})


def test_a_set_syncs_verifies_undoes_and_drills_under_another_key(bench: CosmosBench) -> None:
    bench.put_documents("source", *(order(n, f"c{n}", f"t{n % 2}") for n in range(6)))
    source, backup = bench.connection_strings["source"], bench.connection_strings["backup"]
    file = (
        f"[set.shop]\nsource = '{source}'\nbackup = '{backup}'\n"
        f"database = '{bench.database}'\ncontainers = ['Things']\n[set.shop.container.Things]\n"
        "partition_key = { source = '/customer', copy = '/tenant/id' }"
    )
    registry = Registry(load_settings({"BACKUP_TOML": file}))

    def done(outcome: Outcome) -> Outcome:
        assert outcome.error is None, outcome.error
        return outcome

    done(registry.sync("shop", Trigger.CLI)[0])
    first = plain(bench, "backup")
    bench.put_documents("source", order(0, "c0", "t1", 2), order(1, "c1", "new", 2))
    second = done(registry.sync("shop", Trigger.CLI)[0])
    assert (second.run.counts.updated, plain(bench, "backup")) == (2, plain(bench, "source"))
    service = registry.get("shop/Things")
    assert done(service.verify(Depth(full=True))).run.verified
    assert done(service.verify(Depth(full=True), drilled=True)).run.verified
    done(service.undo(second.run.sync_id))
    assert plain(bench, "backup") == first
    done(registry.sync("shop", Trigger.CLI)[0])
    bench.put_documents("source", order(9, "c9", "t9"), {**order(9, "d9", "t9")})
    outcome = registry.sync("shop", Trigger.CLI)[0]
    assert (outcome.run.counts.inserted, outcome.run.counts.failed) == (1, 1)
    assert "lies" in str(outcome.error)
    before = plain(bench, "backup")
    # As if both were of the same second: then both sides have equal numbers and sums after the delete.
    [copy] = (document for document in bench.documents("backup") if document["id"] == "009")
    [waiting] = (document for document in bench.documents("source") if document.get("customer") == "d9")
    bench.put_documents("backup", {**copy, "_backup": {**copy["_backup"], "ts": waiting["_ts"]}})
    bench.container("source").delete_item("009", partition_key="c9")
    freed = done(registry.sync("shop", Trigger.CLI)[0])  # deletes come last, and then its place is free
    assert (freed.run.counts.inserted, freed.run.counts.deleted, freed.run.counts.failed) == (1, 1, 0)
    assert plain(bench, "backup") == plain(bench, "source")
    done(service.undo(freed.run.sync_id))
    assert plain(bench, "backup") == before
    [planned] = plan_of(registry, "shop").services
    assert planned.key == "/customer, id; copies by /tenant/id"


def test_a_document_gets_the_place_that_another_one_leaves_in_the_same_run(bench: CosmosBench) -> None:
    """By a delete, in an exchange of three, and in a chain; each batch has three documents, each chunk four."""
    first = [order(1, "a", "gone"), *(order(2, f"x{n}", f"p{n}") for n in range(3)), order(3, "y0", "q0")]
    bench.put_documents("source", *first, order(3, "y1", "q1"), *(order(n, "z", "t") for n in range(10, 20)))
    source, backup = pair(bench)
    run_sync(source, backup)
    kept = plain(bench, "backup")
    bench.container("source").delete_item("001", partition_key="a")
    bench.put_documents("source", order(1, "b", "gone", 2))
    bench.put_documents("source", *(order(2, f"x{n}", f"p{(n + 1) % 3}", 2) for n in range(3)))
    bench.put_documents("source", order(3, "y0", "q1", 2), order(3, "y1", "q2", 2), order(3, "y2", "q0", 2))
    # Whoever asks for these sees them in batches of one: else one batch would have all that exchange.
    backup = bench.open("backup", chunk_size=4, batch_size=1)
    assert run_sync(bench.open("source", batch_size=1), backup, replace(RUN, sync_id="2")) == (2, 5, 1, 10)
    assert plain(bench, "backup") == plain(bench, "source")
    changes = dict(image_keys(backup, "2"))
    assert [changes[f'"{customer}"', name] for customer, name in [("a", "001"), ("b", "001"), ("y2", "003")]] == [
        Action.DELETED,
        Action.INSERTED,
        Action.INSERTED,
    ]
    images = [image for images in RecycleBin(backup, RUN.service).of_run("2") for image in images]
    backup.delete([image.key for image in images if image.record is None])
    backup.write([image.record for image in images if image.record])
    assert plain(bench, "backup") == kept


def test_what_is_kept_and_what_an_undo_writes_lies_where_it_belongs(bench: CosmosBench) -> None:
    bench.put_documents("source", order(1, "a", "t"), order(2, "b", None))
    source, backup = pair(bench)
    run_sync(source, backup)
    kept = RecycleBin(backup, RUN.service).recorder(replace(RUN, sync_id="2"), lambda: NOW)
    kept_deletes = bench.open("backup", rules=replace(RULES, keeps_deleted=True)).kept_deletes
    assert kept_deletes is not None
    kept_deletes.mark([('"a"', "001")], kept, NOW)
    marked = {document["id"]: "deletedAt" in document["_backup"] for document in bench.documents("backup")}
    assert marked == {"001": True, "002": False}
    with pytest.raises(RecordRefused, match="which the source has deleted and the backup keeps: both"):
        backup.write([{**order(1, "c", "t"), "_backup": {"etag": "x"}}])
    records = [{**order(n, "ab"[n - 1], "other", 5), "_backup": {"etag": "x"}} for n in (1, 2)]
    written = backup.write(records, accept=lambda _: True)
    assert written.updated == {('"a"', "001"), ('"b"', "002")}
    assert [document["tenant"]["id"] for document in bench.documents("backup")] == ["other", "other"]
    assert backup.delete([('"b"', "002")], accept=lambda _: True).deleted == {('"b"', "002")}
    backup.delete([('"a"', "001"), ('"x"', "009")])
    assert bench.documents("backup") == []


def test_a_place_for_a_restore_has_the_key_of_the_source(bench: CosmosBench) -> None:
    bench.put_documents("source", order(1, "a", "t"))
    source, backup = pair(bench)
    run_sync(source, backup)
    bench.drop("source")
    into = bench.open("source")
    into.catalog.make_source_of(backup)
    assert bench.container("source").read()["partitionKey"]["paths"] == ["/customer"]
    backup.catalog.match(into)
    into.write([backup.copies.original(record) for records in backup.read(None, WHOLE) for record in records])
    assert plain(bench, "source") == {("a", "001"): order(1, "a", "t")}


def test_keys_that_are_not_those_of_the_file_are_refused(bench: CosmosBench) -> None:
    pair(bench)
    for paths in (PartitionPaths(("/customer",), ("/other",)), PartitionPaths(("/other",), ("/tenant/id",))):
        rules = replace(RULES, partition_paths=paths)
        with pytest.raises(SchemaMismatch, match="They are by /customer and by /tenant/id"):
            bench.open("backup", rules=rules).catalog.match(bench.open("source", rules=rules))
    plain_rules = replace(RULES, partition_paths=None)
    with pytest.raises(SchemaMismatch, match="partitioned by /tenant/id, its source by /customer"):
        bench.open("backup", rules=plain_rules).catalog.match(bench.open("source", rules=plain_rules))
