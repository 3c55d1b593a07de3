"""The arithmetic of fingerprints: what its sums tell apart, and that SQL computes what is reasoned about."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from backup.stores.sql.engines.mixing import MIXES, NULL_AS, Mix
from tests.reliability.effort import rounds

Stamps = list[tuple[int, int]]
CHANGES = rounds(50_000, 1_000_000)
EXTREMES = [0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**32, 638_700_000_000_000_000, 2**63 - 1, -(2**63), NULL_AS]


def updated(draw: random.Random, key: int, version: int, step: int) -> tuple[Stamps, Stamps]:
    return [(key, version)], [(key, version + draw.randrange(1, 1 + step))]


def swapped(draw: random.Random, key: int, version: int, step: int) -> tuple[Stamps, Stamps]:
    other = version + draw.randrange(1, 9)
    return [(key, version), (key + step, other)], [(key, other), (key + step, version)]


def shifted(draw: random.Random, key: int, version: int, step: int) -> tuple[Stamps, Stamps]:
    """The sum of the versions stays; by half of them also that of key times version."""
    more, keys = draw.randrange(1, 4), (key, key + step, key + 2 * step)
    by = draw.choice([(more, -more, 0), (more, -2 * more, more)])
    return (
        [(key, version + 9) for key in keys],
        [(key, version + 9 + change) for key, change in zip(keys, by, strict=True)],
    )


def shuffled(draw: random.Random, key: int, version: int, step: int) -> tuple[Stamps, Stamps]:
    versions = [version, version, version + 1, version + draw.randrange(1, 3)]
    moved = versions[::-1] if draw.random() < 0.5 else [*versions[1:], versions[0]]
    keys = [key + n * step for n in range(4)]
    return list(zip(keys, versions, strict=True)), list(zip(keys, moved, strict=True))


def replaced(draw: random.Random, key: int, version: int, step: int) -> tuple[Stamps, Stamps]:
    """Inserts paired with deletes, of the same version; by half of them the sum of the keys stays."""
    if draw.random() < 0.5:
        return [(key, version)], [(key + step, version)]
    return [(key, version), (key + 3 * step, version)], [(key + step, version), (key + 2 * step, version)]


KINDS: list[Callable[[random.Random, int, int, int], tuple[Stamps, Stamps]]] = [
    updated,
    swapped,
    shifted,
    shuffled,
    replaced,
]


def changes(draw: random.Random, number: int) -> Iterator[tuple[str, Stamps, Stamps]]:
    for n in range(number):
        kind = KINDS[n % len(KINDS)]
        key, version = draw.getrandbits(draw.choice((10, 20, 40, 62))), draw.getrandbits(draw.choice((1, 10, 30, 60)))
        yield kind.__name__, *kind(draw, key, version, draw.choice((1, 1, 2, 10, 1000)))


def total(mix: Mix, stamps: Stamps) -> int:
    return sum(map(mix.of, stamps))


@pytest.mark.parametrize("seed", [20_261_127])
def test_no_change_of_so_many_escapes_both_sums(seed: int) -> None:
    first_mix, second_mix = MIXES
    missed: Counter[str] = Counter()
    for kind, before, after in changes(random.Random(seed), CHANGES):
        if total(first_mix, before) == total(first_mix, after):
            missed[kind] += 1
            assert total(second_mix, before) != total(second_mix, after), f"seed {seed}: {before} -> {after}"
    # One sum alone would miss fewer than one in 2^29.
    assert sum(missed.values()) <= 1, f"seed {seed}: {missed}"


def test_patterns_that_polynomials_do_not_see_are_seen_by_each_sum() -> None:
    draw = random.Random(7)
    signs = [(-1) ** n.bit_count() for n in range(32)]  # the sums of their positions' powers up to the fourth are 0
    for _ in range(2_000):
        key, version, step = draw.getrandbits(30), draw.getrandbits(30), draw.randrange(1, 100)
        keys = [key + n * step for n in range(32)]
        patterns = [
            ([(k, version) for k in keys], [(k, version + sign) for k, sign in zip(keys, signs, strict=True)]),
            *[[[(k, version) for k, sign in zip(keys, signs, strict=True) if sign == wanted] for wanted in (1, -1)]],
        ]
        for before, after in patterns:
            for mix in MIXES:
                assert total(mix, before) != total(mix, after), (key, version, step)


def test_no_step_that_keys_often_have_is_one_that_a_sum_is_bad_at() -> None:
    """Where the multiplier makes a step small modulo the prime, neighbours have nearly the same remainder."""
    steps = [*range(1, 10_000), *(2**n for n in range(14, 31)), *(n * 10**e for e in range(4, 9) for n in range(1, 10))]
    for mix in MIXES:
        moved = [step * mix.multiplier % mix.wrap for step in steps]
        assert min(min(by, mix.wrap - by) for by in moved) > 1 << 16


@pytest.mark.parametrize(("bad", "good", "step"), [(0, 1, 23_285), (1, 0, 40_307)])
def test_a_step_that_one_sum_misses_is_seen_by_the_other(bad: int, good: int, step: int) -> None:
    draw = random.Random(9)
    missed = [0, 0]
    for _ in range(5_000):
        key, version = draw.getrandbits(30), draw.getrandbits(20)
        keys = [key, key + step, key + 2 * step]
        before = [(k, version + 2) for k in keys]
        after = [(k, version + 2 + change) for k, change in zip(keys, (1, -2, 1), strict=True)]
        for n, mix in enumerate(MIXES):
            missed[n] += total(mix, before) == total(mix, after)
    assert missed[bad] > 0  # or the reason for two sums is another
    assert missed[good] == 0


@pytest.mark.parametrize("mix", MIXES)
def test_extreme_values_have_numbers_of_their_own(mix: Mix) -> None:
    pairs = [(key, version) for key in EXTREMES for version in EXTREMES]
    assert len({in_sql(mix, *pair) for pair in pairs}) == len(pairs)


def test_sql_computes_the_numbers_and_no_step_leaves_64_bits() -> None:
    draw = random.Random(3)
    values = [*EXTREMES, *(draw.getrandbits(63) - draw.getrandbits(63) for _ in range(30))]
    for mix in MIXES:
        for key in values:
            for version in values:
                assert in_sql(mix, key, version) == mix.of([Truncating(key), Truncating(version)], Truncating)


class Truncating(int):
    """An integer as SQL has it: `%` takes the sign of its left side, and 64 bits are all there is."""

    def __mod__(self, other: Any) -> Truncating:
        return Truncating(abs(int(self)) % abs(int(other)) * (1 if self >= 0 else -1))

    def __mul__(self, other: Any) -> Truncating:
        return self._checked(int(self) * int(other))

    def __add__(self, other: Any) -> Truncating:
        return self._checked(int(self) + int(other))

    def _checked(self, value: int) -> Truncating:
        assert -(1 << 63) <= value < 1 << 63
        return Truncating(value)


DATABASE = sqlite3.connect(":memory:")
STATEMENTS = {
    mix: str(
        sa.select(
            mix.of(
                [sa.literal_column(name, sa.BigInteger()) for name in (":k", ":v")],
                lambda number: sa.literal_column(str(number), sa.BigInteger()),
            )
        ).compile(dialect=SQLiteDialect())
    )
    for mix in MIXES
}


def in_sql(mix: Mix, key: int, version: int) -> int:
    mixed: int = DATABASE.execute(STATEMENTS[mix], {"k": key, "v": version}).fetchone()[0]
    assert type(mixed) is int
    return mixed
