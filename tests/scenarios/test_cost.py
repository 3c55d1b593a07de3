"""What a sync asks of its source, counted in statements and records: cost follows what changed, not what is there."""

import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core import interrupts
from backup.core.errors import Interrupted, LockLost, NotVerified, TransientStoreError
from backup.core.model import WHOLE, Chunk, utc_now
from backup.core.run_values import Counts, Status, Trigger
from backup.mirror import differing_parts
from backup.mirror.looked import Looked, look_at_all
from backup.runs.history import History
from backup.runs.runner import Runner
from backup.services.registry import Registry
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.app_tables import SqlSibling
from backup.stores.sql.buckets import SqlBuckets
from backup.stores.sql.relational import SqlRelational
from backup.stores.sql.store import SqlStore
from tests.scenarios.places import Place, on_sqlite, with_files

ROWS, CHUNK, BUCKET = 12_600, 2_100, 64
CHUNKS = ROWS // CHUNK


may_look_at_once = SqlRelational.may_look_at_once


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Customers in six chunks, and a backup equal to them. They are compared by chunks, unless the test says
    otherwise."""
    monkeypatch.setattr(SqlRelational, "may_look_at_once", lambda *_: False)
    made = on_sqlite(tmp_path)

    def make() -> None:
        with closing(sqlite3.connect(tmp_path / "customers.db")) as file, file:
            file.execute("CREATE TABLE Customers (Id INTEGER PRIMARY KEY, Name TEXT, Version INTEGER NOT NULL)")
            file.executemany("INSERT INTO Customers VALUES (?, 'Somebody', 1)", ((n,) for n in range(1, ROWS + 1)))
        customer = registry(made).get("customer")
        customer.initialize()
        assert customer.sync(Trigger.CLI).run.counts == Counts(inserted=ROWS)

    with_files(tmp_path, "customers in six chunks", make)
    return made


def registry(place: Place, **more: str) -> Registry:
    return Registry(
        load_settings(
            {
                **place.customer.settings,
                "BackupSync__ChunkSize": str(CHUNK),
                "BackupSync__MaxStatementSeconds": "3600",
                **more,
            }
        )
    )


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the source's statements by what they are for, and the `stamps` of chunks and `records` that are read
    there."""
    counts: Counter[str] = Counter()
    once, read, stamp_rows = SqlAccess.once, SqlStore.read, SqlStore.stamp_rows
    of_buckets = SqlBuckets.stamp_rows

    def counted(access: SqlAccess, operation: str, **how: Any) -> Any:
        if access.label.startswith("source"):
            counts[operation] += 1
        return once(access, operation, **how)

    def counted_read(store: SqlStore, *where: Any) -> Iterator[Any]:
        for records in read(store, *where):
            counts["records"] += len(records) if store.place.label.startswith("source") else 0
            yield records

    def counted_stamps(store: SqlStore, *where: Any) -> set[Any]:
        rows = stamp_rows(store, *where)
        counts["stamps"] += len(rows) if store.place.label.startswith("source") else 0
        return rows

    def counted_stamps_of_buckets(buckets: SqlBuckets, *where: Any) -> set[Any]:
        rows = of_buckets(buckets, *where)
        counts["stamps"] += len(rows) if buckets._access.label.startswith("source") else 0
        return rows

    with monkeypatch.context() as patches:
        patches.setattr(SqlStore, "stamp_rows", counted_stamps)
        patches.setattr(SqlBuckets, "stamp_rows", counted_stamps_of_buckets)
        patches.setattr(SqlAccess, "once", counted)
        patches.setattr(SqlStore, "read", counted_read)
        yield counts


def change(place: Place, statement: str) -> None:
    place.customer.source.run(statement)


