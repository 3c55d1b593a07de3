"""What a store is: one side's table or container. The only abstraction, because it has several real implementations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from backup.core.key_ranges import KeyRange
from backup.core.model import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, StampRow, Stamps
from backup.core.workers import Begin
from backup.stores.abilities import Buckets, Incremental, KeptDeletes, KeyBlocks, Transforming
from backup.stores.codecs import Copies, CopyNote, Keys
from backup.stores.keeping import Accept, Keep
from backup.stores.sibling import Entry, Groups, ImagesOfKeys, ImagesToWrite, Shape, Sibling
from backup.stores.values import (
    Altered,
    Drift,
    IndexPlan,
    OnNewColumn,
    Place,
    RelayedPart,
    SecondaryIndex,
    Traits,
    Written,
)


class Fence(Protocol):
    """What keeps a run from writing once another run has taken it over."""

    @property
    def beside(self) -> Store:
        """The store beside which the run's entry is."""

    def check_young(self) -> None:
        """Raises LockLost if the run's last heartbeat is so old that another run may have taken it over.

        A store without transactions calls it before each request that writes.
        """

    def check_last(self, transaction: Any, again: bool) -> None:
        """Raises LockLost unless the run still owns its entry. It is the last statement of a transaction that writes.

        `transaction` is the store's, if the entry is in the same database; else None. `again`: an earlier try may still
        be running on the server. After this call, that try cannot commit any more.
        """


class Catalog(Protocol):
    """The store's table or container as its server knows it: named, made, compared with another, altered, dropped.

    For one thread. Raises what a store raises.
    """

    def qualified_name(self) -> str:
        """The table with its schema, or the container, as the server spells it. Entries of history and bin have this
        name. Returns the spelling of the settings if the table or container does not exist yet."""

    def check_there(self) -> None:
        """Raises the side's own error (SourceMissing, NotInitialized) if the table or container is not there. Cost: a
        look into the catalogue, unless it was read before."""

    def is_same_place(self, other: Store) -> bool:
        """Whether this store and another one of its kind are the same table or container. The servers decide, not the
        names in the settings. Leaves no trace in either; one try, no retries."""

    def is_another(self) -> bool:
        """Whether another container has the place's name since this store first asked for it. One request; raises
        what `match` raises where none has it. False on SQL, where `Relational.altered` says it."""

    def copies_beside(self) -> Sequence[str]:
        """The places of other tables (in its schema) or containers (in its database) that look like backups.

        The app's own tables may be among them. Cost: the catalogue of the schema, or a query for each container.
        """

    def is_marked(self, source: Store) -> bool:
        """Whether the backup says of itself that this app has made its table, or has written each of its documents. A
        table says it by a column that its source lacks. Cost: the catalogue, or one query."""

    def make_database(self, source: Store) -> None:
        """Makes the database where missing, as `initialize` does."""

    def initialize(self, source: Store) -> None:
        """Makes database, schema and table (or container) in the source's shape where missing. Safe to repeat.

        Alters nothing that exists: the run that adds a column also fills it. Raises SchemaMismatch like `match`.
        """

    def make_like(self, other: Store) -> None:
        """Makes database, schema and table (or container) in the shape of the other store where missing."""

    def make_source_of(self, backup: Store) -> None:
        """Makes database, schema and table (or container) in the shape of this backup's source where missing: without
        what a backup adds."""

    def match(self, source: Store) -> Drift:
        """How this backup's shape differs from its source's. Ignores columns that only the source has.

        From then on, both sides compare the content that they share. Reads only. Raises NotInitialized; or
        SchemaMismatch with what to do, if the backup cannot hold exact copies of the source's records.
        """

    def seconds_to_live(self) -> Mapping[str, int]:
        """After how many seconds a record of the store, or an entry of its siblings, deletes itself. By the name of the
        container; a container whose documents stay is not in it."""

    def beside(self, name: str) -> Store:
        """A store of the same shape and rules in another place on this server: the database, or container, `name`."""

    def drop(self) -> None:
        """Drops a place that `beside` named and `initialize` made: the database, or the container, with all in it."""


