"""Blocks of keys on SQLite: of the versions alone where a block has all of its numbers, else of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from backup.core.key_ranges import EqualRanges
from backup.core.model import Fingerprint
from backup.stores.sql.blocks import SqlBlocks
from backup.stores.sql.engines.sqlite import wide_blocks
from backup.stores.sql.store import SqlStore
from tests.contract.benches import SqliteBench
from tests.contract.test_sqlite_fingerprints import COLUMNS, ROWS, bench, sides

__all__ = ["bench"]
GAPS = [row for row in ROWS if row[0] not in (0, 1, 5, 6, 7, 13)]
BLOCKS = EqualRanges(-8, 27, 4)


def blocks_of(store: SqlStore) -> SqlBlocks:
    assert store.relational is not None
    assert store.relational.blocks is not None
    return store.relational.blocks


def fingerprints(store: SqlStore, blocks: EqualRanges = BLOCKS) -> Mapping[int, Fingerprint]:
    of_blocks = blocks_of(store).fingerprints(blocks)
    assert of_blocks is not None
    return of_blocks


@pytest.mark.parametrize("rows", [ROWS, GAPS], ids=["no gaps", "gaps"])
def test_the_blocks_that_differ_are_those_that_a_change_is_in(bench: SqliteBench, rows: Sequence[Any]) -> None:
    source, backup = sides(bench, rows=rows)
    before = fingerprints(backup)
    assert fingerprints(source) == before
    of_single_keys = fingerprints(source, BLOCKS._replace(width=1))
    for of_blocks in (before, of_single_keys):
        assert sum(fingerprint.records for fingerprint in of_blocks.values()) == len(rows)
    changes = {
        "UPDATE {table} SET A = A + 1 WHERE K = 9": {8},
        "UPDATE {table} SET A = A - 1 WHERE K IN (10, 11)": {8},
        "UPDATE {table} SET A = CASE K WHEN 3 THEN 2 ELSE 0 END WHERE K IN (2, 3)": {0},  # they exchange their versions
        "UPDATE {table} SET K = 27 WHERE K = 18": {16, 24},
        "DELETE FROM {table} WHERE K IN (12, 14, 15) OR K = 13": {12},
        "INSERT INTO {table} (K, A) VALUES (-7, 1)": {-8},
    }
    for change, differing in changes.items():
        bench.sql("source", change)
        now = fingerprints(source)
        changed = {block for block in now.keys() | before.keys() if now.get(block) != before.get(block)}
        assert changed == differing, change
        before = now
    keys = [key for (key,) in bench.rows("source", "SELECT K FROM {table}")]
    in_blocks = {key for key in keys if key in range(-8, -4) or key in range(8, 12)}
    assert {row[0] for row in blocks_of(source).stamp_rows([-8, 8], 4)} == in_blocks


@pytest.mark.parametrize("value", ["'1,2'", "x'31'", "1.5", "NULL"])
def test_a_version_that_is_no_integer_has_no_block(bench: SqliteBench, value: str) -> None:
    source, _ = sides(bench, COLUMNS.replace(" NOT NULL", ""))
    bench.sql("source", f"UPDATE {{table}} SET A = {value} WHERE K = 9")
    assert blocks_of(source).fingerprints(BLOCKS) is None


def test_blocks_at_both_ends_of_64_bits_have_fingerprints(bench: SqliteBench) -> None:
    source, _ = sides(
        bench, rows=[(-(2**63), 1, "x"), (-(2**63) + 1, 2, "x"), (2**62 - 1, 3, "x"), (2**63 - 65, 4, "x")]
    )
    wide = EqualRanges(-(2**63), 2**62 - 1, 2**62)
    numbers = {block: fingerprint.records for block, fingerprint in fingerprints(source, wide).items()}
    assert numbers == {-(2**63): 2, 0: 1}
    assert fingerprints(source, EqualRanges(2**63 - 128, 2**63 - 65, 64)).keys() == {2**63 - 128}
    assert {row[0] for row in blocks_of(source).stamp_rows([2**63 - 65], 64)} == {2**63 - 65}
    assert blocks_of(source).fingerprints(EqualRanges(0, 2**63 - 1, 64)) is None


WIDE = EqualRanges(-8, 247, 129)


def test_a_table_that_was_made_anew_with_a_key_of_texts_has_no_row_in_a_wide_block(bench: SqliteBench) -> None:
    source, _ = sides(bench)
    bench.sql("source", "DROP TABLE {table}")
    bench.sql("source", f"CREATE TABLE {{table}} ({COLUMNS.replace('INTEGER', 'TEXT')})")
    bench.sql("source", "INSERT INTO {table} VALUES ('a', 1, 'x'), ('b', 2, 'x')")
    assert fingerprints(source, WIDE) == {}


@pytest.mark.parametrize("numbers", [range(-8, 248), range(-5, 300), (*range(-8, 100), *range(101, 248))])
@pytest.mark.parametrize("keys_at_most", [260, 10**6])
def test_wide_blocks_have_the_fingerprints_that_each_has_alone(
    bench: SqliteBench, monkeypatch: pytest.MonkeyPatch, numbers: Sequence[int], keys_at_most: int
) -> None:
    monkeypatch.setattr(wide_blocks, "_KEYS_AT_MOST", keys_at_most)
    lengths = [0, 7, -12, 10**6, -(2**63), 2**63 - 1]
    source, _ = sides(bench, rows=[(number, lengths[number % 6], "x") for number in numbers])
    for _ in range(2):  # the second time with what is remembered of the first
        for blocks in (WIDE, EqualRanges(-137, 258, 129)):
            alone = {
                start: fingerprint
                for start in range(blocks.first, blocks.last + 1, blocks.width)
                for fingerprint in fingerprints(source, EqualRanges(start, start + 128, 129)).values()
            }
            assert fingerprints(source, blocks) == alone
    assert sum(of_block.records for of_block in alone.values()) == sum(number < 379 for number in numbers)


def test_a_change_in_wide_blocks_is_seen_in_its_block_alone(bench: SqliteBench) -> None:
    source, _ = sides(bench, rows=[(number, number % 3, "x") for number in range(-8, 248)])
    before = fingerprints(source, WIDE)
    changes = {
        "UPDATE {table} SET A = 3 WHERE K = 120": {-8},
        "UPDATE {table} SET A = 1 - A WHERE K IN (122, 123)": {121},
        "DELETE FROM {table} WHERE K = 60": {-8},
        "DELETE FROM {table} WHERE K = 247": {121},
    }
    for change, differing in changes.items():
        bench.sql("source", change)
        now = fingerprints(source, WIDE)
        assert {block for block in now if now[block] != before[block]} == differing, change
        before = now


@pytest.mark.parametrize("value", ["'1,2'", "x'31'", "1.5", "NULL"])
def test_a_version_that_is_no_integer_has_no_wide_block(bench: SqliteBench, value: str) -> None:
    rows = [(number, 1, "x") for number in range(-8, 248)]
    source, _ = sides(bench, COLUMNS.replace(" NOT NULL", ""), rows=rows)
    bench.sql("source", f"UPDATE {{table}} SET A = {value} WHERE K = 200")
    assert blocks_of(source).fingerprints(WIDE) is None
