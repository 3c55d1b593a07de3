"""What only some stores can do: parts of chunks, what was written lately, a transform, copies of deleted records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from backup.core.key_ranges import EqualRanges
from backup.core.model import Chunk, Fingerprint, Key, StampRow
from backup.stores.keeping import Keep
from backup.stores.values import LeftOut


class Buckets(Protocol):
    """Parts of a chunk. A record's key decides its bucket, in the same way on both sides of a service.

    A full chunk has about a thousand buckets, with some fifty records in each. For any number of threads.
    """

    def fingerprints(self, chunk: Chunk) -> Mapping[int, Fingerprint] | None:
        """The fingerprints of the chunk's buckets that are not empty; None if the server cannot compute buckets of
        such keys. Cost: that of the chunk's fingerprint, and a few numbers for each bucket."""

    def stamp_rows(self, chunk: Chunk, buckets: Collection[int]) -> set[StampRow]:
        """The stamps of the chunk's records in these buckets, which `fingerprints` has named. Cost: the keys of the
        chunk."""


class KeyBlocks(Protocol):
    """Ranges of neighbouring integer keys, whose stamps the server sums up in one statement about any number of
    records. For any number of threads."""

    def ends(self, part: Chunk) -> tuple[int, int] | None:
        """The least and the greatest key of the records in a part of the key space; None if it has none."""

    def fingerprints(self, blocks: EqualRanges) -> Mapping[int, Fingerprint] | None:
        """The fingerprints of those of the blocks that have records, by the names of the blocks; None if the server
        cannot compute them. Cost: a seek in the key's index for each block, and a few numbers for each."""

    def stamp_rows(self, starts: Sequence[int], width: int) -> set[StampRow]:
        """The stamps of the records in the blocks of these names."""


class Incremental(Protocol):
    """What was written lately, by the server's own clock, or by a column that writes raise. For the run's own
    thread."""

    @property
    def obstacle(self) -> str | None:
        """Why the source cannot say what was written lately, in a sentence; None if it can. Valid after
        `watermark`."""

    def watermark(self) -> str | None:
        """The time of the newest record of the service, for `recent` of a later run; None if there are no records, or
        for the `obstacle`.

        A run reads it before all else, and keeps it once everything is written.
        """

    def recent(self, since: str, overlap_seconds: float) -> Iterator[set[StampRow]]:
        """The stamps of all records written since `overlap_seconds` before that watermark, a few thousand at a time.

        May return earlier records as well. Where fingerprints are enough alone (`Traits`), it may leave out any.
        """

    @property
    def of(self) -> str:
        """Which container it speaks of: another text for every other one, also of the same name, and once its settings
        were changed; without spaces. Empty on SQL, where nothing relies on what was written lately."""

    def has_fallen(self, since: str, mark: str) -> bool:
        """Whether `mark` is less than the earlier watermark `since`, or cannot be compared with it."""

    @property
    def named_all(self) -> bool:
        """Whether the last `recent` has named every record that it should name. On SQL, false until its last page."""


class Transforming(Protocol):
    """The transform of a source's records: `Store.read` gives what it makes of them. For any number of threads.

    The server does not know the transform: stamps, fingerprints and `matching` are of the source's records, also of
    those that the transform leaves out.
    """

    @property
    def may_leave_out(self) -> bool:
        """Whether a function of one's own decides which records belong to the copy, and what is in them."""

    def left_out(self, keys: Sequence[Key]) -> LeftOut:
        """Which records of these keys the transform leaves out, or fails on. Cost: reads the whole records, unless the
        transform gives every record."""


class KeptDeletes(Protocol):
    """The copies of deleted records that stay in a backup, marked with a time. For any number of threads."""

    def mark(self, keys: Sequence[Key], keep: Keep, at: datetime) -> None:
        """Marks the copies of these keys as deleted `at` this time. `keep` gets an image of each, as of a delete.

        A write of the same key takes the mark away. May be repeated. Raises what `Store.delete` raises.
        """

    def mask(self, check: Callable[[], None]) -> int:
        """Masks the marked copies that the service's masks have not made, and returns how many. They stay marked.

        No image is kept: it would be equal to the copy. `check` is called before each batch. May be repeated. Raises
        what `Store.write` raises; batches written before stay.
        """

    def count(self) -> int:
        """The number of copies that are marked. Cost: reads the table or container from end to end."""
