"""Values that stores are given and give: rules, limits, drift, what was written. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from backup.core.model import Key
from backup.core.retry import Retry

OnNewColumn = Literal["add", "fail", "ignore"]

_CHUNK_CALL_SECONDS, _CHUNK_CALL_FACTOR = 120.0, 60


@dataclass(frozen=True)
class Place:
    """Where a store is, by what its settings say; no server was asked.

    `kind` is `mssql`, `postgresql`, `sqlite` or `cosmos`; `name` the table's or container's own name. `label` says
    where it is, for messages: side, kind, server, database, table; without secrets. `location` is the same without the
    side: equal for two stores of one table whose settings spell it alike.
    """

    kind: str
    name: str
    label: str
    location: str


@dataclass(frozen=True)
class Traits:
    """What a store is like, as far as that changes how it is used.

    `keys_are_exact`: no two spellings (a and A) are one key to its server. `in_process`: the database is a library in
    this process, so that threads that read and write in it wait for each other and not for a server. `has_columns`: a
    record may say less than the store holds of it. `fingerprint_is_enough`: equal fingerprints mean equal stamps by
    themselves; else only once what is recent was compared. `batch_size` is how many records to give it at once: a run
    asks for its lock only in between, so they must not take long.
    """

    keys_are_exact: bool
    in_process: bool
    has_columns: bool
    fingerprint_is_enough: bool
    batch_size: int


@dataclass(frozen=True)
class Rules:
    """How a service's records are told apart and told changed.

    `version`: field names, the first of which every record should carry; without any, SQL compares by content and
    Cosmos DB by etag. `where`: only records with these values belong to the service (on SQL as far as the table has
    such a column). SQL matches names whatever their case. `required` are those names that a source on SQL must have as
    columns, each with the setting that says so.
    """

    version: tuple[str, ...] = ()
    where: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    required: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """How much is held at once: stamps of a chunk, rows and bytes of a batch, chunks that are worked on. And how much a
    Cosmos DB account is asked for in a second, if there is a limit; for how long a SQL server is kept busy by one
    statement that reads a chunk, and after how long any call is cut.

    A batch of 2,000 rows takes less than the 5,000 locks for which SQL Server would lock the whole table, even if each
    row has a page of its own.
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
        """After how long a call about a chunk is cut, if not before as any other: it may meet a cold cache, or wait for
        somebody's lock."""
        return max(_CHUNK_CALL_SECONDS, _CHUNK_CALL_FACTOR * self.max_statement_seconds)


@dataclass(frozen=True)
class Written:
    """What became of the records of a batch, by the keys that the call named: `left` are those that are there and were
    left alone, for `Accept` said so."""

    inserted: frozenset[Key] = frozenset()
    updated: frozenset[Key] = frozenset()
    deleted: frozenset[Key] = frozenset()
    left: frozenset[Key] = frozenset()

    def __add__(self, other: Written) -> Written:
        """Both together."""
        return Written(
            self.inserted | other.inserted,
            self.updated | other.updated,
            self.deleted | other.deleted,
            self.left | other.left,
        )


@dataclass(frozen=True)
class Drift:
    """How a backup's columns must follow its source's. Names are in the order of the catalogue.

    `added` and `widened` are done by `statements`, the DDL to run on the backup, in order: one for each added column,
    then the others. `removed`: only the backup still has them. `ignored`: only the source has them, and copies go
    without. `shared`: those that both have once the statements have run. `unversioned`: the service has a version, and
    the source no column for it.
    """

    added: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    shared: frozenset[str] = field(default=frozenset(), compare=False)
    unversioned: bool = field(default=False, compare=False)

    @property
    def changes_nothing(self) -> bool:
        """Whether there is no statement to run."""
        return not self.statements
