"""The keys of a container's documents: (partition key as JSON text, …, id)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from backup.core.model import Key, Record, StampRow, Stamps, Version
from backup.stores.asked_keys import parts_of, unusable_key
from backup.stores.cosmos.container import CosmosContainer
from backup.stores.cosmos.documents import key_from_json, key_to_json

_MAX_ID_CHARACTERS = 1023


class CosmosKeys:
    """The codec of one container's keys."""

    def __init__(self, container: CosmosContainer, label: str) -> None:
        self._container, self._label = container, label

    @property
    def _width(self) -> int:
        return len(self._container.partition_paths) + 1

    def of(self, record: Record) -> Key:
        return self._container.key_of(record)

    def stamps(self, rows: Iterable[StampRow]) -> Stamps:
        width = self._width
        return {row[:width]: Version(row[width:-1], row[-1]) for row in rows}

    def may_hold(self, key: Key) -> bool:
        """Whether the key has a text for each path of the partition key, and an id. A chunk's bound is an id alone."""
        return len(key) in (1, self._width) and all(isinstance(part, str) for part in key)

    def from_text(self, text: str) -> Key:
        parts = parts_of(text, self._label)
        if parts is not None and len(parts) == self._width and isinstance(parts[-1], str):
            return key_from_json(parts)
        keys = sorted(self._container.keys_of_ids([(text,)])) if len(text) <= _MAX_ID_CHARACTERS else []
        if len(keys) == 1:
            return keys[0]
        shown = "; ".join(json.dumps(key_to_json(key)) for key in keys[:10])
        hint = f"Write [partition key, id] as JSON: {shown or 'the recycle bin has it, if the document is gone'}."
        raise unusable_key(text, self._label, hint)

    def in_order(self, keys: Collection[Key]) -> list[Key]:
        return sorted(keys, key=lambda key: (key[-1], key))

    def to_json(self, key: Key) -> list[Any]:
        return key_to_json(key)
