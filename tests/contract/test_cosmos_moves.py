"""Documents that lie elsewhere than the SDK looks for them: partitions that split, containers that others replace."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.core.errors import SchemaMismatch
from backup.core.model import WHOLE
from backup.core.run_values import Counts, Trigger
from backup.runs.outcome import Observer, Outcome, Turn
from backup.services.registry import Registry
from backup.services.service import Options, SyncService
from backup.stores.cosmos.store import CosmosStore
from backup.stores.sibling import Shape
from tests.contract.benches import CosmosBench
from tests.emulators import physical
from tests.emulators.clients import cosmos_client
from tests.emulators.front import Answer, Request
from tests.emulators.partitioned import Partitioned

pytestmark = pytest.mark.usefixtures("sdk_waits_for_nothing")

ORDERS: list[dict[str, Any]] = [
    {"id": f"{n:02}", "type": "Order", "customer": {"id": f"c{n}"}, "lastModified": "2024"} for n in range(30)
]
NOTES = Shape("Notes", "notes", "NoteId", "NoteId", {"NoteId": "name", "At": "integer"})


@dataclass
class Splitting(Partitioned):
    """Splits a partition right before it is asked: by those queries of the container at `path` with these words whose
    numbers are in `splits`."""

    splits: Collection[int] = ()
    path: str = ""
    words: bytes = b""
    asked: int = 0
    refused_ranges: int = 0
    """How often it will say that even the list of partitions is elsewhere."""
    refused_queries: int = 0
    """How many queries of documents it will answer as if another container had the name."""

    def respond(self, request: Request) -> Answer | None:
        if request.path.rstrip("/").endswith("/pkranges") and self.refused_ranges:
            self.refused_ranges -= 1
            return Answer(410, {"x-ms-substatus": "1002"}, b"{}")
        if self.refused_queries and "x-ms-documentdb-isquery" in request.headers:
            self.refused_queries -= 1
            return Answer(400, {"x-ms-substatus": "1024"}, b"{}")
        number = request.headers.get("x-ms-documentdb-partitionkeyrangeid")
        if number is not None and self.path in request.path and self.words in request.body:
            self.asked += 1
            if self.asked in self.splits:
                self.split(self.path, int(number))
        return super().respond(request)


@pytest.fixture(scope="module")
def account(plain_cosmos_server: str) -> Iterator[Splitting]:
    with Splitting(plain_cosmos_server).running() as made:
        made.page_size = 4
        yield made


@pytest.fixture(scope="module")
def account_of_backups(plain_cosmos_server_backup: str) -> Iterator[Partitioned]:
    with Partitioned(plain_cosmos_server_backup).running() as made:
        yield made


# --- partitions that split --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(account: Splitting) -> Iterator[tuple[CosmosBench, CosmosStore]]:
    """A store with the orders, which only reads, and beside it a note for each of them."""
    bench = CosmosBench({"source": account.account})
    bench.create()
    account.load(f"/dbs/{bench.database}/colls/Things", ORDERS)
    store = bench.open("source", chunk_size=3, batch_size=7)
    assert isinstance(store, CosmosStore)
    notes = store.sibling(NOTES)
    notes.create()
    notes.add([{"NoteId": order["id"], "At": n // 4} for n, order in enumerate(ORDERS)])
    yield bench, store
    bench.close()


def everything_noted(store: CosmosStore) -> list[str]:
    return [entry["NoteId"] for entry in store.sibling(NOTES).find({}, order_by="At", limit=99)]


def bounds(store: CosmosStore) -> list[str]:
    return [chunk.upto[0] for chunk in store.chunks() if chunk.upto is not None]


def is_sorted(store: CosmosStore) -> bool:
    return (found := bounds(store)) == sorted(found)


IDS = [order["id"] for order in ORDERS]
QUESTIONS: dict[str, tuple[str, bytes, Callable[[CosmosStore], Any], Any]] = {
    "bounds": ("Things", b"ORDER BY", is_sorted, True),
    "count": ("Things", b"", lambda store: store.count(), len(ORDERS)),
    "stamps": ("Things", b"", lambda store: sorted(row[1] for row in store.stamp_rows(WHOLE)), IDS),
    "fingerprint": ("Things", b"SUM", lambda store: getattr(store.fingerprint(WHOLE), "records", None), len(ORDERS)),
    "recent": ("Things", b"", lambda store: sorted(row[1] for r in store.incremental.recent("0", 0) for row in r), IDS),
    "entries": ("notes", b"", lambda store: sorted(everything_noted(store)), IDS),
    "number of entries": ("notes", b"", lambda store: store.sibling(NOTES).count({}, "At", None, None), len(ORDERS)),
}


# The query of a partition that is gone is asked four times before the SDK asks those into which it was split.
@pytest.mark.parametrize("splits", [{6}, {2}, {1, 5}])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_partition_that_splits_meanwhile_changes_no_answer(
    filled: tuple[CosmosBench, CosmosStore], account: Splitting, question: str, splits: set[int]
) -> None:
    bench, store = filled
    container, account.words, ask, expected = QUESTIONS[question]
    account.path, account.asked, account.splits = f"/dbs/{bench.database}/colls/{container}", 0, splits
    try:
        assert ask(store) == expected
    finally:
        account.splits = ()


@pytest.mark.timeout(60)
def test_a_list_of_partitions_that_is_elsewhere_is_asked_for_again(account: Splitting) -> None:
    """The SDK holds a lock when it asks for the list. Such an answer would have it ask again, and wait for the lock."""
    bench = CosmosBench({"source": account.account})
    bench.create()
    store = bench.open("source")
    account.refused_ranges = 1
    assert store.count() == 0
    assert account.refused_ranges == 0
    bench.close()


def test_a_container_that_has_the_name_for_the_second_time_is_asked_again(
    filled: tuple[CosmosBench, CosmosStore], account: Splitting
) -> None:
    """The SDK asks again once, and then fails by itself."""
    account.refused_queries = 3
    assert (filled[1].count(), account.refused_queries) == (len(ORDERS), 0)


def test_whether_there_are_records_is_asked_again(filled: tuple[CosmosBench, CosmosStore], account: Splitting) -> None:
    account.refused_queries = 3
    assert (filled[1].has_records(), account.refused_queries) == (True, 0)


# --- containers that others replace -----------------------------------------------------------------------------------


@dataclass
class Shop:
    """A set of one container, and its two accounts."""

    source: Partitioned
    backup: Partitioned
    name: str

    def make(self, side: Partitioned, documents: Iterable[dict[str, Any]] = ()) -> None:
        """Makes the container anew, with these documents."""
        with cosmos_client(side.account) as client:
            database = client.create_database_if_not_exists(self.name)
            if self.path in side.kept(f"/dbs/{self.name}") or "docs" in {c["id"] for c in database.list_containers()}:
                database.delete_container("docs")
            database.create_container("docs", PartitionKey("/pk"))
        side.load(self.path, documents)

    @property
    def path(self) -> str:
        return f"/dbs/{self.name}/colls/docs"

    @property
    def service(self) -> SyncService:
        toml = (
            f"[set.shop]\nsource='{self.source.account}'\nbackup='{self.backup.account}'\ndatabase='{self.name}'\n"
            "containers=['docs']\n"
        )
        settings = {"BACKUP_TOML": toml, "BackupSync__ChunkSize": "4", "BackupSync__Parallelism": "1"}
        settings["BackupRetry__BaseSeconds"] = "0.01"
        return Registry(load_settings(settings)).get("shop/docs")

    def sync(self, observer: Observer | None = None) -> Outcome:
        return self.service.sync(Trigger.CLI, Options(allow_mass_delete=True), observer=observer or Observer())

    def values(self, side: Partitioned) -> dict[str, Any]:
        return {document["id"]: document["value"] for document in side.documents(self.path)}


@pytest.fixture
def shop(account: Splitting, account_of_backups: Partitioned) -> Iterator[Shop]:
    made = Shop(account, account_of_backups, f"shop-{uuid.uuid4().hex[:8]}")
    account.partitions = 2
    yield made
    account.partitions = 3
    for side in (account, account_of_backups):
        with cosmos_client(side.account) as client:
            client.delete_database(made.name)


def documents(value: str, numbers: Iterable[int]) -> list[dict[str, Any]]:
    return [{"id": f"{n:02}", "pk": f"{n}", "value": value} for n in numbers]


def test_another_container_with_as_many_documents_of_the_same_seconds_is_compared_whole(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restore by the server to another account: what is there has its old times."""

    def load_at(seconds: int, documents: Iterable[dict[str, Any]]) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(physical, "time", SimpleNamespace(time=lambda: seconds))
            shop.source.load(shop.path, documents)

    for value in ("first", "second"):
        shop.make(shop.source)
        load_at(1_700_000_000, documents(value, range(9)))
        load_at(1_700_009_999, documents("newest", [9]))
        assert shop.sync().error is None
        assert shop.values(shop.backup) == shop.values(shop.source)


