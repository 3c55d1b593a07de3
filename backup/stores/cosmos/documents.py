"""Documents of Cosmos DB as values: their properties, their keys, and equal texts for equal values. No I/O."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from azure.cosmos.partition_key import NonePartitionKeyValue, NullPartitionKeyValue

from backup.core.conditions import Condition, Range, Value
from backup.core.model import Key, Record

MARK = "_backup"
"""The property of a copy that holds the app's note: the source's etag and ts, the time and the run of the copy."""

DELETED_NOTE = "deletedAt"
"""The part of a copy's note that says when its document was found to be deleted in the source."""

_COMPARED = {"etag", "ts", DELETED_NOTE}
_SYSTEM = {"_rid", "_self", "_etag", "_ts", "_attachments"}
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_ABSENT = object()
_EXACT = 1 << 53  # whole numbers up to here are doubles as they are
_UNDEFINED = "undefined"  # not valid JSON, so no partition key has this as its JSON text


# Ids that the SDK accepts in a document's address. It cannot write half a surrogate pair there.
_NAMEABLE = re.compile(r"[^/\\#?\t\r\n\ud800-\udfff]*[^/\\#?\t\r\n\ud800-\udfff ]")


def is_nameable(name: str) -> bool:
    """Whether an address can name the document with this id. A batch has ids in its body and takes every id."""
    return name not in (".", "..") and _NAMEABLE.fullmatch(name) is not None


def note_of(document: Record) -> Mapping[str, Any]:
    """The app's note in a document; empty where there is none. Others may have put anything under its name."""
    note = document.get(MARK)
    return note if isinstance(note, dict) else {}


def marked(copy: Record, deleted_at: str) -> dict[str, Any]:
    """The copy with this time of its delete in its note."""
    return {**own(copy), MARK: {**note_of(copy), DELETED_NOTE: deleted_at}}


def with_least_mark(copy: Record) -> dict[str, Any] | None:
    """The copy with only those parts of its note that a comparison needs; None if its note has no other part."""
    mark = copy.get(MARK)
    if not isinstance(mark, dict) or mark.keys() <= _COMPARED:
        return None
    return {**copy, MARK: {name: value for name, value in mark.items() if name in _COMPARED}}


def size_of(document: Any) -> int:
    """The number of bytes as JSON, as the SDK sends it and the server counts it."""
    return len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def own(record: Record) -> dict[str, Any]:
    """The document without the server's own properties."""
    return {name: value for name, value in record.items() if name not in _SYSTEM}


def partition_value(parts: Sequence[str]) -> Any:
    """The partition key as the SDK wants it; `parts` are a key's parts without the id."""
    if len(parts) == 1:
        return {_UNDEFINED: NonePartitionKeyValue, "null": NullPartitionKeyValue}.get(parts[0]) or json.loads(parts[0])
    return [{} if part == _UNDEFINED else json.loads(part) for part in parts]  # {} is the wire form of undefined


def is_read_alike(parts: Sequence[str]) -> bool:
    """Whether the SDK reads the same partition key from the document. It does not where a part is undefined."""
    return _UNDEFINED not in parts


def partition_part(record: Record, path: Sequence[str]) -> str:
    """The document's value at one path of its partition key, as JSON text. Objects and lists count as undefined."""
    value = _value_at(record, path)
    return _UNDEFINED if value is _ABSENT or isinstance(value, dict | list) else json_text(value)


def path_in(name: str) -> list[str]:
    """The path that a filter names, such as `customer.country`. It leads through no list."""
    return name.split(".")


def _value_at(record: Record, path: Sequence[str]) -> Any:
    value: Any = record
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def key_to_json(key: Key) -> list[Any]:
    """The key as people write it: [partition key, id]; {} is an undefined partition key."""
    return [*({} if part == _UNDEFINED else json.loads(part) for part in key[:-1]), key[-1]]


def key_from_json(parts: list[Any]) -> Key:
    """The key that `key_to_json` turned into these parts."""
    return (*(_UNDEFINED if part == {} else json_text(part) for part in parts[:-1]), parts[-1])


def texts(values: Iterable[Any]) -> tuple[str | None, ...]:
    """Each value as JSON text; None for null and for a missing property."""
    return tuple(None if value is None else json_text(value) for value in values)


def belongs(record: Record, where: Mapping[str, Condition]) -> bool:
    """Whether the document fulfils the conditions. Values are compared as the server compares them: by type, too."""
    values = [(_value_at(record, path_in(name)), condition) for name, condition in where.items()]
    return all(value is not _ABSENT and _fulfils(value, condition) for value, condition in values)


def _fulfils(value: Any, condition: Condition) -> bool:
    if isinstance(condition, Range):
        return all(_compares(value, sign, limit) for sign, limit in condition.limits)
    values = condition if isinstance(condition, tuple) else (condition,)
    return json_text(value) in map(json_text, values)


def _compares(value: Any, sign: str, limit: Value) -> bool:
    if isinstance(value, bool) or isinstance(limit, bool) or isinstance(value, str) != isinstance(limit, str):
        return False
    return isinstance(value, str | int | float) and _COMPARISONS[sign](value, limit)


def json_text(value: Any) -> str:
    """The value as JSON text; equal values give equal texts. Names are sorted, and 2.0 becomes 2."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def content_text(value: Any) -> str:
    """The value as JSON text; equal texts for what a server keeps as equal values: its numbers are doubles."""
    return json.dumps(_with_doubles(value), sort_keys=True, ensure_ascii=False)


def double_of(number: float | str) -> float:
    """The double that a server keeps of the number; a whole one as an int. Raises ValueError where it has none."""
    double = float(number)
    if not isfinite(double):
        raise ValueError
    return int(double) if double.is_integer() else double


def _with_doubles(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_doubles(part) for part in value]
    if isinstance(value, dict):
        return {name: _with_doubles(part) for name, part in value.items()}
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return double_of(value) if isinstance(value, int) and abs(value) > _EXACT else value
