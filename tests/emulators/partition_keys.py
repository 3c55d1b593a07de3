"""Which physical partition a document belongs to, and under what name the npm server keeps it. No I/O.

The npm server takes keys of different types, and hierarchical ones, for the same. So it is given one of text: the whole
key as JSON, in a property that no client sees.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from azure.cosmos.partition_key import PartitionKey

HIDDEN = "~key"
"""The property of a document that holds its whole partition key."""
BESIDE = "~"
"""Between the name of a container and the number of a further partition, in the name under which that is kept."""
_OWN_KEY = "~partitionKey"
_UNDEFINED: dict[str, Any] = {}  # as it is on the wire
_LIMIT = 0x40 << 120  # hashes have 16 bytes and begin with two bits 0


@dataclass(frozen=True)
class Container:
    """A container as its clients know it: its path, and its partition key's definition."""

    path: str
    rid: str
    key: Mapping[str, Any]
    bounds: Sequence[str]

    def backend(self, partition: int) -> str:
        """The path of the npm server's container for that partition."""
        return self.path if partition == 0 else f"{self.path}{BESIDE}{partition}"

    def partition_of(self, key: Sequence[Any]) -> int:
        """The partition of a whole key, by the SDK's own hash."""
        definition = PartitionKey(self.key["paths"], kind=self.key["kind"], version=2)
        hashed = str(definition._get_effective_partition_key_string(key))
        return max(n for n, bound in enumerate(self.bounds) if bound <= hashed)

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
    return json.dumps([int(one) if isinstance(one, float) and one.is_integer() else one for one in key])


def kept(container: Mapping[str, Any], partition: int) -> dict[str, Any]:
    """The container of a client as the npm server keeps it for that partition."""
    name = container["id"] if partition == 0 else f"{container['id']}{BESIDE}{partition}"
    own = {"paths": [f"/{HIDDEN}"], "kind": "Hash", "version": 2}
    return {**container, "id": name, "partitionKey": own, _OWN_KEY: container["partitionKey"]}


def shown(container: Mapping[str, Any]) -> dict[str, Any]:
    """The client's own container again."""
    own = container.get(_OWN_KEY, container.get("partitionKey"))
    return {**{name: value for name, value in container.items() if name != _OWN_KEY}, "partitionKey": own}


def _value_at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.strip("/").split("/"):
        if not isinstance(value, dict) or name.strip('"') not in value:
            return _UNDEFINED
        value = value[name.strip('"')]
    return _UNDEFINED if isinstance(value, dict | list) else value
