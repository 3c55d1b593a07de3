"""The documents of one physical partition, in memory, and the indexes that queries use. No I/O."""

from __future__ import annotations

import time
import uuid
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.emulators.expressions import Node
from tests.emulators.json_values import units_of

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """What a partition held at a moment, in its indexes."""

    rids: Mapping[str, Mapping[str, str]]
    documents: Mapping[str, Document]
    ids: Collection[tuple[bytes, str]]
    last_written: Mapping[str, None]
    version: int


class Physical:
    """Documents by partition key and id; in the order in which they were made, by id, and by their last write.

    A document that was given out is never changed: a write puts another in its place.
    """

    def __init__(self, rid: str, end: str = "") -> None:
        """`rid` is that of the container, and begins those of its documents; `end` ends those that it makes."""
        self._rid, self._end, self._made, self._now = rid, end, 0, 0
        self._rids: dict[str, dict[str, str]] = {}
        self._documents: dict[str, Document] = {}
        self._ids: list[tuple[bytes, str]] = []
        self._last_written: dict[str, None] = {}
        self.written: list[str] = []
        """The `_rid` of each document that was written or deleted, in that order: an index follows it."""

    def find(self, key: str, name: str) -> Document | None:
        """The document of that partition key, as text, with that id."""
        rid = self._rids.get(key, {}).get(name)
        return None if rid is None else self._documents[rid]

    def put(self, key: str, body: Document) -> Document:
        """Writes the document, over another with its key and id. Returns it with what the server adds."""
        rids, name = self._rids.setdefault(key, {}), body["id"]
        if name in rids:
            rid = rids[name]
            del self._last_written[rid]
        else:
            self._made += 1
            rid = rids[name] = f"{self._rid}{self._made:012X}{self._end}"
            insort(self._ids, (units_of(name), rid))
        self._now = max(self._now, int(time.time()))  # no write is older than an earlier one
        own = {"_rid": rid, "_self": f"docs/{rid}/", "_etag": str(uuid.uuid4()), "_ts": self._now}
        document = self._documents[rid] = {**body, **own}
        self._last_written[rid] = None
        self.written.append(rid)
        return document

    def remove(self, key: str, name: str) -> None:
        """Deletes a document that is there."""
        rid = self._rids[key].pop(name)
        del self._documents[rid], self._last_written[rid]
        del self._ids[bisect_left(self._ids, (units_of(name), rid))]
        self.written.append(rid)

    @property
    def version(self) -> int:
        """Grows with every write."""
        return len(self.written)

    def kept(self) -> Kept:
        """What it holds now."""
        rids = {key: dict(of_key) for key, of_key in self._rids.items()}
        return Kept(rids, dict(self._documents), list(self._ids), dict(self._last_written), self.version)

    def put_back(self, kept: Kept) -> None:
        """Holds again what it held then, each document with the times and etags that it had."""
        self._rids = {key: dict(of_key) for key, of_key in kept.rids.items()}
        self._documents, self._ids = dict(kept.documents), list(kept.ids)
        self._last_written = dict(kept.last_written)
        self.written += dict.fromkeys(self.written[kept.version :])

    def part(self, end: str, has: Callable[[str], bool]) -> Physical:
        """Another one with those documents whose partition key, as text, it `has`. Each keeps its `_rid`; those that
        the other one makes come after it, and end with `end`."""
        other = Physical(self._rid, end)
        other._made, other._now = self._made, self._now
        other._rids = {key: dict(of_key) for key, of_key in self._rids.items() if has(key)}
        kept = {rid for of_key in other._rids.values() for rid in of_key.values()}
        other._documents = {rid: document for rid, document in self._documents.items() if rid in kept}
        other._ids = [entry for entry in self._ids if entry[1] in kept]
        other._last_written = {rid: None for rid in self._last_written if rid in kept}
        other.written = [*self.written, ""]  # a page that this one gave has no place in it by number
        return other

    def at(self, rids: Iterable[str]) -> list[Document]:
        """Those of the documents that are there."""
        return [self._documents[rid] for rid in rids if rid in self._documents]

    def etags(self, key: str) -> dict[str, str]:
        """Those of the documents of one partition key, by id."""
        return {name: self._documents[rid]["_etag"] for name, rid in self._rids.get(key, {}).items()}

    def candidates(self, key: str | None, conditions: Iterable[Node]) -> list[Document]:
        """The documents that may meet all conditions, as far as an index tells; first what was made first."""
        if key is not None:
            return self._in_order(self._rids.get(key, {}).values())
        narrowed: list[list[str]] = [rids for condition in conditions if (rids := self._indexed(condition)) is not None]
        if not narrowed:
            return list(self._documents.values())
        return self._in_order(min(narrowed, key=lambda rids: len(rids)))

    def _in_order(self, rids: Collection[str]) -> list[Document]:
        return [self._documents[rid] for rid in sorted(rids)]

    def _indexed(self, condition: Node) -> list[str] | None:
        """What an index finds for the condition; None if there is none for it."""
        kind, parts = condition
        if not parts or getattr(parts[0], "kind", None) != "path" or any(part.kind != "value" for part in parts[1:]):
            return None
        path, values = list(parts[0].parts), [part.parts[0] for part in parts[1:]]
        if path == ["_ts"] and kind == ">=" and isinstance(values[0], int):
            return self._since(values[0])
        if path != ["id"] or not all(isinstance(value, str) for value in values):
            return None
        if kind in ("=", "IN"):
            return [rid for value in set(values) for rid in self._between((units_of(value),), (units_of(value), "~"))]
        bound = units_of(values[0])
        ends = {">": ((bound, "~"), None), ">=": ((bound,), None), "<": (None, (bound,)), "<=": (None, (bound, "~"))}
        return self._between(*ends[kind]) if kind in ends else None

    def _between(self, low: tuple[Any, ...] | None, high: tuple[Any, ...] | None) -> list[str]:
        start = 0 if low is None else bisect_right(self._ids, low)
        end = len(self._ids) if high is None else bisect_right(self._ids, high)
        return [rid for _, rid in self._ids[start:end]]

    def _since(self, seconds: int) -> list[str]:
        rids = []
        for rid in reversed(self._last_written):
            if self._documents[rid]["_ts"] < seconds:
                break
            rids.append(rid)
        return rids
