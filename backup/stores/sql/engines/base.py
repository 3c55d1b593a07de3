"""What a dialect answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from backup.core.model import Fingerprint
from backup.stores.sql.engines.column import Column, Relation
from backup.stores.sql.engines.failures import Failure
from backup.stores.sql.engines.prepared import Prepared
from backup.stores.sql.engines.tables import Found
from backup.stores.sql.engines.utc_time import UtcTime

CONNECTIONS = 6
"""How many a dialect opens at most, unless it is told otherwise."""

LOCK_SECONDS = 60
"""For how long a statement waits for somebody else's lock, on servers that would else wait without an end."""

CALL_SECONDS = 600.0
"""After how long a call ends, unless a dialect is told otherwise."""


class DialectOptions(NamedTuple):
    """How a dialect is opened: as `engines.open_dialect` was told. `setting` is what errors name."""

    setting: str
    default_database: str | None = None
    connections: int = CONNECTIONS
    call_seconds: float = CALL_SECONDS
    left_as_it_is: bool = False


class StampColumns(NamedTuple):
    """What a table's stamps are made of. `content` is a hash of the whole row, which stands for the version of a row
    whose first version field is NULL, and of every row where there is no such field; None if no row is like that."""

    key: Sequence[sa.Column[Any]]
    version: Sequence[sa.Column[Any]]
    content: sa.ColumnElement[Any] | None


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

    utc_time: UtcTime
    """The type of a time in the app's own tables."""

    connects_in_time: bool
    """Whether a new connection comes in time or not at all. Else the thread that makes it can be left behind."""

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

    def unseen_hint(self, schema: str | None, table: str) -> str:
        """What else to do about a table that was not found, where the server hides some from a login; else nothing."""

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

    def cut(self, cx: sa.Connection) -> Callable[[], None]:
        """What ends the call that waits on this connection, from this side and from any thread."""

    def locked(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """The query, with its rows locked until the transaction ends, so that nobody else changes them meanwhile."""

    @staticmethod
    def shared(query: sa.Select[Any]) -> sa.Select[Any]:
        """The query, with its rows locked until the transaction ends: others may read them, but not change them."""

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
        self, cx: sa.Connection, insert: Prepared, rows: Sequence[tuple[Any, ...]], *, identity: bool
    ) -> None:
        """Inserts the rows in the fastest way that is exact, with the values they have for columns of `identity`."""

    def update_rows(self, cx: sa.Connection, update: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
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
