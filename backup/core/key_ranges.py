"""Integer keys as ranges, so that memory holds two numbers for many of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

from backup.core.model import Key

KeyRange = tuple[int, int]
"""The integers from the first to the second, both included."""


class NumberedKeys(Sequence[Key]):
    """Keys of one integer each, without gaps: those of all numbers in a range. Holds none of them in memory."""

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> Key: ...

    @overload
    def __getitem__(self, place: slice) -> NumberedKeys: ...

    def __getitem__(self, place: int | slice) -> Key | NumberedKeys:
        return NumberedKeys(self.numbers[place]) if isinstance(place, slice) else (self.numbers[place],)


class EqualRanges(NamedTuple):
    """Ranges of `width` integers each, from `first` on, up to the one with `last`. A block is named by its first."""

    first: int
    last: int
    width: int

    def parts(self, size: int) -> Iterator[EqualRanges]:
        """The same ranges, `size` of them at a time, in their order."""
        for start in range(self.first, self.last + 1, self.width * size):
            yield EqualRanges(start, min(self.last, start + self.width * size - 1), self.width)

    @classmethod
    def joined(cls, parts: Sequence[EqualRanges]) -> EqualRanges:
        """The integers of these neighbouring `parts`, with one range for each of them."""
        first, last = parts[0], parts[-1]
        return cls(
            first.first, last.last, parts[1].first - first.first if len(parts) > 1 else last.last - first.first + 1
        )


def count_keys(ranges: Iterable[KeyRange]) -> int:
    """Returns how many integers the ranges have."""
    return sum(last - first + 1 for first, last in ranges)


def keys_of(ranges: Iterable[KeyRange]) -> list[Key]:
    """Returns the keys in the ranges, in their order."""
    return [(number,) for first, last in ranges for number in range(first, last + 1)]


def is_among(number: int, ranges: Sequence[KeyRange]) -> bool:
    """Returns whether one of the ascending ranges has the integer. Looks at few of them."""
    place = bisect_right(ranges, number, key=lambda key_range: key_range[0])
    return place > 0 and number <= ranges[place - 1][1]


def joined(ranges: Iterable[KeyRange]) -> list[KeyRange]:
    """Returns the same integers in ascending ranges, as few as possible."""
    result: list[KeyRange] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def split_at(ranges: Sequence[KeyRange], size: int) -> tuple[list[KeyRange], list[KeyRange]]:
    """Returns the first `size` integers of the ranges, and the others."""
    part: list[KeyRange] = []
    for place, (first, last) in enumerate(ranges):
        if last - first >= size:
            head = [(first, first + size - 1)] if size else []
            return part + head, [(first + size, last), *ranges[place + 1 :]]
        part.append((first, last))
        size -= last - first + 1
    return part, []
