"""A restore of a time since which few records have changed: images have these, and the servers pass on all others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from backup.core.model import Chunk, Stamps
from backup.core.run_values import Run
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.changed_keys import ChangedKeys
from backup.recycle_bin.entries import KeptImage
from backup.stores.sql.reads import SqlReads
from backup.stores.sql.relay import SqlRelay
from backup.stores.sql.relayed_back import SqlRelaysBack
from backup.verbs.pieces import Pieces
from tests.reliability.effort import SEED, rounds
from tests.scenarios.inside import command, counted, done, named, refused, synced
from tests.scenarios.places import Sql, with_files
from tests.scenarios.taking_back import after, compress, rows
from tests.scenarios.test_overwrite import IN_FILES, VERSIONED, Things, lose_lock_at, once, things, trigger

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

    def make() -> str:
        things.make(VERSIONED, *(f"{n}, 5, {n}" for n in range(1, 16)))
        moment = after(synced(things.place, things.name))
        things.run("UPDATE {table} SET version = 6, a = 0 WHERE id IN (3, 9)")
        things.run("DELETE FROM {table} WHERE id IN (5, 12)")
        things.put("21, 1, 1")
        things.sync()
        return moment

    in_files = things.source.url.startswith("sqlite")
    return things, with_files(things.folder, "changed things", make) if in_files else make()


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
    reads_no_image(monkeypatch)
    restored = done(place.restore("--at", moment, **SMALL))
    assert (counted(restored), place.rows()) == ((15, 0, 0, 0), AS_IT_WAS)
    assert sum(part.inserted for part in relayed) == 11


@IN_FILES
def test_chunks_that_are_equal_but_for_what_has_changed_are_not_read(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, moment = changed
    read = list[Stamps]()

    def noted(_: Pieces, stamps: Stamps) -> Stamps:
        read.append(stamps)
        return stamps

    monkeypatch.setattr(Pieces, "_readable", noted)
    reads_no_image(monkeypatch)
    restored = done(
        place.restore("--at", moment, "--overwrite-newer", "--delete-extra", "--allow-mass-delete", **SMALL)
    )
    assert not any(read)
    assert (counted(restored), place.rows()) == ((2, 2, 1, 11), AS_IT_WAS)
    assert place.kept(restored["SyncId"]) == [((3,), (3, 6, 0)), ((9,), (9, 6, 0)), ((21,), (21, 1, 1))]


def test_what_a_run_changed_comes_from_images_by_the_servers(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = changed
    reads_no_image(monkeypatch)
    monkeypatch.setattr(SqlReads, "images", None)
    place.run("UPDATE {table} SET version = 5, a = 3 WHERE id = 3")  # it is right already
    run = _newest(place)
    for counts in ((2, 1, 0, 1), (0, 0, 0, 4)):
        restored = done(place.restore("--run", run, **SMALL))
        assert (counted(restored), place.rows()) == (counts, AS_IT_WAS | {21: (1, 1)})
        assert place.kept(restored["SyncId"]) == ([((9,), (9, 6, 0))] if counts[1] else [])


@IN_FILES
@pytest.mark.parametrize("spec", ["--at", "--run"])
def test_a_record_that_came_back_in_a_version_that_it_had_gets_its_old_values(
    changed: tuple[Things, str], spec: str
) -> None:
    place, moment = changed
    run = _newest(place)
    place.put("5, 5, 0")  # as an application counts the versions of a new record
    place.sync()
    wanted = ("--key", "5", "--key", "12")
    assert counted(done(place.restore(spec, moment if spec == "--at" else run, *wanted)))[:2] == (1, 1)
    assert {n: place.rows()[n] for n in (5, 12)} == {5: (5, 5), 12: (5, 12)}
    assert counted(done(place.restore(spec, moment if spec == "--at" else run, *wanted)))[:2] == (0, 0)


@pytest.mark.parametrize("step", ["_insert", "_update"])
def test_a_restore_of_a_run_that_lost_its_lock_lets_the_servers_write_no_further_part(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    place, _ = changed
    before, run = place.rows(), _newest(place)
    lose_lock_at(monkeypatch, SqlRelaysBack, step)
    assert refused(place.restore("--run", run, BackupSync__BatchSize="1"))[0] == "LockLost"
    written = {n for n, row in place.rows().items() if before.get(n) != row}
    assert written == ({5} if step == "_insert" else {3, 5, 12})


@pytest.mark.parametrize("verb", ["undo", "run", "at", "key"])
def test_an_image_that_is_deleted_before_it_is_read_fails_what_needs_it(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    place, moment = changed
    run = _newest(place)

    def purge() -> None:
        replace(place.backup, table=place.backup.table.replace("things", "RecycleBin")).run(
            "DELETE FROM {table} WHERE \"RecordKey\" = '[9]'"
        )

    owner: Any = RecycleBin if verb == "undo" else Pieces
    once(monkeypatch, owner, "inserted" if verb == "undo" else "of_keys", purge)
    if verb == "key":
        monkeypatch.setattr(RecycleBin, "count_later", None)  # millions of other records may have changed since
    options = {
        "undo": ("undo", run),
        "run": ("restore", place.name, "--run", run),
        "at": ("restore", place.name, "--at", moment),
        "key": ("restore", place.name, "--at", moment, "--key", "9"),
    }[verb]
    error, message = refused(command(place.folder, {**place.place.settings, **SMALL}, *options, "--yes", "--json"))
    assert (error, "1 image was deleted" in message) == ("Conflict", True), message


def reads_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every read of an image's record fail."""

    def read(_: RecycleBin, images: Iterable[KeptImage]) -> Iterator[list[KeptImage]]:
        assert not [*images]
        return iter(())

    monkeypatch.setattr(RecycleBin, "with_records", read)


