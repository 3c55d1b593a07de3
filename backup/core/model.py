"""The values that all modules share about records: keys, versions, stamps, chunks, images. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple

Key = tuple[Any, ...]
"""What identifies a record: its primary-key values in key order, or (partition key as JSON, id)."""

Record = Mapping[str, Any]
"""A whole row or document by column or property name, as its own store reads it."""

SideName = Literal["source", "backup"]
SIDES: tuple[SideName, SideName] = ("source", "backup")

Now = Callable[[], datetime]
"""The clock, passed in; returns aware UTC."""

CheckLock = Callable[[], None]
"""Called between batches; raises LockLost once the run has lost its lock."""


def typed_key(parts: Sequence[Any]) -> str:
    """Returns a key, given as JSON values, as a person types it: a key of one part bare, any other as a JSON list."""
    return str(parts[0]) if len(parts) == 1 else json.dumps(parts, ensure_ascii=False)


def utc_now() -> datetime:
    """Returns the present time, as aware UTC."""
    return datetime.now(UTC)


class Version(NamedTuple):
    """What tells whether a record changed.

    `value` are the version fields in the service's order. `None` in the first field means that the record has no
    version of its own. `etag` is the server's mark of the last write, if the store has such marks. A stamp of the
    backup has the etag that the source's record had when it was copied. `None` means that no etag was recorded.
    """

    value: tuple[Any, ...]
    etag: str | None = None

    @property
    def is_missing(self) -> bool:
        """Whether the record has no version of its own, or the service has no version fields."""
        return not self.value or self.value[0] is None


Stamps = dict[Key, Version]


@dataclass(frozen=True)
class Unread:
    """Stands in place of a stamp's version that could not be read, and says why.

    `of_key` says that the key could not be read either. Then the key in the stamp only names the record for people; no
    look-up finds it.
    """

    reason: str
    of_key: bool = False


def unread_in(stamps: Stamps) -> dict[Key, Unread]:
    """Returns the stamps that could not be read, each with the reason."""
    values = ((key, value) for key, version in stamps.items() for value in version.value)
    return {key: value for key, value in values if isinstance(value, Unread)}


StampRow = tuple[Any, ...]
"""A stamp as one flat row: the parts of the key, the fields of the version, and what else the store adds.

The two sides of a service have equal rows for a record exactly if it has not changed. So a sync settles most records
with a comparison of two sets of rows.
"""


class Fingerprint(NamedTuple):
    """A few numbers that a server computes from all stamps of a chunk.

    - `functions`: names the functions that made the numbers. Fingerprints of different functions never count as equal.
    - `records`, `sums`: those of two parts of a chunk add up to those of the chunk. No sums if there is a digest.
    - `digest`: a hash of all stamps in the order of their keys, only if the server is this process. It does not add up.
    """

    functions: str
    records: int
    sums: tuple[int, ...]
    digest: int = 0


class Chunk(NamedTuple):
    """A contiguous part of the key space: every key k with `after` < k <= `upto`, in the order of the server.

    `None` leaves that end open. So a key before the source's first, or behind its last, is in a chunk too.
    """

    after: Key | None = None
    upto: Key | None = None


WHOLE = Chunk()
"""The whole key space."""


@dataclass(frozen=True)
class Throughput:
    """The request units a second of what the app makes on Cosmos DB: of a container, or `shared` by its database. With
    `autoscale` they are the most to which the server scales."""

    request_units: int
    autoscale: bool = False
    shared: bool = False


@dataclass(frozen=True)
class PartitionPaths:
    """The paths of the partition key of a `source` on Cosmos DB and of its `copy`, such as /customerId, where they
    differ. Several where a key is hierarchical."""

    source: tuple[str, ...]
    copy: tuple[str, ...]


class Action(StrEnum):
    """What a change did to a record."""

    INSERTED = "Inserted"
    UPDATED = "Updated"
    DELETED = "Deleted"


@dataclass(frozen=True)
class Image:
    """A record as it was before a change of it. `record` and `version` are None if there was no record.

    `version` alone is None for a copy that stayed in the backup after its source's record was deleted.
    `key` is the key that the change names. The record may have another spelling of it. `stamp` is set if the change
    asks first whether it may be made. Then a `stamp` of None says that the service's filter leaves the record out.
    """

    key: Key
    action: Action
    record: Record | None = None
    version: tuple[Any, ...] | None = None
    stamp: Version | None = field(default=None, compare=False)
