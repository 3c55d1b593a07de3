"""Values that stores take and return: rules, limits, drift, what was written. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from backup.core.conditions import Condition
from backup.core.errors import BackupError
from backup.core.key_ranges import KeyRange
from backup.core.masks import Masking
from backup.core.model import Key, PartitionPaths, Throughput
from backup.core.retry import Retry
from backup.core.transforms import Stamping, Transform, stamping_of

OnNewColumn = Literal["add", "fail", "ignore"]

_CHUNK_CALL_SECONDS, _CHUNK_CALL_FACTOR = 120.0, 60


@dataclass(frozen=True)
class Place:
    """Where a store is, as its settings say. No server was asked.

    `kind` is `mssql`, `postgresql`, `sqlite` or `cosmos`. `name` is the table's or container's own name. `label` is for
    messages: side, kind, server, database, table, without secrets. `location` is the same without the side: equal for
    two stores of the same table if their settings spell it alike.
    """

    kind: str
    name: str
    label: str
    location: str


@dataclass(frozen=True)
class Traits:
    """The qualities of a store that decide how it is used.

    `keys_are_exact`: to its server, two spellings (a and A) are always two keys. `in_process`: the database is a
    library in this process; threads that use it wait for each other, not for a server. `has_columns`: a record may lack
    values that the store has of it. `fingerprint_is_enough`: equal fingerprints alone mean equal stamps; else recent
    changes have to be compared first. `batch_size`: how many records to write at once. A run checks its lock only
    between batches, so a batch must not take long.
    `masks`: the mark of the service's masks; None without masks. `follows_indexes`: a backup that gets the source's
    secondary indexes.
    """

    keys_are_exact: bool
    in_process: bool
    has_columns: bool
    fingerprint_is_enough: bool
    batch_size: int
    masks: str | None = None
    follows_indexes: bool = False


@dataclass(frozen=True)
class SecondaryIndex:
    """An index of a backup's table beside its key: its name there, and its columns in their order."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class IndexPlan:
    """How a backup's indexes differ from its source's.

    - `missing`: those that the backup lacks.
    - `left_out`: the source's indexes that it cannot get, by name, each with the reason.
    - `gone`: the names of those that it has and the source has no more.
    """

    missing: Sequence[SecondaryIndex] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    gone: Sequence[str] = ()


@dataclass(frozen=True)
class Rules:
    """Which records belong to a service, and what tells that a record has changed.

    `version`: field names. Every record should have the first. Without any, SQL compares by content and Cosmos DB by
    etag. `where`: only records that fulfil these conditions belong to the service; on SQL, a column that the table
    lacks does not count. `where_sql`: a further condition, in the language of the source's server. SQL ignores the case
    of names. `required`: names that a source on SQL must have as columns, each with the setting that says so.

    `masking`: the masks of the service; None for a place that is neither its source nor its backup. `is_source`: the
    store is the source. It reads masked values, and writes no masked column. `transform`: how a record that was read,
    and masked, becomes that of the copy; None as for `masking`.

    The rest is for SQL. `key`: the columns that identify a row of a table or view without a primary key; a run checks
    that they do, if `key_may_repeat`. `include` and `exclude`: a source's columns that are copied; all if both are
    empty.

    `of_set`: the service belongs to a set. All records of its backup are its own, so the filter does not apply there:
    a record that leaves the filter is a delete. History and bin are in the server's default schema, for the whole set.
    `keeps_deleted`: copies of records that the source deleted stay in the backup, marked with the time. A marked copy
    is not a record of the service: nothing reads or counts it until the source has the record again.
    `follows_indexes`: the backup gets the source's secondary indexes, as plain ones. `modified_by`: a column of the
    source that writes raise; empty without one. It is a hint, and may be wrong. `throughput`,
    `database_throughput`: of the container and the database that the app makes on Cosmos DB; None for what the account
    gives. `partition_paths`: those of both sides on Cosmos DB, if the copy has another partition key than its source.
    """

    version: tuple[str, ...] = ()
    where: Mapping[str, Condition] = field(default_factory=dict)
    required: Mapping[str, str] = field(default_factory=dict)
    where_sql: str | None = None
    key: tuple[str, ...] = ()
    key_may_repeat: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    of_set: bool = False
    masking: Masking | None = None
    transform: Transform | None = None
    is_source: bool = False
    keeps_deleted: bool = False
    follows_indexes: bool = False
    modified_by: str = ""
    throughput: Throughput | None = None
    database_throughput: Throughput | None = None
    partition_paths: PartitionPaths | None = None

    @property
    def of_backup(self) -> Rules:
        """The rules of the backup's store. Its table may still have columns that are no longer copied."""
        where = {} if self.of_set else self.where
        return replace(self, where=where, where_sql=None, required={}, include=(), exclude=())

    @property
    def stamping(self) -> Stamping:
        """How the copies that masks and transform make are stamped."""
        return stamping_of(self.masking, self.transform)

    @property
    def compared(self) -> frozenset[str]:
        """The names of version and filter, in lower case."""
        return frozenset(name.lower() for name in (*self.version, *self.where))

    def taken(self, columns: Sequence[str]) -> frozenset[str]:
        """Which of a source's columns are copied. A name in a list means the column that is spelled so; if there is
        none, all that differ from it only in case."""

        def named(names: Sequence[str]) -> set[str]:
            exact, others = {*columns}.intersection(names), {name.lower() for name in names if name not in columns}
            return exact.union(column for column in columns if column.lower() in others)

        included = named(self.include) if self.include else {*columns}
        return frozenset(included - named(self.exclude))


