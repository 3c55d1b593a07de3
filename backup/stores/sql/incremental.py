"""Finds what was written lately to a table, by a column that writes raise. It is a hint: nothing relies on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from math import ceil
from typing import Any

import sqlalchemy as sa

from backup.core.errors import StoreError
from backup.core.model import WHOLE, StampRow, utc_now
from backup.stores.sql.access import SqlAccess
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.engines.column import Column, ServerType
from backup.stores.sql.rows import rows_in_order
from backup.stores.values import Limits

_ROWS_AT_ONCE = 5_000  # stamps: one statement reads them, and memory holds them
_SECONDS = 30.0  # a seek takes milliseconds; what is locked for longer is better compared
_WIDEST_ZONE = timedelta(hours=14)
_NAME_AT_MOST, _HASH_LENGTH = 60, 16  # a watermark has to fit into SyncHistory
_NUMBER = re.compile(r"-?\d{1,20}", re.ASCII)
_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:(?P<separator>[ T])(?P<clock>\d\d:\d\d:\d\d)(?:\.\d{1,9})?(?P<zone> ?(?:Z|[+-]\d\d(?::?\d\d)?))?)?",
    re.ASCII,
)
_BEYOND = re.compile(r"infinity|\d{5,}-\d\d-\d\d(?: \d\d:.*)?", re.ASCII)
"""Times of PostgreSQL that are later than any time of Python's."""
_UNREADABLE = (StoreError, UnicodeDecodeError)


