"""Records that cannot be read, written or deleted: the run goes on without them, names them, and ends Failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backup.config.settings import load_settings
from backup.core.errors import RecordsSetAside
from backup.core.run_values import Trigger
from backup.runs.outcome import Turn
from backup.services.registry import Registry
from tests.emulators import batches
from tests.emulators.clients import cosmos_client
from tests.emulators.partitioned import Partitioned
from tests.scenarios.inside import command, few_orders, revised, synced
from tests.scenarios.places import Cosmos, Place, alone_on_sqlite, with_orders_on_cosmos
from tests.scenarios.product import Ended

REFUSING = """
CREATE TRIGGER refuses_{when} BEFORE {statement} ON Customers WHEN {row}."Id" IN ({ids})
BEGIN SELECT RAISE(ABORT, 'the trigger refuses'); END
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return alone_on_sqlite(tmp_path, "customer")


def refuse(place: Place, statement: str, *ids: int) -> None:
    """Has the backup refuse an INSERT, an UPDATE or a DELETE of these customers."""
    numbers = ", ".join(map(str, ids))
    row = "OLD" if statement == "DELETE" else "NEW"
    place.customer.backup.run(REFUSING.format(when=statement.lower(), statement=statement, row=row, ids=numbers))


def let(place: Place, statement: str) -> None:
    """Has it refuse no more."""
    place.customer.backup.run(f"DROP TRIGGER refuses_{statement.lower()}")


def sync(place: Place, folder: Path, **settings: str) -> Ended:
    return command(folder, {**place.customer.settings, **settings}, "sync", "customer", "--json")


def aside(ended: Ended) -> tuple[str, int, list[int]]:
    """The error of a run that set records aside, how many, and which."""
    assert ended.code == 1, ended.out
    [result] = ended.json["Results"]
    assert result["Status"] == "Failed"
    assert all("the trigger refuses" in failure["Reason"] for failure in result["Failures"])
    return ended.json["Error"], result["FailedCount"], sorted(failure["Key"][0] for failure in result["Failures"])


def differing(place: Place) -> set[int]:
    """The customers that the backup has otherwise than the source."""
    ours, theirs = place.customer.source.contents(), place.customer.backup.contents()
    return {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}


@pytest.mark.parametrize("batch", ["7", "2000"])
def test_what_the_backup_refuses_is_set_aside_and_everything_else_is_done(
    place: Place, tmp_path: Path, batch: str
) -> None:
    refuse(place, "INSERT", 3, 50)
    small = {"BackupSync__BatchSize": batch, "BackupSync__ChunkSize": "30"}
    assert aside(sync(place, tmp_path, **small)) == ("RecordsSetAside", 2, [3, 50])
    assert differing(place) == {3, 50}
    place.customer.source.run('UPDATE {table} SET "Version" = 2 WHERE "Id" > 20')
    place.customer.source.run('DELETE FROM {table} WHERE "Id" IN (8, 9)')
    refuse(place, "UPDATE", 33)
    refuse(place, "DELETE", 9)
    ended = sync(place, tmp_path, **small)
    assert aside(ended) == ("RecordsSetAside", 4, [3, 9, 33, 50])
    assert differing(place) == {3, 9, 33, 50}
    [result] = ended.json["Results"]
    assert (result["InsertedCount"], result["UpdatedCount"], result["DeletedCount"]) == (0, 78, 1)
    entry = place.customer.backup.history()[-1]
    assert (entry["FailedCount"], entry["DifferingCount"], len(json.loads(entry["Failures"]))) == (4, 4, 4)
    for statement in ("INSERT", "UPDATE", "DELETE"):
        let(place, statement)
    assert sync(place, tmp_path).code == 0
    assert differing(place) == set()


def test_more_than_the_setting_allows_stop_the_run(place: Place, tmp_path: Path) -> None:
    assert sync(place, tmp_path).code == 0
    place.customer.source.run('UPDATE {table} SET "Version" = 2 WHERE "Id" < 10')
    refuse(place, "UPDATE", *range(1, 10))
    ended = sync(place, tmp_path, BackupSync__MaxFailedRecords="3")
    assert aside(ended) == ("RecordsSetAside", 4, [1, 2, 3, 4])
    assert "the run stopped" in ended.json["Results"][0]["ErrorMessage"]


def break_reading(place: Place, *ids: int) -> None:
    """Adds a column to the source that has no value of these customers, only an error."""
    numbers, overflow = ", ".join(map(str, ids)), "abs(-9223372036854775807 - 1)"
    column = f'"Worth" INTEGER GENERATED ALWAYS AS (CASE WHEN "Id" IN ({numbers}) THEN {overflow} END) VIRTUAL'
    place.customer.source.run(f"ALTER TABLE {{table}} ADD COLUMN {column}")


