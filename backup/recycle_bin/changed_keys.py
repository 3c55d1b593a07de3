"""The keys of all records that some runs changed, in little memory. No I/O."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice

from backup.core.model import Chunk, Key
from backup.stores.exact_json import is_one_integer

_NUMBERS_AT_MOST, _OTHERS_AT_MOST = 150_000, 50_000
"""Keys that are held in memory: 64-bit integers, of eight bytes each, and all others."""


class TooManyKeys(Exception):
    """More keys than may be held in memory."""


class ChangedKeys:
    """Keys, each of them once."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        """Raises TooManyKeys, as soon as it has seen more of `keys` than may be held in memory."""
        numbers, self._others = array("q"), dict[Key, None]()
        for key in keys:
            if is_one_integer(key):
                numbers.append(key[0])
            else:
                self._others[key] = None
            if len(numbers) > _NUMBERS_AT_MOST or len(self._others) > _OTHERS_AT_MOST:
                raise TooManyKeys
        self._numbers = array("q", (number for number, _ in groupby(sorted(numbers))))

    def __iter__(self) -> Iterator[Key]:
        return chain(((number,) for number in self._numbers), self._others)

    def batches(self, size: int) -> Iterator[Sequence[Key]]:
        """Yields the keys in batches of `size`."""
        rest = iter(self)
        while batch := [*islice(rest, size)]:
            yield batch

    def near(self, chunk: Chunk) -> Sequence[Key]:
        """Those of the keys that may lie in the chunk: only integers are known not to, for this process does not know
        in which order a server has other keys."""
        if not all(end is None or is_one_integer(end) for end in chunk):
            return [*self]
        begin = 0 if chunk.after is None else bisect_right(self._numbers, chunk.after[0])
        end = len(self._numbers) if chunk.upto is None else bisect_right(self._numbers, chunk.upto[0])
        return [*((number,) for number in self._numbers[begin:end]), *self._others]
