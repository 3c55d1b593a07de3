"""Documents there and back, and what identifies them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import ConfigError, RecordRefused, SchemaMismatch, StoreUnavailable
from backup.core.model import Chunk, Image, SideName, Version
from backup.core.retry import Retry
from backup.core.run_values import Trigger
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.proof import DifferenceKind
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.mirror.verification import Depth, Report, verify
from backup.recycle_bin.bin import RecycleBin
from backup.runs.history import History
from backup.runs.policy import Policy
from backup.services.registry import Registry
from backup.stores import stamps_in
from backup.stores.keeping import Keep
from backup.verbs.sync import refuse_expiring
from tests.contract.benches import NOW, RUN, CosmosBench
from tests.contract.test_store import run_sync
from tests.scenarios import places

ROLES: tuple[SideName, ...] = ("source", "backup")
SYSTEM = {"_rid", "_self", "_etag", "_ts", "_attachments"}
ORDER = {"type": "Order", "customer": {"id": "c"}, "lastModified": "2024-01-01T00:00:00Z"}


def content(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in SYSTEM | {"_backup"}}


def test_documents_are_copied_exactly(cosmos_bench: CosmosBench) -> None:
    bench = cosmos_bench
    bench.create()
    documents: list[dict[str, Any]] = [
        {**ORDER, "id": "nested", "items": [{"a": [1, 2.5, None, [], {}]}, "x", True], "deep": {"er": {"est": {}}}},
        {**ORDER, "id": "text", "unicode": "é漢🎉\u2028\\\"'\n", "empty": "", "spaces": "  a  ", "ключ 漢": 1},
        {**ORDER, "id": "numbers", "n": [0, -1, 1.5, 1e300, 1e-7, 2**53, 0.1]},
        {**ORDER, "id": "nothing", "null": None, "list": [], "object": {}},
        {**ORDER, "id": "large", "text": "ä" * 600_000},
        {**ORDER, "id": "status", "status": {"name": "Paid", "id": 2}},
        {"type": "Order", "customer": {"id": "c"}, "id": "no lastModified"},
    ]
    bench.put_documents("source", *documents, {**ORDER, "id": "other", "type": "Quote"})
    source, backup = bench.pair()
    assert source.count() == len(documents)
    assert run_sync(source, backup) == (len(documents), 0, 0, 0)
    originals = {document["id"]: document for document in bench.documents("source")}
    copies = bench.documents("backup")
    assert [content(copy) for copy in copies] == sorted(documents, key=lambda d: d["id"])
    for copy in copies:
        original = originals[copy["id"]]
        synced_at = NOW.isoformat(timespec="microseconds").replace("+00:00", "Z")
        mark = {"etag": original["_etag"], "ts": original["_ts"], "syncedAt": synced_at, "syncId": RUN.sync_id}
        assert copy["_backup"] == mark
        assert copy["_etag"] != original["_etag"]
    assert run_sync(source, backup) == (0, 0, 0, len(documents))


def test_a_property_that_only_the_change_feed_adds_belongs_to_a_document_that_has_it(cosmos_bench: CosmosBench) -> None:
    """A program that saves what a change feed gave has saved it. What is the server's own, a server writes anew."""
    bench = cosmos_bench
    bench.create()
    bench.put_documents("source", {**ORDER, "id": "1", "_lsn": 5})
    source, backup = bench.pair()
    run_sync(source, backup)
    assert bench.documents("backup")[0]["_lsn"] == 5
    bench.put_documents("source", {**ORDER, "id": "1", "_lsn": 6})
    assert run_sync(source, backup) == (0, 1, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"status": {"id": 3}},
        {"status": "Paid"},
        {"status": None},
        {"lastModified": "2023-01-01"},
        {"lastModified": None},
        {"x": 1},
    ],
)
def test_every_write_is_seen(cosmos_bench: CosmosBench, change: dict[str, Any]) -> None:
    bench = cosmos_bench
    bench.create()
    document = {**ORDER, "id": "1", "status": {"id": 2, "name": "Paid"}}
    bench.put_documents("source", document, {**ORDER, "id": "2"})
    source, backup = bench.pair()
    run_sync(source, backup)
    bench.put_documents("source", {**document, **change})
    assert run_sync(source, backup) == (0, 1, 0, 1)
    assert content(bench.documents("backup")[0]) == {**document, **change}


