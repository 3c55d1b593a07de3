"""The queries a store asks its container: texts and parameters. No I/O.

Each is right across partitions by the SDK's rules: an aggregate stands alone in its SELECT.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from backup.core.model import WHOLE, Chunk, Key, Record, StampRow
from backup.stores.cosmos.documents import MARK, partition_part, texts
from backup.stores.values import Rules

SUM_STEP = 1 << 16
"""Times are summed in two parts where there are many: what is left beyond multiples of this, and how many these are."""


class Query(NamedTuple):
    """A query's text and its parameters by name, without the @."""

    text: str
    values: dict[str, Any]

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The parameters as the SDK wants them."""
        return [{"name": f"@{name}", "value": value} for name, value in self.values.items()]


def select(what: str, *conditions: str) -> str:
    """The text of a query. Names in it are quoted by `path_of`, values are parameters."""
    return f"SELECT {what} FROM c WHERE {' AND '.join(conditions) or 'true'}"  # noqa: S608 - as said above


def path_of(names: Sequence[str]) -> str:
    """The query text for a property, each name quoted: `c["customer"]["id"]`."""
    return "c" + "".join(f"[{json.dumps(name)}]" for name in names)


class Queries:
    """Those about the documents of one service on one side.

    A document's etag and time of its last write (`_ts`, whole seconds) are the server's own in the source, and in the
    backup those that the source had when the copy was made.
    """

    def __init__(self, rules: Rules, side: Literal["source", "backup"]) -> None:
        self._rules = rules
        self._etag = "c._etag" if side == "source" else path_of([MARK, "etag"])
        self._ts = "c._ts" if side == "source" else path_of([MARK, "ts"])
        self._where = [f"{path_of([name])} = @w{i}" for i, name in enumerate(rules.where)]
        self._where_values = {f"w{i}": value for i, value in enumerate(rules.where.values())}

    def within(self, chunk: Chunk, what: str) -> Query:
        """`what` of the service's documents in the chunk."""
        conditions, values = [*self._where], {**self._where_values}
        if chunk.after is not None:
            conditions.append("c.id > @after")
            values["after"] = chunk.after[0]
        if chunk.upto is not None:
            conditions.append("c.id <= @upto")
            values["upto"] = chunk.upto[0]
        return Query(select(what, *conditions), values)

    def count(self, chunk: Chunk) -> Query:
        """Their number."""
        return self.within(chunk, "VALUE COUNT(1)")

    def sums(self, chunk: Chunk, many: bool) -> list[Query]:
        """The sum of their `ts`; of `many` documents in two sums, of the rest by `SUM_STEP` and of the whole multiples,
        for the server adds in doubles.

        What has no `ts` adds nothing, as the server has it.
        """
        parts = [f"{self._ts} % {SUM_STEP}", f"FLOOR({self._ts} / {SUM_STEP})"] if many else [self._ts]
        return [self.within(chunk, f"VALUE SUM({part})") for part in parts]

    def newest(self) -> Query:
        """The greatest `ts`."""
        return self.within(WHOLE, f"VALUE MAX({self._ts})")

    def ids(self, chunk: Chunk) -> Query:
        """Their ids, in order."""
        text, values = self.within(chunk, "VALUE c.id")
        return Query(f"{text} ORDER BY c.id", values)

    def since(self, seconds: int, paths: Sequence[Sequence[str]]) -> Query:
        """Stamps and `ts` of the service's documents written in or after that second, in the order of their writes."""
        what = f"{self.stamp(paths)}, {self._ts} AS ts"
        text = f"{select(what, *self._where, f'{self._ts} >= @since')} ORDER BY {self._ts}"
        return Query(text, {**self._where_values, "since": seconds})

    def by_ids(self, keys: Iterable[Key], what: str, *, of_service: bool) -> Query:
        """`what` of the documents with these keys' ids, whatever their partition."""
        values = {f"k{i}": name for i, name in enumerate(sorted({key[-1] for key in keys}))}
        condition = f"c.id IN ({', '.join(f'@{name}' for name in values)})"
        if not of_service:
            return Query(select(what, condition), values)
        return Query(select(what, *self._where, condition), {**self._where_values, **values})

    def key(self, paths: Sequence[Sequence[str]]) -> str:
        """What to select of a document for `key_in`; `paths` are those of the partition key."""
        return ", ".join(["c.id", *(f"{path_of(path)} AS p{i}" for i, path in enumerate(paths))])

    def stamp(self, paths: Sequence[Sequence[str]]) -> str:
        """What to select of a document for `row_in`."""
        fields = (f"{path_of([name])} AS v{i}" for i, name in enumerate(self._rules.version))
        return ", ".join([self.key(paths), f"{self._etag} AS etag", *fields])

    def row_in(self, item: Record, levels: int) -> StampRow:
        """Partition key and id, version fields, etag; all as text."""
        version = texts(item.get(f"v{i}") for i in range(len(self._rules.version)))
        return (*key_in(item, levels), *version, item.get("etag") or None)


def key_in(item: Record, levels: int) -> Key:
    """The key in an item that was selected with `Queries.key`, of a partition key of so many levels."""
    return (*(partition_part(item, [f"p{i}"]) for i in range(levels)), item["id"])
