"""What keeps the records of jobs and runs: ordered keys with JSON values; a commit changes all of its keys, or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

CHANGES_AT_MOST = 100
"""How many changes one commit may have; Azure's tables take no more."""


class Anything:
    """The condition that always holds."""


class Absent:
    """The condition that the key does not exist yet."""


ANY: Final = Anything()
NEW: Final = Absent()


_AHEAD = timedelta(minutes=10)
"""A time of another process that lies further ahead is of a clock that was wrong."""


class Item(NamedTuple):
    """A key and its value. `etag` changes with every write of the value.

    `age` is how long ago it was written, when it was read; None if the store does not know. Only the store's own clock
    counts for it, so that no two clocks need to agree.
    """

    key: str
    value: dict[str, Any]
    etag: str
    age: timedelta | None = None

    def age_by(self, written_at: datetime, now: datetime) -> timedelta:
        """How long ago the item was written. Where the store does not know that, `now` and the time that its writer
        noted count. A time that lies far ahead then counts as long ago."""
        if self.age is not None:
            return self.age
        age = now - written_at
        return age if age >= -_AHEAD else timedelta.max


class Change(NamedTuple):
    """The new value of a key; None deletes it. `only_if` is the etag that the key must have, or NEW, or ANY."""

    key: str
    value: dict[str, Any] | None
    only_if: str | Anything | Absent = ANY


class KeyValues(Protocol):
    """Keys in the order of their ASCII characters, each with a value of JSON types.

    A key has at most 300 characters: letters, digits, `:`, `-`, `.` and `_`. A value has at most 400,000 characters as
    JSON. Several threads and processes may use one store at once. Every method raises StoreUnavailable or StoreError.
    """

    def get(self, key: str) -> Item | None:
        """Returns the item of this key; None without one."""

    def get_all(self, keys: Sequence[str]) -> list[Item | None]:
        """Returns the item of each key in the same order; None without one. Cheaper than to get them one by one."""

    def scan(self, prefix: str, *, after: str = "", limit: int) -> list[Item]:
        """Returns up to `limit` items whose keys begin with `prefix` and sort after the key `after`, in order."""

    def commit(self, changes: Sequence[Change]) -> bool:
        """Makes all of the changes and returns True if every condition holds; else makes none and returns False.

        `changes` may name a key once. To delete a key that does not exist is a condition that does not hold. When it
        raises an error, the changes may have been made all the same: the server's answer was lost.
        """

    def close(self) -> None:
        """Closes the connections; the next call opens them again."""


def scan_all(keys: KeyValues, prefix: str) -> Iterator[Item]:
    """Yields all items whose keys begin with `prefix`, in order. Cost: a read for each thousand."""
    after, limit = "", 1_000
    while items := keys.scan(prefix, after=after, limit=limit):
        yield from items
        if len(items) < limit:
            return
        after = items[-1].key
