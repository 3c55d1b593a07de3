"""Integer arithmetic that mixes the parts of a stamp into one number, for servers without a cheap hash function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Mix:
    """One way of mixing. The moduli are primes below 2^31, the multiplier is below 2^29: no step leaves 64 bits."""

    first: int
    multiplier: int
    other: int
    wrap: int
    dividend: int

    def of(self, parts: Sequence[Any], number: Any = int) -> Any:
        """A number from 0 to 2^32 made of integers of 64 bits: plain ones, or SQL expressions, in which `number` spells
        a constant. `%` must take the sign of its left side, as SQL's does.

        The parts are chained modulo a prime; of that alone some exchanges of versions between rows would leave the sum
        as it is. The remainder of a constant by it has no such structure.
        """
        first, multiplier, other, wrap, dividend, offset = (
            self._numbers if number is int else map(number, self._numbers)
        )
        chained = parts[0] % first
        for part in parts[1:]:
            chained = (chained * multiplier + part % other) % wrap
        return dividend % (chained + offset)

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        return self.first, self.multiplier, self.other, self.wrap, self.dividend, self.first + self.wrap


MIXES = (
    Mix(2_147_483_629, 497_836_211, 2_147_483_563, 2_147_483_543, 9_223_372_036_854_775_783),
    Mix(2_147_483_587, 388_291_357, 2_147_483_549, 2_147_483_497, 9_223_372_036_854_775_643),
)
NULL_AS = -6_148_914_691_236_517_205
"""The integer that a NULL is taken for: as unlikely a value as any."""
LOW_BITS = 4_294_967_295
BUCKETS = 1_021
"""Into so many buckets a chunk's keys fall. A prime, so that keys at even distances fall into all of them."""
_NEIGHBOURS = 64


def bucket_of(parts: Sequence[Any], number: Any) -> Any:
    """A small number made of a key's integers, as an SQL expression. So many keys next to each other have one, since
    what changes at one time often lies together."""
    *before, last = parts
    found = last.op("/")(number(_NEIGHBOURS))
    for part in before:
        found = found % number(BUCKETS) * number(31) + part % number(BUCKETS)
    return found % number(BUCKETS)