class Relational(Protocol):
    """What only a table of a SQL server has: columns, other tables, triggers, counters, unique values, transactions.

    `insert`, `relay`, `overwrite`, `has_none`, `fingerprint`, `content_fingerprint`, `relay_changes`, `relay_new`,
    `relay_over`, `exchange`, `without_column` and `spelled` are for any number of threads; those of them that write
    raise what `Store.write` raises, and so do `delete_ranges` and `write_images`. The others are for one thread.
    """

    @property
    def blocks(self) -> KeyBlocks | None:
        """Fingerprints of ranges of keys; None where the server is slow at that, or a key is not one integer."""

    @property
    def lost_connections(self) -> int:
        """How many connections to the database this process has lost so far, and seen that. Another server may answer
        since then, which lacks the last that was confirmed. 0 where the database is a library in this process."""

    def forget(self) -> None:
        """Makes the next use read the table's name and columns again."""

    def altered(self) -> Altered:
        """What has changed of the table since its columns were read. Cost: the catalogue."""

    def read_ahead(self, begin: Begin) -> None:
        """Begins to read the table's name and columns in another thread, once. Their next use waits for it. If it has
        failed, that use reads them itself, unless the server did not answer: then it raises that."""

    def held(self) -> AbstractContextManager[None]:
        """Inside, what this thread reads shares a connection, if the database is a library in this process."""

    def insert(self, records: Sequence[Record], keep: Keep) -> Written:
        """As `Store.write`, for records that are probably new: looks them up only if one turns out to exist."""

    def relay(
        self, source: Store, chunk: Chunk, note: CopyNote | None, keep: Keep | None, but: Sequence[Key] = ()
    ) -> Iterator[RelayedPart]:
        """Inserts the source's records of a chunk of which this store has none, without reading them into this process.
        The records of the keys in `but` are left out; `may_leave_out` has to allow that.

        Yields what it wrote after each transaction, which has a part of the chunk, in order. `keep` gets the keys in
        the transaction. Raises NotRelayed, with the rest of the chunk, where the servers cannot do it or refuse it;
        earlier transactions stay. A restore has no `note` and no `keep`: its place gets no mark of a copy.
        """

    def overwrite(
        self, source: Store, chunk: Chunk, note: CopyNote, keep: Keep, *, changed: bool = False
    ) -> Iterator[RelayedPart]:
        """As `relay`, but over whatever copies this store has of these records. The server makes the images of what it
        replaces. What only this store has in the chunk stays. `changed`: only records of another version than that of
        their copies; where records have no version, the servers cannot do this."""

    def fingerprint(self, chunk: Chunk, but: Sequence[Key]) -> Fingerprint | None:
        """As `Store.fingerprint`, without the records of the keys in `but`, as `may_leave_out` allows."""

    def content_fingerprint(self, chunk: Chunk, but: Sequence[Key] = ()) -> Fingerprint | None:
        """As `fingerprint`, but of all values that this table shares with the one that it was matched with, also where
        records have a version."""

    def may_leave_out(self, backup: Store, keys: Sequence[Key]) -> bool:
        """Whether both servers can leave out exactly the records of these keys, with few parameters. This store is the
        place of a restore of `backup`."""

    def may_relay(self, backup: Store) -> bool:
        """Whether `relay` may pass this backup's records on. False where it is known that the servers cannot. Asks
        nobody."""

    def may_relay_images(self, backup: Store) -> bool:
        """Whether `relay_new` and `relay_over` may take images of this backup's bin."""

    def relay_changes(self, source: Store, keys: Sequence[Key], note: CopyNote, keep: Keep) -> Iterator[RelayedPart]:
        """Writes the source's records of these keys, in their order, without reading them into this process. The server
        makes the images of what it replaces.

        Yields what it wrote after each transaction, which has a part of the keys. Raises NotRelayed, with the
        keys that are left, where the servers cannot do it or refuse it, and where a record is gone from the source.
        Other transactions stay.
        """

    def relay_new(
        self, backup: Store, keys: Sequence[Key], images: ImagesOfKeys | None = None
    ) -> Iterator[RelayedPart]:
        """Inserts the backup's records of these keys, in their order, without reading them into this process. This
        store is the place of a restore, which had no record of them when it was looked at. With `images`, which are in
        the backup's bin, the records are those of the images.

        Yields what it wrote after each transaction, which has a part of the keys, and in which both servers have told
        that the records have the same content. Raises NotRelayed, with the keys that are left, where the servers cannot
        do it or refuse it, and where the content is another one, as after a trigger; other transactions stay.
        """

    def relay_over(
        self, backup: Store, stamps: Stamps, keep: Keep, images: ImagesOfKeys | None = None
    ) -> Iterator[RelayedPart]:
        """As `relay_new`, over the records of this place with these stamps. Those that are the same already count as
        skipped. `keep` gets the image of each other before the transaction commits. Raises NotRelayed also where a
        record has another stamp now."""

    def has_none(self, chunk: Chunk) -> bool:
        """Whether the table has no record in the chunk. Cost: one seek."""

    def write_images(self, images: ImagesToWrite, keep: Keep) -> Iterator[RelayedPart]:
        """Writes the records as these images say, in the order of their entries, without reading them into this
        process. The server makes the images of what it replaces, and compares what is there in the end with the images:
        so what it tells of has been read again.

        Yields what it wrote after each transaction, which has a part of them, and which images it left. Raises
        NotRelayed, with those that come then, where the server cannot do it exactly or refuses it, where a row is then
        another one than its image says, and where they are so few that it would not pay; earlier transactions stay.
        """

    def keys_in(self, ranges: Sequence[KeyRange]) -> list[Key] | None:
        """The keys in these ascending ranges that have a row. None where the table has other keys than single integers,
        or rows that do not belong to the service. Takes no more keys than a chunk has."""

    def delete_ranges(self, ranges: Sequence[KeyRange], keep: Keep) -> Iterator[tuple[Sequence[KeyRange], int]]:
        """Deletes the records with keys in these ascending ranges. The server makes the images, and no record and no
        key becomes a value of this process.

        Yields the ranges and the number of what it deleted after each transaction, which has a part of the keys, in
        order. Raises RangesNotDeleted, with the ranges that are left, where the server cannot do it or refuses it, and
        where it tells of as many images as deletes; earlier transactions stay.
        """

    @property
    def answers_beside(self) -> bool:
        """Whether a question that takes long is quicker on a connection of its own, while others are answered."""

    def may_look_at_once(self, records: int, seconds: float) -> bool:
        """Whether the fingerprint of so many records probably takes no longer than a statement may: by those that the
        server has made before, or because a whole sync of these records took so many seconds. Never where a fingerprint
        needs memory of this process."""

    def records_at_once(self) -> int:
        """The fingerprint of so many records probably takes half of the time that a statement may take, by those that
        the server has made before. 0 where these would be few chunks, and where a fingerprint needs memory of this
        process."""

    def beginning(self, part: Chunk, records: int) -> Chunk:
        """The part's first `records` records; all of it if it has no more. Costs a walk along their keys in the key's
        index. Raises what a store raises. Any thread may call it."""

    def small_fingerprint(self) -> Fingerprint | None:
        """The fingerprint of the whole table; None where `Store.fingerprint` gives None, and if the table has more
        records than a chunk may have. Costs no more than the fingerprint of a chunk. Any thread may call it."""

    def add_next(self, shape: Shape, groups: Groups, entry: Entry) -> bool:
        """Inserts the entry into the app's own table, unless its group has an entry with the same `order` or a higher
        one, or one that is counted. Returns whether it is there now. Costs a statement. Raises what a store raises."""

    def exchange(self, records: Sequence[Record], keep: Keep, *, accept: Accept | None = None) -> Written:
        """As `Store.write`, but records can exchange unique values: it may first empty existing rows, or delete them
        and insert them again. It deletes no row if that would change other rows."""

    def drift(self, source: Store, on_new_column: OnNewColumn) -> Drift:
        """How this backup's columns must follow its source's; else as `Catalog.match`. Raises SchemaMismatch with the
        statements to run."""

    def adapt(self, drift: Drift) -> None:
        """Runs the statements of a drift that this store's `drift` returned. May be repeated."""

    def take_over(
        self, old: Store, beside: Sequence[Shape], before: Mapping[str, str], after: Mapping[str, str]
    ) -> None:
        """Gives the table of the store `old`, in this database, the schema and the name of this store.

        In the same transaction, the entries of the siblings `beside` that have all the fields of `before` get those of
        `after`. Does nothing if this store's table exists.
        """

    def index_plan(self, source: Store) -> IndexPlan:
        """How this backup's secondary indexes differ from its source's. Its table need not exist. Reads only."""

    def make_index(self, index: SecondaryIndex) -> None:
        """Makes the index, which `index_plan` has named, unless there is one of its name."""

    def recognize_deleted(self) -> None:
        """Says that rows of this backup may be marked as deleted, though such rows do not stay in it any more: so their
        images say it, too."""

    def forget_deleted(self) -> None:
        """Takes the mark of a delete from all rows, after `recognize_deleted` and once every row is in the source."""

    def without_column(self, record: Record) -> Collection[str]:
        """The names of the record's values for which the table has no column."""

    def spelled(self, key: Key, transaction: Any) -> Key | None:
        """The key of the row that the server finds under this key, as the row spells it; None if there is no such row.

        Reads in `transaction`, which is the one that `Keep` was called with.
        """

    def shares_transactions(self, other: Store) -> bool:
        """Whether a transaction of this store blocks all other writes to the other store's database. Then the other
        store's siblings have to be written in that transaction, too."""

    def referring(self, keys: Sequence[Key], *, but: Collection[str] = ()) -> Mapping[str, int]:
        """How many rows of other tables, except those of the names in `but`, refer to rows of these keys; by the
        foreign key's name."""

    def refuse_unwritable(self, actions: Collection[Action]) -> None:
        """Raises what the server would say of the first of these actions that it refuses for the whole table, and
        changes nothing. Not on SQL Server, which is not asked."""

    def triggers_on_delete(self) -> Sequence[str]:
        """The names of the table's triggers that a delete fires."""

    def advance_counters(self) -> Sequence[str]:
        """Makes the server number new rows past the largest key, where it numbers them. Returns sentences: what it has
        set, and what it could not set."""


