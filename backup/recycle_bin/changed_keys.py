"""The keys of all records that some runs changed, in little memory. No I/O."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal
from heapq import merge
from itertools import chain, groupby, islice

from backup.core.model import Chunk, Key
from backup.stores.exact_json import is_one_integer

_NUMBERS_AT_MOST, _OTHERS_AT_MOST = 2_000_000, 50_000
"""Keys that are held in memory: 64-bit integers, of eight bytes each, and all others."""

_SORTED_AT_ONCE = 100_000  # numbers; while they are sorted they take fifty bytes each


class TooManyKeys(Exception):
    """More keys than may be held in memory."""


class ChangedKeys(Collection[Key]):
    """Keys, each of them once."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        """Raises TooManyKeys, as soon as it has seen more of `keys` than may be held in memory."""
        parts, self._others = [array("q")], dict[Key, None]()
        for key in keys:
            if is_one_integer(key):
                parts[-1].append(key[0])
                if len(parts[-1]) == _SORTED_AT_ONCE:
                    parts = [*parts[:-1], _sorted(parts[-1]), array("q")]
            else:
                self._others[key] = None
            if (len(parts) - 1) * _SORTED_AT_ONCE + len(parts[-1]) > _NUMBERS_AT_MOST:
                raise TooManyKeys
            if len(self._others) > _OTHERS_AT_MOST:
                raise TooManyKeys
        self._numbers = _once(merge(*parts[:-1], _sorted(parts[-1])))

    def __iter__(self) -> Iterator[Key]:
        return chain(((number,) for number in self._numbers), self._others)

    def __len__(self) -> int:
        return len(self._numbers) + len(self._others)

    def __contains__(self, key: object) -> bool:
        """Whether this key, or one that is equal to it, is among them: 1 is equal to 1.0."""
        if key in self._others:
            return True
        number = key[0] if isinstance(key, tuple) and len(key) == 1 else None
        if not isinstance(number, int | float | Decimal):
            return False
        place = bisect_left(self._numbers, number)
        return place < len(self._numbers) and self._numbers[place] == number

    def batches(self, size: int) -> Iterator[Sequence[Key]]:
        """Yields the keys in batches of `size`."""
        rest = iter(self)
        while batch := [*islice(rest, size)]:
            yield batch

    def near(self, chunk: Chunk, at_most: int) -> Sequence[Key] | None:
        """Those of the keys that may lie in the chunk; None if they are more than `at_most`. Only integers are known
        not to lie there, for this process does not know in which order a server has other keys."""
        begin, end = 0, len(self._numbers)
        if all(bound is None or is_one_integer(bound) for bound in chunk):
            begin = 0 if chunk.after is None else bisect_right(self._numbers, chunk.after[0])
            end = end if chunk.upto is None else bisect_right(self._numbers, chunk.upto[0])
        if max(0, end - begin) + len(self._others) > at_most:
            return None
        return [*((number,) for number in self._numbers[begin:end]), *self._others]


def _sorted(numbers: array[int]) -> array[int]:
    return array("q", sorted(numbers))


def _once(numbers: Iterable[int]) -> array[int]:
    """Ascending numbers, each of them once."""
    return array("q", (number for number, _ in groupby(numbers)))
