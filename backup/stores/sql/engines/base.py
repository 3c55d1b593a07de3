"""The protocol `Dialect`: everything that differs between SQL servers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

import sqlalchemy as sa

from backup.core.key_ranges import EqualRanges
from backup.core.model import Fingerprint
from backup.core.transforms import Stamping
from backup.stores.listing import Listed, PassedOver
from backup.stores.sql.engines.column import Column, Relation, ServerType
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.failures import Failure
from backup.stores.sql.engines.images_to_make import ImagesToMake
from backup.stores.sql.engines.images_to_stage import ImageRows, ImagesToStage, StagedImages
from backup.stores.sql.engines.prepared import Prepared
from backup.stores.sql.engines.relayed import Relayed, RelayedRows, StagedRows
from backup.stores.sql.engines.snapshot import Snapshot
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.engines.utc_time import UtcTime


class StampColumns(NamedTuple):
    """The columns and the hash that make a table's stamps.

    `content` is a hash of the whole row. It is the version of a row whose first version field is NULL, and of every row
    of a table without version fields. None if no row needs it. `is_numbered`: the key is the row's number in this table
    and in that of the other side.
    """

    key: Sequence[sa.Column[Any]]
    version: Sequence[sa.Column[Any]]
    content: sa.ColumnElement[Any] | None
    is_numbered: bool = False


class PlannedWrite(NamedTuple):
    """A statement that changes no row, and needs the same rights as the writes of a run."""

    right: Literal["INSERT", "UPDATE", "DELETE"]
    text: str
    column: str | None = None
    """The column that an update writes."""


class ServerBlocks(Protocol):
    """How a server is asked for blocks of a key that is one integer: it seeks each of them in the key's index."""

    def fingerprints(
        self, cx: sa.Connection, stamps: StampColumns, conditions: Sequence[sa.ColumnElement[bool]], blocks: EqualRanges
    ) -> Mapping[int, Fingerprint] | None:
        """As `Dialect.fingerprints`, of those blocks that have rows, by their names."""

    def contain(self, key: sa.Column[Any], starts: Sequence[int], width: int) -> sa.ColumnElement[bool]:
        """The condition that the key lies in one of these blocks."""


