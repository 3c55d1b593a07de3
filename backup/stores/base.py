"""What a store is: one side's table or container. The only abstraction, because it has several real implementations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from backup.models import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, Run, StampRow, Stamps
from backup.retry import Retry

FieldType = Literal["name", "place", "text", "json", "integer", "decimal", "time", "flag"]
SideName = Literal["source", "backup"]
OnNewColumn = Literal["add", "fail", "ignore"]


_CHUNK_CALL_SECONDS, _CHUNK_CALL_FACTOR = 120.0, 60


@dataclass(frozen=True)
class Rules:
    """How a service's records are told apart and told changed.

    `version`: field names, the first of which every record should carry. `where`: only records with these values
    belong to the service (on SQL as far as the table has such a column). SQL matches names whatever their case.
    """

    version: tuple[str, ...]
    where: Mapping[str, str] = field(default_factory=dict)


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
class Shape:
    """A table or container of the app's own: a table `name` on SQL, a `container` on Cosmos.

    Fields are named as SQL columns; documents use them in camelCase. `key` is the SQL primary key and, in Cosmos, also
    the document's `id`; `partition` is the Cosmos partition key. `indexes` are the fields of each SQL index; Cosmos
    indexes every property. Where `parts_with` names fields, an entry that is larger than a document may be is kept in
    several there; each of its parts has these fields too, so that whoever looks for keys by them finds it.
    """

    name: str
    container: str
    key: str
    partition: str
    fields: Mapping[str, FieldType]
    indexes: tuple[tuple[str, ...], ...] = ()
    parts_with: tuple[str, ...] = ()


Entry = Mapping[str, Any]
"""One row or document of a sibling, by the field names of its shape; times are aware UTC."""


OneOf = Mapping[str, Sequence[Any]]
"""What an entry must be like: for each of these fields one of the values, of which None may be one."""


class Fence(Protocol):
    """What keeps a run that was taken over from writing."""

    def check_young(self) -> None:
        """Raises LockLost unless the run has lately said that it goes on, so that nobody can have taken it over yet.
        Before each request of a write, where there are no transactions."""

    def check_last(self, transaction: Any, again: bool) -> None:
        """Raises LockLost unless the run's entry is still its own. The last statement of a transaction that writes.

        `transaction` is that of the database in which the entry is, or None for one elsewhere. `again`: an earlier try
        may still be under way on the server; it will not pass here any more.
        """


class Keep(Protocol):
    """What keeps images in the recycle bin."""

    def __call__(self, images: Sequence[Image], transaction: Any, inserted: Sequence[Key] = ()) -> None:
        """Keeps the images, and of the inserted records the keys; each once, however often it is told.

        `transaction` is what makes the change, or None where the store has none.
        """


Accept = Callable[[Image], bool]
"""Asked about each record that is there, while nobody else can change it, whether it may be overwritten or deleted."""


@dataclass(frozen=True)
class Written:
    """What became of the records of a batch, by the keys that the call named: `left` are those that are there and were
    left alone, for `Accept` said so."""

    inserted: frozenset[Key] = frozenset()
    updated: frozenset[Key] = frozenset()
    deleted: frozenset[Key] = frozenset()
    left: frozenset[Key] = frozenset()

    def and_(self, other: Written) -> Written:
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
    without. `shared`: those that both have once the statements have run. `unversioned`: the source has no version
    field.
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


class Sibling(Protocol):
    """A table or container beside a store's, in the same database, for the app's own entries."""

    def create(self) -> None:
        """Makes it, or the fields it lacks, where missing."""

    def put(self, entries: Sequence[Entry]) -> None:
        """Inserts the entries, or replaces those of the same key."""

    def add(self, entries: Sequence[Entry], transaction: Any = None) -> None:
        """Inserts those entries whose key is not there yet; as part of the store's `transaction` if one is given.

        Their texts are plain ASCII.
        """

    def change(
        self, key: str, only_if: OneOf, fields: Entry, transaction: Any = None, seconds: float | None = None
    ) -> bool:
        """Gives the entry of this key these fields, if it is as `only_if` says; returns whether it was.

        One statement, or as if it were. As part of the store's `transaction` if one is given; with `seconds`, it is
        tried no longer than that.
        """

    def holds(self, key: str, only_if: OneOf, transaction: Any = None) -> bool:
        """Whether the entry of this key is as `only_if` says. In the store's `transaction` it stays so until its end,
        where the server has locks for that."""

    def find(
        self,
        where: Mapping[str, Any],
        *,
        order_by: str,
        limit: int,
        descending: bool = False,
        above: Any = None,
        below: Any = None,
        fields: Sequence[str] = (),
        transaction: Any = None,
        max_bytes: int | None = None,
    ) -> list[dict[str, Any]]:
        """Up to `limit` entries with all of `where`, in the order of one field; only `fields` of them if any are named.
        On SQL no more than up to the one with which they have more than `max_bytes`.

        A list in `where` means any of its values. `above` and `below` bound the ordering field, themselves left out.
        It is part of the store's `transaction` if one is given.
        """

    def count(self, where: Mapping[str, Any], by: str, above: Any, below: Any) -> int:
        """How many entries have all of `where`, and between the bounds (themselves left out) the field `by`."""

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes the entries of these keys; those that are gone already are no error."""