@pytest.mark.parametrize("since", [None, "0"])
def test_what_was_written_again_as_it_was_is_noted_and_not_copied(cosmos_bench: CosmosBench, since: str | None) -> None:
    """As after a restore: the etags of the source are others, its documents are not."""
    bench = cosmos_bench
    bench.create()
    same = [{**ORDER, "id": "same"}, {"type": "Order", "customer": {"id": "c"}, "id": "no version"}]
    bench.put_documents("source", *same, {**ORDER, "id": "changed"})
    source, backup = bench.pair()
    assert run_sync(source, backup) == (3, 0, 0, 0)
    bench.put_documents("source", *same, {**ORDER, "id": "changed", "under": "the same version"})
    verify(source, backup, Depth(full=True), report := Report())
    [difference] = report.differences
    assert (difference.key[1], difference.kind) == ("changed", DifferenceKind.STALE)
    assert report.proof.differing == 1

    second = replace(RUN, sync_id="00000002-0000-4000-8000-000000000000")
    dry = Tally(tell=lambda counts: None)
    sync_stores(
        source, backup, replace(second, dry_run=True), dry, Guard(), Steps(lambda: None, lambda: NOW, lambda *_: None)
    )
    assert (dry.counts.updated, dry.counts.skipped, dry.changes) == (1, 2, [(('"c"', "changed"), "Updated")])
    tally, recycled = Tally(tell=lambda counts: None), RecycleBin(backup, second.service)
    steps = Steps(lambda: None, lambda: NOW, recycled.recorder(second, lambda: NOW), since=since)
    sync_stores(source, backup, second, tally, Guard(), steps)
    assert (tally.counts.updated, tally.counts.skipped) == (1, 2)
    assert [kept.key[1] for page in recycled.of_run(second.sync_id) for kept in page] == ["changed"]
    assert {document["_backup"]["etag"] for document in bench.documents("backup")} == {
        document["_etag"] for document in bench.documents("source")
    }
    assert run_sync(source, backup) == (0, 0, 0, 3)


def test_the_order_of_a_status_objects_names_does_not_count(cosmos_bench: CosmosBench) -> None:
    bench = cosmos_bench
    bench.create()
    bench.put_documents(
        "source", {**ORDER, "id": "1", "status": {"a": 1, "b": 2}}, {**ORDER, "id": "2", "status": {"b": 2, "a": 1}}
    )
    first, second = stamps_in(bench.open("source"), Chunk()).values()
    assert first.value == second.value == Version(('"2024-01-01T00:00:00Z"', '{"a": 1, "b": 2}')).value


IDS = [
    "a b",
    "it's",
    'say "x"',
    "100%",
    "a+b",
    "%41",
    "ü漢🎉",
    "a&b=c",
    "a;b,c",
    "~!@$^*()[]{}|<>",
    "..a",
    "...",
    " x",
    "a:b",
]


def test_ids_may_hold_anything(cosmos_bench: CosmosBench) -> None:
    bench = cosmos_bench
    bench.create()
    bench.put_documents("source", *({**ORDER, "id": name} for name in IDS))
    source, backup = bench.pair(chunk_size=3)
    assert run_sync(source, backup) == (len(IDS), 0, 0, 0)
    assert source.matching([('"c"', name) for name in IDS]) == {('"c"', name) for name in IDS}
    backup.delete([('"c"', name) for name in IDS[:7]])
    assert {document["id"] for document in bench.documents("backup")} == set(IDS[7:])
    backup.delete([('"c"', name) for name in IDS])
    assert bench.documents("backup") == []


def test_an_id_under_two_partition_keys_is_two_documents(cosmos_bench: CosmosBench) -> None:
    bench = cosmos_bench
    bench.create()
    bench.put_documents("source", *({**ORDER, "id": "1", "customer": {"id": c}, "for": c} for c in ("a", "b")))
    source, backup = bench.pair()
    assert run_sync(source, backup) == (2, 0, 0, 0)
    assert set(stamps_in(source, Chunk())) == {('"a"', "1"), ('"b"', "1")}
    bench.container("source").delete_item("1", partition_key="a")
    assert run_sync(source, backup) == (0, 0, 1, 1)
    assert [document["for"] for document in bench.documents("backup")] == ["b"]


