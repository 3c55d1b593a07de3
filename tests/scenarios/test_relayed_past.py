"""A restore of a time since which few records have changed: images have these, and the servers pass on all others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from backup.core.model import Stamps
from backup.recycle_bin.bin import RecycleBin
from backup.stores.sql.reads import SqlReads
from backup.stores.sql.relay import SqlRelay
from backup.verbs.pieces import Pieces
from tests.reliability.effort import SEED, rounds
from tests.scenarios.inside import command, counted, done, named, synced
from tests.scenarios.places import Sql
from tests.scenarios.taking_back import after, rows
from tests.scenarios.test_overwrite import VERSIONED, Things, once, things, trigger

__all__ = ["things"]

SMALL = {"BackupSync__BatchSize": "3", "BackupSync__ChunkSize": "7"}


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the servers pass on few records, too."""
    monkeypatch.setattr("backup.verbs.relaying.FEWEST_BACK", 1)


@pytest.fixture
def changed(things: Things) -> tuple[Things, str]:
    """Fifteen records, of which a sync has then updated 3 and 9, deleted 5 and 12, and inserted 21; and the moment
    before it."""
    things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 16)))
    moment = after(synced(things.place, things.name))
    things.run("UPDATE {table} SET version = 6, a = 0 WHERE id IN (3, 9)", "DELETE FROM {table} WHERE id IN (5, 12)")
    things.put("21, 1, 1")
    things.sync()
    return things, moment


AS_IT_WAS = {n: (5, n) for n in range(1, 16)}


