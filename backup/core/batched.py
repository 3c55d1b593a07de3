"""Cuts lists into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yields the items in their order, in batches of `size`. The last batch may have fewer; no batch is empty."""
    return (items[start : start + size] for start in range(0, len(items), size))
