"""What a store on Cosmos DB reads to find what has changed, and that it misses nothing by reading little."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from azure.core.exceptions import ServiceResponseError

from backup.core.model import WHOLE, Chunk, StampRow
from backup.stores.cosmos import access, chunks, container
from backup.stores.cosmos.queries import Query
from backup.stores.cosmos.store import CosmosStore
from backup.stores.cosmos.throttle import Throttle
from tests.contract.benches import NOTE, CosmosBench, Item

ORDER = {"type": "Order", "customer": {"id": "c"}, "lastModified": "2024-01-01T00:00:00Z"}


def orders(*numbers: int, **properties: Any) -> list[dict[str, Any]]:
    return [{**ORDER, "id": f"{n:06}", **properties} for n in numbers]


def pair(bench: CosmosBench, **limits: Any) -> tuple[CosmosStore, CosmosStore]:
    source, backup = bench.pair(**limits)
    assert isinstance(source, CosmosStore)
    assert isinstance(backup, CosmosStore)
    return source, backup


def copy(source: CosmosStore, backup: CosmosStore) -> None:
    """Writes every document of the source to the backup."""
    for records in source.read(None, WHOLE):
        backup.write(backup.copies.of(records, NOTE))


@pytest.fixture
def copied(cosmos_bench: CosmosBench) -> tuple[CosmosBench, CosmosStore, CosmosStore]:
    """Five orders and what is none, and a copy of the orders."""
    cosmos_bench.create()
    cosmos_bench.put_documents("source", *orders(1, 2, 3, 4, 5), {**ORDER, "id": "quote", "type": "Quote"})
    source, backup = pair(cosmos_bench)
    copy(source, backup)
    return cosmos_bench, source, backup


def in_a_later_second(bench: CosmosBench, *documents: dict[str, Any]) -> None:
    """Writes the documents until the server's clock gives them a later second than it gave to anything so far."""
    before = max(document["_ts"] for document in bench.documents("source"))
    while True:
        bench.put_documents("source", *documents)
        names = {document["id"] for document in documents}
        if all(document["_ts"] > before for document in bench.documents("source") if document["id"] in names):
            return


# --- fingerprints -----------------------------------------------------------------------------------------------------

Copied = tuple[CosmosBench, CosmosStore, CosmosStore]


def test_a_copy_has_its_sources_fingerprint_in_every_chunk(copied: Copied) -> None:
    _, source, backup = copied
    for chunk in (WHOLE, Chunk(None, ("000003",)), Chunk(("000003",), None), Chunk(("000001",), ("000004",))):
        fingerprint = source.fingerprint(chunk)
        assert fingerprint is not None
        assert fingerprint == backup.fingerprint(chunk)
        assert fingerprint.records == len(source.stamp_rows(chunk))
    assert source.fingerprint(Chunk(("9",), None)) == backup.fingerprint(Chunk(("9",), None))


def test_an_empty_backup_has_a_fingerprint_of_nothing(cosmos_bench: CosmosBench) -> None:
    cosmos_bench.create([Item(1)])
    source, backup = pair(cosmos_bench)
    mine, theirs = source.fingerprint(WHOLE), backup.fingerprint(WHOLE)
    assert mine is not None
    assert theirs is not None
    assert (theirs.records, theirs.sums) == (0, (0, 0))
    assert mine != theirs


def changed(bench: CosmosBench) -> None:
    in_a_later_second(bench, *orders(2, text="other"))


def added(bench: CosmosBench) -> None:
    bench.put_documents("source", *orders(6))


def deleted(bench: CosmosBench) -> None:
    bench.remove("source", 3)


def replaced_by_another(bench: CosmosBench) -> None:
    bench.remove("source", 3)
    in_a_later_second(bench, *orders(6))


def no_longer_an_order(bench: CosmosBench) -> None:
    bench.put_documents("source", *orders(2, type="Quote"))