class Store(Protocol):
    """One side's table or container.

    Every method that talks to the database raises StoreUnavailable, TransientStoreError (after the retries), StoreError
    or, when the database, table or container is missing, NotInitialized (of a source: SourceMissing). A read that fails
    is never an empty result.
    """

    @property
    def kind(self) -> str:
        """`mssql`, `postgresql`, `sqlite` or `cosmos`."""

    @property
    def name(self) -> str:
        """The table's or container's own name."""

    @property
    def label(self) -> str:
        """Where it is, for messages: kind, server, database, table. Without secrets."""

    @property
    def location(self) -> str:
        """The same place without the side's name: equal for two stores of one table whose settings spell it alike."""

    @property
    def place(self) -> str:
        """Which table (with its schema) or container of its database it is, spelled as the server has it: what an entry
        of history and bin is about. The spelling of the settings where there is none yet."""

    @property
    def keys_are_exact(self) -> bool:
        """Whether no two spellings (a and A) may be one key to the server."""

    @property
    def in_process(self) -> bool:
        """Whether the database is a library in this process, so that threads that read and write in it wait for each
        other and not for a server."""

    @property
    def batch_size(self) -> int:
        """How many records to give it at once: a run asks for its lock only in between, so they must not take long."""

    @property
    def request_charge(self) -> float | None:
        """Request units that all requests have cost since the store was opened; None where there are none."""

    def ping(self) -> None:
        """Returns if the database answers; one try, no retries."""

    def server_time(self) -> datetime | None:
        """The present time by the server's own clock; None where the database is a library in this process."""

    def is_same_place(self, other: Store) -> bool:
        """Whether this and another store of its kind are one table or container, by what their servers say of
        themselves, whatever the settings call them. Leaves no trace in either; one try, no retries."""

    def copies_beside(self) -> Sequence[str]:
        """The places of other tables (of its schema) or containers (of its database) that look as if they held a
        backup's copies; the app's own may be among them. Cost: the catalogue of the schema, or a query a container."""

    def initialize(self, source: Store) -> None:
        """Makes database, schema and table (or container) in the source's shape where missing. Safe to repeat.

        What is there is not altered: a column that is new gets its values by the run that adds it. Raises
        SchemaMismatch like `drift`.
        """

    def drift(self, source: Store, on_new_column: OnNewColumn) -> Drift:
        """How this backup's schema must follow its source's. Reads only.

        From here on both sides compare the content that they share. Raises NotInitialized, or SchemaMismatch, before
        anything was changed and with the statements to run, when the backup cannot hold exact copies of the source's
        records.
        """

    def make_like(self, original: Store, *, copies: bool) -> None:
        """Makes database, schema and table (or container) in the shape of `original` where missing.

        With `copies`, `original` is a backup, and what a backup adds to its source's shape is left out.
        """

    def adapt(self, drift: Drift) -> None:
        """Runs the drift's statements, which `drift` of this store gave. May be repeated."""

    def expiring(self, keep_seconds: float) -> str | None:
        """What would delete itself: a copy ever, or an entry beside it before so many seconds have passed; None if
        nothing does."""

    def count(self) -> int:
        """Records in it; reads an index from end to end."""

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        """The part of the key space in order, cut so that no chunk holds more than about `Limits.chunk_size` records
        here, fewer where the server is slow; the first begins and the last ends where `within` does. Costs one seek a
        chunk."""

    @property
    def fingerprint_is_enough(self) -> bool:
        """Whether equal fingerprints mean equal stamps by themselves; else only once what is `recent` was compared."""

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        """The fingerprint of the chunk's stamps, computed by the server in one statement; None where it cannot.

        Equal fingerprints of two sides mean equal stamps, but for the chance that ARCHITECTURE states. `drift` must
        have been asked. Cost: the chunk's part of an index or table from end to end; a few numbers cross the network.
        """

    def buckets(self, chunk: Chunk) -> Mapping[int, Fingerprint] | None:
        """The fingerprints of the chunk's buckets, which its records fall into by their keys; None where they cannot be
        made.

        About a thousand, and some fifty records to each in a full chunk. A record is in the same bucket on both sides
        of a service. Cost: that of a fingerprint, and a few numbers for each bucket.
        """

    def watermark(self) -> str | None:
        """Up to where the server's own clock has come by the newest of the service's records, for `recent` of a later
        run; None where a store has no such thing. To be asked before a run reads, and kept once all is written."""

    def recent(self, since: str, overlap_seconds: float) -> Iterator[set[StampRow]]:
        """The stamps of what was written since that watermark, or up to so long before; a few thousand at a time.

        Never less than that; of a store without watermarks, all stamps.
        """

    def stamp_rows(self, chunk: Chunk, buckets: Collection[int] | None = None) -> set[StampRow]:
        """The stamp of every record in the chunk, or in some of its buckets, laid flat."""

    def stamp_rows_of(self, keys: Sequence[Key]) -> set[StampRow]:
        """The stamps of those of these keys that are there."""

    def stamps_of(self, rows: Iterable[StampRow]) -> Stamps:
        """The stamps that these rows of this store lay flat."""

    def stamps(self, chunk: Chunk) -> Stamps:
        """Key and version of every record in the chunk: `stamps_of(stamp_rows(chunk))`."""

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Sequence[Record]]:
        """The whole records of these keys of the chunk, or of all (None), in batches. One that is gone is left out."""

    def key_of(self, record: Record) -> Key:
        """The key of a record that a store of the same kind has read."""

    def may_hold(self, key: Key) -> bool:
        """Whether the key is of the types that keys have here now; one from the bin may be from before they changed."""

    def left_out(self, record: Record) -> Collection[str]:
        """What of the record `write` has no column for."""

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        """Those of `keys` that the store holds, with key equality as its server sees it (case, trailing spaces)."""

    def spelled(self, key: Key, transaction: Any) -> Key | None:
        """The key of the record that the server has under this one, as that record spells it; None if it has none.
        Asked in a transaction that `Keep` was given."""

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        """The records that the server finds under these keys, as images before `action`, a batch at a time."""

    def content(self, record: Record) -> Mapping[str, str]:
        """The record's own values by their name in the source, without the server's and the app's marks.

        Texts that are the same for the two sides of a service exactly if the values are. `drift` must have been asked.
        """

    @property
    def filled(self) -> frozenset[str]:
        """Names, as `content` has them, of what the server fills in by itself, whatever is written."""

    def as_copies(self, records: Sequence[Record], run: Run, now: datetime) -> Sequence[Record]:
        """The source's records as this backup keeps them: with when they were copied and, on Cosmos, by which run."""

    def as_original(self, record: Record) -> Record:
        """A copy as its source would have it: without what `as_copies` adds."""

    def as_it_was(self, record: Record) -> Record:
        """The record of an image, completed so that writing it leaves nothing of a later state."""

    def write(
        self,
        records: Sequence[Record],
        keep: Keep | None = None,
        *,
        absent: bool = False,
        accept: Accept | None = None,
        replace: bool = False,
    ) -> Written:
        """Inserts or overwrites these records as they are; one transaction where there is one; may be repeated.

        `keep` gets an image of each record: before the change, or in its transaction. `absent`: none of them is known
        to be there, so that looking for them first need not pay. With `accept`, what is there is asked about by its
        image of that very moment: its row is locked until the end of the transaction, and a document is only replaced
        while it has the etag of the image. `replace`: what is there may be deleted and inserted anew, or emptied first,
        so that records can exchange values that are unique; where deleting would change other rows, it is not done.
        Raises ConstraintRefused, and nothing of the batch is written, when a constraint forbids it.
        """

    def delete(self, keys: Sequence[Key], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        """Deletes these keys; one transaction where there is one; keys that are gone already are no error.

        `keep` gets an image of each record that is there; `accept` is asked as in `write`. Raises ConstraintRefused,
        and nothing of the batch is deleted, when other rows refer to one of these, whatever would become of them.
        """

    def advance_counters(self) -> Sequence[str]:
        """Makes the server number new records past the largest key, where it numbers them; says what was set, and what
        could not be."""

    def referring(self, keys: Sequence[Key]) -> Mapping[str, int]:
        """How many rows of other tables refer to records of these keys, by the foreign key's name."""

    def on_delete(self) -> Sequence[str]:
        """The names of what the server does besides when a record is deleted: triggers."""

    def key_from(self, text: str) -> Key:
        """The key that a person wrote: the plain value, or a JSON list of the key's parts, as the server spells it.

        Raises BadRequest when it is none of this store's.
        """

    def key_to_json(self, key: Key) -> list[Any]:
        """The key as JSON values that `key_from` understands."""

    def beside(self, name: str) -> Store:
        """A store of the same shape and rules in another place on this server: a database, or a container, `name`."""

    def fence_by(self, fence: Fence, beside: Store) -> None:
        """Has what is written from here on pass the fence, which asks for an entry beside that store."""

    def drop(self) -> None:
        """Drops the place that `beside` named and `initialize` made: the database, or the container, with all in it."""

    def shares_transactions(self, other: Store) -> bool:
        """Whether a transaction of this store's holds up whatever else writes to the other's database, so that its
        siblings have to be written in that transaction too."""

    def sibling(self, shape: Shape) -> Sibling:
        """A table or container of the app's own in the same database (and schema)."""

    def close(self) -> None:
        """Gives back connections; the store can be used again and reconnects."""
