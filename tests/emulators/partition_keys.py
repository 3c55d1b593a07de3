"""Which partition key a document has, and which physical partition belongs to that. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from azure.cosmos.partition_key import PartitionKey

from tests.emulators.physical import Physical

_UNDEFINED: dict[str, Any] = {}  # as it is on the wire
_LIMIT = 0x40 << 120  # hashes have 16 bytes and begin with two bits 0
_END = "FF"


@dataclass(frozen=True)
class Partition:
    """A physical partition: its number, the hashes that it begins and ends with, what it holds, and its `parents`:
    those whose documents it has since they were split."""

    number: int
    low: str
    high: str
    documents: Physical
    parents: tuple[int, ...] = ()

    def holds(self, low: str, high: str) -> bool:
        """Whether its hashes lie within these bounds."""
        return low <= self.low and self.high <= high


@dataclass
class Container:
    """A container: its path, its partition key's definition, and its partitions in the order of their hashes."""

    path: str
    rid: str
    key: Mapping[str, Any]
    partitions: list[Partition]
    _hashes: dict[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> list[Physical]:
        """What each partition holds."""
        return [partition.documents for partition in self.partitions]

    def part_of(self, key: Sequence[Any]) -> Physical:
        """What the partition of a whole key holds."""
        hashed = self._hash_of(text_of(key))
        return next(partition.documents for partition in reversed(self.partitions) if partition.low <= hashed)

    def _hash_of(self, text: str) -> str:
        # By the SDK's own hash, which costs more than a write.
        if text not in self._hashes:
            definition = PartitionKey(self.key["paths"], kind=self.key["kind"], version=2)
            self._hashes[text] = str(definition._get_effective_partition_key_string(json.loads(text)))
        return self._hashes[text]

    def key_of(self, document: Mapping[str, Any]) -> list[Any]:
        """The whole key in a document. What is no value counts as undefined."""
        return [_value_at(document, path) for path in self.key["paths"]]

    def split(self, number: int) -> None:
        """Replaces the partition with this number by two, with numbers of their own: each has half of its hashes."""
        at, old = next((at, part) for at, part in enumerate(self.partitions) if part.number == number)
        middle = f"{(int(old.low or '0', 16) + (_LIMIT if old.high == _END else int(old.high, 16))) // 2:032X}"
        new = 1 + max(max([part.number, *part.parents]) for part in self.partitions)
        parents = (*old.parents, number)
        lower = old.documents.part(f"{new:X}", lambda key: self._hash_of(key) < middle)
        upper = old.documents.part(f"{new + 1:X}", lambda key: self._hash_of(key) >= middle)
        self.partitions[at : at + 1] = [
            Partition(new, old.low, middle, lower, parents),
            Partition(new + 1, middle, old.high, upper, parents),
        ]

    @property
    def ranges(self) -> list[dict[str, Any]]:
        """The partitions as the SDK reads them."""
        return [
            {
                "id": str(part.number),
                "minInclusive": part.low,
                "maxExclusive": part.high,
                "parents": list(map(str, part.parents)),
                "status": "online",
            }
            for part in self.partitions
        ]


def partitioned(rid: str, partitions: int) -> list[Partition]:
    """So many partitions of one size each, for a container with that `_rid`."""
    lows = ["", *(f"{_LIMIT * n // partitions:032X}" for n in range(1, partitions))]
    return [
        Partition(n, low, high, Physical(f"{rid}{n}"))
        for n, (low, high) in enumerate(zip(lows, [*lows[1:], _END], strict=True))
    ]


def text_of(key: Sequence[Any]) -> str:
    """One text for equal keys: 1.0 is 1, and true is not."""
    return json.dumps([int(part) if isinstance(part, float) and part.is_integer() else part for part in key])


def _value_at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.strip("/").split("/"):
        if not isinstance(value, dict) or name.strip('"') not in value:
            return _UNDEFINED
        value = value[name.strip('"')]
    return _UNDEFINED if isinstance(value, dict | list) else value