class SqlIncremental:
    """The latest writes to one service's rows in a table, by a column that writes raise.

    The column has times, whole numbers, or what the server itself raises at each write (rowversion). Nothing may rely
    on it: a program may not set it, and a transaction may commit late. So no error about it reaches the run: what
    cannot be asked is not named. For the run's own thread.
    """

    of = ""

    def __init__(self, access: SqlAccess, catalog: SqlCatalog, limits: Limits, modified_by: str) -> None:
        """`modified_by` names the column; empty for the version's own, if the server raises it and an index begins with
        it."""
        self._access, self._catalog, self._limits, self._named = access, catalog, limits, modified_by
        self._trouble: str | None = None  # what the last look for a watermark has met
        self.named_all = False

    @property
    def is_usable(self) -> bool:
        """Whether there is a column to ask by, or one that was named and may be of no use. Reads the table's columns if
        nobody has yet, and raises what that raises."""
        return bool(self._named) or (bool(self._name) and self._reason is None)

    @cached_property
    def _name(self) -> str:
        shape = self._catalog.shape
        if self._named or not shape.version:
            return self._named
        column = shape.find(shape.version[0].name)
        is_raised = column is not None and column.leads_index and column.type.lowest_open is not None
        return column.name if column is not None and is_raised else ""

    @property
    def obstacle(self) -> str | None:
        """As `Incremental.obstacle`. Of a column that nobody has named it says nothing."""
        if not self._named or (reason := self._reason or self._trouble) is None:
            return None
        sentence = f"ModifiedBy names {self._name}, which is of no use: {reason.rstrip('.')}."
        return f"{sentence} All records are compared as without it."

    def watermark(self) -> str | None:
        """The greatest value of the column that is not in the future, with the column's name; None if there is none.

        Of a rowversion, the lowest that a transaction may still commit. Costs a seek in an index, and two if a value
        lies in the future by the server's clock.
        """
        self._trouble = None
        if self._reason is not None:
            return None
        try:
            newest = self._newest() if self._type.lowest_open is None else self._lowest_open(self._type.lowest_open)
        except _UNREADABLE as error:
            words = str(error) if isinstance(error, StoreError) else "its values could not be read"
            self._trouble = self._trouble or words
            return None
        return None if newest is None else f"{self._prefix}{newest}"

    def recent(self, since: str, overlap_seconds: float) -> Iterator[set[StampRow]]:
        """Stamp rows back to `overlap_seconds` before `since`, the latest first, up to 5,000 at a time.

        Numbers have no overlap. Ends after as many rows as a chunk has: then to compare chunks costs no more. Gives
        nothing for the watermark of another column or type.
        """
        self.named_all = False
        lowest = self._value_in(since, overlap_seconds) if self._reason is None else None
        highest: Any = None
        rows_left = self._limits.chunk_size
        while lowest is not None and rows_left > 0:
            size = min(_ROWS_AT_ONCE, rows_left)
            try:
                rows = self._page(lowest, highest, size)
            except _UNREADABLE:
                return  # the comparison of chunks says what is wrong
            rows_left -= len(rows)
            self.named_all = len(rows) < size
            yield {row[:-1] for row in rows}
            if self.named_all or rows[0][-1] == rows[-1][-1]:
                return  # the page after one that has a single value would be the same
            highest = rows[-1][-1]

    def has_fallen(self, since: str, mark: str) -> bool:
        """As `Incremental.has_fallen`."""
        if not (since.startswith(self._prefix) and mark.startswith(self._prefix)):
            return True
        before, now = (text.removeprefix(self._prefix) for text in (since, mark))
        if self._type.lowest_open is not None:
            return now < before
        was_number, is_number = (_NUMBER.fullmatch(text) is not None for text in (before, now))
        if was_number != is_number:
            return True  # they cannot be compared: on SQLite each number is less than any time
        return int(now) < int(before) if is_number else now < before

    @cached_property
    def _column(self) -> Column | None:
        return self._catalog.shape.find(self._name)

    @property
    def _type(self) -> ServerType:
        return self._catalog.shape.table.c[self._spelled].type  # type: ignore[return-value] # a ServerType

    @property
    def _spelled(self) -> str:
        return self._name if self._column is None else self._column.name

    @property
    def _prefix(self) -> str:
        name = self._spelled
        if len(name) > _NAME_AT_MOST:  # two names may begin alike
            hashed = sha256(name.encode(errors="surrogatepass")).hexdigest()[:_HASH_LENGTH]
            name = f"{name[: _NAME_AT_MOST - _HASH_LENGTH]}{hashed}"
        return f"{name} "

    @cached_property
    def _reason(self) -> str | None:
        """Why the column cannot be asked."""
        shape = self._catalog.shape
        if self._column is None:
            return "the source has no such column that is copied"
        if shape.key_may_repeat:  # the walk refuses such a table before it writes anything
            return "the table has no key of its own, so each run first looks whether rows share one"
        if self._spelled in shape.withheld:
            return "a mask or the transform may hide its values, and the watermark would show one of them"
        try:
            is_indexed = self._column.key_position == 1 or self._column.leads_index or self._is_indexed()
        except StoreError as error:
            return str(error)
        return None if is_indexed else "no index of the source begins with it, so each look would read all rows"

    def _is_indexed(self) -> bool:
        with self._asking("look for an index") as cx, suppress(sa.exc.NoSuchTableError):
            return self._access.dialect.has_index_by(cx, self._catalog.table_name, self._spelled)
        return False  # the inspector may not take a view for a table

    def _lowest_open(self, selected: sa.ColumnElement[Any]) -> str:
        with self._asking("ask for the open transactions") as cx:
            lowest: bytes = cx.execute(sa.select(selected)).scalar_one()
        return lowest.hex()

    def _newest(self) -> str | None:
        table = self._catalog.shape.table
        column, clock = table.c[self._spelled], self._access.dialect.server_clock
        query = sa.select(sa.func.max(column), *([] if clock is None else [clock])).select_from(table)
        with self._asking("find the newest record") as cx:
            newest, *at = cx.execute(query).one()
        now: datetime = at[0].astimezone(UTC) if at else utc_now()
        text = _text_of(newest)
        if newest is not None and text is None:
            self._trouble = "it has neither times nor whole numbers"
        if (latest := _latest_for(newest, now)) is not None:
            with self._asking("find the newest record that is not in the future") as cx:
                text = _text_of(cx.scalar(query.with_only_columns(sa.func.max(column)).where(column <= latest)))
            if text is not None:
                self._trouble = None
        if text is not None and not _NUMBER.fullmatch(text) and self._has_numbers(column):
            self._trouble = "it has both times and numbers, and the greatest number is less than any time"
            return None
        return text

    def _has_numbers(self, column: sa.ColumnElement[Any]) -> bool:
        """Whether a column that has times has numbers, too. On SQLite it may."""
        if not self._type.may_hold(0):
            return False
        with self._asking("find the least value") as cx:
            return isinstance(cx.scalar(sa.select(sa.func.min(column))), int | float)

    def _asking(self, operation: str) -> Any:
        return self._access.once(operation, seconds=_SECONDS, single=True)

    def _value_in(self, since: str, overlap_seconds: float) -> Any:
        """The value of the column from which on to read; None for a watermark of another column or type."""
        if not since.startswith(self._prefix):
            return None
        text, type_ = since.removeprefix(self._prefix), self._type
        try:
            if type_.lowest_open is not None:
                return bytes.fromhex(text)
            value: Any = int(text) if _NUMBER.fullmatch(text) else _earlier(text, overlap_seconds)
            if not type_.may_hold(value) and isinstance(value, str):
                value = date.fromisoformat(value[:10])
        except (ValueError, OverflowError):
            return None
        return value if type_.may_hold(value) else None

    def _page(self, lowest: Any, highest: Any, size: int) -> Sequence[tuple[Any, ...]]:
        shape = self._catalog.shape
        column = shape.table.c[self._spelled]
        query = shape.stamp_query(self._access.dialect).add_columns(column)
        limits = [column >= lowest, *([] if highest is None else [column <= highest])]
        query = query.where(*limits, *shape.within(WHOLE), *shape.filters).order_by(column.desc()).limit(size)
        with self._asking("read what was written lately") as cx:
            return rows_in_order(cx, query, size)


