"""How documents are written and deleted where a server knows transactional batches, and where it does not."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest

from backup.core.errors import RecordRefused, SourceMissing, StoreError, StoreUnavailable, TransientStoreError
from backup.core.model import WHOLE
from backup.core.retry import Retry
from backup.mirror.set_aside import Refusal, read_bisecting
from backup.stores import Limits, Rules, Shape, stamps_in
from backup.stores.connection import Cosmos, parse_connection
from backup.stores.cosmos.access import CosmosAccess
from backup.stores.cosmos.documents import size_of
from backup.stores.cosmos.store import CosmosStore
from backup.stores.sides import Side, open_store
from tests.contract.benches import NOTE, RUN, CosmosBench
from tests.contract.test_cosmos_partitions import by_key
from tests.emulators.front import Answer
from tests.emulators.partitioned import Partitioned
from tests.emulators.partitioned_containers import Refused

pytestmark = pytest.mark.usefixtures("sdk_waits_for_nothing")

ALIKE = [{"id": f"{n:04}", "type": "Order", "customer": {"id": "c"}, "text": "é" * 50} for n in range(230)]
APART = [{"id": f"{n:04}", "type": "Order", "customer": {"id": f"other-{n}"}} for n in range(5)]


@pytest.fixture
def place(partitioned: Partitioned) -> Iterator[tuple[Partitioned, CosmosBench]]:
    bench = CosmosBench({"source": partitioned.account, "backup": partitioned.account})
    bench.create()
    yield partitioned, bench
    bench.close()


def opened(bench: CosmosBench, **limits: Any) -> CosmosStore:
    store = bench.open("source", **limits)
    assert isinstance(store, CosmosStore)
    return store


def documents_by_key(bench: CosmosBench) -> dict[Any, dict[str, Any]]:
    return by_key(bench.documents("source"))


def written(account: Partitioned) -> dict[str, int]:
    return {kind: account.requests[kind] for kind in ("batch", "upsert", "delete") if account.requests[kind]}


def test_documents_of_one_partition_key_go_in_batches(place: tuple[Partitioned, CosmosBench]) -> None:
    account, bench = place
    store = opened(bench)
    store.write([*ALIKE, *APART])
    assert documents_by_key(bench) == by_key([*ALIKE, *APART])
    assert written(account) == {"batch": 3, "upsert": len(APART)}
    account.requests.clear()
    gone = sorted(by_key([*ALIKE[:150], APART[0]]))
    store.delete(gone)
    assert documents_by_key(bench) == by_key([*ALIKE[150:], *APART[1:]])
    assert written(account) == {"batch": 2, "delete": 1}
    assert account.operations == {"upsert": 230, "delete": 150}


def test_under_a_ceiling_of_request_units_documents_go_one_by_one(place: tuple[Partitioned, CosmosBench]) -> None:
    account, bench = place
    opened(bench, max_request_units_per_second=1e6).write(ALIKE[:20])
    assert documents_by_key(bench) == by_key(ALIKE[:20])
    assert written(account) == {"upsert": 20}


def test_large_documents_go_in_several_batches(place: tuple[Partitioned, CosmosBench]) -> None:
    account, bench = place
    large = [{**document, "text": "x" * 400_000} for document in ALIKE[:5]]
    opened(bench).write([*large, {**ALIKE[5], "text": "x" * 1_500_000}, ALIKE[6]])
    assert {document["id"]: len(document["text"]) for document in bench.documents("source")} == {
        **{document["id"]: 400_000 for document in large},
        ALIKE[5]["id"]: 1_500_000,
        ALIKE[6]["id"]: 50,
    }
    assert written(account) == {"batch": 2, "upsert": 3}


def test_a_batch_that_fails_is_done_document_by_document(place: tuple[Partitioned, CosmosBench]) -> None:
    account, bench = place
    store = opened(bench)
    store.write(ALIKE[:10])
    account.requests.clear()
    store.delete([*sorted(by_key(ALIKE[:5])), ('"c"', "gone already")])
    assert documents_by_key(bench) == by_key(ALIKE[5:10])
    assert written(account) == {"batch": 1, "delete": 6}
    account.requests.clear()
    account.next_batches.append(413)
    store.write(ALIKE[:8])
    store.write(ALIKE[:8])
    assert documents_by_key(bench) == by_key(ALIKE[:10])
    assert written(account) == {"batch": 2, "upsert": 8}


@pytest.mark.parametrize("fate", [[429] * 3, ["lost"]])
def test_a_batch_that_was_refused_for_now_or_whose_answer_is_lost_is_repeated(
    place: tuple[Partitioned, CosmosBench], fate: list[Literal[429, "lost"]]
) -> None:
    account, bench = place
    store = opened(bench)
    account.next_batches.extend(fate)
    store.write(ALIKE[:50])
    assert documents_by_key(bench) == by_key(ALIKE[:50])
    assert written(account) == {"batch": len(fate) + 1}
    account.next_batches.extend(fate)
    store.delete(sorted(by_key(ALIKE[:20])))
    assert documents_by_key(bench) == by_key(ALIKE[20:50])


@pytest.mark.parametrize("status", [429, 503])
def test_a_batch_that_is_never_taken_is_done_document_by_document(
    place: tuple[Partitioned, CosmosBench], status: int
) -> None:
    """It may cost more than a small container has in a second; the next one need not."""
    account, bench = place
    store = opened(bench)
    account.next_batches.extend([status] * 20)
    store.write(ALIKE[:30])
    assert documents_by_key(bench) == by_key(ALIKE[:30])
    assert written(account)["upsert"] == 30
    account.next_batches.clear()
    account.requests.clear()
    store.write(ALIKE[:30])
    assert written(account) == {"batch": 1}


@pytest.mark.parametrize("batches", [True, False])
def test_a_server_that_knows_no_batches_is_asked_once(
    place: tuple[Partitioned, CosmosBench], batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backup.stores.cosmos.throttle.AT_MOST", 1)
    account, bench = place
    account.batches = batches
    store = opened(bench)
    for part in (ALIKE[:120], ALIKE[120:]):
        store.write(part)
    assert documents_by_key(bench) == by_key(ALIKE)
    assert written(account) == ({"batch": 4} if batches else {"batch": 1, "upsert": len(ALIKE)})


LEVELS: Sequence[dict[str, Any]] = [
    {"id": "whole", "a": "x", "b": "y"},
    {"id": "no second level", "a": "x"},
    {"id": "no level at all"},
    {"id": "a null", "a": None, "b": "y"},
    {"id": "an object", "a": "x", "b": {"c": 1}},
    {"id": "a list", "a": "x", "b": [1]},
]


@pytest.mark.parametrize("paths", [["/a", "/b"], "/b"])
def test_a_document_without_a_whole_partition_key_is_written_where_it_belongs(
    partitioned: Partitioned, paths: Any
) -> None:
    bench = CosmosBench({"source": partitioned.account, "backup": partitioned.account}, paths)
    try:
        bench.create()
        store = opened(bench)
        store.catalog.initialize(store)
        for documents in (LEVELS, [{**document, "text": "changed"} for document in LEVELS]):
            for document in documents:
                store.write([document])
            assert {document["id"]: json.dumps(document, sort_keys=True) for document in own(bench)} == {
                document["id"]: json.dumps(document, sort_keys=True) for document in documents
            }
        assert len(bench.documents("source")) == len(LEVELS)
        store.delete([store.keys.of(document) for document in LEVELS])
        assert bench.documents("source") == []
    finally:
        bench.close()


def own(bench: CosmosBench) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in document.items() if not name.startswith("_")}
        for document in bench.documents("source")
    ]


# --- single documents -------------------------------------------------------------------------------------------------

NO_ADDRESS = ["a/b", "back\\slash", "what?", "#1", "a\ttab", "line\r\n", "trailing ", ".", "..", "half \ud83d"]
UNNAMED = [{"id": name, "type": "Order", "customer": {"id": "c"}} for name in NO_ADDRESS]


@pytest.mark.parametrize("ceiling", [None, 1e6])
def test_ids_that_no_address_can_name_go_in_batches_alone_and_with_others(
    place: tuple[Partitioned, CosmosBench], ceiling: float | None
) -> None:
    _, bench = place
    store = opened(bench, max_request_units_per_second=ceiling)
    for documents in ([*UNNAMED[:5], *ALIKE[:2]], *([document] for document in UNNAMED[5:])):
        store.write(documents)
    assert documents_by_key(bench) == by_key([*UNNAMED, *ALIKE[:2]])
    assert set(stamps_in(store, WHOLE)) == store.matching(list(documents_by_key(bench))) == set(documents_by_key(bench))
    for keys in (by_key([*UNNAMED[5:], ALIKE[0]]), *(by_key([document]) for document in UNNAMED[:5])):
        store.delete(sorted(keys))
        store.delete(sorted(keys))
    assert documents_by_key(bench) == by_key([ALIKE[1]])


def test_a_server_that_knows_no_batches_refuses_these_ids_alone(place: tuple[Partitioned, CosmosBench]) -> None:
    account, bench = place
    account.batches = False
    store = opened(bench)
    with pytest.raises(RecordRefused, match="1 document ") as caught:
        store.write([UNNAMED[0], APART[0]])
    with pytest.raises(RecordRefused, match=r'\["c", "a/b"\]: Only a batch') as caught:
        store.write([*APART[1:], *ALIKE[:3], *UNNAMED])
    assert caught.value.refused.keys() == by_key(UNNAMED).keys()
    assert "knows none: HTTP 500" in caught.value.refused[('"c"', "a/b")]
    assert documents_by_key(bench) == by_key([*APART, *ALIKE[:3]])
    with pytest.raises(RecordRefused):
        store.delete([('"c"', ".."), *sorted(by_key(ALIKE[:3]))])
    assert documents_by_key(bench) == by_key(APART)


LIMIT = 2 * 1024 * 1024


def sized(name: str, size: int) -> dict[str, Any]:
    """A document of so many bytes, every one of which a server counts."""
    document = {"id": name, "type": "Order", "customer": {"id": "c"}, "text": ""}
    return {**document, "text": "x" * (size - size_of(document))}


def test_what_the_server_refuses_is_told_by_key_and_the_others_are_written(
    place: tuple[Partitioned, CosmosBench],
) -> None:
    _, bench = place
    too_large = sized("too large", LIMIT + 1)
    with pytest.raises(RecordRefused) as caught:
        opened(bench, batch_size=3).write([too_large, *ALIKE[:4], {**ALIKE[4], "text": "漢" * 600_000}])
    assert caught.value.refused.keys() == by_key([too_large]).keys()
    assert "too large It has 2,097,153 bytes" in str(caught.value)
    assert "xxx" not in str(caught.value)
    assert set(documents_by_key(bench)) == set(by_key(ALIKE[:5]))


def test_a_copy_that_is_too_large_keeps_in_its_mark_what_comparisons_ask_for(
    place: tuple[Partitioned, CosmosBench],
) -> None:
    _, bench = place
    store = opened(bench)
    records = [{**sized(f"{less}", LIMIT - less), "_etag": '"an etag"', "_ts": 1700000000} for less in (250, 70, 20)]
    with pytest.raises(RecordRefused) as caught:
        store.write(store.copies.of(records, NOTE))
    assert set(caught.value.refused) == {('"c"', "20")}
    marks = {document["id"]: document["_backup"] for document in bench.documents("source")}
    least = {"etag": '"an etag"', "ts": 1700000000}
    assert marks["70"] == least
    assert marks["250"] == {**marks["250"], **least, "syncId": RUN.sync_id}


def test_a_document_that_cannot_be_read_is_found_among_the_others(
    place: tuple[Partitioned, CosmosBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose text a server gives in bytes that are no UTF-8."""
    _, bench = place
    store = opened(bench)
    documents = [*({**document, "text": "whole"} for document in ALIKE[:9]), {**ALIKE[9], "text": "broken"}]
    store.write(documents)
    respond, refused = Partitioned.respond, list[Refusal]()

    def breaking(self: Partitioned, request: Any) -> Any:
        answer = respond(self, request)
        return answer and replace(answer, body=answer.body.replace(b"broken", b"br\xffken"))

    with monkeypatch.context() as broken:
        broken.setattr(Partitioned, "respond", breaking)
        batches = read_bisecting(by_key(documents), store.keys.of, lambda keys: store.read(keys, WHOLE), refused.append)
        assert by_key(document for batch in batches for document in batch) == by_key(documents[:9])
    assert [refusal.keys for refusal in refused] == [[('"c"', "0009")]]


