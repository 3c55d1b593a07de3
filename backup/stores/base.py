"""What a store is: one side's table or container. The only abstraction, because it has several real implementations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from backup.core.model import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, StampRow, Stamps
from backup.stores.codecs import Copies, Keys
from backup.stores.sibling import Shape, Sibling
from backup.stores.values import Drift, OnNewColumn, Place, Traits, Written


class Fence(Protocol):
    """What keeps a run that was taken over from writing."""

    @property
    def beside(self) -> Store:
        """The store beside which the run's entry is."""

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
        """Keeps the images, and of the inserted records the keys; each once, however often it is told. A list of images
        is empty afterwards, so that memory does not hold them beside what is kept.

        `transaction` is what makes the change, or None where the store has none.
        """


Accept = Callable[[Image], bool]
"""Asked about each record that is there, while nobody else can change it, whether it may be overwritten or deleted."""


class Catalog(Protocol):
    """The store's table or container as its server knows it: named, made, compared with another, altered, dropped.

    For one thread. Raises what a store raises.
    """

    def qualified_name(self) -> str:
        """The table with its schema, or the container, spelled as the server has it: what an entry of history and bin
        is about. The spelling of the settings where there is none yet."""

    def is_same_place(self, other: Store) -> bool:
        """Whether this and another store of its kind are one table or container, by what their servers say of
        themselves, whatever the settings call them. Leaves no trace in either; one try, no retries."""

    def copies_beside(self) -> Sequence[str]:
        """The places of other tables (of its schema) or containers (of its database) that look as if they held a
        backup's copies; the app's own may be among them. Cost: the catalogue of the schema, or a query a container."""

    def initialize(self, source: Store) -> None:
        """Makes database, schema and table (or container) in the source's shape where missing. Safe to repeat.

        What is there is not altered: a column that is new gets its values by the run that adds it. Raises
        SchemaMismatch like `match`.
        """

    def make_like(self, other: Store) -> None:
        """Makes database, schema and table (or container) in the shape of the other's where missing."""

    def make_source_of(self, backup: Store) -> None:
        """The same in the shape that this backup's source has: without what a backup adds to it."""

    def match(self, source: Store) -> Drift:
        """How this backup's shape differs from its source's; columns that only the source has are ignored.

        From here on both sides compare the content that they share. Reads only. Raises NotInitialized, or
        SchemaMismatch with what to do, when the backup cannot hold exact copies of the source's records.
        """

    def seconds_to_live(self) -> Mapping[str, int]:
        """After how many seconds a record of the store, and an entry of its siblings, deletes itself, by the name of
        the container; nothing where they stay."""

    def beside(self, name: str) -> Store:
        """A store of the same shape and rules in another place on this server: a database, or a container, `name`."""

    def drop(self) -> None:
        """Drops the place that `beside` named and `initialize` made: the database, or the container, with all in it."""


class Buckets(Protocol):
    """Parts of a chunk that records fall into by their keys, the same ones on both sides of a service.

    About a thousand, and some fifty records to each in a full chunk. For any number of threads.
    """

    def fingerprints(self, chunk: Chunk) -> Mapping[int, Fingerprint] | None:
        """The fingerprints of the chunk's buckets that are not empty; None for keys that no bucket can be told of.
        Cost: that of the chunk's fingerprint, and a few numbers for each bucket."""

    def stamp_rows(self, chunk: Chunk, buckets: Collection[int]) -> set[StampRow]:
        """The stamps of the chunk's records in these buckets, which `fingerprints` has named. Cost: the keys of the
        chunk."""


class Incremental(Protocol):
    """What was written lately, by the server's own clock. For the run's own thread."""

    def watermark(self) -> str | None:
        """Up to where that clock has come by the newest of the service's records, for `recent` of a later run; None
        where there are no records. To be asked before a run reads, and kept once all is written."""

    def recent(self, since: str, overlap_seconds: float) -> Iterator[set[StampRow]]:
        """The stamps of what was written since that watermark, or up to so long before; a few thousand at a time.
        Never less than that."""


class Relational(Protocol):
    """What only a table of a SQL server can: columns, other tables, triggers, counters, unique values, transactions.

    `insert`, `exchange`, `left_out` and `spelled` are for any number of threads; the first two raise what `Store.write`
    raises. The others are for one thread.
    """

    def insert(self, records: Sequence[Record], keep: Keep) -> Written:
        """As `Store.write` of records of which none is known to be there: without looking for them first, unless one
        turns out to be there."""

    def exchange(self, records: Sequence[Record], keep: Keep, *, accept: Accept | None = None) -> Written:
        """As `Store.write`, so that records can exchange values that are unique: what is there may be emptied, or
        deleted and inserted anew, first. Where deleting would change other rows, it is not done."""

    def drift(self, source: Store, on_new_column: OnNewColumn) -> Drift:
        """How this backup's columns must follow its source's; else as `Catalog.match`. Raises SchemaMismatch with the
        statements to run."""

    def adapt(self, drift: Drift) -> None:
        """Runs the drift's statements, which `drift` of this store gave. May be repeated."""

    def left_out(self, record: Record) -> Collection[str]:
        """What of the record the table has no column for."""

    def spelled(self, key: Key, transaction: Any) -> Key | None:
        """The key of the row that the server has under this one, as that row spells it; None if it has none. Asked in
        a transaction that `Keep` was given."""

    def shares_transactions(self, other: Store) -> bool:
        """Whether a transaction of this store's holds up whatever else writes to the other's database, so that its
        siblings have to be written in that transaction too."""

    def referring(self, keys: Sequence[Key]) -> Mapping[str, int]:
        """How many rows of other tables refer to rows of these keys, by the foreign key's name."""

    def triggers_on_delete(self) -> Sequence[str]:
        """The names of what the server does besides when a row is deleted."""

    def advance_counters(self) -> Sequence[str]:
        """Makes the server number new rows past the largest key, where it numbers them; says what was set, and what
        could not be."""