def test_the_servers_pass_on_what_has_not_changed_and_nothing_else(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, moment = changed
    place.run("DELETE FROM {table}")
    relayed, copy = list[Any](), SqlRelay._transaction

    def noted(*args: Any) -> Any:
        relayed.append(part := copy(*args))
        return part

    monkeypatch.setattr(SqlRelay, "_transaction", noted)
    monkeypatch.setattr(SqlReads, "_batch", None)  # no copy becomes a value of this process
    restored = done(place.restore("--at", moment, **SMALL))
    assert (counted(restored), place.rows()) == ((15, 0, 0, 0), AS_IT_WAS)
    assert sum(part.inserted for part in relayed) == 11


def test_chunks_that_are_equal_but_for_what_has_changed_are_not_read(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, moment = changed
    read = list[Stamps]()

    def noted(_: Pieces, stamps: Stamps) -> Stamps:
        read.append(stamps)
        return stamps

    monkeypatch.setattr(Pieces, "_readable", noted)
    restored = done(
        place.restore("--at", moment, "--overwrite-newer", "--delete-extra", "--allow-mass-delete", **SMALL)
    )
    assert not any(read)
    assert (counted(restored), place.rows()) == ((2, 2, 1, 11), AS_IT_WAS)
    assert place.kept(restored["SyncId"]) == [((3,), (3, 6, 0)), ((9,), (9, 6, 0)), ((21,), (21, 1, 1))]


def test_what_the_application_inserts_meanwhile_stays(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, moment = changed
    place.run("DELETE FROM {table}")
    once(monkeypatch, SqlRelay, "insert", lambda: place.put("2, 7, 77", "3, 7, 77"))
    restored = done(place.restore("--at", moment, **SMALL))
    assert (counted(restored), named(restored)) == ((13, 0, 0, 2), {2: "Newer", 3: "Newer"})
    assert place.rows() == AS_IT_WAS | {2: (7, 77), 3: (7, 77)}


def test_what_a_trigger_changes_is_told(changed: tuple[Things, str]) -> None:
    place, moment = changed
    place.run("DELETE FROM {table}")
    trigger(place, "-1", only="id IN (3, 4)")
    ended = place.restore("--at", moment, **SMALL)
    assert counted(done(ended)) == (15, 0, 0, 0)
    assert place.rows() == AS_IT_WAS | {3: (5, -1), 4: (5, -1)}
    assert any("as they were written" in note and ": 4, 3." in note for note in ended.json["Notes"])


def test_a_change_of_which_history_has_no_run_counts(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, moment = changed
    history = Sql(place.backup.url, f"{place.backup.table.rpartition('.')[0]}.SyncHistory".lstrip("."))
    newest = max(row["RunNumber"] for row in place.backup.history())
    history.run(f'DELETE FROM {{table}} WHERE "RunNumber" = {newest}')
    monkeypatch.setattr(Pieces, "of_keys", None)  # nobody knows that these are all
    done(place.restore("--at", moment, "--overwrite-newer", **SMALL))
    assert {n: place.rows()[n] for n in (3, 9)} == {3: (5, 3), 9: (5, 9)}


@pytest.mark.parametrize("limit", ["_NUMBERS_AT_MOST", "_OTHERS_AT_MOST"])
def test_more_keys_than_memory_may_hold_are_asked_for_a_few_at_a_time(
    things: Things, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    type_ = "INTEGER" if limit == "_NUMBERS_AT_MOST" else "VARCHAR(9)"
    things.make(f"id {type_} NOT NULL PRIMARY KEY, version INTEGER, a INTEGER", "1, 5, 1", "2, 5, 2")
    moment = after(synced(things.place, things.name))
    things.run("UPDATE {table} SET version = 6")
    things.sync()
    monkeypatch.setattr(f"backup.recycle_bin.changed_keys.{limit}", 1)
    monkeypatch.setattr(Pieces, "of_keys", None)
    assert counted(done(things.restore("--at", moment, "--overwrite-newer"))) == (0, 2, 0, 0)


def test_of_named_keys_nobody_asks_what_else_has_changed(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, moment = changed
    monkeypatch.setattr(RecycleBin, "changed_by", None)
    assert counted(done(place.restore("--at", moment, "--key", "3", "--overwrite-newer"))) == (0, 1, 0, 0)


# --- the same as record by record -------------------------------------------------------------------------------------

KEYS: Mapping[str, tuple[str, Callable[[int], str]]] = {
    "integer": ("id INTEGER PRIMARY KEY", str),
    "text": ("id VARCHAR(20) NOT NULL PRIMARY KEY", lambda n: f"'k{n * 7 % 100:02} é{n}'"),
    "two": ("id INTEGER NOT NULL, part VARCHAR(9) NOT NULL, PRIMARY KEY (id, part)", lambda n: f"{n % 5}, 'p{n}'"),
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("number", range(rounds(1, 40)))
def test_a_restore_of_a_time_does_the_same_as_one_that_asks_for_each_record(
    things: Things, monkeypatch: pytest.MonkeyPatch, key: str, number: int
) -> None:
    draw = random.Random(f"{SEED} {key} {number}")
    moments = _lived(things, key, draw)
    things.run("CREATE TABLE before AS SELECT * FROM {table}")
    for moment in draw.sample(moments, 2):
        options = [option for option in ("--overwrite-newer", "--delete-extra") if draw.random() < 0.6]
        options += ["--allow-mass-delete", "--at", moment, *(["--dry-run"] if draw.random() < 0.2 else [])]
        ways = []
        for old in (False, True):
            with monkeypatch.context() as patch:
                if old:
                    patch.setattr(RecycleBin, "changed_by", lambda *_: None)
                ways.append(_restored(things, options))
            things.run("DELETE FROM {table}", "INSERT INTO {table} SELECT * FROM before")
        assert ways[0] == ways[1], f"{SEED} {key} {number}: {options}"


def _lived(things: Things, key: str, draw: random.Random) -> list[str]:
    """Has a source and its backup live through some syncs, then changes the source. Returns moments between these."""
    columns, spelled = KEYS[key]

    def insert(numbers: Iterable[int]) -> None:
        there = {n for (n,) in rows(things.source, "SELECT n FROM {table}")}
        values = [f"{n}, {draw.randint(1, 9)}, 'ä{n}', {spelled(n)}" for n in numbers if n not in there]
        if values:
            things.put(*values)

    def change(few: int) -> None:
        touched = draw.sample(range(1, 41), few)
        for n in touched:
            match draw.randrange(4):
                case 0:
                    things.run(f"DELETE FROM {{table}} WHERE n = {n}")
                case 1:
                    insert([n])
                case 2:
                    things.run(f"UPDATE {{table}} SET version = version + 1, a = 'x{draw.random()}' WHERE n = {n}")
                case 3:
                    lower = f"version = {draw.choice(['version', 'version - 1', '0'])}"
                    things.run(f"UPDATE {{table}} SET {lower}, a = 'y{draw.random()}' WHERE n = {n}")

    things.source.run(f"CREATE TABLE {{table}} (n INTEGER, version INTEGER, a VARCHAR(40), {columns})")
    insert(range(1, 31))
    things.place.initialize()
    moments = [synced(things.place, things.name)]
    for _ in range(draw.randint(1, 4)):
        if draw.random() < 0.3:
            insert(range(41, 41 + draw.randrange(2, 14)))
        change(draw.choice([1, 4, 12]))
        moments.append(synced(things.place, things.name))
        if draw.random() < 0.2:
            done(command(things.folder, things.place.settings, "undo", moments[-1].sync_id, "--yes", "--json"))
    change(draw.choice([0, 3, 15]))
    if draw.random() < 0.4:
        things.run("DELETE FROM {table}" + draw.choice(["", " WHERE n < 25"]))
    return [after(run) for run in moments]


def _restored(things: Things, options: Sequence[str]) -> Any:
    """Restores, and returns all that can be told of it but for ids and times."""
    ended = things.restore(*options, **SMALL)
    answer: dict[str, Any] = ended.json
    entry = things.place.customer.backup.history()[-1]
    told = {name: value for name, value in answer.items() if name not in UNLIKE}
    told |= {"Changes": named(answer), "Notes": sorted(answer["Notes"])} if "Changes" in answer else {}
    written = {name: value for name, value in entry.items() if name not in UNLIKE}
    kept = things.kept(answer["SyncId"]) if answer.get("SyncId") else []
    return told, written | {"Notes": None}, sorted(rows(things.source), key=str), kept


UNLIKE = {
    "SyncId",
    "SyncedAt",
    "StartedAt",
    "CompletedAt",
    "DurationMs",
    "RunNumber",
    "HeartbeatAt",
    "Owner",
    "Attempt",
}