# --- what only looks as if something were missing ---------------------------------------------------------------------


def answering(monkeypatch: pytest.MonkeyPatch, status: int, sub_status: int, times: int, method: str) -> list[Any]:
    """Makes the next so many requests about documents fail; gives those that did."""
    failed: list[Any] = []
    respond = Partitioned.respond

    def failing(self: Partitioned, request: Any) -> Any:
        if request.method != method or "/docs" not in request.path or len(failed) == times:
            return respond(self, request)
        failed.append(request)
        return Refused(status, "As told.", sub_status).answer

    monkeypatch.setattr(Partitioned, "respond", failing)
    return failed


@pytest.mark.parametrize(("status", "sub_status"), [(404, 1002), (404, 1013), (403, 3)])
def test_a_replica_that_lags_or_a_region_that_moves_is_asked_again(
    place: tuple[Partitioned, CosmosBench], monkeypatch: pytest.MonkeyPatch, status: int, sub_status: int
) -> None:
    _, bench = place
    store = opened(bench)
    store.write([APART[0], ALIKE[0]])
    failed = answering(monkeypatch, status, sub_status, 2, "POST")
    assert store.count() == 2
    assert len(failed) == 2
    failed = answering(monkeypatch, status, sub_status, 2, "DELETE")
    store.delete(sorted(by_key([APART[0], ALIKE[0]])))
    assert len(failed) == 2
    assert documents_by_key(bench) == {}
    answering(monkeypatch, status, sub_status, 1000, "POST")
    with pytest.raises(TransientStoreError, match=rf"HTTP {status}\.{sub_status}\."):
        store.count()


