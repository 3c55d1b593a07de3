"""What every place for the records of jobs must do: a SQLite file, and a table of a storage account."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from azure.data.tables import UpdateMode

from backup.config.settings import load_settings
from backup.core.errors import StoreUnavailable
from backup.core.retry import Retry
from backup.jobs import jobs_file
from backup.jobs.key_values import ANY, CHANGES_AT_MOST, NEW, Change, KeyValues
from backup.jobs.sqlite_key_values import SqliteKeyValues
from backup.jobs.table_key_values import TableKeyValues, _ServerClock

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "azurite"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyValues]:
    if request.param == "sqlite":
        made: KeyValues = SqliteKeyValues(tmp_path / "new" / "jobs.db")
    else:
        settings = load_settings({"AzureWebJobsStorage": request.getfixturevalue("azurite")})
        made = TableKeyValues(settings, Retry(max_attempts=1), f"t{uuid4().hex}")
    yield made
    made.close()


def test_a_key_that_is_not_there_is_none(keys: KeyValues) -> None:
    assert keys.get("item:1") is None
    assert keys.scan("item:", limit=10) == []


def test_a_value_comes_back_as_it_was(keys: KeyValues) -> None:
    value = {"text": "ü “x” \U0001f600 \u0000", "number": 2**60, "list": [None, True, {"a": 1.5}]}
    assert keys.commit([Change("item:1", value, NEW)])
    item = keys.get("item:1")
    assert item is not None
    assert (item.key, item.value) == ("item:1", value)


def test_a_long_value_comes_back(keys: KeyValues) -> None:
    value = {"text": "ü" * 65_000}  # 390,000 characters as JSON
    assert keys.commit([Change("item:1", value)])
    item = keys.get("item:1")
    assert item is not None
    assert item.value == value
    assert keys.commit([Change("item:1", {"text": "short"})])
    shorter = keys.get("item:1")
    assert shorter is not None
    assert shorter.value == {"text": "short"}


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 20_000])
def test_a_text_that_is_no_value_is_an_empty_one_and_hides_no_other(keys: KeyValues, text: str) -> None:
    assert keys.commit([Change("item:1", {"a": 1}), Change("item:2", {"a": 2})])
    if isinstance(keys, SqliteKeyValues):
        with closing(sqlite3.connect(keys._reading._path)) as connection, connection:
            connection.execute("UPDATE items SET value = ?, etag = 7 WHERE key = 'item:1'", (text,))
    else:
        assert isinstance(keys, TableKeyValues)
        keys._table().upsert_entity({"PartitionKey": "jobs", "RowKey": "item:1", "v00": text}, UpdateMode.REPLACE)
    spoilt, whole = keys.scan("item:", limit=9)
    assert (spoilt.key, spoilt.value, whole.value) == ("item:1", {}, {"a": 2})
    assert keys.commit([Change("item:1", {"a": 3}, spoilt.etag)])


def test_an_entity_with_values_of_other_kinds_is_an_empty_value(azurite: str) -> None:
    keys = TableKeyValues(load_settings({"AzureWebJobsStorage": azurite}), Retry(max_attempts=1), f"t{uuid4().hex}")
    for odd in (7, 1.5, True, b"{}", START, uuid4(), None):
        keys._table().upsert_entity({"PartitionKey": "jobs", "RowKey": "item:1", "v00": odd}, UpdateMode.REPLACE)
        assert [item.value for item in keys.scan("item:", limit=9)] == [{}]
    keys.close()


def test_an_item_knows_how_long_ago_it_was_written_whatever_the_clock_of_the_reader_says(keys: KeyValues) -> None:
    assert keys.commit([Change("item:1", {})])
    [scanned], got, [one, two] = keys.scan("item:", limit=9), keys.get("item:1"), keys.get_all(["item:1", "item:1"])
    for item in (scanned, got, one, two):
        assert item is not None
        assert item.age is not None
        assert timedelta() <= item.age < timedelta(minutes=1)
        assert item.age_by(START, START + timedelta(days=9)) == item.age


def test_a_file_of_an_earlier_release_is_used_on_and_by_that_release_too(tmp_path: Path) -> None:
    """Its items have no age, and those that it changes later have none any more."""
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path)) as earlier:
        earlier.execute(
            "CREATE TABLE items (key TEXT PRIMARY KEY, value TEXT NOT NULL, etag INTEGER NOT NULL) WITHOUT ROWID"
        )
        with earlier:
            earlier.execute("INSERT INTO items (key, value, etag) VALUES ('a', '{}', 1), ('b', '{}', 1)")
        keys = SqliteKeyValues(path)
        assert keys.commit([Change("b", {"n": 2}), Change("c", {})])
        with earlier:
            earlier.execute("UPDATE items SET etag = etag + 1 WHERE key = 'c'")
        known = [(item.key, item.age is not None) for item in keys.scan("", limit=9)]
        keys.close()
    assert known == [("a", False), ("b", True), ("c", False)]


def test_keys_are_scanned_in_order_from_where_one_was_left(keys: KeyValues) -> None:
    names = ["a:0", "a:00", "a:1", "a:9", "a:A", "a:Z", "a:_", "a:a", "a:z", "b:0", "a"]
    assert keys.commit([Change(name, {}) for name in reversed(names)])
    scanned, after = [], ""
    while page := keys.scan("a:", after=after, limit=2):
        scanned += [item.key for item in page]
        after = page[-1].key
    assert scanned == names[:9]


@pytest.mark.parametrize("value", [{"n": 2}, None], ids=["change", "delete"])
def test_a_change_is_made_only_under_its_condition(keys: KeyValues, value: dict[str, int] | None) -> None:
    assert keys.commit([Change("item:1", {"n": 1}, NEW)])
    first = keys.get("item:1")
    assert first is not None
    assert keys.commit([Change("item:1", {"n": 1}, first.etag)])
    assert not keys.commit([Change("item:1", value, first.etag)])
    second = keys.get("item:1")
    assert second is not None
    assert second.etag != first.etag
    assert keys.commit([Change("item:1", value, second.etag)])
    last = keys.get("item:1")
    assert (last.value if last else None) == value


def test_a_new_key_must_be_new(keys: KeyValues) -> None:
    assert keys.commit([Change("item:1", {"n": 1}, NEW)])
    assert not keys.commit([Change("item:1", {"n": 2}, NEW)])


def test_changes_are_made_together_or_not_at_all(keys: KeyValues) -> None:
    assert keys.commit([Change("x", {}), Change("y", {})])
    assert not keys.commit([Change("x", {"n": 1}), Change("y", None), Change("z", {}, NEW), Change("gone", None)])
    x, y = keys.get("x"), keys.get("y")
    assert x is not None
    assert (x.value, y is None, keys.get("z")) == ({}, False, None)


def test_a_commit_may_have_a_hundred_changes(keys: KeyValues) -> None:
    assert keys.commit([Change(f"k:{n:03}", {"n": n}, ANY if n % 2 else NEW) for n in range(CHANGES_AT_MOST)])
    assert [item.value["n"] for item in keys.scan("k:", limit=1000)] == list(range(CHANGES_AT_MOST))


def test_of_two_that_change_the_same_value_one_does(keys: KeyValues) -> None:
    """Each of four threads adds 1 ten times."""
    assert keys.commit([Change("n", {"n": 0}, NEW)])

    def add() -> None:
        for _ in range(10):
            while True:
                item = keys.get("n")
                assert item is not None
                if keys.commit([Change("n", {"n": item.value["n"] + 1}, item.etag)]):
                    break

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    item = keys.get("n")
    assert item is not None
    assert item.value == {"n": 40}


def test_key_values_may_be_used_after_they_were_closed(keys: KeyValues) -> None:
    assert keys.commit([Change("x", {})])
    keys.close()
    assert keys.get("x") is not None


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"not a database " * 100)
    with pytest.raises(StoreUnavailable, match=r"jobs\.db cannot be used"):
        SqliteKeyValues(tmp_path / "jobs.db").get("x")


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_file_that_was_removed_or_replaced_takes_nothing_that_would_be_gone(
    tmp_path: Path, is_replaced: bool
) -> None:
    keys, other = SqliteKeyValues(tmp_path / "jobs.db"), SqliteKeyValues(tmp_path / "other.db")
    assert keys.commit([Change("x", {})])
    assert other.commit([Change("y", {})])
    other.close()
    for path in tmp_path.glob("jobs.db*"):
        path.unlink()
    if is_replaced:
        (tmp_path / "other.db").rename(tmp_path / "jobs.db")
    with pytest.raises(StoreUnavailable, match="was removed or replaced"):
        keys.commit([Change("z", {})])
    keys.close()
    assert [item.key for item in keys.scan("", limit=9)] == (["y"] if is_replaced else [])


def left_by_a_killed_process(path: Path) -> None:
    """What a process leaves behind that had no time to close the file: all changes lie beside it."""
    keys = SqliteKeyValues(path.with_name("killed.db"))
    assert keys.commit([Change("x", {})])
    for end in ("", "-wal", "-shm"):
        shutil.copy(f"{path.with_name('killed.db')}{end}", f"{path}{end}")
    keys.close()


@pytest.mark.parametrize("left", [None, b"", b"S"], ids=["missing", "empty", "cut-off"])
def test_changes_without_their_file_are_refused_and_stay(tmp_path: Path, left: bytes | None) -> None:
    """SQLite takes such a file for a new one, and removes what lies beside it."""
    path = tmp_path / "jobs.db"
    left_by_a_killed_process(path)
    whole = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    keys = SqliteKeyValues(path)
    with pytest.raises(StoreUnavailable, match=r"jobs\.db-wal has changes of it"):
        keys.get("x")
    path.write_bytes(whole)
    assert keys.get("x") is not None
    keys.close()


def test_a_file_that_was_closed_has_all_in_itself(tmp_path: Path) -> None:
    keys = SqliteKeyValues(tmp_path / "jobs.db")
    assert keys.commit([Change("x", {})])
    keys.close()
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.db"]
    (tmp_path / "jobs.db").rename(tmp_path / "moved.db")
    moved = SqliteKeyValues(tmp_path / "moved.db")
    assert moved.get("x") is not None
    moved.close()


def test_another_process_that_closes_the_file_does_not_take_away_what_this_one_uses(tmp_path: Path) -> None:
    """The file stays locked for as long as it is used. Of a process, whoever closes the file ends all its locks."""
    keys = SqliteKeyValues(tmp_path / "jobs.db")
    assert keys.get("x") is None
    assert keys.commit([Change("x", {})])
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM items').fetchall(); c.close()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "jobs.db")], check=True)
    assert keys.commit([Change("y", {})])
    assert len(keys.scan("", limit=9)) == 2
    keys.close()


@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_what_lies_beside_the_file_may_be_removed_without_a_loss(tmp_path: Path, end: str) -> None:
    path = tmp_path / "jobs.db"
    keys = SqliteKeyValues(path)
    assert keys.commit([Change("x", {})])
    path.with_name(f"jobs.db{end}").unlink()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="was removed or replaced"):
            keys.commit([Change("y", {})])
    keys.close()
    assert [item.key for item in keys.scan("", limit=9)] == ["x"]
    keys.close()


def test_a_damaged_file_says_what_to_do_and_is_used_again_once_it_is_right(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    keys = SqliteKeyValues(path)
    assert keys.commit([Change(f"k:{n:03}", {"text": "x" * 3_000}) for n in range(99)])
    keys.close()
    whole = path.read_bytes()
    assert keys.get("k:001") is not None
    path.write_bytes(whole[:4096] + b"\x55" * (len(whole) - 4096))
    for use in (lambda: keys.scan("", limit=999), lambda: keys.commit([Change("k:098", {})])):
        with pytest.raises(StoreUnavailable, match="malformed") as raised:
            use()
        assert "The file is damaged" in raised.value.hint
    path.write_bytes(whole)
    assert len(keys.scan("", limit=999)) == 99
    assert keys.commit([Change("k:098", {})])
    keys.close()


def test_another_programs_lock_keeps_nobody_from_reading_and_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_file, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(jobs_file, "_AFTER_IN_VAIN", 0.0)
    keys = SqliteKeyValues(tmp_path / "jobs.db")
    assert keys.commit([Change("x", {})])
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(5) as pool:
            began = time.monotonic()
            writes = [pool.submit(keys.commit, [Change(f"y:{n}", {})]) for n in range(5)]
            assert keys.get("x") is not None
            assert not any(write.done() for write in writes)
            errors = [write.exception() for write in writes]
            waited = time.monotonic() - began
        assert {type(error) for error in errors} == {StoreUnavailable}
        assert waited < 5 * 0.5
        assert keys._writing._wait_seconds == 0  # as long as the lock is there
        other.execute("ROLLBACK")
    assert keys.commit([Change("y", {})])
    assert keys._writing._wait_seconds > 0
    keys.close()


def test_an_account_that_does_not_answer_is_an_error_that_says_so() -> None:
    account = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;TableEndpoint=http://127.0.0.1:1/a;"
    settings = load_settings({"AzureWebJobsStorage": account})
    with pytest.raises(StoreUnavailable, match=r"records of jobs, cannot be used .nothing answers there"):
        TableKeyValues(settings, Retry(max_attempts=1)).get("x")


def test_a_scan_reads_what_it_returns_however_many_keys_come_before(tmp_path: Path) -> None:
    """In steps of SQLite's own machine, so that no clock counts."""
    keys = SqliteKeyValues(tmp_path / "jobs.db")
    assert keys.commit([Change("z:1", {}), Change("z:2", {})])
    assert keys.get("z:1") is not None
    connection = keys._reading._connection
    assert connection is not None
    connection.executemany("INSERT INTO items VALUES (?, '{}', 1, NULL)", [(f"a:{n}",) for n in range(5_000)])
    steps: list[int] = []
    connection.set_progress_handler(lambda: steps.append(1), 100)
    assert len(keys.scan("z:", limit=10)) == 2
    assert len(keys.scan("z:", after="z:1", limit=10)) == 1
    connection.set_progress_handler(None, 0)
    keys.close()
    assert len(steps) < 10


def test_several_keys_are_read_at_once_in_the_order_that_was_asked_for(keys: KeyValues) -> None:
    assert keys.commit([Change(f"k:{number}", {"n": number}) for number in range(20)])
    asked = ["k:7", "k:none", "k:0", "k:19", "k:7"]
    assert [item and item.value["n"] for item in keys.get_all(asked)] == [7, None, 0, 19, 7]
    assert keys.get_all([]) == []


@pytest.mark.parametrize("text", ["soon", "Fri, 31 Dec 9999 23:59:59 GMT", "Tue, 01 Dec 2026 10:00:00 -0000"])
def test_a_time_of_the_service_that_a_proxy_has_spoilt_is_none(text: str) -> None:
    clock = _ServerClock()
    clock.hear(SimpleNamespace(http_response=SimpleNamespace(headers={"Date": text})))
    assert clock.now is None