def test_a_night_without_changes_reads_no_stamp_and_no_record(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with counting(monkeypatch) as asked:
        run = registry(place).get("customer").sync(Trigger.CLI).run
    assert run.counts == Counts(skipped=ROWS)
    assert run.verified
    assert asked["read the fingerprint"] == CHUNKS + 1  # the last chunk is open at its end
    assert asked["find the next chunk"] == CHUNKS + 1
    assert (asked["read the stamps"], asked["records"]) == (0, 0)


def test_a_quiet_source_is_asked_once_for_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqlRelational, "may_look_at_once", may_look_at_once)
    change_last = "UPDATE {table} SET Version = Version + 1 WHERE Id = 12000"
    for statement, statements, changed in (
        (None, 1, 0),  # after a first copy
        (None, 1, 0),  # after a run that changed nothing
        (change_last, 1, 1),  # all differs, so blocks say where
        (None, 1, 0),  # after a run that changed something: the first chunk, then many blocks as one
    ):
        if statement is not None:
            change(place, statement)
        with counting(monkeypatch) as asked:
            run = registry(place, BackupSync__Parallelism="1").get("customer").sync(Trigger.CLI).run
        assert run.counts == Counts(updated=changed, skipped=ROWS - changed)
        assert run.verified
        assert asked["read the fingerprint"] == statements


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_quiet_table_is_looked_at_before_the_run_has_an_entry_and_not_again_in_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, in_parts: bool
) -> None:
    monkeypatch.setattr(SqlRelational, "may_look_at_once", may_look_at_once)
    if in_parts:
        monkeypatch.setattr(differing_parts, "RECORDS_AT_ONCE", CHUNK)
    customer, put = registry(place).get("customer"), SqlSibling.put
    entries = list[str]()  # of runs that have one before their end

    def noted(sibling: SqlSibling, written: Any, *, new: bool = False) -> None:
        entries.extend(entry["Status"] for entry in written)
        put(sibling, written, new=new)

    monkeypatch.setattr(SqlSibling, "put", noted)
    assert customer.sync(Trigger.CLI).run.counts == Counts(skipped=ROWS)  # after a first copy the run looks itself
    assert entries == ["InProgress"]
    with counting(monkeypatch) as of_equal:
        assert customer.sync(Trigger.CLI).run.verified
    assert entries == ["InProgress"]
    change(place, "UPDATE {table} SET Version = Version + 1 WHERE Id = 12000")
    with counting(monkeypatch) as of_changed:
        run = customer.sync(Trigger.CLI).run
    assert (run.counts, run.verified) == (Counts(updated=1, skipped=ROWS - 1), True)
    assert entries == ["InProgress", "InProgress"]
    looks = ("read the fingerprints of blocks", 2) if in_parts else ("read the fingerprint", 1)
    assert (of_equal[looks[0]], of_changed[looks[0]]) == (1, looks[1])  # blocks that differ are asked for as blocks


def test_where_nobody_answers_the_look_the_run_does_not_wait_as_long_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlRelational, "may_look_at_once", may_look_at_once)
    customer = registry(place, BackupSync__Parallelism="1").get("customer")
    customer.sync(Trigger.CLI)
    asked = list[Chunk]()

    def gone(_: SqlStore, chunk: Chunk) -> Any:
        asked.append(chunk)
        raise TransientStoreError("connection refused", unanswered=True)

    monkeypatch.setattr(SqlStore, "fingerprint", gone)
    ended = customer.sync(Trigger.CLI)
    assert (str(ended.error), ended.run.status, ended.recorded) == ("connection refused", Status.FAILED, True)
    assert asked == [WHOLE]


def test_a_signal_during_the_look_leaves_the_run_to_the_next_call(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlRelational, "may_look_at_once", may_look_at_once)
    customer, fingerprint = registry(place, BackupSync__Parallelism="1").get("customer"), SqlStore.fingerprint
    assert customer.sync(Trigger.CLI).run.verified
    mark = interrupts._Mark()

    def interrupted(store: SqlStore, chunk: Chunk) -> Any:
        mark.since = time.monotonic()
        mark.requested.set()
        return fingerprint(store, chunk)

    with monkeypatch.context() as patches:
        patches.setattr(SqlStore, "fingerprint", interrupted)
        patches.setattr(interrupts, "_mark", mark)
        left = customer.sync(Trigger.CLI)
    assert (type(left.error), left.in_progress, left.recorded) == (Interrupted, True, True)
    assert customer.sync(Trigger.CLI).run.sync_id == left.run.sync_id
    assert [run.status for run in customer.past.history(1)] == [Status.COMPLETED]