def test_a_container_with_more_partitions_than_the_one_before_is_read_whole(shop: Shop) -> None:
    shop.make(shop.source, documents("first", range(9)))
    assert shop.sync().error is None
    # The partitions that the SDK knows are known to all clients of the process, as long as one is open.
    with shop.service.stores() as (other, _):
        assert other.count() == 9
        shop.source.partitions = 3
        shop.make(shop.source, documents("second", range(4, 29)))
        assert shop.sync().error is None
    assert shop.values(shop.backup) == shop.values(shop.source)


@pytest.mark.parametrize("side", ["source", "backup"])
def test_a_container_that_is_replaced_while_a_run_copies_fails_the_run_and_the_next_compares_everything(
    shop: Shop, side: str
) -> None:
    class Replacing(Observer):
        has_replaced = False

        def progress(self, service: str, counts: Counts) -> None:
            if counts.processed and not self.has_replaced:
                self.has_replaced = True
                replaced: Partitioned = getattr(shop, side)
                shop.make(replaced, documents("second", range(20)) if side == "source" else ())

    shop.make(shop.source, documents("first", range(20)))
    failed = shop.sync(Replacing())
    assert isinstance(failed.error, SchemaMismatch), failed.error
    assert "Another container took the place" in str(failed.error)
    assert shop.sync().error is None
    assert shop.values(shop.backup) == shop.values(shop.source)