def _newest(place: Things) -> str:
    """The id of the newest run."""
    return str(max(place.backup.history(), key=lambda row: row["RunNumber"])["SyncId"])


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


@IN_FILES
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


@pytest.mark.parametrize(
    ("things", "limit"),
    [("sqlite", "_NUMBERS_AT_MOST"), ("sqlite", "_OTHERS_AT_MOST"), ("postgresql", "_OTHERS_AT_MOST")],
    indirect=["things"],
)
def test_more_keys_than_memory_may_hold_are_asked_for_a_few_at_a_time(
    things: Things, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    type_ = "INTEGER" if limit == "_NUMBERS_AT_MOST" else "VARCHAR(9)"
    things.make(f"id {type_} NOT NULL PRIMARY KEY, version INTEGER, a INTEGER", *(f"{n}, 5, {n}" for n in range(1, 7)))
    moment = after(synced(things.place, things.name))
    things.run("UPDATE {table} SET version = 6, a = 0 WHERE version = 5 AND a < 4")
    things.sync()
    things.run("DELETE FROM {table} WHERE a = 4 OR id = '2'", "UPDATE {table} SET version = 4, a = 9 WHERE a = 5")
    monkeypatch.setattr(f"backup.recycle_bin.changed_keys.{limit}", 1)
    monkeypatch.setattr(Pieces, "of_keys", None)
    # The servers pass on both the images of what has changed and the copies of what has not.
    monkeypatch.setattr(SqlReads, "_batch", None)
    reads_no_image(monkeypatch)
    assert counted(done(things.restore("--at", moment, "--overwrite-newer"))) == (2, 3, 0, 1)
    assert {int(n): row for n, row in things.rows().items()} == {n: (5, n) for n in range(1, 7)}


@IN_FILES
def test_of_a_chunk_with_many_changed_keys_the_others_come_first(
    changed: tuple[Things, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, moment = changed
    monkeypatch.setattr("backup.verbs.pieces.LEFT_OUT_AT_MOST", 1)
    place.run("DELETE FROM {table}")
    restored = done(place.restore("--at", moment))
    assert (counted(restored), place.rows()) == ((15, 0, 0, 0), AS_IT_WAS)


@IN_FILES
def test_a_record_deleted_from_the_backup_that_is_right_already_is_no_extra_one(changed: tuple[Things, str]) -> None:
    place, moment = changed
    place.run("DELETE FROM {table} WHERE id = 1")
    place.run("INSERT INTO {table} (id, version, a) VALUES (5, 5, 5)")
    restored = done(place.restore("--at", moment, "--delete-extra"))
    assert (counted(restored)[:3], place.rows()) == ((2, 2, 1), AS_IT_WAS)


@IN_FILES
def test_a_copy_that_was_emptied_after_a_run_filled_its_new_column_gets_the_values_of_its_image(
    changed: tuple[Things, str],
) -> None:
    place, moment = changed
    place.run("ALTER TABLE {table} ADD COLUMN later VARCHAR(9) DEFAULT 'new'")
    place.sync()
    place.run("DELETE FROM {table} WHERE id = 4")
    replace(place.backup, table=place.backup.table).run("UPDATE {table} SET a = NULL WHERE id = 4")
    assert counted(done(place.restore("--at", moment, **SMALL)))[0] == 3
    assert place.rows()[4] == (5, 4, "new")


def test_changed_keys_are_each_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backup.recycle_bin.changed_keys._SORTED_AT_ONCE", 2)
    keys = ChangedKeys([(5,), (3,), ("a",), (5,), (1,), (3,), (9,), ("a",)])
    assert [*keys] == [(1,), (3,), (5,), (9,), ("a",)]
    assert [key in keys for key in ((3,), (3.0,), ("a",), (4,), (3.5,), ("3",), (3, 3))] == [True] * 3 + [False] * 4
    assert keys.near(Chunk((1,), (5,)), 3) == [(3,), (5,), ("a",)]
    assert keys.near(Chunk((1,), (5,)), 2) is keys.near(Chunk((1,), ("b",)), 4) is None


@IN_FILES
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

KEY_NAMES = {"integer": "id", "text": "id", "two": "id, part"}


@pytest.mark.parametrize(
    ("things", "key"),
    [*(("sqlite", key) for key in KEYS), *(("postgresql", key) for key in rounds(["integer", "text"], [*KEYS]))],
    indirect=["things"],
)
@pytest.mark.parametrize("number", range(rounds(1, 40)))
def test_a_restore_of_a_time_does_the_same_as_one_that_asks_for_each_record(
    things: Things, monkeypatch: pytest.MonkeyPatch, key: str, number: int
) -> None:
    draw = random.Random(f"{SEED} {key} {number}")
    runs = _lived(things, key, draw)
    things.run("CREATE TABLE before AS SELECT * FROM {table}")
    for run, goal in (*((run, "--at") for run in draw.sample(runs, 2)), (draw.choice(runs[1:]), "--run")):
        options = [option for option in ("--overwrite-newer", "--delete-extra") if draw.random() < 0.6]
        options += ["--allow-mass-delete", goal, after(run) if goal == "--at" else run.sync_id]
        options += ["--dry-run"] if draw.random() < 0.2 else []
        if goal == "--run" and draw.random() < 0.6:
            options += ["--only", draw.choice(["inserted", "updated", "deleted"])]
        ways = []
        for old in (False, True):
            with monkeypatch.context() as patch:
                if old:
                    patch.setattr(SqlRelaysBack, "_may_relay", lambda *_: False)
                else:
                    patch.setattr("backup.verbs.pieces.LEFT_OUT_AT_MOST", draw.choice([2, 10_000]))
                    patch.setattr("backup.recycle_bin.changed_keys._OTHERS_AT_MOST", draw.choice([0, 50_000]))
                    patch.setattr("backup.recycle_bin.changed_keys._NUMBERS_AT_MOST", draw.choice([0, 2_000_000]))
                    patch.setattr("backup.recycle_bin.changed_keys._SORTED_AT_ONCE", draw.choice([2, 100_000]))
                ways.append(_restored(things, options))
            things.run("DELETE FROM {table}", "INSERT INTO {table} SELECT * FROM before")
        assert ways[0] == ways[1], f"{SEED} {key} {number}: {options}"


def _lived(things: Things, key: str, draw: random.Random) -> list[Run]:
    """Has a source and its backup live through some syncs, then changes the source. Returns the syncs. Some images are
    compressed or lack a column then, and some tables have no version."""
    columns, spelled = KEYS[key]
    version = draw.choice(["version", "version", "weight"])

    def insert(numbers: Iterable[int]) -> None:
        there = {n for (n,) in rows(things.source, "SELECT n FROM {table}")}
        values = [f"{n}, {draw.randint(1, 9)}, 'ä{n}', {spelled(n)}" for n in numbers if n not in there]
        if values:
            things.run(f"INSERT INTO {{table}} (n, {version}, a, {KEY_NAMES[key]}) VALUES ({'), ('.join(values)})")

    def change(few: int) -> None:
        touched = draw.sample(range(1, 41), few)
        for n in touched:
            match draw.randrange(4):
                case 0:
                    things.run(f"DELETE FROM {{table}} WHERE n = {n}")
                case 1:
                    insert([n])
                case 2:
                    things.run(f"UPDATE {{table}} SET {version} = {version} + 1, a = 'x{draw.random()}' WHERE n = {n}")
                case 3:
                    lower = f"{version} = {draw.choice([version, f'{version} - 1', '0'])}"
                    things.run(f"UPDATE {{table}} SET {lower}, a = 'y{draw.random()}' WHERE n = {n}")

    things.source.run(f"CREATE TABLE {{table}} (n INTEGER, {version} INTEGER, a VARCHAR(40), {columns})")
    insert(range(1, 31))
    things.place.initialize()
    runs = [synced(things.place, things.name)]
    for number in range(draw.randint(1, 4)):
        if draw.random() < 0.15:
            things.run(f"ALTER TABLE {{table}} ADD COLUMN later{number} VARCHAR(9) DEFAULT 'new'")
        if draw.random() < 0.3:
            insert(range(41, 41 + draw.randrange(2, 14)))
        change(draw.choice([1, 4, 12]))
        runs.append(synced(things.place, things.name))
        if draw.random() < 0.2:
            done(command(things.folder, things.place.settings, "undo", runs[-1].sync_id, "--yes", "--json"))
        if draw.random() < 0.3:
            compress(things.backup, lambda _: draw.random() < 0.2)
    change(draw.choice([0, 3, 15]))
    if draw.random() < 0.4:
        things.run("DELETE FROM {table}" + draw.choice(["", " WHERE n < 25"]))
    return runs


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