class Store(Protocol):
    """One side's table or container.

    Every method that talks to the database raises StoreUnavailable, TransientStoreError (after the retries), StoreError
    or, when the database, table or container is missing, NotInitialized (of a source: SourceMissing). A read that fails
    is never an empty result.

    Any number of threads may call `fingerprint`, `chunks`, `stamp_rows`, `stamp_rows_of`, `read`, `matching`, `images`,
    `write` and `delete` at once, and use `keys`, `copies` and `buckets`; each iterator belongs to the thread that asked
    for it. A sibling may be used by any of them, too. All else is for one thread: `close`, `fence_by`, the catalog and
    what comes before and after the work on chunks.
    """

    place: Place
    traits: Traits

    @property
    def keys(self) -> Keys:
        """Its keys and stamps as values."""

    @property
    def copies(self) -> Copies:
        """What it makes of a source's records, as a backup."""

    @property
    def catalog(self) -> Catalog:
        """The same table or container as its server knows it."""

    @property
    def buckets(self) -> Buckets | None:
        """Fingerprints of less than a chunk; None where the server makes none."""

    @property
    def incremental(self) -> Incremental | None:
        """What was written lately; None where the server does not know."""

    @property
    def relational(self) -> Relational | None:
        """What only a table of a SQL server can; None for any other store."""

    @property
    def request_charge(self) -> float | None:
        """Request units that all requests have cost since the store was opened; None where there are none."""

    def ping(self) -> None:
        """Returns if the database answers; one try, no retries."""

    def server_time(self) -> datetime | None:
        """The present time by the server's own clock; None where the database is a library in this process."""

    def count(self) -> int:
        """Records in it; reads an index from end to end."""

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        """The part of the key space in order, cut so that no chunk holds more than about `Limits.chunk_size` records
        here, fewer where the server is slow; the first begins and the last ends where `within` does. Costs one seek a
        chunk."""

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        """The fingerprint of the chunk's stamps, computed by the server in one statement; None where it cannot.

        Equal fingerprints mean equal stamps, but for a chance (docs/decisions/fingerprints.md). `Catalog.match`
        must have been asked. Cost: the chunk's part of an index or table from end to end; a few numbers cross the
        network.
        """

    def stamp_rows(self, chunk: Chunk) -> set[StampRow]:
        """The stamp of every record in the chunk, laid flat; `keys.stamps` makes key and version of them."""

    def stamp_rows_of(self, keys: Sequence[Key]) -> set[StampRow]:
        """The stamps of those of these keys that are there."""

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Sequence[Record]]:
        """The whole records of these keys of the chunk, or of all (None), in batches. One that is gone is left out."""

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        """Those of `keys` that the store holds, with key equality as its server sees it (case, trailing spaces)."""

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        """The records that the server finds under these keys, as images before `action`, a batch at a time."""

    def write(
        self,
        records: Sequence[Record],
        keep: Keep | None = None,
        *,
        accept: Accept | None = None,
    ) -> Written:
        """Inserts or overwrites these records as they are; one transaction where there is one; may be repeated.

        `keep` gets an image of each record: before the change, or in its transaction. With `accept`, what is there is
        asked about by its image of that very moment: its row is locked until the end of the transaction, and a document
        is only replaced while it has the etag of the image. Raises ConstraintRefused, and nothing of the batch is
        written, when a constraint forbids it.
        """

    def delete(self, keys: Sequence[Key], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        """Deletes these keys; one transaction where there is one; keys that are gone already are no error.

        `keep` gets an image of each record that is there; `accept` is asked as in `write`. Raises ConstraintRefused,
        and nothing of the batch is deleted, when other rows refer to one of these, whatever would become of them.
        """

    def fence_by(self, fence: Fence) -> None:
        """Has what is written from here on pass the fence."""

    def sibling(self, shape: Shape) -> Sibling:
        """A table or container of the app's own in the same database (and schema)."""

    def close(self) -> None:
        """Gives back connections; the store can be used again and reconnects."""


def stamps_in(store: Store, chunk: Chunk) -> Stamps:
    """Key and version of every record of the store in the chunk."""
    return store.keys.stamps(store.stamp_rows(chunk))
