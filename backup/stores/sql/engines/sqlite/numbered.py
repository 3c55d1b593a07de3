"""Fingerprints of tables in which SQLite keeps the rows in the order of their keys: the key is the row's number.

If the numbers have no gaps, the first one and the versions in this order say all. So only the versions are listed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import ge, gt, lt
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler, SQLiteDialect

from backup.core.model import Fingerprint
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import ServerType, spelled_column, spelled_table
from backup.stores.sql.engines.prepared import TABLES_KEPT, numbered_union, spelled_once
from backup.stores.sql.engines.sqlite.plainly import asked_plainly
from backup.stores.sql.engines.sqlite.text import in_utf_8
from backup.stores.sql.engines.sqlite.version_lists import (
    VersionList,
    added,
    are_numbers,
    made,
    number_of_pairs,
    number_of_values,
)

KEYS_AT_ONCE = 200_000
"""How many keys a statement may span, so that this process has memory for its list."""

_PARTS_TRIED, _ROWS_OF_A_PART = 4, KEYS_AT_ONCE // 8
_TRIES = 3
_GREATEST = (1 << 63) - 1
_BLOB = ServerType("BLOB")
_SPELLING = SQLiteDialect()
GAPS = "has_gaps"
"""What a table's info says of the numbers that were listed last."""

_SPARSE, _FIRST = "is_sparse", "first"
_Condition = sa.ColumnElement[bool]


class HintingCompiler(SQLiteCompiler):
    """Spells the hints of a query, which SQLAlchemy leaves out for SQLite."""

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        return text


def may_be_dense(stamps: StampColumns) -> bool:
    """Whether a fingerprint of a whole table of this kind costs little memory, and no statement about all of it."""
    return stamps.is_numbered and not stamps.key[0].table.info.get(_SPARSE)


def numbered_fingerprint(
    cx: sa.Connection, stamps: StampColumns, conditions: Sequence[_Condition], at_most: int | None, *, in_parts: bool
) -> Fingerprint | None:
    """The fingerprint of the rows that fulfil the conditions, which are about the key alone. `stamps` must be numbered,
    with one integer as version.

    None if there are other values than integers, or too many rows or gaps. Too many is more than `at_most`, and with
    `in_parts` so few in a wide range that the parts would be many.
    """
    column: Any = stamps.key[0]
    records, digest = 0, blake2b(digest_size=16)
    try:
        if at_most is not None and not (conditions or in_parts):
            rows = _small(cx, column, stamps.version[0], min(at_most, KEYS_AT_ONCE))
            if rows is not None:
                return made(rows.records, added(digest, rows))
        for number, part in enumerate(_parts(cx, column, conditions, at_most, in_parts=in_parts), 1):
            rows = None if part is None else _list(cx, column, stamps.version[0], part)
            if rows is None:
                return None
            records += rows.records
            if number >= _PARTS_TRIED and records < number * _ROWS_OF_A_PART:
                column.table.info[_SPARSE] = True
                return None
            added(digest, rows)
    except sa.exc.DBAPIError as error:
        if "BLOB" in str(error.orig) or getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_TOOBIG:
            return None
        raise
    return made(records, digest)


def numbered_fingerprints(
    cx: sa.Connection, tables: Sequence[tuple[StampColumns, int | None]]
) -> Sequence[Fingerprint | None]:
    """The fingerprints of whole tables that may be small, in one statement, or up to three where guesses are wrong. The
    tables as for `numbered_fingerprint`, and how many rows each may have. None of one that has to be asked for itself.
    """
    fingerprints: list[Fingerprint | None] = [None] * len(tables)
    columns = [(stamps.key[0], stamps.version[0]) for stamps, _ in tables]
    keys = [min(at_most or KEYS_AT_ONCE, KEYS_AT_ONCE) for _, at_most in tables]
    left = [*range(len(tables))]
    for _ in range(_TRIES):
        guesses = {i: _Guess.of(columns[i][0], keys[i]) for i in left}
        left = []
        for i, *row in _rows_of_each(cx, columns, guesses):
            rows, may_differ = guesses[i].checked(columns[i][0].table.info, *row)
            left += [i] if may_differ else []
            if rows is not None:
                fingerprints[i] = made(rows.records, added(blake2b(digest_size=16), rows))
        if not left:
            break
    return fingerprints


