"""What a dialect answers, and the column type that carries every value untouched."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.types import UserDefinedType

from backup.errors import BackupError, ConfigError
from backup.models import Fingerprint
from backup.stores.dialects.tables import Found

CONNECTIONS = 6
"""How many a dialect opens at most, unless it is told otherwise."""

LOCK_SECONDS = 60
"""For how long a statement waits for somebody else's lock, on servers that would else wait without an end."""

CALL_SECONDS = 600.0
"""After how long a call ends, unless a dialect is told otherwise."""

OTHER_BYTES = 64
"""About as much memory as a value that is neither text nor bytes takes."""

LARGE = "large"
"""What a connection's info says of one through which more went than a batch shall have."""

Relation = Literal["same", "wider", "other"]


class ServerType(UserDefinedType[Any]):
    """A column type known by the server's own name for it. Values pass as the driver gives them, with no conversion.

    `declared` is the text for CREATE TABLE, taken from the server's catalogue (never from a request).
    """

    cache_ok = True

    def __init__(self, declared: str) -> None:
        self.declared = declared

    def get_col_spec(self, **_: Any) -> str:
        return self.declared

    kinds: tuple[type, ...] = (object,)
    """What the driver makes of the column's values."""

    def may_hold(self, value: Any) -> bool:
        """Whether the value is such as columns of this type have, though perhaps not this one."""
        return isinstance(value, self.kinds)

    def has_one_of(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
        """The condition for rows whose column of this type has one of the values."""
        return column.in_(values)


@dataclass(frozen=True)
class Column:
    """A column as the server's catalogue describes it.

    `type.declared` is how a backup declares it, which for a column that cannot be written (rowversion) is the plain
    type of the same values. `key_position` counts the primary key's columns from 1. `collation` is the one in force,
    set for text. Identity and computed columns refuse ordinary writes in this table. A `defaulted` one fills itself.
    Values of a column that is not `sortable` have an order of their own, so it cannot be in a key.
    """

    name: str
    type: ServerType
    nullable: bool
    key_position: int | None = None
    collation: str | None = None
    identity: bool = False
    computed: bool = False
    defaulted: bool = False
    sortable: bool = True


def type_parts(declared: str) -> tuple[str, tuple[float, ...], str]:
    """`varchar(10) COLLATE x` → ("varchar", (10,), "x"); the size max is infinite, no collation is ""."""
    spelled, _, collation = re.sub(r"\s+collate\s+", "\n", declared.strip(), flags=re.I).partition("\n")
    plain = spelled.lower()
    match = re.fullmatch(r"([^(]*)\(([\d\s,]+|max)\)(.*)", plain)
    if match is None:
        return plain, (), collation
    sizes = tuple(float("inf") if part.strip() == "max" else float(part) for part in match[2].split(","))
    return match[1].strip() + match[3], sizes, collation


def digits(sizes: tuple[float, ...]) -> tuple[float, float]:
    """Digits before and behind the point of decimal(p, s); without sizes there is no limit."""
    if not sizes:
        return float("inf"), float("inf")
    precision, scale = (*sizes, 0.0)[:2]
    return precision - scale, scale


def spelled_table(dialect: sa.Dialect, table: sa.Table) -> str:
    """The table's name for a statement, quoted."""
    return dialect.identifier_preparer.format_table(_always_quoted(table))


def spelled_column(
    dialect: sa.Dialect, table: sa.Table, name: str, type_: ServerType | None = None, *, nullable: bool | None = True
) -> str:
    """The column's name for a statement, quoted; with a type, all that CREATE TABLE says of such a column. Where
    `nullable` is None, that does not say whether it may be NULL."""
    if type_ is None:
        return dialect.identifier_preparer.quote_identifier(name)
    column = sa.Column(quoted_name(name, quote=True), type_, nullable=nullable, autoincrement=False)
    _always_quoted(table, column)
    return str(sa.schema.CreateColumn(column).compile(dialect=dialect))


def _always_quoted(table: sa.Table, *columns: sa.Column[Any]) -> sa.Table:
    schema = quoted_name(table.schema, quote=True) if table.schema else None
    return sa.Table(quoted_name(table.name, quote=True), sa.MetaData(), *columns, schema=schema)


def send(cx: sa.Connection, text: str, rows: Sequence[tuple[Any, ...]], **options: Any) -> None:
    """Executes a statement of the driver's own words once for each of the rows."""
    cx.exec_driver_sql(text, rows, execution_options=options)


class Prepared(NamedTuple):
    """An insert or update as the driver takes it: its text, which values of a row are its parameters, and their types.

    A row has a value for each of `names`, the table's columns. The driver gets tuples, many at once: a dict for each
    row, as SQLAlchemy wants it, costs more than the server does.
    """

    table: sa.Table
    names: tuple[str, ...]
    text: str
    values: tuple[int, ...]
    types: tuple[sa.types.TypeEngine[Any], ...]

    @classmethod
    def of(
        cls, statement: sa.Insert | sa.Update, names: tuple[str, ...], places: Mapping[str, int], dialect: sa.Dialect
    ) -> Prepared:
        """The statement for rows of these columns; `places` says where in a row each of its parameters is."""
        compiled: Any = statement.compile(dialect=dialect)
        found = compiled.positiontup
        types = tuple(compiled.binds[name].type for name in found)
        return cls(compiled.statement.table, names, str(compiled), tuple(places[name] for name in found), types)

    def run(self, cx: sa.Connection, rows: Sequence[tuple[Any, ...]], **options: Any) -> None:
        """Executes it once for each of the rows, of which there is at least one."""
        whole = self.values == tuple(range(len(rows[0])))
        send(cx, self.text, rows if whole else values_at(self.values, rows), types=self.types, **options)


def driver_rows(table: sa.Table, rows: Sequence[Mapping[str, Any]], dialect: sa.Dialect) -> list[tuple[Any, ...]]:
    """Rows of one of the app's own tables as the driver takes them."""
    found = values_at([column.name for column in table.columns], rows)
    processes = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in table.columns]
    values = zip(*found, strict=True)
    return list(zip(*(_each(process, column) for process, column in zip(processes, values, strict=True)), strict=True))