class Dialect(Protocol):
    """One SQL server product, and the database on it that a connection string names."""

    kind: str
    product: str
    default_schema: str | None
    max_parameters: int
    max_columns: int
    """How many columns a table may have."""

    folds_names: bool
    """Whether columns of one table cannot have names that differ only in the case of their letters."""

    in_process: bool
    """Whether the server is a library in this process: its fingerprints then need memory here for a chunk's stamps."""

    opens_quickly: bool
    """Whether to open a further connection takes milliseconds, and what it asks runs beside the others."""

    relays_outside: bool
    """Whether `relay` and `stage` read the source by a connection of the copy's own, so outside a snapshot of it."""

    chooses_images: bool
    """Whether `stage_images` reads no image that its conditions exclude, so that such a one may be no JSON."""

    blocks: ServerBlocks | None
    """How it is asked for blocks of keys; None where it would not be quick."""

    references: sa.TextClause
    """Selects, by :table and :schema, the foreign keys that refer to a table: a row for each column, in order.

    A row has the key's name, schema, table and ON DELETE, the column, and what it refers to (NULL: the primary key's).
    Where that table may be a partition, also schema and name of the whole table.
    """

    delete_triggers: sa.TextClause
    """Selects, by :table and :schema, the names of the triggers that a delete from a table fires."""

    write_triggers: sa.TextClause
    """Selects the triggers that an insert or update fires: schema (empty where there are none), table, name."""

    kin: sa.TextClause | None
    """Selects a row if one of two tables of a database is a partition of the other, or inherits from it: such tables
    have rows or columns in common. By :table and :schema, :other_table and :other_schema. None where there are none."""

    row_count: sa.ColumnElement[int]
    """Counts rows; never overflows."""

    utc_time: UtcTime
    """The type of a time in the app's own tables."""

    @property
    def no_stamp(self) -> sa.ColumnElement[Any]:
        """What stands for a `keyed_hash` that a row does not have."""

    @property
    def stamp_type(self) -> ServerType:
        """The type of the column that keeps a `keyed_hash`; known once the server has described a table."""

    @property
    def location(self) -> str:
        """Server and database, for messages and to compare two sides. Without secrets."""

    @property
    def engine(self) -> sa.Engine:
        """The engine over the pool of connections; connects at its first use. SQLite: the file must exist."""

    def close(self) -> None:
        """Gives the pool back. The next use leases it again."""

    def forget_file(self) -> None:
        """Lets a file of SQLite be another one from now on. Until then, one that replaces the first that was used ends
        all that uses it."""

    def is_same_database(self, here: sa.Connection, there: sa.Connection) -> bool:
        """Whether two connections, each in a transaction, lead to the same database, by what their servers say.
        Leaves no trace."""

    @property
    def server_clock(self) -> sa.ColumnElement[datetime] | None:
        """Selects the server's current time, as aware UTC; None where the server is a library in this process."""

    def ensure_database(self, like: Dialect | None = None) -> None:
        """Creates the database if it does not exist; safe if others create it at the same time. A new file gets the
        permissions of the file of `like`: so nobody may read the copy who may not read the original."""

    def unseen_hint(self, schema: str | None, table: str) -> str:
        """A further hint for a missing table, where the server hides tables from a login; else an empty text."""

    def find(self, cx: sa.Connection, schema: str | None, table: str) -> TableName | None:
        """The table or view that this login's statements mean by the name; None if there is none. Without a schema, the
        server's rules choose one."""

    def list_tables(self, cx: sa.Connection) -> Sequence[Listed]:
        """The tables and views of the database, with their columns and keys, in a handful of statements for all."""

    def list_left_out(self, cx: sa.Connection) -> Sequence[PassedOver]:
        """What `list_tables` leaves out of what people may take for tables, in a handful of statements."""

    def describe(self, cx: sa.Connection, schema: str | None, table: str) -> Described | None:
        """What the catalogue says of the table that `find` returns, in as few statements as the server allows."""

    def describe_all(self, cx: sa.Connection, names: Sequence[TableName]) -> Sequence[Described | None]:
        """What `describe` says of each of these tables, in a handful of statements for all where the server allows
        that. None also for a table that has to be described for itself."""

    def login_schema(self, cx: sa.Connection) -> str | None:
        """The schema in which this login creates a table without a schema in its name; None where there are none."""

    def columns(self, cx: sa.Connection, schema: str | None, table: str) -> list[Column]:
        """The table's columns in order; empty if there is no such table."""

    def fitted(self, cx: sa.Connection, columns: Sequence[Column], key_names: Sequence[str]) -> list[Column]:
        """Columns of another database, declared so that this database compares and sorts their values as that one."""

    def has_schema(self, cx: sa.Connection, schema: str) -> bool:
        """Whether the database has a schema of this name."""

    def failure(self, error: Exception) -> Failure:
        """What a driver's error means."""

    def refusal(self, cx: sa.Connection, table: sa.Table, write: PlannedWrite) -> Failure | None:
        """Why the server would refuse the write for the table as a whole, as far as it says so without one: no trigger
        fires, and no row is locked. None where it would take it. Raises what the driver raises where it would not."""

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection in a transaction that only reads. Where the server can, it sees one moment and no
        writer waits for its locks."""

    def asking(self) -> AbstractContextManager[sa.Connection]:
        """A connection for a single statement that reads. It needs no transaction where the server can do without."""

    def writing(self) -> AbstractContextManager[sa.Connection]:
        """A connection in a transaction that writes. The end of the block commits it."""

    def writing_over(self, held: Callable[[], sa.Connection]) -> AbstractContextManager[sa.Connection]:
        """As `writing`, over the connection that `held` gives, where that one may write. It reads nothing meanwhile."""

    def leads_there(self, cx: sa.Connection) -> bool:
        """Whether a connection that was opened before still leads to the database: another may have taken its place."""

    def begin_snapshot(self, tables: Sequence[TableName]) -> Snapshot:
        """Begins a snapshot of the database, in which `reading_in` reads these tables as of one moment. Whoever begins
        it closes it, on every way: as long as it is held, the server keeps old rows for it.

        Raises ConfigError, with what to do, for a database that cannot give one; else the driver's errors. Then nothing
        is held.
        """

    def reading_in(self, snapshot: Snapshot) -> AbstractContextManager[sa.Connection]:
        """A connection that reads in the snapshot, which the same server has begun. Raises SnapshotLost."""

    def cut(self, cx: sa.Connection) -> Callable[[], None]:
        """A function that ends the call that waits on this connection. For any thread. It asks the server nothing."""

    def locked(self, query: sa.Select[Any], *, gaps: bool = True) -> sa.Select[Any]:
        """The query, made to lock its rows until the transaction ends. Nobody else can change them until then. With
        `gaps`, nor can anybody insert a key that it did not find, where the server can prevent that."""

    @staticmethod
    def locked_for_share(query: sa.Select[Any]) -> sa.Select[Any]:
        """The query, made to lock its rows until the transaction ends. Others may read them, but not change them."""

    def lock(self, cx: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]) -> None:
        """Locks these rows of the column's table on a server that ignores `locked`; elsewhere does nothing."""

    def advance_counters(self, cx: sa.Connection, table: sa.Table, identity: Collection[str]) -> list[str]:
        """Makes the server number new rows after the largest key, where it numbers rows. Returns what it set."""

    def is_one_file(self, other: Dialect) -> bool:
        """Whether both are the same file, which allows only one writer at a time."""

    def read_any_text(self) -> bool:
        """From now on reads texts that a decoder refuses, such as half a surrogate pair. Slower. Returns whether the
        dialect can. Call it after a UnicodeDecodeError or a failure of kind `undecoded`, then repeat the work."""

    def insert_rows(
        self, cx: sa.Connection, insert: Prepared, rows: Sequence[tuple[Any, ...]], *, identity: bool
    ) -> None:
        """Inserts the rows in the fastest exact way. `identity`: they have values for an identity column."""

    def relay(self, cx: sa.Connection, rows: RelayedRows, source: Dialect) -> Relayed | None:
        """Inserts rows of a table in the database that `source` reaches, and returns their number. None, and nothing
        was done, where this server has no exact way to do so without this process reading them. Raises RightMissing,
        also before anything was done, where this login may not."""

    def stage(self, cx: sa.Connection, rows: RelayedRows, source: Dialect) -> StagedRows | None:
        """As `relay`, but into a temporary table beside the copy's, with columns of the same types."""

    def overlay(self, cx: sa.Connection, rows: RelayedRows, source: Dialect, number: int | None) -> StagedRows | None:
        """As `stage`, but the rows stay in the source, which this transaction reads as of one moment. None, and nothing
        was done, unless one statement can write them over those of the copy exactly. They are counted, unless their
        `number` is known: then the caller has to compare it with what `put` has written."""

    def stage_images(self, cx: sa.Connection, images: ImagesToStage) -> StagedImages | None:
        """As `stage`, of rows that the server makes of the bin's images of them, each with its image. The caller has to
        compare what it writes of them, by `count_equal`. Fails with the server's error where a value does not fit
        its column."""

    def run_waiting(self, cx: sa.Connection) -> None:
        """Runs what waits for the commit of the transaction and may change rows, as constraint triggers do."""

    def count_equal(self, cx: sa.Connection, staged: StagedImages) -> int:
        """How many of the table's rows with the keys of staged ones are now exactly what the images of these say: an
        image that the server would make of the row has the same names and values."""

    def reaches(self, source: Dialect) -> bool:
        """Whether `relay` and `stage` may reach the database of `source`, as far as the settings say. It is one of the
        same product. Asks nobody."""

    def reads_images_of(self, source: Dialect) -> bool:
        """Whether `relay` and `stage` may read `rows_of_images` of a bin in the database that `source` reaches. It is
        one of the same product. Asks nobody."""

    def rows_of_images(
        self, cx: sa.Connection, images: sa.Table, columns: tuple[sa.Column[Any], ...]
    ) -> ImageRows | None:
        """The rows that the server makes of all `images` in a bin, which were those of the table with these columns.
        The connection is one that may read them, here or in another database. None where it has no exact way."""

    def make_images(self, cx: sa.Connection, images: ImagesToMake, condition: sa.ColumnElement[bool]) -> int | None:
        """Has the server add the entries of the bin for the table's rows that fulfil the condition, as they are now,
        except entries whose id exists. Returns how many it has added. None, and nothing was done, where its images
        would not be exact (they must decode to the very values that this process would keep), or a row is large."""

    def update_rows(self, cx: sa.Connection, update: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        """Updates the table's rows with the same keys to these values."""

    def add_rows(self, cx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
        """Inserts rows into one of the app's own tables, except those whose primary key exists. Fast for many. Returns
        how many of them are there for certain, as the server counts them."""

    def is_one_of(self, column: sa.Column[Any], values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition that a column of one of the app's own tables has one of these texts."""

    def insert_entries(self, cx: sa.Connection, table: sa.Table, entries: Sequence[Mapping[str, Any]]) -> None:
        """Inserts rows into one of the app's own tables: few, with the same fields, and many of these."""

    def read_plainly(self, cx: sa.Connection, query: sa.Executable, values: Mapping[str, Any]) -> Any | None:
        """Executes a query with small values by the driver alone, and returns the driver's cursor. None, and nothing
        is done, where SQLAlchemy must do it: always on a server, of whose time it is a small part. Raises the driver's
        error as SQLAlchemy does."""

    def beside(self, name: str) -> Dialect:
        """The database of this name on the same server, with the same login."""

    def drop_database(self) -> None:
        """Drops the database with everything in it; no error if it does not exist."""

    def content_hash(self, columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any]:
        """A hash of the columns' exact values, NULL included, computed by the server. The same values in columns of the
        same types give the same hash on every server of this product."""

    def keyed_hash(self, columns: Sequence[sa.Column[Any]], stamping: Stamping) -> sa.ColumnElement[Any]:
        """A hash of the columns' exact values that nobody can guess without the secret, if there is one, and behind it
        the mark of the rules. A column of `stamp_type` keeps it."""

    def bucket(self, key: Sequence[sa.Column[Any]]) -> sa.ColumnElement[Any] | None:
        """The bucket of a key: a small number that the server computes from the exact value. None where that costs too
        much. Its type is a ServerType."""

    def bytes_of(self, column: sa.Column[Any]) -> sa.ColumnElement[Any] | None:
        """The bytes of a text column whose values may be not valid text; None where any text can be read."""

    def fingerprints(
        self,
        cx: sa.Connection,
        stamps: StampColumns,
        conditions: Sequence[sa.ColumnElement[bool]],
        bucket: sa.ColumnElement[Any] | None = None,
        at_most: int | None = None,
        *,
        in_parts: bool = False,
    ) -> Mapping[Any, Fingerprint] | None:
        """The fingerprints of the rows that fulfil the conditions, by bucket. Without `bucket` one, under None.

        None where the server cannot compute them, and if there are more than `at_most` rows. Then it has read no more
        than one row above that. With `in_parts` more rows are read a part at a time, where `reads_in_parts`.

        Rows without NULL have the same fingerprint whether or not a column may be NULL.
        """

    def small_fingerprints(
        self, cx: sa.Connection, tables: Sequence[StampColumns], at_most: Sequence[int | None]
    ) -> Sequence[Fingerprint | None]:
        """The fingerprints of whole tables, asked together where that costs less than to ask for each. None of those
        that have to be asked for themselves, such as one that may have more rows than its `at_most`; None there: it is
        known to be small."""

    def reads_in_parts(self, stamps: StampColumns) -> bool:
        """Whether a fingerprint of a whole table with these stamps takes memory for a part of it only. True where it
        takes none in this process."""

    def largest_row_bytes(
        self, cx: sa.Connection, table: sa.Table, query: sa.Select[Any], values: Mapping[str, Any] | None = None
    ) -> int | None:
        """About how many bytes the largest row of a query of the table has. It limits the rows fetched at once.
        None where the driver fetches rows one by one at no cost."""

    def relation(self, source: Column, copy: Column) -> Relation:
        """How the type of a source's column compares with the type of its copy. Ignores collations.

        `same`: the copy can hold every value of the source without a change. `wider`: the source's type can hold every
        value of the copy's and gives it back unchanged. `other`: neither.
        """

    def can_alter(self, table: sa.Table, column: Column) -> bool:
        """Whether the server can run the statements of `alter` one by one on the table with its rows in place."""

    def add(self, table: sa.Table, column: Column) -> str:
        """The statement that adds a nullable column of this name and type."""

    def indexes(self, cx: sa.Connection, tables: Sequence[TableName]) -> Sequence[Sequence[Mapping[str, Any]]]:
        """The indexes of each table beside its primary key, and its unique constraints, as SQLAlchemy describes them.
        An expression has None among `column_names`. Costs a few statements for all; on SQL Server for each table."""

    def has_index_by(self, cx: sa.Connection, table: TableName, column: str) -> bool:
        """Whether an index, beside the primary key, has all rows of the table in the order of this column."""

    def rename(self, cx: sa.Connection, table: TableName, new: TableName) -> None:
        """Gives the table another name, and another schema, which exists, if that differs."""

    def alter(self, table: sa.Table, old: Column, new: Column) -> list[str]:
        """The statements that give the `old` column, under its name, the type of the `new` one, and allow NULL if the
        new one does."""