def _rows_of_each(
    cx: sa.Connection, columns: Sequence[tuple[sa.Column[Any], sa.Column[Any]]], guesses: Mapping[int, _Guess]
) -> list[Any]:
    """The row of each table's statement, behind the place of the table: nothing promises that they come in an order.
    `columns`: the key and the version of each."""
    texts = {i: guess.spelled(*columns[i]) for i, guess in guesses.items()}
    cursor: Any = cx.exec_driver_sql(
        numbered_union(texts), tuple(bound for guess in guesses.values() for bound in guess[:2])
    ).cursor
    rows: list[Any] = cursor.fetchall()
    return rows


class _Guess(NamedTuple):
    """What is asked of a whole table that may be small: its numbers begin here and end before there, with gaps or
    without. What is remembered decides what is asked, not what comes out."""

    begins: int
    ends: int
    has_gaps: bool

    @classmethod
    def of(cls, key: sa.Column[Any], keys: int) -> _Guess:
        """The table begins where it began the last time, or at 1 the first time, and spans fewer numbers than these."""
        info = key.table.info
        begins = info.get(_FIRST, 1)
        return cls(begins, min(begins + keys, _GREATEST), info.get(GAPS, False))

    def spelled(self, key: sa.Column[Any], version: sa.Column[Any]) -> str:
        """The statement. Its parameters are the two bounds."""
        return _guessing(key, version, self.has_gaps)

    def checked(self, info: dict[Any, Any], first: int | None, last: int, text: Any) -> tuple[VersionList | None, bool]:
        """The list of the table, if the row of the statement shows that the guess was right; and whether another guess
        may be: `info` has what is known now."""
        if first is None:
            return VersionList(None, None, 0, b""), False
        if not are_numbers(first, last):
            return None, False
        if first != self.begins:
            info[_FIRST] = first
            return None, True
        if last >= self.ends:
            return None, False
        text = in_utf_8(text)
        records = (number_of_pairs if self.has_gaps else number_of_values)(text)
        if records is None:
            return None, False
        rows = VersionList(first, last, records, text)
        info[GAPS] = rows.has_gaps
        return (rows, False) if rows.has_gaps == self.has_gaps else (None, True)


def _small(cx: sa.Connection, key: sa.Column[Any], version: sa.Column[Any], keys: int) -> VersionList | None:
    """The list of a whole table, in one statement if the first guess is right. None if it has more numbers than these,
    or other versions than integers."""
    for _ in range(_TRIES):  # the rows may change between two statements
        guess = _Guess.of(key, keys)
        [row] = asked_plainly(cx, guess.spelled(key, version), guess[:2])
        rows, may_differ = guess.checked(key.table.info, *row)
        if not may_differ:
            return rows
    return None


def _parts(
    cx: sa.Connection, key: sa.Column[Any], conditions: Sequence[_Condition], at_most: int | None, *, in_parts: bool
) -> Iterator[Sequence[_Condition] | None]:
    """The conditions of each part; None if the rows may be too many. Their ends follow from the numbers, so that both
    sides have the same parts if they have the same rows."""
    if at_most is None:
        yield conditions
        return
    first, last = _row(cx, _ends, key, None, conditions)
    is_numbered = first is None or are_numbers(first, last)
    if is_numbered and (first is None or last - first < min(at_most, KEYS_AT_ONCE)):
        yield conditions
        return
    if not (in_parts and is_numbered):
        yield None
        return
    while are_numbers(first, last) and last - first >= KEYS_AT_ONCE:
        end = sa.literal(first + KEYS_AT_ONCE, key.type)
        yield [*conditions, lt(key, end)]
        # In place of the lower bound before: of two, SQLite would seek by one and read on to the other.
        conditions = [*(c for c in conditions if getattr(c, "operator", None) not in (gt, ge)), ge(key, end)]
        first, last = _row(cx, _ends, key, None, conditions)
    if first is not None:  # without an upper bound, which SQLite would compare with each number
        yield conditions