KEYS: list[tuple[dict[str, Any], str]] = [
    ({"customer": {"id": ""}}, '""'),
    ({"customer": {"id": "x"}}, '"x"'),
    ({"customer": {"id": None}}, "null"),
    ({"customer": {"id": 0}}, "0"),
    ({"customer": {"id": 1.5}}, "1.5"),
    ({"customer": {"id": False}}, "false"),
    ({"customer": {}}, "undefined"),
    ({"customer": {"id": {"a": 1}}}, "undefined"),
    ({}, "undefined"),
]


def test_partition_keys_of_every_kind_are_told_apart(cosmos_bench: CosmosBench) -> None:
    bench = cosmos_bench
    bench.create()
    bench.put_documents(
        "source", *({"id": f"{n}", "type": "Order", **properties} for n, (properties, _) in enumerate(KEYS))
    )
    source, backup = bench.pair()
    assert set(stamps_in(source, Chunk())) == {(key, f"{n}") for n, (_, key) in enumerate(KEYS)}
    assert {source.keys.of(r) for b in source.read(frozenset(stamps_in(source, Chunk())), Chunk()) for r in b} == set(
        stamps_in(source, Chunk())
    )
    assert run_sync(source, backup) == (len(KEYS), 0, 0, 0)
    assert [content(document) for document in bench.documents("backup")] == [
        content(d) for d in bench.documents("source")
    ]
    assert run_sync(source, backup) == (0, 0, 0, len(KEYS))


def kept_in(kept: list[Image]) -> Keep:
    """Keeps images in the list."""

    def keep(images: Sequence[Image], transaction: Any, inserted: Sequence[Any] = ()) -> None:
        kept.extend(images)

    return keep


def test_what_others_have_under_the_notes_name_is_kept_and_written_over(cosmos_bench: CosmosBench) -> None:
    cosmos_bench.create()
    stores = cosmos_bench.pair()
    documents = [{**ORDER, "id": str(n), "_backup": own} for n, own in enumerate([1, True, "x", ["x"], {"etag": 1}])]
    for role, store in zip(ROLES, stores, strict=True):
        cosmos_bench.put_documents(role, *documents)
        kept: list[Image] = []
        written = store.write([{**ORDER, "id": document["id"]} for document in documents], kept_in(kept))
        assert len(written.updated) == len(documents)
        assert sorted((image.record or {} for image in kept), key=lambda record: record["id"]) == documents


def test_a_property_of_the_backups_own_name_is_refused_and_the_others_are_copied(cosmos_bench: CosmosBench) -> None:
    cosmos_bench.create()
    cosmos_bench.put_documents("source", {**ORDER, "id": "1", "_backup": {"etag": "x"}}, {**ORDER, "id": "2"})
    tally = Tally(tell=lambda counts: None)
    steps = Steps(lambda: None, lambda: NOW, lambda *_: None)
    sync_stores(*cosmos_bench.pair(), RUN, tally, Guard(), steps)
    [(key, reason)] = tally.failures.items()
    assert (json.loads(key), tally.counts.inserted) == (['"c"', "1"], 1)
    assert "_backup" in reason
    assert [document["id"] for document in cosmos_bench.documents("backup")] == ["2"]


DAY = 86_400


@pytest.mark.parametrize(
    ("name", "ttl", "refused"),
    [
        *(("Things", 10 * 365 * DAY, True), ("recycle-bin", -1, False)),
        *(("recycle-bin", 31 * DAY, False), ("sync-history", 29 * DAY, True)),
    ],
)
def test_containers_whose_documents_delete_themselves_too_early_are_refused(
    cosmos_bench: CosmosBench, name: str, ttl: int, refused: bool
) -> None:
    bench = cosmos_bench
    bench.create()
    paths = {"Things": "/customer/id", "recycle-bin": "/entryId", "sync-history": "/serviceName"}
    bench.make("backup", name, paths[name], ttl)
    backup = bench.pair()[1]
    History(backup).create()
    RecycleBin(backup, "contract").create()
    with pytest.raises(SchemaMismatch, match=f"{name} .* {ttl} seconds") if refused else nullcontext():
        refuse_expiring(backup, Policy(recycle_days=30))