@pytest.mark.parametrize(("sub_status", "error"), [(0, SourceMissing), (1003, SourceMissing), (1004, StoreError)])
def test_a_404_says_that_the_container_is_missing_only_where_it_says_so(
    place: tuple[Partitioned, CosmosBench], monkeypatch: pytest.MonkeyPatch, sub_status: int, error: type[Exception]
) -> None:
    store = opened(place[1])
    answering(monkeypatch, 404, sub_status, 1000, "POST")
    with pytest.raises(StoreError) as caught:
        store.count()
    assert type(caught.value) is error


def test_a_request_that_never_has_a_good_answer_has_an_end(
    place: tuple[Partitioned, CosmosBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    account, bench = place
    where = parse_connection(account.account, "TEST")
    assert isinstance(where, Cosmos)
    access = CosmosAccess(where, bench.database, Retry(1), SourceMissing, "source", max_call_seconds=0.2)
    policy = access.connection.client.client_connection.connection_policy
    assert (policy.RequestTimeout, policy.ReadTimeout) == (0.2, 0.2)
    with monkeypatch.context() as refusing:
        busy = Answer(429, {"x-ms-retry-after-ms": "90"}, b"")
        refusing.setattr(Partitioned, "respond", lambda *_: busy)
        with pytest.raises(TransientStoreError, match=r"No answer within 0\.2 s"), access.once("ask"):
            access.container("Things").read()
    access.close()


# --- stamps, partition by partition -----------------------------------------------------------------------------------


def test_stamps_are_asked_of_each_physical_partition(place: tuple[Partitioned, CosmosBench]) -> None:
    account, bench = place
    store = opened(bench)
    store.write(APART)
    account.requests.clear()
    assert set(stamps_in(store, WHOLE)) == set(by_key(APART))
    asked = {kind: n for kind, n in account.requests.items() if kind.startswith("query") or kind == "plan"}
    assert asked == {"query 0": 1, "query 1": 1, "query 2": 1}


def asked_before(bench: CosmosBench) -> CosmosStore:
    """A store with documents in every partition, which knows its feed ranges."""
    store = opened(bench)
    store.write(APART)
    stamps_in(store, WHOLE)
    return store


def silent(monkeypatch: pytest.MonkeyPatch, times: int) -> list[Any]:
    """Makes the partition 1 break the next so many connections; gives the requests that it broke."""
    broken: list[Any] = []
    respond = Partitioned.respond

    def failing(self: Partitioned, request: Any) -> Any:
        if request.headers.get("x-ms-documentdb-partitionkeyrangeid") != "1" or len(broken) == times:
            return respond(self, request)
        broken.append(request)
        return None

    monkeypatch.setattr(Partitioned, "respond", failing)
    return broken


def test_a_partition_that_does_not_answer_is_asked_again_alone(
    place: tuple[Partitioned, CosmosBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    account, bench = place
    store = asked_before(bench)
    broken = silent(monkeypatch, 1)
    account.requests.clear()
    assert set(stamps_in(store, WHOLE)) == set(by_key(APART))
    assert len(broken) == 1
    assert {account.requests[f"query {n}"] for n in range(3)} == {1}


def test_a_partition_that_never_answers_is_an_error(
    place: tuple[Partitioned, CosmosBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bench = place
    store = asked_before(bench)
    silent(monkeypatch, 1000)
    with pytest.raises(TransientStoreError):
        stamps_in(store, WHOLE)


# --- the SDK ----------------------------------------------------------------------------------------------------------


def test_what_the_sdk_notes_of_an_answer_adds_no_header_to_it(place: tuple[Partitioned, CosmosBench]) -> None:
    """Else threads fail: what one has answered is noted in the headers that another is copying."""
    _, bench = place
    proxy, header_names = opened(bench)._container.proxy, list[set[str]]()

    def note(headers: Mapping[str, str], _: object) -> None:
        header_names.append(set(headers))

    list(proxy.query_items("SELECT * FROM c", partition_key="c", response_hook=note))
    proxy.upsert_item(ALIKE[0], response_hook=note)
    assert len(header_names) == 2
    assert all({"x-ms-throttle-retry-count", "x-ms-throttle-retry-wait-time-ms"} <= names for names in header_names)


def test_an_emulator_that_nobody_verifies_is_no_warning_at_each_request(
    place: tuple[Partitioned, CosmosBench],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(place[1]).count() == 0


def test_threads_that_meet_within_the_sdk_are_a_reason_to_try_again(place: tuple[Partitioned, CosmosBench]) -> None:
    access = opened(place[1])._access
    with pytest.raises(TransientStoreError, match="Could not count"), access.once("count"):
        raise RuntimeError("dictionary changed size during iteration")
    with pytest.raises(RuntimeError, match="another"), access.once("count"):
        raise RuntimeError("another")


# --- what is beside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/subject", "/id"])
def test_entries_are_found_however_their_container_is_partitioned(
    place: tuple[Partitioned, CosmosBench], path: str
) -> None:
    account, bench = place
    store = opened(bench)
    store._access.create_container("notes", [path])  # by hand, perhaps
    notes = store.sibling(Shape("Notes", "notes", "NoteId", "Subject", {"NoteId": "name", "Subject": "name"}))
    notes.create()
    entries = [{"NoteId": f"n{n}", "Subject": f"s{n % 3}"} for n in range(9)]
    notes.put(entries)
    account.requests.clear()
    assert notes.find({"Subject": "s1"}, order_by="NoteId", limit=9) == entries[1::3]
    assert account.requests["query of a key"] == (1 if path == "/subject" else 0)


def test_a_server_whose_certificate_nobody_vouches_for_is_asked_once(cosmos_server: str) -> None:
    address = re.sub("://(localhost|127.0.0.1)", "://127.1", cosmos_server)  # by a name that no emulator has
    side = Side("orders", "source", "SourceOrderDb", address, container="orders", database="shop")
    store = open_store(side, Rules(), Limits())
    with pytest.raises(StoreUnavailable) as caught:
        store.ping()
    assert "REQUESTS_CA_BUNDLE" in caught.value.hint
    store.close()