@pytest.mark.parametrize("side", ["source", "backup"])
def test_a_run_of_several_calls_begins_anew_where_a_container_was_replaced_between_them(shop: Shop, side: str) -> None:
    shop.make(shop.source, documents("first", range(20)))
    begun = shop.service.sync(Trigger.CLI, Options(allow_mass_delete=True), turn=Turn(0))
    assert begun.in_progress
    replaced: Partitioned = getattr(shop, side)
    shop.make(replaced, documents("second", range(20)) if side == "source" else ())
    ended = shop.service.resume(Trigger.CLI)
    assert ended is not None
    assert ended.error is None
    [note] = ended.run.notes
    assert f"The container of the {side} is another one than when the run began" in note
    assert shop.values(shop.backup) == shop.values(shop.source)
    again = shop.sync().run
    assert (again.counts, again.notes) == (Counts(skipped=20), ())


def test_a_watermark_has_the_time_of_the_last_comparison_where_earlier_releases_look_for_it(shop: Shop) -> None:
    """They take what stands before the word `filter`. What comes after it is not their filter, so they compare all."""
    shop.make(shop.source, documents("first", range(3)))
    watermark = shop.sync().run.watermark or ""
    compared, _, filtered = watermark.rpartition(" compared ")[2].partition(" filter ")
    assert datetime.fromisoformat(compared).tzinfo is not None
    assert filtered
