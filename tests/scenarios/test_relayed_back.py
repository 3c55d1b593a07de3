"""A restore over a place that has a part of the records: the servers pass on what is missing and what has changed."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from backup.stores.sql.chunks import SqlChunks
from backup.stores.sql.reads import SqlReads
from backup.stores.sql.relayed_back import SqlRelaysBack
from backup.stores.sql.store import SqlStore
from tests.scenarios.inside import counted, done, named, refused
from tests.scenarios.test_overwrite import IN_FILES, VERSIONED, Things, lose_lock_at, once, things, trigger

__all__ = ["things"]

LESS = {"BackupSync__BatchSize": "2"}
PARTLY = (
    "DELETE FROM {table} WHERE id IN (1, 4, 7, 8, 9)",
    "UPDATE {table} SET version = 4, a = 0 WHERE id IN (2, 5, 10, 11, 12)",
    "UPDATE {table} SET version = 6, a = 0 WHERE id = 3",
)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the servers pass on few records, too."""
    monkeypatch.setattr("backup.verbs.relaying.FEWEST_BACK", 1)


@pytest.fixture
def partly(things: Things) -> Things:
    """A source of which five records are missing, five are older than their copies, and one is newer."""
    things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 16)))
    things.run(*PARTLY)
    things.put("21, 1, 1")
    return things


def is_restored(things: Things, ended: Any, *but: int) -> None:
    """Asserts what a restore of `partly` does, however it is done. Others have taken care of the records in `but`."""
    restored = done(ended)
    assert (counted(restored), named(restored)) == ((5, 5, 0, 5), {3: "Newer"})
    whole = {n: (5, n) for n in range(1, 16)} | {3: (6, 0), 21: (1, 1)}
    assert {n: row for n, row in things.rows().items() if n not in but} == {n: whole[n] for n in {*whole} - {*but}}
    assert things.kept(restored["SyncId"]) == [((n,), (n, 4, 0)) for n in (2, 5, 10, 11, 12)]


def test_what_is_missing_and_what_is_older_comes_from_the_servers(
    partly: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlReads, "_batch", None)  # no copy becomes a value of this process
    monkeypatch.setattr(SqlReads, "images", None)
    ended = partly.restore(**LESS)
    is_restored(partly, ended)
    assert [note.split()[0] for note in ended.json["Notes"]] == ["1"]


def test_rows_with_values_of_their_own_are_written_over_by_this_process(things: Things) -> None:
    things.make(f"{VERSIONED}, b INTEGER GENERATED ALWAYS AS (a) STORED", "1, 5, 10", "2, 5, 20")
    things.run("DELETE FROM {table} WHERE id = 1", "UPDATE {table} SET version = 4, a = 0 WHERE id = 2")
    restored = done(things.restore())
    assert (counted(restored), things.rows()) == ((1, 1, 0, 0), {1: (5, 10, 10), 2: (5, 20, 20)})
    assert things.kept(restored["SyncId"]) == [((2,), (2, 4, 0, 0))]


