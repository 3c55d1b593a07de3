"""Long texts of the app's own entries, kept in several rows of the entry's table. Drivers hold a row's values several
times, so a long value would cost many times its size.

A part is a row with a key of its own, made of the entry's. It has a piece of the text, and the fields `parts_with` of
its shape. In the place of the text, the entry says which parts hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.core.batched import batched
from backup.core.errors import StoreError
from backup.core.suggestions import quantity
from backup.stores.sibling import Entry, LongText, Shape
from backup.stores.sql.engines import Dialect

_PIECE = 1 << 20  # characters
_AT_ONCE = 4
_MARK, _BEHIND = "part", "paru"  # letters, which every server sorts alike
_START = "parts:"


class _Parts(NamedTuple):
    """What an entry has in the place of a long text: the numbers of its parts, and how many characters they have."""

    first: int
    number: int
    length: int

    def __str__(self) -> str:
        return f"{_START}{self.first}:{self.number}:{self.length}"

    @classmethod
    def of(cls, value: str) -> _Parts | None:
        """None for a text that was kept whole."""
        return cls(*map(int, value.split(":")[1:])) if value.startswith(_START) else None


class EntryParts:
    """Writes and reads the entries of one table, with those that are in parts. Works in a transaction of the caller."""

    def __init__(self, dialect: Dialect, shape: Shape, table: sa.Table) -> None:
        self._dialect, self._shape, self._table = dialect, shape, table
        self._key = table.c[shape.key]
        self._texts = {name for name, kind in shape.fields.items() if kind == "text"} if shape.parts_with else set()

    def add(self, cx: sa.Connection, entries: Sequence[Entry]) -> None:
        """Inserts the entries whose key does not exist yet. Raises StoreError where the table then lacks one."""
        key_name = self._shape.key
        long = [entry[key_name] for entry in entries if any(type(entry[name]) is LongText for name in self._texts)]
        if long:
            existing_keys = set(cx.scalars(sa.select(self._key).where(self._dialect.is_one_of(self._key, long))))
            missing = {*long} - existing_keys
            kept = [entry for entry in entries if entry[key_name] not in existing_keys]
            entries = [self._short(cx, entry) if entry[key_name] in missing else entry for entry in kept]
        if entries:
            self._add(cx, entries)

    def _add(self, cx: sa.Connection, rows: Sequence[Entry]) -> None:
        if self._dialect.add_rows(cx, self._table, rows) == len(rows):
            return
        self.refuse_lost(cx, [row[self._shape.key] for row in rows])

    def refuse_lost(self, cx: sa.Connection, keys: Sequence[str]) -> None:
        """Raises StoreError where an entry of these keys is missing, which were added just now or before. Either some
        were there already, or a trigger or a rule of the table has swallowed them."""
        lost = {*keys}
        for part in batched(list(lost), self._dialect.max_parameters):
            lost.difference_update(cx.scalars(sa.select(self._key).where(self._dialect.is_one_of(self._key, part))))
        if lost:
            accepted = quantity(
                len(lost), "entry without an error, but it is", "entries without an error, but they are"
            )
            raise StoreError(
                f"{self._table.fullname} accepted {accepted} not there. Nothing of the batch was changed.",
                hint="Look for a trigger, a rule or a policy of that table. It is the app's own, and needs none.",
            )

    def _short(self, cx: sa.Connection, entry: Entry) -> Entry:
        """Writes the parts of an entry. Returns the entry without its long texts."""
        short, number = dict(entry), 0
        shared = {**dict.fromkeys(self._shape.fields), **{name: entry[name] for name in self._shape.parts_with}}
        for name in sorted(self._texts):
            if not isinstance(entry[name], LongText):
                continue
            first, length = number, 0
            for piece in _cut(entry[name]):
                row = {**shared, self._shape.key: _name(entry[self._shape.key], number), name: piece}
                self._add(cx, [row])
                number, length = number + 1, length + len(piece)
            short[name] = str(_Parts(first, number - first, length))
        return short

    @staticmethod
    def size(row: Mapping[Any, Any]) -> int:
        """How many characters the texts of a row have, whether they are in parts or not."""
        sizes = ((_Parts.of(value), value) for value in row.values() if isinstance(value, str))
        return sum(len(value) if parts is None else parts.length for parts, value in sizes)

    def whole(self, cx: sa.Connection, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its long texts. If it is a part, its key is the entry's. A row with a text has its key.

        Raises StoreError if a part is missing.
        """
        if not self._texts or (key := row.get(self._shape.key)) is None:
            return row
        row[self._shape.key] = key.partition(_MARK)[0]
        for name in self._texts & row.keys():
            if row[name] is not None and (parts := _Parts.of(row[name])) is not None:
                row[name] = self._text(cx, key, name, parts)
        return row

    def _text(self, cx: sa.Connection, key: str, name: str, parts: _Parts) -> LongText:
        pieces: list[str] = []
        for numbers in batched(range(parts.first, parts.first + parts.number), _AT_ONCE):
            names = [_name(key, number) for number in numbers]
            query = sa.select(self._key, self._table.c[name]).where(self._key.in_(names))
            by_name = {row[0]: row[1] for row in cx.execute(query)}
            pieces += (by_name.get(part, "") for part in names)
        if sum(map(len, pieces)) != parts.length:
            raise StoreError(
                f"The entry {key} of {self._shape.name} lacks a part.",
                hint="A purge or another program deleted it: this entry cannot be used, all others can.",
            )
        return LongText(lambda: iter(pieces), parts.length)

    def delete(self, cx: sa.Connection, keys: Sequence[str]) -> None:
        """Deletes the parts of these entries."""
        if not self._texts:
            return
        query = sa.select(self._key).where(self._dialect.is_one_of(self._key, [_name(key, 0) for key in keys]))
        for first_part in cx.scalars(query).all():
            key = first_part.partition(_MARK)[0]
            is_part = sa.and_(self._key > f"{key}{_MARK}", self._key < f"{key}{_BEHIND}")
            cx.execute(self._table.delete().where(is_part))


def _name(key: str, number: int) -> str:
    return f"{key}{_MARK}{number}"


def _cut(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces of another length."""
    rest = ""
    for piece in pieces:
        rest += piece
        while len(rest) > _PIECE:
            yield rest[:_PIECE]
            rest = rest[_PIECE:]
    yield rest
