"""Blocks of neighbouring keys: the server says in one statement which of them differ, whatever the table's size."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, starmap
from typing import Any

import pytest

from backup.core.key_ranges import EqualRanges
from backup.core.model import WHOLE, Chunk, Fingerprint
from backup.mirror import chunk, differing_parts
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.guard import Guard
from backup.mirror.one_sync import sync_stores
from backup.mirror.pair import StorePair
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.stores import Rules
from backup.stores.sql.blocks import SqlBlocks
from backup.stores.sql.relational import SqlRelational
from backup.stores.sql.store import SqlStore
from tests.contract.benches import NOW, RUN, Item, SqlBench
from tests.contract.conftest import SQL_KINDS
from tests.contract.recycled import Recycled, recycled

DENSE = range(-50, 150)
SPARSE = sorted(random.Random(15).sample(range(-(10**4), 10**4), 200))


@pytest.fixture(params=SQL_KINDS)
def blocks_bench(request: pytest.FixtureRequest) -> SqlBench:
    """Each kind of SQL store in turn: all have blocks."""
    bench: SqlBench = request.getfixturevalue(f"{request.param}_bench")
    return bench


@pytest.fixture
def stamped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many blocks were named in each request for stamps."""
    asked: list[int] = []
    stamp_rows = SqlBlocks.stamp_rows

    def noted(self: SqlBlocks, starts: Sequence[int], width: int) -> set[tuple[object, ...]]:
        asked.append(len(starts))
        return stamp_rows(self, starts, width)

    monkeypatch.setattr(SqlBlocks, "stamp_rows", noted)
    return asked


def equal_sides(bench: SqlBench, numbers: Sequence[int]) -> Recycled:
    """Both sides with these items, in chunks of 20."""
    bench.create(Item(n) for n in numbers)
    sides = recycled(bench, chunk_size=20, batch_size=7, max_statement_seconds=600)  # however slow the machine is
    sides.backup.catalog.match(sides.source)
    bench.put("backup", *(Item(n) for n in numbers))
    return sides


def sync(
    sides: Recycled, records: int, *, quiet: bool = False, dry_run: bool = False, limit: int | None = None
) -> Tally:
    """What a sync has counted. The last one took no time, and saw so many records."""
    tally, run = Tally(lambda _: None), replace(RUN, dry_run=dry_run, limit=limit)
    keep = sides.bin.recorder(run, lambda: NOW)
    steps = Steps(lambda: None, lambda: NOW, keep, 2, records=records, quiet_records=records if quiet else 0)
    steps = replace(steps, quiet_seconds=0)
    sync_stores(sides.source, sides.backup, run, tally, Guard(), steps)
    return tally


