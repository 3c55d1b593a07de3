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


@dataclass(frozen=True)
class Container:
    """A container: its path, its partition key's definition, and where each partition begins and what it holds."""

    path: str
    rid: str
    key: Mapping[str, Any]
    bounds: Sequence[str]
    parts: Sequence[Physical]
    _partitions: dict[str, int] = field(default_factory=dict)

    def partition_of(self, key: Sequence[Any]) -> int:
        """The partition of a whole key, by the SDK's own hash, which costs more than a write."""
        text = text_of(key)
        if text not in self._partitions:
            definition = PartitionKey(self.key["paths"], kind=self.key["kind"], version=2)
            hashed = str(definition._get_effective_partition_key_string(key))
            self._partitions[text] = max(n for n, bound in enumerate(self.bounds) if bound <= hashed)
        return self._partitions[text]

    def key_of(self, document: Mapping[str, Any]) -> list[Any]:
        """The whole key in a document. What is no value counts as undefined."""
        return [_value_at(document, path) for path in self.key["paths"]]

    @property
    def ranges(self) -> list[dict[str, Any]]:
        """The partitions as the SDK reads them."""
        return [
            {"id": str(n), "minInclusive": low, "maxExclusive": high, "parents": [], "status": "online"}
            for n, (low, high) in enumerate(zip(self.bounds, [*self.bounds[1:], "FF"], strict=True))
        ]


def bounds(partitions: int) -> list[str]:
    """Where each of so many partitions begins, of one size each."""
    return ["", *(f"{_LIMIT * n // partitions:032X}" for n in range(1, partitions))]


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