def test_a_record_that_cannot_be_read_is_set_aside(place: Place, tmp_path: Path) -> None:
    break_reading(place, 42, 43)
    ended = sync(place, tmp_path)
    [result] = ended.json["Results"]
    assert (ended.json["Error"], result["FailedCount"], result["InsertedCount"]) == ("RecordsSetAside", 2, 98)
    assert [failure["Key"] for failure in result["Failures"]] == [[42], [43]]
    assert "integer overflow" in result["ErrorMessage"]
    assert place.customer.backup.contents().keys() == {*range(1, 101)} - {42, 43}


@pytest.mark.parametrize("size", ["7", "50000"])
def test_a_record_whose_stamp_cannot_be_read_is_set_aside_its_copy_stays_and_all_else_is_done(
    place: Place, tmp_path: Path, size: str
) -> None:
    assert sync(place, tmp_path).code == 0
    place.customer.source.run('UPDATE {table} SET "Version" = NULL WHERE "Id" IN (42, 43)')  # contents count then
    place.customer.source.run('DELETE FROM {table} WHERE "Id" = 8')
    break_reading(place, 42, 43)
    ended = sync(place, tmp_path, BackupSync__ChunkSize=size)
    [result] = ended.json["Results"]
    assert (ended.json["Error"], result["FailedCount"], result["DeletedCount"]) == ("RecordsSetAside", 2, 1)
    assert [failure["Key"] for failure in result["Failures"]] == [[42], [43]]
    assert all("Could not read stamps in the source" in failure["Reason"] for failure in result["Failures"])
    assert "everything else was done." in result["ErrorMessage"]
    assert place.customer.backup.contents().keys() == {*range(1, 101)} - {8}
    verified = command(tmp_path, place.customer.settings, "verify", "customer", "--full", "--json")
    assert (verified.code, verified.json["Verified"], verified.json["Differences"]) == (1, False, [])
    assert [failure["Key"] for failure in verified.json["Failures"]] == [[42], [43]]


def test_rows_without_a_key_are_set_aside_nothing_is_deleted_and_all_else_is_done(place: Place, tmp_path: Path) -> None:
    """SQLite lets a primary key have NULLs, in many rows."""
    source, backup = place.customer.source, place.customer.backup
    for side in (source, backup):
        side.run("DROP TABLE {table}")
    source.run('CREATE TABLE {table} ("A" TEXT, "B" INTEGER, "Version" INTEGER, PRIMARY KEY ("A", "B"))')
    rows = ", ".join(f"('{letter}', {n}, 1)" for letter in "ab" for n in range(20))
    source.run(f"INSERT INTO {{table}} VALUES {rows}, (NULL, 1, 1), (NULL, 1, 1), ('a', NULL, 1)")
    place.registry.get("customer").initialize()
    small = {"BackupSync__ChunkSize": "7"}
    names = [["NULL, row 2", 1], ["NULL, row 3", 1], ["a", "NULL, row 1"]]

    def check(inserted: int, updated: int, deleted: int) -> None:
        ended = sync(place, tmp_path, **small)
        [result] = ended.json["Results"]
        assert (ended.code, ended.json["Error"], result["FailedCount"]) == (1, "RecordsSetAside", 3)
        assert sorted(failure["Key"] for failure in result["Failures"]) == names
        assert all("NULL in A, B" in failure["Reason"] for failure in result["Failures"])
        counts = result["InsertedCount"], result["UpdatedCount"], result["DeletedCount"]
        assert counts == (inserted, updated, deleted)

    check(40, 0, 0)
    source.run("""UPDATE {table} SET "Version" = 2 WHERE "A" = 'a'""")
    source.run("""DELETE FROM {table} WHERE "A" = 'b' AND "B" = 3""")
    check(0, 20, 0)
    verified = command(tmp_path, {**place.customer.settings, **small}, "verify", "customer", "--json")
    assert sorted(failure["Key"] for failure in verified.json["Failures"]) == names
    restored = command(tmp_path, place.customer.settings, "restore", "customer", "--json")
    assert sorted(failure["Key"] for failure in restored.json["Failures"]) == names
    assert [change["Key"] for change in restored.json["Changes"]] == [["b", 3]]
    source.run('DELETE FROM {table} WHERE "A" IS NULL OR "B" IS NULL')
    ended = sync(place, tmp_path, **small)
    assert (ended.code, ended.json["Results"][0]["DeletedCount"]) == (0, 1)


