"""Documents of Cosmos DB as values: their own properties, their keys, texts that are equal when values are. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from azure.cosmos.partition_key import NonePartitionKeyValue, NullPartitionKeyValue

from backup.core.model import Key, Record

MARK = "_backup"
"""The property in which a copy keeps what the app notes about it."""

_COMPARED = {"etag", "ts"}
_SYSTEM = {"_rid", "_self", "_etag", "_ts", "_attachments", "_lsn"}
_UNDEFINED = "undefined"  # keys hold partition keys as JSON text, and this is none


# What the SDK takes for an id where its address has to name it; half a surrogate pair it cannot write there.
_NAMEABLE = re.compile(r"[^/\\#?\t\r\n\ud800-\udfff]*[^/\\#?\t\r\n\ud800-\udfff ]")


def is_nameable(name: str) -> bool:
    """Whether an address can name the document with this id. A batch has the ids in its body, and takes any."""
    return name not in (".", "..") and _NAMEABLE.fullmatch(name) is not None


def with_least_mark(copy: Record) -> dict[str, Any] | None:
    """The copy with no more noted about it than a comparison asks for; None if there is no more."""
    mark = copy.get(MARK)
    if not isinstance(mark, dict) or mark.keys() <= _COMPARED:
        return None
    return {**copy, MARK: {name: value for name, value in mark.items() if name in _COMPARED}}


def size_of(document: Any) -> int:
    """Its bytes as JSON, as they are sent and as the server counts them."""
    return len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def own(record: Record) -> dict[str, Any]:
    """The document without the server's own properties."""
    return {name: value for name, value in record.items() if name not in _SYSTEM}


def partition_value(parts: Sequence[str]) -> Any:
    """The partition key in a key's first parts, as the SDK wants it."""
    if len(parts) == 1:
        return {_UNDEFINED: NonePartitionKeyValue, "null": NullPartitionKeyValue}.get(parts[0]) or json.loads(parts[0])
    return [{} if part == _UNDEFINED else json.loads(part) for part in parts]  # {} is the wire form of undefined


def is_read_alike(parts: Sequence[str]) -> bool:
    """Whether the SDK finds this partition key in a document that has it: of what is no value it thinks otherwise."""
    return _UNDEFINED not in parts


def partition_part(record: Record, path: Sequence[str]) -> str:
    """What a document has at one path of its partition key, as JSON text; objects and lists count as undefined."""
    value: Any = record
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return _UNDEFINED
        value = value[name]
    return _UNDEFINED if isinstance(value, dict | list) else json_text(value)


def key_to_json(key: Key) -> list[Any]:
    """The key as people write it: [partition key, id]; {} is an undefined partition key."""
    return [*({} if part == _UNDEFINED else json.loads(part) for part in key[:-1]), key[-1]]


def key_from_json(parts: list[Any]) -> Key:
    """The key that `key_to_json` was given."""
    return (*(_UNDEFINED if part == {} else json_text(part) for part in parts[:-1]), parts[-1])


def texts(values: Iterable[Any]) -> tuple[str | None, ...]:
    """Each value as text; None for null and what is missing."""
    return tuple(None if value is None else json_text(value) for value in values)


def json_text(value: Any) -> str:
    """One text for equal values: sorted names, and 2.0 as 2, for JSON has one kind of number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
