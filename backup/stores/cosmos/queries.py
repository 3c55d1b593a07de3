"""The queries that a store sends to its container: texts and parameters. No I/O.

Each works across partitions. So an aggregate stands alone in its SELECT, as the SDK demands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from backup.core.conditions import Condition, Range, Value
from backup.core.model import WHOLE, Chunk, Key, Record, StampRow
from backup.core.transforms import Stamping
from backup.stores.cosmos.documents import DELETED_NOTE, MARK, partition_part, path_in, texts
from backup.stores.cosmos.masked import marked_etag, marked_seconds
from backup.stores.values import Rules

SUM_STEP = 1 << 16
"""Many times are summed in two parts: the remainders of a division by this, and the quotients."""


class Query(NamedTuple):
    """A query's text and its parameters by name, without the @."""

    text: str
    values: dict[str, Any]

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The parameters as the SDK wants them."""
        return [{"name": f"@{name}", "value": value} for name, value in self.values.items()]


def select(selected: str, *conditions: str) -> str:
    """The text of a query. `path_of` quotes the names in it, and values are parameters."""
    return f"SELECT {selected} FROM c WHERE {' AND '.join(conditions) or 'true'}"  # noqa: S608 - as said above


def path_of(names: Sequence[str]) -> str:
    """The query text for a property, each name quoted: `c["customer"]["id"]`."""
    return "c" + "".join(f"[{json.dumps(name)}]" for name in names)


_DELETED = path_of([MARK, DELETED_NOTE])


class Queries:
    """The queries about the documents of one service on one side.

    They use a document's etag and the time of its last write (`_ts`, whole seconds). In the source these are the
    server's. In the backup they are the source's, as the copy's note keeps them. Those of a masked or transformed
    source have the mark of its rules.
    """

    def __init__(self, rules: Rules, side: Literal["source", "backup"]) -> None:
        self._rules = rules
        self._stamping = rules.stamping if side == "source" else Stamping()
        self._etag = "c._etag" if side == "source" else path_of([MARK, "etag"])
        self._ts = "c._ts" if side == "source" else path_of([MARK, "ts"])
        self._where: list[str] = []
        self._where_values: dict[str, Value] = {}
        for name, condition in rules.where.items():
            self._where.append(self._fulfils(path_of(path_in(name)), condition))
        if rules.keeps_deleted and side == "backup":
            self._where.append(f"NOT IS_DEFINED({_DELETED})")

    def _fulfils(self, path: str, condition: Condition) -> str:
        """The query text for the condition; adds its parameters."""

        def parameter(value: Value) -> str:
            name = f"w{len(self._where_values)}"
            self._where_values[name] = value
            return f"@{name}"

        if isinstance(condition, Range):
            return " AND ".join(f"{path} {operator} {parameter(value)}" for operator, value in condition.limits)
        if isinstance(condition, tuple):
            return f"{path} IN ({', '.join(map(parameter, condition))})"
        return f"{path} = {parameter(condition)}"

    def within(self, chunk: Chunk, selected: str) -> Query:
        """`selected` of the service's documents in the chunk."""
        conditions, values = [*self._where], {**self._where_values}
        if chunk.after is not None:
            conditions.append("c.id > @after")
            values["after"] = chunk.after[0]
        if chunk.upto is not None:
            conditions.append("c.id <= @upto")
            values["upto"] = chunk.upto[0]
        return Query(select(selected, *conditions), values)

    def count(self, chunk: Chunk) -> Query:
        """The number of the service's documents in the chunk."""
        return self.within(chunk, "VALUE COUNT(1)")

    def deleted(self, selected: str) -> Query:
        """`selected` of the copies whose documents the source has deleted."""
        return Query(select(selected, f"IS_DEFINED({_DELETED})"), {})

    def sums(self, chunk: Chunk, many: bool) -> list[Query]:
        """The sum of `ts` over the service's documents in the chunk.

        For `many` documents two sums, of the remainders by `SUM_STEP` and of the quotients: the server adds in doubles.
        A document without `ts` adds nothing.
        """
        ts = f"({self._ts} + {marked_seconds(self._stamping)})" if self._stamping else self._ts
        parts = [f"{ts} % {SUM_STEP}", f"FLOOR({ts} / {SUM_STEP})"] if many else [ts]
        return [self.within(chunk, f"VALUE SUM({part})") for part in parts]

    def newest(self) -> Query:
        """The greatest `ts` of the service's documents."""
        return self.within(WHOLE, f"VALUE MAX({self._ts})")

    def ids(self, chunk: Chunk) -> Query:
        """The ids of the service's documents in the chunk, in order."""
        text, values = self.within(chunk, "VALUE c.id")
        return Query(f"{text} ORDER BY c.id", values)

    def since(self, seconds: int, paths: Sequence[Sequence[str]]) -> Query:
        """Stamps and `ts` of the service's documents written at or after this second, in the order of their writes."""
        selected = f"{self.stamp(paths)}, {self._ts} AS ts"
        text = f"{select(selected, *self._where, f'{self._ts} >= @since')} ORDER BY {self._ts}"
        return Query(text, {**self._where_values, "since": seconds})

    def by_ids(self, keys: Iterable[Key], selected: str, *, of_service: bool) -> Query:
        """`selected` of the documents with the ids of these keys, in any partition; with `of_service` its own alone."""
        values = {f"k{i}": name for i, name in enumerate(sorted({key[-1] for key in keys}))}
        condition = f"c.id IN ({', '.join(f'@{name}' for name in values)})"
        if not of_service:
            return Query(select(selected, condition), values)
        return Query(select(selected, *self._where, condition), {**self._where_values, **values})

    def key(self, paths: Sequence[Sequence[str]]) -> str:
        """The columns to select for `key_in`; `paths` are the paths of the partition key."""
        return ", ".join(["c.id", *(f"{path_of(path)} AS p{i}" for i, path in enumerate(paths))])

    def lying(self, paths: Sequence[Sequence[str]]) -> str:
        """The columns to select for a key or an address, with the etag of the document itself and the time of its mark,
        if it is marked as deleted."""
        return f"{self.key(paths)}, c._etag AS etag, {_DELETED} AS deleted"

    def stamp(self, paths: Sequence[Sequence[str]]) -> str:
        """The columns to select for `row_in`."""
        fields = (f"{path_of([name])} AS v{i}" for i, name in enumerate(self._rules.version))
        return ", ".join([self.key(paths), f"{self._etag} AS etag", *fields])

    def row_in(self, item: Record, levels: int) -> StampRow:
        """The stamp row in an item selected with `stamp`: partition key and id, version fields, etag; all as text."""
        version = texts(item.get(f"v{i}") for i in range(len(self._rules.version)))
        return (*key_in(item, levels), *version, marked_etag(self._stamping, item.get("etag") or None))


def key_in(item: Record, levels: int) -> Key:
    """The key in an item selected with `Queries.key`; the partition key has `levels` paths."""
    return (*(partition_part(item, [f"p{i}"]) for i in range(levels)), item["id"])