def _text_of(value: Any) -> str | None:
    """A value of the column as a watermark has it; None for what is neither a time nor a whole number."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and _TIME.fullmatch(value) else None


def _latest_for(newest: Any, now: datetime) -> Any:
    """The latest time that is not in the future, if this one is; else None.

    Nobody knows the zone of a time that names none, so it may be ahead by as much as zones are apart.
    """
    if isinstance(newest, date):
        latest_day = (now + _WIDEST_ZONE).date()
        return latest_day if newest > latest_day else None
    if not isinstance(newest, str):
        return None
    match = _TIME.fullmatch(newest)
    if match is None and not _BEYOND.fullmatch(newest):
        return None
    separator, zone = (match["separator"], match["zone"]) if match is not None else (" ", None)
    limit = now if zone else now + _WIDEST_ZONE
    if match is not None:
        try:
            written = f"{match['day']}T{match['clock'] or '00:00:00'}{(zone or '+00:00').strip()}"
            if datetime.fromisoformat(written) <= limit:
                return None
        except (ValueError, OverflowError):
            pass  # such as a 31st of February in a text
    if separator is None:
        return limit.date().isoformat()
    end = "" if not zone else " +00:00" if zone.startswith(" ") else "Z" if zone == "Z" else "+00:00"
    return f"{limit:%Y-%m-%d}{separator}{limit:%H:%M:%S}{end}"


def _earlier(text: str, seconds: float) -> str:
    """A time, in the form of the text, so many seconds before it. Raises ValueError for a text that is not a time."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("no time")
    if not seconds:
        return text
    moment = datetime.fromisoformat(f"{match['day']}T{match['clock'] or '00:00:00'}") - timedelta(seconds=ceil(seconds))
    if match["separator"] is None:
        return moment.date().isoformat()
    return f"{moment.date().isoformat()}{match['separator']}{moment:%H:%M:%S}{match['zone'] or ''}"
