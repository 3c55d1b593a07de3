"""Cuts lists: into batches, or after the first of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yields the items in their order, in batches of `size`. The last batch may have fewer; no batch is empty."""
    return (items[start : start + size] for start in range(0, len(items), size))


def first_of_each(items: Iterable[Item], kind_of: Callable[[Item], Hashable], at_most: int) -> list[Item]:
    """Returns the first items of each kind, `at_most` so many of one, in their order."""
    seen: Counter[Hashable] = Counter()
    first = []
    for item in items:
        kind = kind_of(item)
        seen[kind] += 1
        if seen[kind] <= at_most:
            first.append(item)
    return first