@pytest.mark.parametrize("numbers", [DENSE, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("quiet", [False, True])
def test_all_the_rest_is_settled_by_the_blocks_that_differ(
    blocks_bench: SqlBench, stamped: list[int], numbers: Sequence[int], *, quiet: bool
) -> None:
    bench, sides = blocks_bench, equal_sides(blocks_bench, numbers)
    changed, gone, new = [numbers[n] for n in (60, 120)], [numbers[90], numbers[-1]], [10**7, -(10**7)]
    bench.put("source", *(Item(n, 2) for n in changed), *(Item(n) for n in new))
    bench.remove("source", *gone)
    tally = sync(sides, len(numbers), quiet=quiet)
    counts = tally.counts
    assert (counts.inserted, counts.updated, counts.deleted, counts.skipped) == (2, 2, 2, len(numbers) - 4)
    assert tally.proof is not None
    assert tally.proof.verified
    assert tally.proof.source.records == len(numbers)
    assert bench.items("backup") == bench.items("source")
    assert stamped
    assert max(stamped) <= 4


def test_a_quiet_table_that_is_too_large_for_one_statement_is_looked_at_in_parts_of_many_chunks(
    blocks_bench: SqlBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, sides, looked = blocks_bench, equal_sides(blocks_bench, range(200)), set[Chunk]()
    monkeypatch.setattr(SqlRelational, "may_look_at_once", lambda *_: False)
    monkeypatch.setattr(SqlRelational, "records_at_once", lambda _: 80)
    fingerprint = SqlStore.fingerprint

    def noted(store: SqlStore, chunk: Chunk) -> Fingerprint | None:
        looked.add(chunk)
        return fingerprint(store, chunk)

    monkeypatch.setattr(SqlStore, "fingerprint", noted)
    assert sync(sides, 200, quiet=True).counts.skipped == 200
    ends = [None, (19,), (99,), (179,), None]
    assert looked == set(starmap(Chunk, pairwise(ends)))
    bench.put("source", Item(150, 2))
    tally = sync(sides, 200, quiet=True)
    assert (tally.counts.updated, tally.counts.skipped, tally.proof and tally.proof.verified) == (1, 199, True)
    assert Chunk((99,), (119,)) in looked  # the part that differs, and what is left, by chunks


def test_a_run_whose_time_is_short_stops_behind_a_part_of_the_blocks_and_goes_on_there(
    blocks_bench: SqlBench, monkeypatch: pytest.MonkeyPatch, stamped: list[int]
) -> None:
    monkeypatch.setattr(differing_parts, "_BLOCKS_AT_ONCE", 3)
    monkeypatch.setattr(differing_parts, "_STATEMENTS_AT_MOST", 1)
    numbers = range(20 * 64)
    bench, sides = blocks_bench, equal_sides(blocks_bench, numbers)
    bench.put("source", *(Item(n, 2) for n in numbers[30::200]))
    bench.remove("source", 500, 1000)
    tally, checkpoints = Tally(lambda _: None), [Checkpoint()]
    for seconds in (0.0, 3600.0):
        left = iter([3600.0] * 2)  # in the first call, for the first chunk and for the first part
        steps = Steps(lambda: None, lambda: NOW, sides.bin.recorder(RUN, lambda: NOW), 2, records=len(numbers))
        steps = replace(steps, seconds_left=lambda left=left, then=seconds: next(left, then))  # type: ignore[misc]
        checkpoint = sync_stores(sides.source, sides.backup, RUN, tally, Guard(), steps, checkpoints[-1])
        checkpoints += [checkpoint] if checkpoint is not None else []
    assert len(checkpoints) == 2
    assert 20 < (checkpoints[1].after or (0,))[0] < len(numbers) - 1
    counts = tally.counts
    assert (counts.updated, counts.deleted, counts.skipped) == (7, 2, len(numbers) - 9)
    assert bench.items("backup") == bench.items("source")
    assert max(stamped) <= 3


def test_too_many_stamps_are_not_read_at_once(
    blocks_bench: SqlBench, monkeypatch: pytest.MonkeyPatch, stamped: list[int]
) -> None:
    monkeypatch.setattr(chunk, "STAMPS_AT_MOST", 30)
    sides = equal_sides(blocks_bench, DENSE)
    blocks_bench.put("source", *(Item(n, 2) for n in DENSE[30::50]))
    assert sync(sides, len(DENSE)).counts.updated == 4
    assert blocks_bench.items("backup") == blocks_bench.items("source")
    assert stamped == []


@pytest.mark.parametrize(("dry_run", "limit", "counts"), [(True, None, (0, 4, 0)), (False, 3, (0, 3, 1))])
def test_blocks_serve_a_dry_run_and_a_limit(
    blocks_bench: SqlBench,
    stamped: list[int],
    counts: tuple[int, int, int],
    *,
    dry_run: bool,
    limit: int | None,
) -> None:
    sides = equal_sides(blocks_bench, DENSE)
    blocks_bench.put("source", *(Item(n, 2) for n in DENSE[30::50]))
    made = sync(sides, len(DENSE), dry_run=dry_run, limit=limit).counts
    assert (made.inserted, made.updated, made.remaining) == counts
    assert stamped


@pytest.fixture(params=[kind for kind in SQL_KINDS if kind != "sqlite"])
def summing_bench(request: pytest.FixtureRequest) -> SqlBench:
    """Each kind whose server sums the stamps of a block up."""
    bench: SqlBench = request.getfixturevalue(f"{request.param}_bench")
    return bench


@pytest.mark.parametrize("numbers", [DENSE, SPARSE, [-(1 << 62), -1, 0, 1 << 61]])
def test_the_fingerprints_of_blocks_add_up_to_that_of_all(summing_bench: SqlBench, numbers: Sequence[int]) -> None:
    bench = summing_bench
    bench.sql("source", "CREATE TABLE {table} (id bigint PRIMARY KEY, version integer NOT NULL)")
    values = f"({bench.mark}, {bench.mark})"
    bench.sql("source", f"INSERT INTO {{table}} (id, version) VALUES {values}", [(n, n % 7) for n in numbers])
    source = bench.open("source", rules=Rules(version=("version",)))
    assert source.relational is not None
    assert source.relational.blocks is not None
    ends = source.relational.blocks.ends(WHOLE)
    assert ends == (min(numbers), max(numbers))
    width = max(3, (ends[1] - ends[0]) // 50)
    parts = source.relational.blocks.fingerprints(EqualRanges(*ends, width))
    whole = source.fingerprint(WHOLE)
    assert parts is not None
    assert whole is not None
    assert sum(part.records for part in parts.values()) == whole.records == len(numbers)
    assert tuple(map(sum, zip(*(part.sums for part in parts.values()), strict=True))) == whole.sums
    for start in parts:
        rows = source.relational.blocks.stamp_rows([start], width)
        assert {row[0] for row in rows} == {n for n in numbers if start <= n < start + width}


def test_a_block_that_would_end_beyond_64_bits_is_not_asked_for(summing_bench: SqlBench) -> None:
    bench = summing_bench
    bench.sql("source", "CREATE TABLE {table} (id bigint PRIMARY KEY, version integer NOT NULL)")
    source = bench.open("source", rules=Rules(version=("version",)))
    assert source.relational is not None
    assert source.relational.blocks is not None
    assert source.relational.blocks.fingerprints(EqualRanges(0, (1 << 63) - 1, 64)) is None


def test_a_part_with_deletes_is_proven_again_by_chunks(blocks_bench: SqlBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks settle a part of any size. One statement about all of it would take time, and on SQLite memory."""
    sides, proven, prove = equal_sides(blocks_bench, DENSE), list[Chunk](), StorePair.proven

    def noted(pair: StorePair, piece: Chunk, *asked: Any) -> Any:
        proven.append(piece)
        return prove(pair, piece, *asked)

    blocks_bench.remove("source", DENSE[90])
    monkeypatch.setattr(StorePair, "proven", noted)
    assert sync(sides, len(DENSE)).counts.deleted == 1
    assert len(proven) >= 8
