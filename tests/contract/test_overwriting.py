"""A run whose servers write records over their copies, all of them if it is forced, else those that have changed: it
does what this process would do by stamps."""

from __future__ import annotations

import logging
import random
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from backup.core.model import Action, Chunk
from backup.core.run_values import Proof
from backup.mirror.compared import Compared, compare_piece
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.pair import StorePair
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.stores import Keep
from backup.stores.exact_json import key_from_text, record_from_text
from backup.stores.sql.chunks import SqlChunks
from backup.stores.sql.relayed_changes import SqlRelayedChanges
from tests.contract.benches import Item, Role, SqlBench, SqliteBench
from tests.contract.recycled import Recycled, recycled, run_at
from tests.contract.test_relay import reads_nothing
from tests.contract.test_server_images import OBSTACLES, numbers, raw

Sync = Callable[..., Tally]


def forced(
    sides: Recycled, minutes: int, keep: Keep | None = None, *, parallelism: int = 2, force: bool = True
) -> Tally:
    """What a forced run has counted and noted, or one that is not."""
    run, now = run_at(minutes)
    run, tally = replace(run, forced=force, allow_mass_delete=True), Tally(lambda _: None)
    sync_stores(
        sides.source,
        sides.backup,
        run,
        tally,
        Guard(),
        Steps(lambda: None, now, keep or sides.keep(minutes), parallelism),
    )
    return tally


def versions(bench: SqlBench, role: Role) -> dict[int, int | None]:
    return {n: item.version for n, item in bench.items(role).items()}


def by_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the servers pass on no changes by themselves."""
    monkeypatch.setattr(SqlRelayedChanges, "_may_relay", lambda *_: False)


def reads_no_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every read of stamps, and of whole records, fail."""

    def stamp_rows(*_: Any, **__: Any) -> Any:
        raise AssertionError("stamps were read")

    monkeypatch.setattr(SqlChunks, "stamp_rows", stamp_rows)
    reads_nothing(monkeypatch)


def what_is_kept(sides: Recycled, minutes: int) -> list[Any]:
    """The keys that the run has inserted, and what the bin says of each record before the run, as it spells that."""
    images = [
        (
            *(entry[name] for name in ("Action", "KeyHash", "RecordKey", "Side", "Place", "ServiceName")),
            repr(key_from_text(entry["Version"])),
            repr(record_from_text(entry["Record"])),
        )
        for entry in raw(sides.backup, run_at(minutes)[0].sync_id).values()
        if entry["Record"]
    ]
    return [
        *sorted(key for key, action in sides.actions(minutes).items() if action is Action.INSERTED),
        *sorted(images),
    ]


def filled(bench: SqlBench, source: Sequence[Item], backup: Sequence[Item], **limits: int) -> Recycled:
    """Both sides with these items, each with a version, in chunks of 20 and batches of 7."""
    bench.create_table = bench.create_table.replace("Version INTEGER,", "Version INTEGER NOT NULL,")
    bench.create(source)
    sides = recycled(bench, **{"chunk_size": 20, "batch_size": 7} | limits)
    sides.backup.catalog.match(sides.source)
    bench.put("backup", *backup)
    return sides