def test_a_sync_looks_for_them_before_it_changes_anything(cosmos_bench: CosmosBench) -> None:
    bench = cosmos_bench
    bench.create()
    bench.put_documents("source", {**ORDER, "id": "1"})
    bench.make("backup", "Things", "/customer/id", 60)
    sides = {role: places.Cosmos(text, bench.database, "Things") for role, text in bench.connection_strings.items()}
    service = Registry(
        load_settings({**sides["source"].settings("SourceOrderDb"), **sides["backup"].settings("BackupOrderDb")})
    ).get("order")
    with pytest.raises(SchemaMismatch):
        service.initialize()
    outcome = service.sync(Trigger.CLI)
    assert isinstance(outcome.error, SchemaMismatch)
    assert bench.documents("backup") == []


def test_a_copy_that_would_delete_itself_is_refused_by_its_key(cosmos_bench: CosmosBench) -> None:
    bench = cosmos_bench
    bench.create()
    bench.make("backup", "Things", "/customer/id", -1)
    bench.put_documents("source", *({**ORDER, "id": f"{ttl}", "ttl": ttl} for ttl in (60, -1, None)))
    source, backup = bench.pair()
    records = [record for batch in source.read(None, Chunk()) for record in batch]
    with pytest.raises(RecordRefused, match="has a ttl") as caught:
        backup.write(records)
    assert set(caught.value.refused) == {('"c"', "60")}
    assert [document["id"] for document in bench.documents("backup")] == ["-1", "None"]
    source.write(records)


def test_a_container_partitioned_otherwise_is_refused(cosmos_bench: CosmosBench) -> None:
    cosmos_bench.create()
    source, backup = cosmos_bench.pair()
    other = CosmosBench({"source": cosmos_bench.connection_strings["source"], "backup": ""}, "/other")
    other.create()
    with pytest.raises(SchemaMismatch, match="partitioned by /customer/id, its source by /other"):
        backup.catalog.match(other.open("source"))
    other.connection_strings = {"source": other.connection_strings["source"]}
    other.close()
    backup.catalog.match(source)


def test_properties_of_rules_may_have_any_name(cosmos_bench: CosmosBench) -> None:
    bench = cosmos_bench
    bench.create()
    bench.put_documents("source", {**ORDER, "id": "1", 'it\'s "so"': 7})
    rules = replace(bench.rules, version=('it\'s "so"',))
    assert [v.value for v in stamps_in(bench.open("source", rules=rules), Chunk()).values()] == [("7",)]


class Refusing(BaseHTTPRequestHandler):
    """Answers as a Cosmos account does that does not know the key, and counts."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        body = json.dumps({"code": "Unauthorized", "message": "The input authorization token can't serve the request."})
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"AccountEndpoint=http://127.0.0.1:{server.server_port}/;AccountKey=aHVudGVyMg=="
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_wrong_key_fails_at_once_and_is_not_told(refusing: str) -> None:
    bench = CosmosBench({"source": refusing, "backup": refusing})
    store = bench.open("source", retry=Retry(5, 1000, 1000))
    with pytest.raises(StoreUnavailable) as caught:
        store.count()
    assert not caught.value.retryable
    assert "aHVudGVyMg" not in str(caught.value)
    store.close()


def test_an_account_key_that_cannot_be_one_is_refused_and_not_shown() -> None:
    bench = CosmosBench({"source": "AccountEndpoint=https://127.0.0.1:1/;AccountKey=hunter2", "backup": ""})
    with pytest.raises(ConfigError, match="AccountKey") as caught:
        bench.open("source").ping()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("end", "client_id"), [(";ClientId=1f0e", "1f0e"), ("", None)])
def test_without_a_key_the_identity_that_the_side_names_logs_in(
    monkeypatch: pytest.MonkeyPatch, end: str, client_id: str | None
) -> None:
    class Asked(Exception):
        pass

    def credential(name: str | None) -> None:
        raise Asked(name)

    monkeypatch.setattr("backup.stores.cosmos.connection.credential", credential)
    with pytest.raises(Asked) as caught:
        CosmosBench({"source": f"AccountEndpoint=https://account.invalid:1/{end}", "backup": ""}).open("source").ping()
    assert caught.value.args == (client_id,)
