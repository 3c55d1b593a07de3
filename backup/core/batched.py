"""Lists cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in their order, `size` at a time; the last batch may have fewer, none is empty."""
    return (items[start : start + size] for start in range(0, len(items), size))