@dataclass(frozen=True)
class Limits:
    """How much memory holds at once: stamps of a chunk, rows and bytes of a batch, chunks at work in parallel.

    `max_statement_seconds`: how long a statement that reads a chunk should keep a SQL server busy. `max_call_seconds`:
    after how long any call is cut. `max_request_units_per_second`: what a Cosmos DB account is asked for at most; None
    for no limit.

    A batch of 2,000 rows takes fewer than 5,000 locks, even if each row has a page of its own. With 5,000, SQL Server
    would lock the whole table.
    """

    chunk_size: int = 50_000
    batch_size: int = 2_000
    batch_bytes: int = 8 * 1024 * 1024
    parallelism: int = 4
    max_statement_seconds: float = 2.0
    max_call_seconds: float = 600.0
    retry: Retry = field(default_factory=Retry)
    max_request_units_per_second: float | None = None

    @property
    def chunk_call_seconds(self) -> float:
        """After how many seconds a call about a chunk is cut, unless `max_call_seconds` cuts it earlier. Far more than
        a statement should take: it may meet a cold cache, or wait for another session's lock."""
        return max(_CHUNK_CALL_SECONDS, _CHUNK_CALL_FACTOR * self.max_statement_seconds)


@dataclass(frozen=True)
class Written:
    """What happened to the records of a batch, by the keys of the call. `not_accepted`: records that exist, which
    `Accept` refused, so that they were left alone."""

    inserted: frozenset[Key] = frozenset()
    updated: frozenset[Key] = frozenset()
    deleted: frozenset[Key] = frozenset()
    not_accepted: frozenset[Key] = frozenset()

    def __add__(self, other: Written) -> Written:
        """The keys of both."""
        return Written(
            self.inserted | other.inserted,
            self.updated | other.updated,
            self.deleted | other.deleted,
            self.not_accepted | other.not_accepted,
        )


@dataclass(frozen=True)
class RelayedPart:
    """What servers have written by themselves in one transaction: so many new records, and so many over older copies.

    `skipped`: how many they left as they were, because their copies have the same version. `lower`: how many of the
    updated had a lower version than their copies. `first_lower` has some of them: key, version and the copy's version.
    `left`: of images, the ids of those entries among them that no server can read. This process has to write these.
    """

    inserted: int = 0
    updated: int = 0
    skipped: int = 0
    lower: int = 0
    first_lower: Sequence[tuple[Key, Any, Any]] = ()
    left: Sequence[str] = ()


class NotRelayed(Exception):
    """The servers cannot pass on the records of this `rest` by themselves: of the chunk that they were asked for, of
    the keys, or of the images. `error`: what they said; None if they were not asked, because values have to be changed
    on the way. `part`: the beginning of the rest that they tried and refused, for reasons that may be those of single
    records; None if there is none."""

    def __init__(self, rest: Any, error: BackupError | None = None, part: Any = None) -> None:
        super().__init__()
        self.rest, self.error, self.part = rest, error, part


class RangesNotDeleted(Exception):
    """The server cannot delete the records of these keys with images that it makes itself. `error` as in
    `NotRelayed`."""

    def __init__(self, rest: Sequence[KeyRange], error: BackupError | None = None) -> None:
        super().__init__()
        self.rest, self.error = rest, error


@dataclass(frozen=True)
class LeftOut:
    """Which records a transform does not give a copy: the `keys` of those that do not belong to it, and why the others
    `failed`."""

    keys: frozenset[Key] = frozenset()
    failed: Mapping[Key, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.keys or self.failed)

    def __add__(self, other: LeftOut) -> LeftOut:
        """The records of both."""
        return LeftOut(self.keys | other.keys, {**self.failed, **other.failed})


class Altered(NamedTuple):
    """What has changed of a table since its columns were read.

    - `columns`: the names of those that have another type now; all that copies have if it `is_other_table`.
    - `is_other_table`: another table has its name now.
    """

    columns: tuple[str, ...] = ()
    is_other_table: bool = False


@dataclass(frozen=True)
class Drift:
    """How a backup's columns must follow its source's. Names are in the order of the catalogue.

    `statements` is the DDL to run on the backup, in order: a statement for each of the `added` columns, then those that
    alter columns, among them the `widened` ones. `removed`: columns that only the backup still has. `ignored`: columns
    that only the source has; copies lack them. `shared`: columns that both have once the statements have run.
    `unversioned`: the service has a version, but the source has no column for it. `own`: columns that the app adds for
    itself; their statements stand after those of the `added` columns.
    """

    added: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    shared: frozenset[str] = field(default=frozenset(), compare=False)
    unversioned: bool = field(default=False, compare=False)
    own: tuple[str, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether there is no statement to run."""
        return not self.statements

    @property
    def is_followed(self) -> bool:
        """Whether the backup has the columns that it should have, so that there is nothing to do or to note."""
        return not (self.statements or self.added or self.widened or self.removed or self.ignored)