def _list(
    cx: sa.Connection, key: sa.Column[Any], version: sa.Column[Any], conditions: Sequence[_Condition]
) -> VersionList | None:
    """The list of the versions where the numbers have no gaps, else that of numbers and versions; None if a version is
    no integer. Which one it is depends on the rows alone. What was right for the last part is tried first."""
    info = key.table.info
    for _ in range(_TRIES):  # the rows may change between two statements
        has_gaps = info.get(GAPS, False)
        first, last, text = _row(cx, _numbers_and_versions if has_gaps else _versions, key, version, conditions)
        text = in_utf_8(text)
        records = (number_of_pairs if has_gaps else number_of_values)(text)
        if records is None or (records and not are_numbers(first, last)):
            return None
        rows = VersionList(first, last, records, text)
        if rows.has_gaps == has_gaps or not records:
            return rows
        info[GAPS] = rows.has_gaps
    return None


def _row(
    cx: sa.Connection, query: Any, key: sa.Column[Any], version: sa.Column[Any] | None, conditions: Sequence[_Condition]
) -> Any:
    """The only row of the query, as the driver reads it."""
    if conditions:
        cursor: Any = cx.execute(query(key, version, conditions)).cursor  # the driver's own cursor converts nothing
    else:
        text, values = _spelled(cx.dialect, query, key, version)
        return asked_plainly(cx, text, values)[0]
    [row] = cursor.fetchall()
    return row


@lru_cache(maxsize=3 * TABLES_KEPT)
def _spelled(dialect: sa.Dialect, query: Any, key: Any, version: Any) -> tuple[str, tuple[Any, ...]]:
    """The statement about a whole table. It is made once for a table that stays as it is."""
    return spelled_once(query(key, version, ()), dialect)


def _ends(key: sa.Column[Any], _version: object, conditions: Sequence[_Condition]) -> sa.Select[Any]:
    """Selects the first and the last number. Asked for alone, SQLite finds each at an end of the table."""
    ends = (sa.select(end(key)).where(*conditions) for end in (sa.func.min, sa.func.max))
    return sa.select(*(end.scalar_subquery() for end in ends))


def _versions(key: sa.Column[Any], version: sa.Column[Any], conditions: Sequence[_Condition]) -> sa.Select[Any]:
    return _of_table(key, sa.func.json_group_array(version), conditions)


@lru_cache(maxsize=2 * TABLES_KEPT)
def _guessing(key: sa.Column[Any], version: sa.Column[Any], has_gaps: bool) -> str:
    """The statement that selects both ends of the whole table, and the list of all values if the first number is its
    first parameter and the last is below the second. SQLite compares the ends alone, which takes a seventh less than to
    compare each number.

    It is text, because SQLAlchemy takes 2 ms to spell it for a table that is new to the process.
    """
    number, value = (f"t.{spelled_column(_SPELLING, key.table, column.name)}" for column in (key, version))
    rows = f"FROM {spelled_table(_SPELLING, key.table)} AS t"
    ends = f"(SELECT min({number}) {rows}) AS lowest, (SELECT max({number}) {rows}) AS highest"
    listed = f"json_group_object({number}, {value})" if has_gaps else f"json_group_array({value})"
    listed = f"CASE WHEN lowest = ? AND highest < ? THEN (SELECT CAST({listed} AS BLOB) {rows} NOT INDEXED) END"
    ends = f"FROM (SELECT {ends} LIMIT 1 OFFSET 0)"  # with a limit it asks for each end once
    return f"SELECT lowest, highest, {listed} {ends}"


def _numbers_and_versions(
    key: sa.Column[Any], version: sa.Column[Any], conditions: Sequence[_Condition]
) -> sa.Select[Any]:
    return _of_table(key, sa.func.json_group_object(key, version), conditions)


def _of_table(key: sa.Column[Any], values: Any, conditions: Sequence[_Condition]) -> sa.Select[Any]:
    """Selects the first and the last number and the list of values in the order of the numbers: no index may be used,
    which would have another order, so SQLite passes through the table itself."""
    query = _ends(key, None, conditions).add_columns(sa.cast(values, _BLOB)).where(*conditions)
    return query.select_from(key.table).with_hint(key.table, "NOT INDEXED")