def test_a_verify_sets_aside_what_it_cannot_read_and_compares_the_others(place: Place, tmp_path: Path) -> None:
    assert sync(place, tmp_path).code == 0
    break_reading(place, 42)
    place.customer.backup.run("""UPDATE {table} SET "City" = 'elsewhere' WHERE "Id" = 7""")
    ended = command(tmp_path, place.customer.settings, "verify", "customer", "--full", "--json")
    assert (ended.code, ended.json["Error"], ended.json["Verified"]) == (1, "RecordsSetAside", False)
    assert [failure["Key"] for failure in ended.json["Failures"]] == [[42]]
    assert [difference["Key"] for difference in ended.json["Differences"]] == [[7]]


def test_a_sync_in_slices_counts_each_once_and_still_names_what_an_earlier_slice_met(place: Place) -> None:
    refuse(place, "INSERT", 3, 50)
    settings = {**place.customer.settings, "BackupSync__ChunkSize": "30", "BackupSync__Parallelism": "1"}
    service = Registry(load_settings(settings)).get("customer")
    outcome, slices = service.sync(Trigger.HTTP, turn=Turn(0.0)), 1
    while outcome.in_progress:
        resumed = service.resume(Trigger.TIMER, Turn(0.0))
        assert resumed is not None
        outcome, slices = resumed, slices + 1
    assert slices > 2
    assert isinstance(outcome.error, RecordsSetAside)
    assert (outcome.run.counts.inserted, outcome.run.counts.failed, outcome.run.counts.skipped) == (98, 2, 0)
    assert [key for key, _ in outcome.run.failures] == ["[3]", "[50]"]


def test_a_unique_value_taken_over_from_a_record_that_goes_is_written_after_the_delete(
    place: Place, tmp_path: Path
) -> None:
    assert sync(place, tmp_path).code == 0
    place.customer.backup.run('CREATE UNIQUE INDEX by_email ON {table} ("Email")')
    source = place.customer.source
    source.run("""UPDATE {table} SET "Email" = 'customer100@example.com' WHERE "Id" = 1""")
    source.run('DELETE FROM {table} WHERE "Id" = 100')
    chunks = {"BackupSync__ChunkSize": "30", "BackupSync__BatchSize": "1"}
    for version, force in ((1, ["--force"]), (2, [])):  # no comparison finds a record with an equal version
        source.run(f'UPDATE {{table}} SET "Version" = {version} WHERE "Id" = 1')
        stopped = command(
            tmp_path, {**place.customer.settings, **chunks, "BackupSync__MaxDeletes": "0"}, "sync", "customer", *force
        )
        assert "Not written: 1 record waiting for the deletes, [1]. " in stopped.out + stopped.err
    ended = sync(place, tmp_path, **chunks)
    assert ended.code == 0, ended.out
    assert place.customer.is_mirrored()


def test_a_chain_of_records_that_refer_to_each_other_is_deleted_in_rounds(place: Place, tmp_path: Path) -> None:
    assert sync(place, tmp_path).code == 0
    place.customer.backup.run(
        """CREATE TRIGGER refers BEFORE DELETE ON Customers WHEN EXISTS
        (SELECT 1 FROM Customers later WHERE later."Id" = OLD."Id" + 1 AND later."Id" < 4)
        BEGIN SELECT RAISE(ABORT, 'the next one refers to it'); END"""
    )
    place.customer.source.run('DELETE FROM {table} WHERE "Id" < 4')
    ended = sync(place, tmp_path)
    assert ended.code == 0, ended.out
    assert place.customer.is_mirrored()


@pytest.mark.usefixtures("sdk_waits_for_nothing")
def test_what_cosmos_refuses_leaves_no_image_of_a_change_that_was_not_made(
    partitioned: Partitioned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = with_orders_on_cosmos(tmp_path, partitioned.account, partitioned.account).order
    place = few_orders(service)
    synced(place, "order")
    assert isinstance(service.source, Cosmos)
    with cosmos_client(partitioned.account) as client:
        orders = client.get_database_client(service.source.database).get_container_client(service.source.container)
        grown = {**orders.read_item("order-0001", "customer-1"), "status": "grown", "text": "x" * 40_000}
        orders.upsert_item({name: value for name, value in grown.items() if not name.startswith("_")})
        orders.upsert_item({"id": "new", "type": "Order", "customerId": "customer-1", "text": "x" * 40_000})
        revised(place, 2)
        monkeypatch.setattr(batches, "MOST_BYTES", 20_000)  # as if these were larger than a document may be
        ended = command(tmp_path, place.settings, "sync", "order", "--json")
        [result] = ended.json["Results"]
        assert sorted(failure["Key"][1] for failure in result["Failures"]) == ["new", "order-0001"]
        database = client.get_database_client(service.backup.database)  # type: ignore[union-attr]
        entries = database.get_container_client("recycle-bin").read_all_items()
        kept = [json.loads(entry["recordKey"]) for entry in entries if entry["syncId"] == result["SyncId"]]
        assert kept == [['"customer-2"', "order-0002"]]