@pytest.mark.parametrize(
    ("making_bench", "seed", "force"),
    [
        *(("sqlite", *chosen) for chosen in ((0, True), (0, False), (8, True), (2, False))),
        *(("postgresql", *chosen) for chosen in ((0, True), (2, False))),
    ],
    indirect=["making_bench"],
)
def test_it_writes_counts_and_keeps_what_this_process_would(
    making_bench: SqlBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seed: int, force: bool
) -> None:
    rng, bench = random.Random(seed), making_bench
    both = [
        [
            Item(n, rng.choice(versions_), rng.choice(("a", "é'\\", "")))
            for n in sorted(rng.sample(range(-35, 35), size))
        ]
        for size, versions_ in ((50, range(9)), (rng.choice((3, 30, 50)), (*range(9), None)))
    ]
    sides = filled(bench, *both)
    before, results = bench.rows("backup"), []
    for minutes in (1, 2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            tally = forced(sides, minutes, force=force)
        lower = [re.search(r"version_went_back.* records=(\d+)", line.getMessage()) for line in caplog.records]
        went_back = sum(int(match[1]) for match in lower if match)
        results.append((tally.counts, tally.notes, tally.proof, what_is_kept(sides, minutes), went_back))
        assert versions(bench, "backup") == versions(bench, "source")
        assert not force or bench.items("backup") == bench.items("source")
        sides.put_back(minutes)
        bench.remove("backup", *(key[0] for key, action in sides.actions(minutes).items() if action is Action.INSERTED))
        assert bench.rows("backup") == before
        by_this_process(monkeypatch)
    assert results[0] == results[1]
    assert went_back


def test_it_reads_neither_records_nor_stamps(
    making_bench: SqlBench, monkeypatch: pytest.MonkeyPatch, made: list[int | None]
) -> None:
    items = [Item(n) for n in range(1, 101)]
    sides = filled(making_bench, items, items[5:])
    reads_no_stamps(monkeypatch)
    tally = forced(sides, 1)
    assert (tally.counts.inserted, tally.counts.updated, tally.notes) == (5, 95, [])
    assert sum(number or 0 for number in made) == 95
    assert tally.proof is not None
    assert (tally.proof.verified, tally.proof.backup.records) == (True, 100)


def test_where_most_has_changed_only_the_first_chunk_is_compared_by_stamps(
    making_bench: SqlBench, monkeypatch: pytest.MonkeyPatch, made: list[int | None]
) -> None:
    sides = filled(
        making_bench, [Item(n, 2) for n in range(1, 101)], [Item(n, 1 + (n % 5 == 0)) for n in range(3, 101)]
    )
    pieces: list[Chunk] = []

    def compare_and_note(pair: StorePair, piece: Chunk, **options: Any) -> Compared:
        pieces.append(piece)
        return compare_piece(pair, piece, **options)

    monkeypatch.setattr("backup.mirror.chunk.compare_piece", compare_and_note)
    tally = forced(sides, 1, force=False)
    assert (tally.counts.inserted, tally.counts.updated, tally.counts.skipped) == (2, 78, 20)
    assert pieces == [Chunk(None, (20,))]
    assert sum(number or 0 for number in made) == 78
    assert tally.proof is not None
    assert (tally.proof.verified, tally.proof.backup.records) == (True, 100)


def test_what_is_repeated_keeps_the_first_image(making_bench: SqlBench) -> None:
    sides = filled(making_bench, [Item(n, 2) for n in range(1, 101)], [Item(n, 1, "old") for n in range(11, 101)])
    forced(sides, 1)
    first = what_is_kept(sides, 1)
    run, now = run_at(1)
    resumed = sides.bin.recorder(run, now, resumed=True)
    tally = forced(sides, 1, resumed)
    assert what_is_kept(sides, 1) == first
    assert (tally.counts.updated, sides.actions(1)[(1,)], sides.actions(1)[(11,)]) == (
        100,
        Action.INSERTED,
        Action.UPDATED,
    )


def test_a_record_whose_image_is_lost_is_left_as_it_was(making_bench: SqlBench) -> None:
    items = [Item(n, 2, "new") for n in range(1, 41)]
    sides = filled(making_bench, items, [Item(n, 1, "old") for n in range(1, 41)], batch_size=40, chunk_size=40)
    statement = OBSTACLES[making_bench.kind, "image"].replace("{bin}", making_bench.quoted("RecycleBin"))
    making_bench.sql("backup", statement.replace("{ignore}", "SELECT RAISE(IGNORE);"))
    assert forced(sides, 1).aside == {(7,)}
    assert {item.n for item in making_bench.items("backup").values() if item.text == "old"} == {7}
    assert sides.of(1).keys() == {*numbers(*range(1, 41))} - {(7,)}


TWENTY_FIVE_IS_REFUSED = {
    "postgresql": "ALTER TABLE {table} ADD CHECK (id <> 25 OR name LIKE 'old%%')",
    "sqlite": "CREATE TRIGGER stays BEFORE UPDATE ON {table} WHEN NEW.Id = 25 AND NEW.Name NOT LIKE 'old%' "
    "BEGIN SELECT RAISE(ABORT, 'twenty-five stays old'); END",
}


def test_what_the_servers_leave_of_a_chunk_is_written_by_this_process_once(making_bench: SqlBench) -> None:
    old = [Item(n, 1, "old") for n in range(1, 51)]
    sides = filled(making_bench, [Item(n, 1, "new") for n in range(1, 51)], old, batch_size=10, chunk_size=50)
    making_bench.sql("backup", TWENTY_FIVE_IS_REFUSED[making_bench.kind])
    tally = forced(sides, 1)
    assert (tally.counts.updated, tally.counts.skipped, tally.counts.failed) == (49, 0, 1)
    assert tally.aside == {(25,)}
    assert sides.of(1).keys() == {*numbers(*range(1, 51))} - {(25,)}
    assert {item.n for item in making_bench.items("backup").values() if item.text == "old"} == {25}


def test_what_the_source_changes_meanwhile_is_written_as_well(
    making_bench: SqlBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = filled(making_bench, [Item(n) for n in range(1, 51)], [Item(n) for n in range(1, 51)], chunk_size=50)
    proven, changes = StorePair.proven, [lambda: making_bench.put("source", Item(7, 9), Item(90))]

    def change_and_prove(*arguments: Any) -> Proof | None:
        if changes:
            changes.pop()()
        return proven(*arguments)

    monkeypatch.setattr(StorePair, "proven", change_and_prove)
    tally = forced(sides, 1, parallelism=1)
    assert (tally.counts.inserted, tally.counts.updated, tally.counts.skipped) == (1, 51, 0)
    assert making_bench.items("backup") == making_bench.items("source")
    assert sides.of(1)[(7,)].version == (1,)


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("type_", ["varchar(20)", "uuid", "varchar(20), bigint"])
def test_keys_that_are_no_integers_are_written_by_the_servers_as_well(
    making_bench: SqlBench, monkeypatch: pytest.MonkeyPatch, made: list[int | None], type_: str, force: bool
) -> None:
    bench, (first, *others) = making_bench, type_.split(", ")
    key = "id, part" if others else "id"
    columns = (
        f"id {first} NOT NULL, part bigint NOT NULL, version integer NOT NULL, name varchar(9), PRIMARY KEY ({key})"
    )
    bench.sql("source", f"CREATE TABLE {{table}} ({columns})")
    sides = recycled(bench, chunk_size=40, batch_size=10)
    sides.backup.catalog.match(sides.source)
    texts = [f"{'key' if n % 9 else 'Kéy'} {n}" for n in range(100)]
    ids = [str(uuid.UUID(int=n)) for n in range(100)] if first == "uuid" else texts
    numbers: dict[Role, int] = {"source": 0, "backup": 5}
    for side, start in numbers.items():
        rows = [(text, 7, 2 if side == "source" else 1, side) for text in ids[start:]]
        marks = ", ".join([bench.mark] * 4)
        bench.sql(side, f"INSERT INTO {{table}} (id, part, version, name) VALUES ({marks})", rows)
    if force:
        reads_nothing(monkeypatch)
    tally = forced(sides, 1, force=force)
    assert (tally.counts.inserted, tally.counts.updated, tally.notes) == (5, 95, [])
    assert sum(number or 0 for number in made) >= (100 if force else 95)
    kept = {str(key[0]): (image.action, image.version) for key, image in sides.of(1).items()}
    assert kept == {
        text: (Action.UPDATED, (1,)) if place >= 5 else (Action.INSERTED, None) for place, text in enumerate(ids)
    }


def test_keys_of_sqlite_that_are_no_integers_are_written_by_this_process(
    sqlite_bench: SqliteBench, made: list[int | None]
) -> None:
    bench, rows = sqlite_bench, [(1, 2, "a"), (1.5, 2, "b"), (2, 2, "c"), ("x", 2, "d")]
    bench.sql("source", "CREATE TABLE {table} (id INT NOT NULL PRIMARY KEY, version INTEGER, name TEXT)")
    sides = recycled(bench, chunk_size=3, batch_size=3)
    sides.backup.catalog.match(sides.source)
    versions: dict[Role, int] = {"source": 2, "backup": 1}
    for side, version in versions.items():
        bench.sql(
            side, "INSERT INTO {table} (id, version, name) VALUES (?, ?, ?)", [(r[0], version, r[2]) for r in rows]
        )
    tally = forced(sides, 1, parallelism=1)
    assert (tally.counts.updated, tally.notes) == (4, [])
    assert bench.rows("backup", "SELECT id, version, name FROM {table} ORDER BY 1") == rows
    assert {key: kept.version for key, kept in sides.of(1).items()} == {(row[0],): (1,) for row in rows}
    assert made[0] is None
