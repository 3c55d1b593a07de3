"""What a store is: one side's table or container. The only abstraction, because it has several real implementations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from backup.core.model import WHOLE, Action, Chunk, Fingerprint, Image, Key, Record, Run, StampRow, Stamps
from backup.stores.sibling import Shape, Sibling
from backup.stores.values import Drift, OnNewColumn, Place, Traits, Written


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
        SchemaMismatch like `drift`.
        """

    def make_like(self, other: Store) -> None:
        """Makes database, schema and table (or container) in the shape of the other's where missing."""

    def make_source_of(self, backup: Store) -> None:
        """The same in the shape that this backup's source has: without what a backup adds to it."""

    def drift(self, source: Store, on_new_column: OnNewColumn) -> Drift:
        """How this backup's schema must follow its source's. Reads only.

        From here on both sides compare the content that they share. Raises NotInitialized, or SchemaMismatch, before
        anything was changed and with the statements to run, when the backup cannot hold exact copies of the source's
        records.
        """

    def adapt(self, drift: Drift) -> None:
        """Runs the drift's statements, which `drift` of this store gave. May be repeated."""

    def seconds_to_live(self) -> Mapping[str, int]:
        """After how many seconds a record of the store, and an entry of its siblings, deletes itself, by the name of
        the container; nothing where they stay."""

    def beside(self, name: str) -> Store:
        """A store of the same shape and rules in another place on this server: a database, or a container, `name`."""

    def drop(self) -> None:
        """Drops the place that `beside` named and `initialize` made: the database, or the container, with all in it."""


class Store(Protocol):
    """One side's table or container.

    Every method that talks to the database raises StoreUnavailable, TransientStoreError (after the retries), StoreError
    or, when the database, table or container is missing, NotInitialized (of a source: SourceMissing). A read that fails
    is never an empty result.
    """

    place: Place
    traits: Traits

    @property
    def catalog(self) -> Catalog:
        """The same table or container as its server knows it."""

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

        Equal fingerprints mean equal stamps, but for a chance (docs/decisions/fingerprints.md). `drift` must
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

    def fence_by(self, fence: Fence, beside: Store) -> None:
        """Has what is written from here on pass the fence, which asks for an entry beside that store."""

    def shares_transactions(self, other: Store) -> bool:
        """Whether a transaction of this store's holds up whatever else writes to the other's database, so that its
        siblings have to be written in that transaction too."""

    def sibling(self, shape: Shape) -> Sibling:
        """A table or container of the app's own in the same database (and schema)."""

    def close(self) -> None:
        """Gives back connections; the store can be used again and reconnects."""