def test_what_is_written_behind_a_look_is_newer_than_the_start_of_the_run_that_goes_on_from_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlRelational, "may_look_at_once", may_look_at_once)
    monkeypatch.setattr(differing_parts, "RECORDS_AT_ONCE", CHUNK)
    customer, written_at = registry(place).get("customer"), list[datetime]()
    customer.sync(Trigger.CLI)

    def looked(*arguments: Any) -> Looked:
        shown = look_at_all(*arguments)
        change(place, "INSERT INTO {table} VALUES (99999, 'Late', 1)")
        written_at.append(utc_now())
        return shown

    monkeypatch.setattr("backup.verbs.unchanged.look_at_all", looked)
    change(place, "UPDATE {table} SET Version = Version + 1 WHERE Id = 12000")
    run = customer.sync(Trigger.CLI).run
    assert (run.counts, run.verified) == (Counts(updated=1, skipped=ROWS - 1), True)
    assert [run.started_at < at for at in written_at] == [True]


def test_a_file_that_is_swapped_behind_the_look_is_not_taken_for_the_one_that_was_seen(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlRelational, "may_look_at_once", may_look_at_once)
    monkeypatch.setattr(differing_parts, "RECORDS_AT_ONCE", CHUNK)
    customer, used = registry(place).get("customer"), tmp_path / "customers.db"
    customer.sync(Trigger.CLI)
    shutil.copy(used, tmp_path / "other.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as other, other:
        other.execute("DELETE FROM Customers WHERE Id IN (1, 11999)")
    change(place, "UPDATE {table} SET Version = Version + 1 WHERE Id = 12000")

    def looked(*arguments: Any) -> Looked:
        shown = look_at_all(*arguments)
        (tmp_path / "other.db").replace(used)
        return shown

    with monkeypatch.context() as patches:
        patches.setattr("backup.verbs.unchanged.look_at_all", looked)
        failed = customer.sync(Trigger.CLI)
    assert "another file has taken the place of the one that was read before" in str(failed.error)
    assert (failed.run.status, failed.run.counts) == (Status.FAILED, Counts())
    assert customer.sync(Trigger.CLI).run.counts == Counts(deleted=2, skipped=ROWS - 2)


def test_a_lock_that_is_lost_behind_the_look_ends_the_run_before_it_has_an_entry(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlRelational, "may_look_at_once", may_look_at_once)
    customer, begun = registry(place).get("customer"), list[bool]()
    assert customer.sync(Trigger.CLI).run.verified
    change(place, "UPDATE {table} SET Version = Version + 1 WHERE Id = 12000")

    def lost() -> None:
        raise LockLost("Another process has the lock.")

    def looked(*arguments: Any) -> Looked:
        held[0] = lost
        return look_at_all(*arguments)

    def taken(*_: Any) -> Callable[[], None]:
        return lambda: held[0]()

    held: list[Callable[[], None]] = [lambda: None]
    monkeypatch.setattr("backup.verbs.unchanged.look_at_all", looked)
    monkeypatch.setattr(Runner, "_take_lock", taken)
    monkeypatch.setattr(Runner, "_begin", lambda *_: begun.append(True))
    assert (type(customer.sync(Trigger.CLI).error), begun) == (LockLost, [])


@pytest.mark.parametrize(
    ("seconds", "updated", "statements", "of_blocks"),
    [
        (7_200, 0, 2, 0),
        (5_000, 0, 1, 0),  # two thirds of the records took no longer than a statement may
        (7_200, 5, 1, 1),  # its first chunk has changed a little: blocks say of the rest what differs
        (7_200, CHUNK, CHUNKS + 2, 0),  # all of its first chunk has changed, which is proven
    ],
)
def test_a_quiet_source_whose_last_sync_took_long_is_asked_for_its_first_chunk_and_for_all_the_rest(
    place: Place, monkeypatch: pytest.MonkeyPatch, seconds: int, updated: int, statements: int, of_blocks: int
) -> None:
    monkeypatch.setattr(SqlRelational, "may_look_at_once", may_look_at_once)
    customer = registry(place, BackupSync__Parallelism="1").get("customer")
    with customer.stores() as (_, backup):
        history = History(backup)
        [last] = history.latest("customer", 1)
        history.save(replace(last, started_at=last.started_at - timedelta(seconds=seconds)))
    change(place, f"UPDATE {{table}} SET Version = 2 WHERE Id <= {updated}")
    with counting(monkeypatch) as asked:
        run = customer.sync(Trigger.CLI).run
    assert (run.counts, run.verified) == (Counts(updated=updated, skipped=ROWS - updated), True)
    assert asked["read the fingerprint"] == statements
    assert asked["read the fingerprints of blocks"] == of_blocks


def test_a_quiet_source_that_does_not_answer_about_all_at_once_is_asked_chunk_by_chunk(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint, refused = SqlStore.fingerprint, list[Chunk]()

    def answered(store: SqlStore, chunk: Chunk) -> Any:
        if chunk == WHOLE:
            refused.append(chunk)
            raise TransientStoreError("there was no answer within 60 s")
        return fingerprint(store, chunk)

    monkeypatch.setattr(SqlRelational, "may_look_at_once", may_look_at_once)
    monkeypatch.setattr(SqlStore, "fingerprint", answered)
    for _ in ("after a first copy", "after a run that changed nothing"):
        run = registry(place, BackupSync__Parallelism="1").get("customer").sync(Trigger.CLI).run
        assert (run.counts, run.verified) == (Counts(skipped=ROWS), True)
        assert refused == [WHOLE]
        refused.clear()


def test_a_first_copy_asks_the_source_once_for_each_fingerprint_but_the_first(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.customer.backup.run("DELETE FROM {table}")
    with counting(monkeypatch) as asked:
        run = registry(place, BackupSync__Parallelism="1").get("customer").sync(Trigger.CLI).run
    assert run.counts == Counts(inserted=ROWS)
    assert asked["read the fingerprint"] == CHUNKS + 2  # a proof for each chunk, and a look at the first


def test_a_few_changes_cost_the_stamps_of_their_buckets_and_their_own_records(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(place, "UPDATE {table} SET Version = 2 WHERE Id IN (5, 6, 6300)")
    with counting(monkeypatch) as asked:
        run = registry(place, BackupSync__Parallelism="1").get("customer").sync(Trigger.CLI).run
    assert run.counts == Counts(updated=3, skipped=ROWS - 3)
    assert run.verified
    assert (asked["read the fingerprints of buckets"], asked["read the stamps"]) == (2, 2)
    assert asked["stamps"] == 63 + 29  # records 1 to 63, and 6272 to 6300: a chunk ends there
    assert asked["records"] == 3
    assert asked["look up stamps"] == 2  # the two chunks are proven by the records that differed
    assert asked["read the fingerprint"] == CHUNKS + 1


def test_changes_all_over_cost_the_stamps_of_some_buckets_and_hardly_a_fingerprint_of_a_chunk(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(place, "UPDATE {table} SET Version = 2 WHERE Id % 250 = 0")
    with counting(monkeypatch) as asked:
        run = registry(place, BackupSync__Parallelism="1").get("customer").sync(Trigger.CLI).run
    assert run.counts == Counts(updated=ROWS // 250, skipped=ROWS - ROWS // 250)
    assert run.verified
    assert (asked["read the stamps"], asked["look up stamps"], asked["records"]) == (CHUNKS, CHUNKS, ROWS // 250)
    assert asked["stamps"] <= ROWS // 250 * BUCKET < ROWS / 3
    assert (asked["read the fingerprint"], asked["read the fingerprints of buckets"]) == (2, CHUNKS + 1)
    with counting(monkeypatch) as asked:  # and once nothing changes, fingerprints are back
        assert registry(place).get("customer").sync(Trigger.CLI).run.counts == Counts(skipped=ROWS)
    assert (asked["read the stamps"], asked["read the fingerprint"]) == (0, CHUNKS + 1)


def test_what_is_asked_of_chunks_side_by_side_is_the_same_each_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a chunk is looked at follows from those before it, but for the `Parallelism` that are under way."""
    change(place, "UPDATE {table} SET Version = 2 WHERE Id % 250 = 0")
    with counting(monkeypatch) as asked:
        run = registry(place, BackupSync__Parallelism="3").get("customer").sync(Trigger.CLI).run
    assert run.counts == Counts(updated=ROWS // 250, skipped=ROWS - ROWS // 250)
    # After the second chunk that is known to have changes: three more are asked for by then.
    assert (asked["read the fingerprint"], asked["read the stamps"]) == (2 + 3 - 1, CHUNKS)


def test_after_a_streak_of_changes_one_equal_chunk_brings_fingerprints_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(place, f"UPDATE {{table}} SET Version = 2 WHERE Id % 250 = 0 AND Id <= {3 * CHUNK}")
    with counting(monkeypatch) as asked:
        registry(place, BackupSync__Parallelism="1").get("customer").sync(Trigger.CLI)
    assert (asked["read the stamps"], asked["read the fingerprints of buckets"]) == (3, 3 + 1)
    assert asked["read the fingerprint"] == CHUNKS + 1 - 2


def test_changes_here_and_there_are_no_streak(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    change(place, "UPDATE {table} SET Version = 2 WHERE Id IN (500, 4500, 8500)")
    with counting(monkeypatch) as asked:
        registry(place, BackupSync__Parallelism="1").get("customer").sync(Trigger.CLI)
    assert (asked["read the stamps"], asked["read the fingerprint"]) == (3, CHUNKS + 1)


def test_a_write_that_the_backup_did_not_take_is_not_proven(place: Place) -> None:
    change(place, "UPDATE {table} SET Version = 2 WHERE Id IN (5, 6)")
    place.customer.backup.run(
        "CREATE TRIGGER Loses AFTER UPDATE ON Customers WHEN NEW.Id = 5"
        " BEGIN UPDATE Customers SET Version = OLD.Version WHERE Id = NEW.Id; END"
    )
    outcome = registry(place).get("customer").sync(Trigger.CLI)
    assert isinstance(outcome.error, NotVerified)
    assert outcome.run.proof is not None
    assert (outcome.run.verified, outcome.run.proof.differing) == (False, 1)


@pytest.mark.parametrize(("each", "chunks"), [(5, 4), (1, 1)], ids=["much", "most"])
def test_where_much_has_changed_the_stamps_of_whole_chunks_are_read_and_of_one_where_most_has(
    place: Place, monkeypatch: pytest.MonkeyPatch, each: int, chunks: int
) -> None:
    updated = 4 * CHUNK // each
    change(place, f"UPDATE {{table}} SET Version = 2 WHERE Id <= {4 * CHUNK} AND Id % {each} = 0")
    with counting(monkeypatch) as asked:
        run = registry(place, BackupSync__Parallelism="1").get("customer").sync(Trigger.CLI).run
    assert run.counts == Counts(updated=updated, skipped=ROWS - updated)
    assert run.verified
    assert (asked["stamps"], asked["records"]) == (chunks * CHUNK, 0)
    assert asked["read the fingerprints of buckets"] == 1  # then it is known


def test_deletes_cost_the_stamps_of_their_buckets_and_no_record(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    change(place, "DELETE FROM {table} WHERE Id BETWEEN 3001 AND 3010")
    with counting(monkeypatch) as asked:
        run = registry(place).get("customer").sync(Trigger.CLI).run
    assert run.counts == Counts(deleted=10, skipped=ROWS - 10)
    assert run.verified
    assert (asked["stamps"], asked["records"]) == (2 * BUCKET - 10, 0)


def test_a_first_copy_reads_no_record_and_no_stamp(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.customer.backup.run("DELETE FROM {table}")
    with counting(monkeypatch) as asked:
        run = registry(place).get("customer").sync(Trigger.CLI).run
    assert run.counts == Counts(inserted=ROWS)
    assert run.verified
    assert (asked["read the stamps"], asked["records"]) == (0, 0)


def test_a_table_with_a_status_but_no_time_of_change_is_compared_by_content(tmp_path: Path) -> None:
    place = on_sqlite(tmp_path)
    with closing(sqlite3.connect(tmp_path / "orders.db")) as file, file:
        file.execute("CREATE TABLE Orders (Id INTEGER PRIMARY KEY, Status TEXT, Total INTEGER)")
        file.execute("INSERT INTO Orders VALUES (1, 'Paid', 5)")
    order = Registry(load_settings(place.order.settings)).get("order")
    order.initialize()
    order.sync(Trigger.CLI)
    place.order.source.run("UPDATE {table} SET Total = 6")
    run = order.sync(Trigger.CLI).run
    assert run.counts == Counts(updated=1)
    assert run.notes == ("The source has no version column; every record is compared by its content.",)
