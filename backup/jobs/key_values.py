"""Where the records of jobs and runs lie: keys in order, values as JSON, changed together or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

CHANGES_AT_MOST = 100
"""So many changes one commit may have; Azure's tables take no more."""


class Anything:
    """The condition that always holds."""


class Absent:
    """The condition that the key is not there yet."""


ANY: Final = Anything()
NEW: Final = Absent()


class Item(NamedTuple):
    """A key and its value. `etag` changes with every change of the value."""

    key: str
    value: dict[str, Any]
    etag: str


class Change(NamedTuple):
    """The new value of a key; None deletes it. `only_if` is the etag that the key must have, or NEW, or ANY."""

    key: str
    value: dict[str, Any] | None
    only_if: str | Anything | Absent = ANY


class KeyValues(Protocol):
    """Keys in the order of their ASCII characters, each with a value of JSON types.

    Keys have letters, digits and `:` `-` `.` `_` alone, at most 300 of them; a value has at most 400,000 characters as
    JSON. Several threads and processes may use one at once. Raises StoreUnavailable or StoreError.
    """

    def get(self, key: str) -> Item | None:
        """The item of this key; None where there is none."""

    def scan(self, prefix: str, *, after: str = "", limit: int) -> list[Item]:
        """Up to `limit` items whose keys begin with `prefix` and come after the key `after`, in order."""

    def commit(self, changes: Sequence[Change]) -> bool:
        """Makes all of the changes, or none; returns whether it did: whether every condition held.

        A key may be in it once. Deleting a key that is not there counts as a condition that does not hold. If the
        answer was lost, the changes may have been made although an error is raised.
        """

    def close(self) -> None:
        """Gives back connections; the next call opens them again."""