class Store(Protocol):
    """One side's table or container.

    Every method that talks to the database raises StoreUnavailable, TransientStoreError (after the retries) or
    StoreError. If the database, table or container is missing, it raises NotInitialized (a source: SourceMissing). A
    read that fails is never an empty result.

    Any number of threads may call `fingerprint`, `chunks`, `stamp_rows`, `stamp_rows_of`, `read`, `matching`, `images`,
    `write` and `delete` at once, and use `keys`, `copies`, `buckets` and siblings. An iterator belongs to the thread
    that asked for it. All else is for one thread: `close`, `fence_by`, the catalog, and what comes before and after the
    work on chunks.
    """

    place: Place
    traits: Traits

    @property
    def keys(self) -> Keys:
        """Reads and writes its keys and stamps as values."""

    @property
    def copies(self) -> Copies:
        """Turns a source's records into this backup's copies, and back."""

    @property
    def catalog(self) -> Catalog:
        """The same table or container as its server knows it."""

    @property
    def buckets(self) -> Buckets | None:
        """Fingerprints of parts of a chunk; None where the server cannot compute them."""

    @property
    def incremental(self) -> Incremental | None:
        """What was written lately; None where the server does not know."""

    @property
    def transforming(self) -> Transforming | None:
        """The transform of its records; None for a store without one, and for every backup."""

    @property
    def relational(self) -> Relational | None:
        """What only a table of a SQL server has; None for any other store."""

    @property
    def kept_deletes(self) -> KeptDeletes | None:
        """The copies of deleted records, where the rules say that these stay; None everywhere else."""

    @property
    def request_charge(self) -> float | None:
        """Request units that all requests have cost since the store was opened; None where requests cost none."""

    def ping(self) -> None:
        """Returns if the database answers; one try, no retries."""

    def server_time(self) -> datetime | None:
        """The present time by the server's own clock; None where the database is a library in this process."""

    def has_records(self) -> bool:
        """Whether the service has any record. Reads one whole record, so it needs all the rights that reading needs."""

    def count(self) -> int:
        """The number of the service's records. Cost: reads an index from end to end."""

    def chunks(self, within: Chunk = WHOLE) -> Iterator[Chunk]:
        """The part `within` of the key space, cut into chunks, in order. Cost: one seek for each chunk.

        A chunk has about `Limits.chunk_size` records of this store at most, fewer where the server is slow. The first
        chunk begins where `within` begins, and the last ends where it ends.
        """

    def fingerprint(self, chunk: Chunk) -> Fingerprint | None:
        """The fingerprint of the chunk's stamps, computed by the server in one statement; None where it cannot.

        Equal fingerprints mean equal stamps, but for a chance (docs/decisions/fingerprints.md). Call `Catalog.match`
        first. Cost: the server reads the chunk's part of an index or table from end to end; a few numbers cross the
        network.
        """

    def stamp_rows(self, chunk: Chunk) -> set[StampRow]:
        """The stamp of every record in the chunk, as flat rows. `keys.stamps` turns them into keys and versions."""

    def stamp_rows_of(self, keys: Sequence[Key]) -> set[StampRow]:
        """The stamps of the records of these keys, as flat rows. A key without a record has none."""

    def read(self, keys: frozenset[Key] | None, chunk: Chunk) -> Iterator[Sequence[Record]]:
        """The whole records of these keys, which lie in the chunk, or all of the chunk (None), in batches. Leaves out
        records that are gone, and those that its transform leaves out. Raises RecordRefused for records that the
        transform fails on, after the others of their batch."""

    def matching(self, keys: Sequence[Key]) -> set[Key]:
        """The keys that have a record, as the server compares keys (case, trailing spaces)."""

    def images(self, keys: Sequence[Key], action: Action) -> Iterator[list[Image]]:
        """The records that the server finds under these keys, as images before `action`, a batch at a time."""

    def write(
        self,
        records: Sequence[Record],
        keep: Keep | None = None,
        *,
        accept: Accept | None = None,
    ) -> Written:
        """Inserts or overwrites these records as they are. May be repeated.

        Works in one transaction, if the store has transactions. `keep` gets an image of each overwritten record:
        before the change, or in its transaction. `accept` decides about each existing record, by its image of that very
        moment: a row is locked until the end of the transaction, and a document is replaced only while it has the
        image's etag. Raises ConstraintRefused if a constraint forbids a record; then nothing of the batch is written.
        """

    def delete(self, keys: Sequence[Key], keep: Keep | None = None, *, accept: Accept | None = None) -> Written:
        """Deletes the records of these keys. It is not an error if a record is gone already.

        Works in one transaction, if the store has transactions. `keep` gets an image of each deleted record; `accept`
        decides as in `write`. Raises ConstraintRefused if other rows refer to one of these, whatever the delete would
        do to them; then nothing of the batch is deleted.
        """

    def fence_by(self, fence: Fence) -> None:
        """Makes every later write pass the fence."""

    def sibling(self, shape: Shape) -> Sibling:
        """A table or container of the app's own in the same database (and schema)."""

    def close(self) -> None:
        """Closes the connections. The store can be used again; it then opens new ones."""


def stamps_in(store: Store, chunk: Chunk) -> Stamps:
    """The key and version of every record in the chunk of this store."""
    return store.keys.stamps(store.stamp_rows(chunk))