@IN_FILES
def test_chunks_that_are_equal_are_not_read_and_count_for_the_guard(
    partly: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, stamp_rows = [], SqlChunks.stamp_rows

    def noted(chunks: SqlChunks, *args: Any, **options: Any) -> Any:
        read.append(rows := stamp_rows(chunks, *args, **options))
        return rows

    partly.restore("--overwrite-newer")
    partly.run("UPDATE {table} SET version = 4 WHERE id = 11")
    monkeypatch.setattr(SqlChunks, "stamp_rows", noted)
    limits = {"BackupSync__DeleteGuardFloor": "0", "BackupSync__MaxDeletePercent": "7"}  # one of sixteen, not of six
    restored = done(partly.restore("--delete-extra", BackupSync__ChunkSize="5", **limits))
    assert (counted(restored), partly.rows()) == ((0, 1, 1, 14), {n: (5, n) for n in range(1, 16)})
    assert max(key for rows in read for key, *_ in rows) == 21
    assert min(key for rows in read for key, *_ in rows) == 11


@pytest.mark.parametrize("effect", ["-1", "NULL", "refusal"])
def test_what_the_server_changes_is_written_and_looked_at_by_this_process(partly: Things, effect: str) -> None:
    trigger(partly, effect, only="id IN (4, 5)")
    ended = partly.restore(**LESS)
    if effect == "-1":
        is_restored(partly, ended, 4, 5)
        assert {partly.rows()[n] for n in (4, 5)} == {(5, -1)}
        assert any(re.search(r"as they were written.*: (4, 5|5, 4)\.$", note) for note in ended.json["Notes"])
    else:
        error, message = refused(ended)
        assert (error, counted(ended.json)) == ("StoreError" if effect == "NULL" else "RecordsSetAside", (4, 4, 0, 5))
        assert "4" in message
        assert (partly.rows().get(4), partly.rows()[5]) == (None, (4, 0))
    is_told = effect == "refusal" and not partly.source.url.startswith("sqlite")  # there it is one of a constraint
    assert any("by themselves" in note for note in ended.json["Notes"]) == is_told


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_the_application_commits_meanwhile_stays_or_is_kept(
    partly: Things, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    def application() -> None:
        partly.run("UPDATE {table} SET version = 9, a = 99 WHERE id = 2")
        partly.put("1, 7, 77")

    partly.run("UPDATE {table} SET version = 5, a = 3 WHERE id = 3")
    once(monkeypatch, SqlRelaysBack, "insert", application)
    restored = done(partly.restore(*["--overwrite-newer"] * overwrite, **LESS))
    rows, kept = partly.rows(), dict(partly.kept(restored["SyncId"]))
    if overwrite:
        assert (counted(restored), rows[1], rows[2]) == ((4, 6, 0, 5), (5, 1), (5, 2))
        assert (kept[(1,)], kept[(2,)]) == ((1, 7, 77), (2, 9, 99))
    else:
        assert (counted(restored), rows[1], rows[2]) == ((4, 4, 0, 7), (7, 77), (9, 99))
        assert named(restored) == {1: "Newer", 2: "Newer"}
        assert kept.keys() == {(n,) for n in (5, 10, 11, 12)}


@pytest.mark.parametrize(
    ("things", "step"), [("sqlite", "_insert"), ("sqlite", "_update"), ("postgresql", "_update")], indirect=["things"]
)
def test_a_restore_that_lost_its_lock_lets_the_servers_write_no_further_part(
    partly: Things, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = partly.rows()
    lose_lock_at(monkeypatch, SqlRelaysBack, step)
    assert refused(partly.restore(**LESS))[0] == "LockLost"
    changed = [n for n, row in partly.rows().items() if before.get(n) != row]
    assert len(changed) == (2 if step == "_insert" else 7)


@IN_FILES
@pytest.mark.parametrize("lost", ["all", "a part"])
def test_a_heartbeat_need_not_wait_for_a_part_that_the_servers_write(
    partly: Things, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    if lost == "all":
        partly.run("DELETE FROM {table}")
    beats, backup = [], partly.backup.url.removeprefix("sqlite:///")
    fence_by = SqlStore.fence_by

    def fenced(store: SqlStore, fence: Any) -> None:
        fence_by(store, fence)
        own = store.access.fence

        def beat_and_check(cx: Any, again: bool) -> None:
            if str(cx.connection.driver_connection.path) != backup:
                with closing(sqlite3.connect(backup, timeout=0)) as connection, connection:
                    connection.execute("UPDATE SyncHistory SET Attempt = Attempt")
                beats.append(again)
            assert own is not None
            own(cx, again)

        store.access.fence = beat_and_check

    monkeypatch.setattr(SqlStore, "fence_by", fenced)
    done(partly.restore())
    assert beats