def lost_in_the_backup(bench: CosmosBench) -> None:
    bench.remove("backup", 2)


def added_to_the_backup(bench: CosmosBench) -> None:
    bench.put_documents("backup", *orders(6))


def written_by_hand_in_the_backup(bench: CosmosBench) -> None:
    bench.put_documents("backup", *orders(2))


@pytest.mark.parametrize(
    "change",
    [
        changed,
        added,
        deleted,
        replaced_by_another,
        no_longer_an_order,
        lost_in_the_backup,
        added_to_the_backup,
        written_by_hand_in_the_backup,
    ],
)
def test_a_difference_shows_in_the_fingerprint(copied: Copied, change: Callable[[CosmosBench], None]) -> None:
    bench, source, backup = copied
    change(bench)
    assert source.fingerprint(WHOLE) != backup.fingerprint(WHOLE)


def test_documents_of_another_type_are_no_part_of_a_fingerprint(copied: Copied) -> None:
    bench, source, backup = copied
    bench.put_documents("source", {**ORDER, "id": "quote", "type": "Quote", "text": "other"})
    bench.put_documents("backup", {**ORDER, "id": "another", "type": "Quote"})
    assert source.fingerprint(WHOLE) == backup.fingerprint(WHOLE)


def test_times_of_too_many_documents_for_one_exact_sum_are_summed_in_two_parts(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, source, backup = copied
    at_once = source.fingerprint(WHOLE)
    monkeypatch.setattr(chunks, "_MANY", 5)
    assert at_once == source.fingerprint(WHOLE) == backup.fingerprint(WHOLE)
    changed(bench)
    assert at_once != source.fingerprint(WHOLE)


def test_a_sum_that_may_not_be_exact_gives_no_fingerprint(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    _, source, _ = copied
    monkeypatch.setattr(chunks, "_EXACT", 1 << 32)
    assert source.fingerprint(WHOLE) is None


# --- watermarks -------------------------------------------------------------------------------------------------------


def test_the_watermark_is_the_newest_write_of_the_services_documents(copied: Copied) -> None:
    bench, source, _ = copied
    newest = max(document["_ts"] for document in bench.documents("source") if document["type"] == "Order")
    in_a_later_second(bench, {**ORDER, "id": "quote", "type": "Quote"})
    assert source.incremental.watermark() == str(newest)
    added(bench)
    assert int(source.incremental.watermark() or 0) > newest


def test_without_documents_there_is_no_watermark(cosmos_bench: CosmosBench) -> None:
    cosmos_bench.create()
    cosmos_bench.put_documents("source", {**ORDER, "id": "quote", "type": "Quote"})
    incremental = cosmos_bench.open("source").incremental
    assert incremental
    assert incremental.watermark() is None


def recent(store: CosmosStore, since: str, overlap_seconds: float = 0) -> set[StampRow]:
    return set().union(*store.incremental.recent(since, overlap_seconds))


def test_recent_are_writes_in_the_watermarks_second_and_after(copied: Copied) -> None:
    bench, source, _ = copied
    before = source.stamp_rows(WHOLE)
    in_a_later_second(bench, *orders(2, 6, text="other"))
    written = source.stamp_rows(WHOLE) - before
    since = source.incremental.watermark()
    assert since is not None
    assert recent(source, since) == written
    assert {row[-1] for row in written} == {d["_etag"] for d in bench.documents("source") if d["id"][-1] in "26"}
    assert recent(source, str(int(since) + 1)) == set()


def test_the_overlap_reaches_back_before_the_watermark(copied: Copied) -> None:
    _, source, _ = copied
    everything, newest = source.stamp_rows(WHOLE), int(source.incremental.watermark() or 0)
    assert recent(source, str(newest + 100), 99) == set()
    assert recent(source, str(newest + 100), 99.5) == recent(source, str(newest))
    assert recent(source, str(newest + 100), 4000) == everything


@dataclass
class Served:
    """A container that answers a query for what was written since a second; each answer breaks off where told."""

    documents: list[tuple[int, str]]
    breaks: list[int] = field(default_factory=list)
    asked: int = 0
    sent: int = 0

    def items(self, query: Query) -> Iterator[dict[str, Any]]:
        self.asked += 1
        left = self.breaks.pop(0) if self.breaks else None
        for n, (ts, name) in enumerate(sorted(self.documents)):
            if n == left:
                raise ServiceResponseError("the connection was lost")
            if ts >= query.values["since"]:
                self.sent += 1
                yield {"id": name, "p0": "c", "etag": f"{name} at {ts}", "ts": ts}


Seconds = Iterable[int]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, cosmos_bench: CosmosBench) -> Callable[..., tuple[Served, CosmosStore]]:
    cosmos_bench.create()
    store = cosmos_bench.open("source")
    assert isinstance(store, CosmosStore)

    def serve(seconds: Iterable[int], *breaks: int) -> tuple[Served, CosmosStore]:
        answers = Served([(ts, f"{n:03}") for n, ts in enumerate(seconds)], list(breaks))
        monkeypatch.setattr(store._container, "items", answers.items)
        monkeypatch.setattr(container, "_STAMPS_AT_ONCE", 3)
        return answers, store

    return serve


SECONDS = {
    "one a second": range(100, 120),
    "many in one second": [100] * 20,
    "seconds on the edges of pieces": [100, 101, 101, 101, 102, 103, 103, 103, 103, 104, 104],
    "none": [],
}


def test_recent_comes_in_pieces_of_one_answer(served: Any) -> None:
    for name, seconds in SECONDS.items():
        answers, store = served(seconds)
        pieces = list(store.incremental.recent("100", 0))
        assert all(len(piece) <= 3 for piece in pieces), name
        documents = [document for _, document in answers.documents]
        assert sorted(row[1] for piece in pieces for row in piece) == documents, name
        assert answers.asked == 1, name


@pytest.mark.parametrize("breaks", [(5,), (0, 4, 9), (7, 0), (3, 6, 9, 10)])
def test_recent_goes_on_where_an_answer_broke_off(served: Any, breaks: tuple[int, ...]) -> None:
    for name, seconds in SECONDS.items():
        answers, store = served(seconds, *breaks)
        pieces = list(store.incremental.recent("100", 0))
        documents = [document for _, document in answers.documents]
        assert sorted(row[1] for piece in pieces for row in piece) == documents, name


def test_a_document_that_is_written_meanwhile_comes_as_it_is_last(served: Any) -> None:
    answers, store = served([100])
    answers.documents.append((101, "000"))
    [[row]] = store.incremental.recent("100", 0)
    assert row[-1] == "000 at 101"


def test_recent_fails_if_answers_go_on_breaking_off(served: Any) -> None:
    _, store = served(range(100, 120), *[4] * 10)
    with pytest.raises(Exception, match="connection was lost"):
        list(store.incremental.recent("100", 0))


# --- what is read -----------------------------------------------------------------------------------------------------


def test_stamps_of_keys_are_those_of_the_chunk(copied: Copied) -> None:
    bench, source, backup = copied
    other = {"customer": {"id": "another"}}
    bench.put_documents("source", *orders(1, **other))
    rows = {row for row in source.stamp_rows(WHOLE) if row[:2] in {('"c"', "000001"), ('"c"', "000004")}}
    missing = [('"c"', "quote"), ('"nobody"', "000002"), ('"c"', "9")]
    assert source.stamp_rows_of([row[:2] for row in rows] + missing) == rows
    assert {row[:2] for row in backup.stamp_rows_of([('"c"', "000001")])} == {('"c"', "000001")}
    assert source.stamp_rows_of([]) == set()


def test_more_keys_than_one_query_takes_are_read_in_batches(cosmos_bench: CosmosBench) -> None:
    cosmos_bench.create()
    source, _ = pair(cosmos_bench)
    source.write(orders(*range(130), text="x" * 100))
    keys = frozenset(('"c"', f"{n:06}") for n in range(150))
    rows = source.stamp_rows(WHOLE)
    assert len(rows) == 130
    assert source.stamp_rows_of(list(keys)) == rows
    cases: list[tuple[dict[str, Any], int, int]] = [
        ({"batch_size": 10}, 10, 13),
        ({"batch_bytes": 4_000}, 500, 8),
        ({}, 500, 1),
    ]
    for limits, most, fewest in cases:
        store = cosmos_bench.open("source", **limits)
        for wanted in (keys, None):
            batches = list(store.read(wanted, WHOLE))
            assert sorted(record["id"] for records in batches for record in records) == sorted(row[1] for row in rows)
            assert max(map(len, batches)) <= most, limits
            assert len(batches) >= fewest, limits


def test_documents_that_are_there_cost_one_query_a_hundred(
    cosmos_bench: CosmosBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    cosmos_bench.create()
    source, _ = pair(cosmos_bench)
    source.write(orders(*range(150)))
    asked: list[Query] = []
    items = source._container.items
    monkeypatch.setattr(source._container, "items", lambda query: asked.append(query) or items(query))  # type: ignore[func-returns-value]
    keys = frozenset(('"c"', f"{n:06}") for n in range(150))
    assert sum(map(len, source.read(keys, WHOLE))) == 150
    assert sorted(sum(name.startswith("k") for name in query.values) for query in asked) == [50, 100]


def test_all_documents_are_read_by_one_query_and_those_of_another_type_are_not(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, source, _ = copied
    asked = []
    items = source._container.items
    monkeypatch.setattr(source._container, "items", lambda query: asked.append(query) or items(query))  # type: ignore[func-returns-value]
    assert [record["id"] for records in source.read(None, WHOLE) for record in records] == [
        f"{n:06}" for n in (1, 2, 3, 4, 5)
    ]
    assert len(asked) == 1


def test_reading_all_documents_goes_on_where_an_answer_broke_off(
    cosmos_bench: CosmosBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    cosmos_bench.create()
    cosmos_bench.put_documents("source", *orders(*range(11)))
    source, _ = pair(cosmos_bench, batch_size=3)
    items, breaks = source._container.items, [4, 8, 2]

    def breaking(query: Query) -> Iterator[Any]:
        after = breaks.pop() if breaks else 100
        for n, item in enumerate(items(query)):
            if n == after:
                raise ServiceResponseError("the connection was lost")
            yield item

    monkeypatch.setattr(source._container, "items", breaking)
    read = [record["id"] for records in source.read(None, WHOLE) for record in records]
    assert sorted(read) == [f"{n:06}" for n in range(11)]
    assert breaks == []


def test_the_charge_of_a_store_is_that_of_all_its_requests(copied: Copied) -> None:
    _, source, backup = copied
    assert source.request_charge
    before = source.request_charge
    source.count()
    assert source.request_charge == before + 1  # as the npm server charges a request
    assert backup.request_charge
    before = backup.request_charge
    backup.write(backup.copies.of([{**document, "_etag": "x", "_ts": 1} for document in orders(7, 8, 9)], NOTE))
    assert backup.request_charge == before + 3


class Clock:
    """A clock that only sleeping moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_ceiling_of_request_units_holds_for_every_request(
    cosmos_bench: CosmosBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(access, "Throttle", lambda units: Throttle(units, clock, clock.sleep))
    cosmos_bench.create()
    source = cosmos_bench.open("source", max_request_units_per_second=5)
    for _ in range(10):
        source.count()
    source.write(orders(*range(20)))
    assert source.request_charge is not None
    assert source.request_charge >= 30
    assert clock.now >= (source.request_charge - 5 - 2) / 5
