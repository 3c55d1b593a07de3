"""A process killed with SIGKILL at a chosen moment of a sync, and the next run."""

import signal
from pathlib import Path
from typing import Any

import pytest

from backup.dev.demo import change_sources
from tests.scenarios.inside import command
from tests.scenarios.places import Place, Service
from tests.scenarios.product import counts, python

# Syncs one service and kills its own process at the given call of a store's method: before it, in its transaction right
# before the commit, or after it.
KILLED = """
import os, signal, sys
import sqlalchemy
from backup import __main__
from backup.stores.cosmos.store import CosmosStore
from backup.stores.sql.relay import SqlRelay
from backup.stores.sql.store import SqlStore
from backup.stores.sql.writes import SqlWrites

service, method, call, moment = sys.argv[1:]
calls = 0

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_in(owner, name):
    original = getattr(owner, name)

    def killing(self, *arguments, **named):
        global calls
        calls += 1
        if calls == int(call) and moment == "before":
            die()
        if calls == int(call) and moment == "uncommitted":
            sqlalchemy.event.listen(sqlalchemy.Engine, "commit", die)
        result = original(self, *arguments, **named)
        if calls == int(call):
            die()
        return result

    setattr(owner, name, killing)

kill_in({owners}.get(method, {store}), method)
if method == "write":
    kill_in(SqlRelay, "_transaction")  # what servers copy among themselves is written as well
sys.argv = ["backup", "sync", service]
__main__.main()
"""
SQL = {"store": "SqlStore", "owners": '{"write": SqlWrites, "delete": SqlWrites}'}
COSMOS = {"store": "CosmosStore", "owners": "{}"}


def kill(folder: Path, service: Service, store: dict[str, str], method: str, call: int, moment: str) -> None:
    """Runs a sync of the service up to that moment and makes sure that it died there."""
    sizes = {"BackupSync__BatchSize": "20", "BackupSync__ChunkSize": "30"}
    settings = {**service.settings, **sizes, "BackupSync__Parallelism": "1"}  # so that calls come in one order
    ended = python(folder, settings, "-c", KILLED.format(**store), service.name, method, str(call), moment)
    assert ended.code == -signal.SIGKILL, ended.err


# All other moments are in tests/reliability/test_killed_everywhere.py.
@pytest.mark.parametrize(("method", "call", "moment"), [("matching", 1, "after"), ("close", 1, "before")])
def test_the_run_after_a_killed_one_makes_the_backup_equal_to_its_source(
    sqlite_place: Place, tmp_path: Path, method: str, call: int, moment: str
) -> None:
    service = sqlite_place.customer
    assert command(tmp_path, service.settings, "sync", "customer").code == 0
    service.source.run("UPDATE {table} SET Version = Version + 1, Name = 'changed' WHERE Id % 2 = 0")
    service.source.run("UPDATE {table} SET Id = Id + 1000 WHERE Id % 7 = 0")
    kill(tmp_path, service, SQL, method, call, moment)
    assert command(tmp_path, service.settings, "sync", "customer").code == 0
    assert service.is_mirrored()


def test_a_killed_run_that_is_resumed_counts_each_change_once(sqlite_place: Place, tmp_path: Path) -> None:
    service = sqlite_place.customer
    kill(tmp_path, service, SQL, "write", 3, "before")  # two batches of a chunk of 30, 20 and 10, are written
    written = len(service.backup.contents())
    ended = command(tmp_path, service.settings, "sync", "customer", "--json")
    assert written == 30
    assert counts(ended.json["Results"]) == {"customer": (100, 0, 0, 0)}


def test_a_batch_is_written_whole_or_not_at_all(sqlite_place: Place, tmp_path: Path) -> None:
    service = sqlite_place.customer
    kill(tmp_path, service, SQL, "write", 3, "uncommitted")
    assert len(service.backup.contents()) == 30


def test_nothing_is_deleted_before_everything_else_is_written(sqlite_place: Place, tmp_path: Path) -> None:
    service = sqlite_place.customer
    assert command(tmp_path, service.settings, "sync", "customer").code == 0
    service.source.run("DELETE FROM {table} WHERE Id <= 10")
    service.source.run("UPDATE {table} SET Version = 9")
    kill(tmp_path, service, SQL, "delete", 1, "before")
    copies = service.backup.contents()
    assert set(range(1, 11)) <= copies.keys()
    assert {copy["Version"] for key, copy in copies.items() if key > 10} == {9}


def test_a_killed_run_stands_in_progress_until_the_next_sync_goes_on_with_it(
    sqlite_place: Place, tmp_path: Path
) -> None:
    service = sqlite_place.customer
    kill(tmp_path, service, SQL, "write", 2, "before")
    [left] = service.backup.history()
    assert command(tmp_path, service.settings, "sync", "customer").code == 0
    [entry] = service.backup.history()
    assert (left["Status"], left["CompletedAt"]) == ("InProgress", None)
    assert (entry["Status"], entry["SyncId"], bool(entry["Verified"])) == ("Completed", left["SyncId"], True)
    assert entry["StartedAt"] == left["StartedAt"]


@pytest.mark.parametrize("options", [("--force",), ("--allow-mass-delete",), ("--dry-run",)])
def test_a_killed_run_is_closed_as_failed_by_a_sync_that_asks_for_something_else(
    sqlite_place: Place, tmp_path: Path, options: tuple[str]
) -> None:
    service = sqlite_place.customer
    kill(tmp_path, service, SQL, "write", 2, "before")
    left = service.backup.history()
    assert command(tmp_path, service.settings, "sync", "customer", *options).code == 0
    check_closed(service, left)


def test_a_killed_run_is_closed_as_failed_by_an_undo_of_it(sqlite_place: Place, tmp_path: Path) -> None:
    service = sqlite_place.customer
    kill(tmp_path, service, SQL, "write", 2, "before")
    left = service.backup.history()
    assert command(tmp_path, service.settings, "undo", left[0]["SyncId"], "--yes").code == 0
    check_closed(service, left)
    assert service.backup.contents() == {}


def check_closed(service: Service, left: list[dict[str, Any]]) -> None:
    entries = service.backup.history()
    assert [entry["Status"] for entry in left] == ["InProgress"]
    assert [(entry["Status"], bool(entry["Success"])) for entry in entries] == [("Failed", False), ("Completed", True)]
    assert entries[0]["SyncId"] == left[0]["SyncId"]
    assert entries[0]["CompletedAt"]
    assert "interrupted" in entries[0]["ErrorMessage"]


def test_a_killed_run_on_cosmos_is_resumed_and_covers_what_changed_since(cosmos_place: Place, tmp_path: Path) -> None:
    service = cosmos_place.order
    kill(tmp_path, service, COSMOS, "write", 1, "after")
    change_sources(cosmos_place.registry)
    ended = command(tmp_path, service.settings, "sync", "order", "--json")
    assert ended.code == 0, ended.err
    assert service.statuses == ["Completed"]
    assert service.is_mirrored()