def _each(process: Callable[[Any], Any] | None, values: Sequence[Any]) -> Iterable[Any]:
    if process is None:
        return values
    done: list[Any] = []
    last: Any = done
    for value in values:  # many rows have the very same time
        done.append(done[-1] if value is last else process(value))
        last = value
    return done


def values_at(places: Sequence[Any], rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """What stands at these places, or under these names, of each row."""
    taken = map(itemgetter(*places), rows)
    return list(taken if len(places) > 1 else zip(taken))


def lengths(column: Sequence[Any]) -> list[int] | None:
    """The lengths of a column's texts and bytes, with `OTHER_BYTES` for any other value; None where it has none."""
    kinds = set(map(type, column))
    if kinds.isdisjoint((str, bytes)):
        return None
    if kinds <= {str, bytes}:
        return list(map(len, column))
    return [len(value) if isinstance(value, str | bytes) else OTHER_BYTES for value in column]


class StampColumns(NamedTuple):
    """What a table's stamps are made of. `content` is a hash of the whole row, which stands for the version of a row
    whose first version field is NULL, and of every row where there is no such field; None if no row is like that."""

    key: Sequence[sa.Column[Any]]
    version: Sequence[sa.Column[Any]]
    content: sa.ColumnElement[Any] | None


@dataclass(frozen=True)
class Failure:
    """What a driver's error means, in words that are safe to show."""

    kind: str = field(
        metadata={
            "one of": "transient, unanswered, database_missing, missing, unavailable, undecoded, constraint, unique, "
            "refused"
        }
    )
    text: str
    hint: str | None = None
    name: str | None = None
    """Of what is missing, if the server says so: with its schema or without."""


class Dialect(Protocol):
    """One SQL server product and the database a connection string names on it."""

    kind: str
    product: str
    default_schema: str | None
    max_parameters: int
    max_columns: int
    """How many a table may have."""

    in_process: bool
    """Whether the server is a library in this process: a fingerprint then holds its chunk's stamps in its memory."""

    references: sa.TextClause
    """Selects, by :table and :schema, the foreign keys that point to a table: name, schema, table and ON DELETE of each
    and, a row each in their order, its columns and those that they refer to (NULL: the primary key's)."""

    delete_triggers: sa.TextClause
    """Selects, by :table and :schema, the names of the triggers that a delete in a table fires."""

    row_count: sa.ColumnElement[int]
    """Selects how many rows there are, whatever their number."""

    can_be_cut: bool
    """Whether `cut` is known. Else a thread that waits for an answer has to be left behind."""

    @property
    def location(self) -> str:
        """Server and database, for messages and to tell whether two sides are the same. Without secrets."""

    @property
    def engine(self) -> sa.Engine:
        """The pool; connects when first used. SQLite: the file must exist."""

    def is_same_database(self, one: sa.Connection, other: sa.Connection) -> bool:
        """Whether two connections, each in a transaction, lead to one database, by what the servers say of
        themselves. Leaves no trace."""

    @property
    def server_clock(self) -> sa.ColumnElement[datetime] | None:
        """Selects the server's present time in UTC, with or without its zone; None where the server is a library in
        this process."""

    def ensure_database(self, like: Dialect | None = None) -> None:
        """Creates the database when it is missing; someone else may be creating it just now. A file may be read by
        nobody who may not read the one that `like` leads to."""

    def find(self, cx: sa.Connection, schema: str | None, table: str) -> Found | None:
        """The table that statements of this login mean by the name; without a schema, the first it is looked for in."""

    def home(self, cx: sa.Connection) -> str | None:
        """The schema in which this login makes a table whose name has none; None where there are no schemas."""

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        """The table's columns in order; empty when there is no such table."""

    def fitted(self, cx: sa.Connection, columns: Sequence[Column], key_names: Sequence[str]) -> list[Column]:
        """The columns of another database, declared so that this one compares and sorts them as that one does."""

    def has_schema(self, cx: sa.Connection, schema: str) -> bool:
        """Whether there is a schema that the server knows by this name."""

    def failure(self, error: Exception) -> Failure:
        """What an error raised by the driver means."""

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection in a transaction that only reads: where the server offers that, of one moment, and without a
        lock that a writer waits for."""

    def writing(self) -> AbstractContextManager[sa.Connection]:
        """A connection in a transaction that is going to write, committed at the end."""

    def cut(self, cx: sa.Connection) -> Callable[[], None] | None:
        """What ends the call that waits on this connection, from this side and from any thread."""

    def locked(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """The query, with its rows locked until the transaction ends, so that nobody else changes them meanwhile."""

    def lock(self, cx: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]) -> None:
        """Locks these rows of the column's table, which anybody may write, on a server where `locked` does not."""

    def advance_counters(self, cx: sa.Connection, table: sa.Table, identity: Collection[str]) -> list[str]:
        """Makes the server number new rows past the largest key, where it numbers them; says what it has set."""

    def is_one_file(self, other: Dialect) -> bool:
        """Whether both are one file, which has one writer at a time."""

    def read_halves(self) -> bool:
        """Has texts that are none to a decoder read from now on, as those with half a surrogate pair, which is slower;
        returns whether the dialect can. For work that a UnicodeDecodeError has ended, or a failure `undecoded`."""

    def insert_rows(
        self, cx: sa.Connection, insert: Prepared, rows: Sequence[tuple[Any, ...]], *, identity: bool, first: bool
    ) -> None:
        """Inserts the rows in the fastest way that is exact, with the values they have for columns of `identity`.

        `first`: the transaction has written nothing yet.
        """

    def update_rows(self, cx: sa.Connection, update: Prepared, rows: Sequence[tuple[Any, ...]], *, first: bool) -> None:
        """Gives the rows that have their keys these values."""

    def add_rows(self, cx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts those rows of one of the app's own tables whose primary key is not there yet. Fast for many."""

    def beside(self, name: str) -> Dialect:
        """The database of this name on the same server, with the same login."""

    def drop_database(self) -> None:
        """Drops the database, with all in it; one that is gone already is no error."""

    def content_hash(self, columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
        """A hash, made by the server, of the columns' exact values, NULL among them. Columns of the same types with the
        same values give the same on every server of this product."""

    def bucket(self, key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any] | None:
        """A small number made by the server of a key's exact value; None where that would cost too much. Its type is a
        ServerType."""

    def bytes_of(self, column: sa.Column[Any]) -> sa.ColumnElement[Any] | None:
        """The bytes of a text that may be none; None where texts are carried whatever they hold."""

    def fingerprints(
        self,
        cx: sa.Connection,
        stamps: StampColumns,
        conditions: Sequence[sa.ColumnElement[bool]],
        bucket: sa.ColumnElement[Any] | None = None,
    ) -> Mapping[Any, Fingerprint] | None:
        """The fingerprints of the stamps of the rows that fulfil the conditions, by bucket; without `bucket` a single
        one, of None. None where they cannot be made.

        Whether a column may be NULL does not matter to that of rows in which it is not.
        """

    def largest(
        self, cx: sa.Connection, table: sa.Table, query: sa.Select[Any], values: Mapping[str, Any] | None = None
    ) -> int | None:
        """About how many bytes the largest row of a query of the table has, so that no more are fetched at once than
        fit; None where a driver takes rows one by one at no cost."""

    def relation(self, source: Column, copy: Column) -> Relation:
        """How the type of a source's column stands to that of its copy, collations aside.

        `wider`: whatever the copy may hold fits the source's type too and reads back the same. `same`: the copy needs
        no statement to hold whatever the source may.
        """

    def can_alter(self, table: sa.Table, column: Column) -> bool:
        """Whether `alter` is one statement after another that the server runs with the table's rows in place."""

    def add(self, table: sa.Table, column: Column) -> str:
        """The statement that adds a plain, nullable column of this name and type."""

    def alter(self, table: sa.Table, old: Column, new: Column) -> list[str]:
        """What gives the old column, whose name stays, the type of the new one and lets NULL in if that has it."""


_NAMED = re.compile(r"""no such table: (.+?)\.?$|["']([^"']+)["']""")


def named(text: str) -> str | None:
    """The first name in a server's message: of `relation "public.Things" does not exist`, `no such table: Things`."""
    found = _NAMED.search(text)
    return found and (found[1] or found[2])


_QUOTED_DATA = re.compile(
    r"Truncated value:|The duplicate key value is|DETAIL:|\bwith text '|(?<=\bvalue) [N]?'|(?<=\bvalue) \"|(?<=: )\"",
    re.I,
)


def driver_text(error: BaseException) -> str:
    """The driver's message without the values it may quote: first line only, cut before quoted data."""
    text = str(error.args[-1] if error.args else error).strip()
    text = text.splitlines()[0] if text else type(error).__name__
    return _QUOTED_DATA.split(text)[0].strip().rstrip(".,(:") + "."


def missing_driver(name: str, hint: str) -> BackupError:
    """The error for a driver that is not installed."""
    return ConfigError(f"The driver {name} cannot be loaded.", hint=hint)
