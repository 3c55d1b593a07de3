"""Arithmetic that mixes the integers of a stamp into one number, for servers without a cheap hash function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backup.core.model import Fingerprint


@dataclass(frozen=True)
class Mix:
    """One way to mix. The moduli are primes below 2^31, the multiplier is below 2^29: no step needs more than 64 bits.

    `first` is the modulus of the first part, `rest` of each later part, `wrap` of the chain.
    """

    first: int
    multiplier: int
    rest: int
    wrap: int
    dividend: int

    def of(self, parts: Sequence[Any], number: Any = int) -> Any:
        """A number from 0 to 2^32, made of 64-bit integers: plain numbers, or SQL expressions. For these `number`
        makes a constant of SQL. `%` must take the sign of its left side, as in SQL.

        The parts are chained modulo a prime. Sums of the chained numbers alone would not show some swaps of versions
        between rows. So the result is the remainder of a constant divided by them.
        """
        first, multiplier, rest, wrap, dividend, offset = self._numbers if number is int else map(number, self._numbers)
        chained = parts[0] % first
        for part in parts[1:]:
            chained = (chained * multiplier + part % rest) % wrap
        return dividend % (chained + offset)

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        return self.first, self.multiplier, self.rest, self.wrap, self.dividend, self.first + self.wrap


MIXES = (
    Mix(2_147_483_629, 497_836_211, 2_147_483_563, 2_147_483_543, 9_223_372_036_854_775_783),
    Mix(2_147_483_587, 388_291_357, 2_147_483_549, 2_147_483_497, 9_223_372_036_854_775_643),
)
NULL_AS = -6_148_914_691_236_517_205
"""The integer that stands for NULL: as unlikely as any other value."""
LOW_BITS = 4_294_967_295
BUCKETS = 1_021
"""The number of buckets of a chunk. A prime, so that keys at equal distances fall into all of them."""
_NEIGHBOURS = 64  # keys in a row that share a bucket, since what changes together often lies together


def bucket_of(parts: Sequence[Any], number: Any) -> Any:
    """The bucket of a key's integers, as an SQL expression. `number` makes a constant of SQL."""
    *before, last = parts
    bucket = last.op("/")(number(_NEIGHBOURS))
    for part in before:
        bucket = bucket % number(BUCKETS) * number(31) + part % number(BUCKETS)
    return bucket % number(BUCKETS)


def few_only(fingerprints: Mapping[Any, Fingerprint], at_most: int | None) -> Mapping[Any, Fingerprint] | None:
    """The fingerprints; None if they are of more than `at_most` rows. Then their statement has not read all rows."""
    records = sum(fingerprint.records for fingerprint in fingerprints.values())
    return fingerprints if at_most is None or records <= at_most else None
