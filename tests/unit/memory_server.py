"""What a store in memory speaks to: databases of tables, with transactions, and the app's own tables beside them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import RLock
from typing import Any

from backup.core.errors import BackupError, NotInitialized, TransientStoreError
from backup.stores import Shape
from backup.stores.sibling import Entry, Look, OneOf, Seen

Stored = dict[str, Any]
"""A record: `id`, `version`, `etag` and content."""


class Database:
    """Tables by name. A transaction holds up all others, and leaves nothing when it fails."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Any, Any]] = {}
        self._lock = RLock()

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        with self._lock:
            before = {name: dict(rows) for name, rows in self.tables.items()}
            try:
                yield self
            except BaseException:
                self.tables = before
                raise


class Server:
    """Databases by name."""

    def __init__(self) -> None:
        self._databases: dict[str, Database] = {}
        self.answers = True

    def made(self, name: str) -> Database:
        """The database, made where missing."""
        return self._databases.setdefault(name, Database())

    def database(self, name: str, missing: type[BackupError] = NotInitialized) -> Database:
        """The database. Raises `missing` where there is none."""
        if not self.answers:
            raise TransientStoreError(f"The server of {name} does not answer.")
        if name not in self._databases:
            raise missing(f"There is no database {name}.")
        return self._databases[name]

    def drop(self, name: str) -> None:
        self._databases.pop(name, None)


class MemorySibling:
    """A table of the app's own in a database."""

    def __init__(self, server: Server, database: str, shape: Shape) -> None:
        self._server, self._name, self._shape = server, database, shape

    def create(self) -> None:
        self._server.made(self._name).tables.setdefault(self._shape.name, {})

    @property
    def _rows(self) -> dict[Any, Any]:
        tables = self._server.database(self._name).tables
        if self._shape.name not in tables:
            raise NotInitialized(f"There is no table {self._shape.name}.")
        return tables[self._shape.name]

    def put(self, entries: Sequence[Entry], *, new: bool = False) -> None:
        with self._server.database(self._name).transaction():
            self._rows.update((entry[self._shape.key], self._utc(entry)) for entry in entries)

    def add(self, entries: Sequence[Entry], transaction: Any = None) -> None:
        with (transaction or self._server.database(self._name)).transaction():
            for entry in entries:
                self._rows.setdefault(entry[self._shape.key], self._utc(entry))

    def change(
        self, key: str, only_if: OneOf, fields: Entry, transaction: Any = None, seconds: float | None = None
    ) -> bool:
        with (transaction or self._server.database(self._name)).transaction():
            if not self.holds(key, only_if):
                return False
            self._rows[key] = {**self._rows[key], **self._utc(fields)}
            return True

    def holds(self, key: str, only_if: OneOf, transaction: Any = None) -> bool:
        entry = self._rows.get(key)
        return entry is not None and all(entry.get(name) in values for name, values in only_if.items())

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
        entries = self._those(where, order_by, above, below)
        entries.sort(key=lambda entry: entry[order_by], reverse=descending)
        names = fields or tuple(self._shape.fields)
        return [{name: copy.deepcopy(entry.get(name)) for name in names} for entry in entries[:limit]]

    def look(self, looks: Sequence[Look]) -> Seen:
        return Seen(
            [
                self.find(look.where, order_by=look.order_by, limit=look.limit, descending=look.descending)
                for look in looks
            ]
        )

    def count(self, where: Mapping[str, Any], by: str, above: Any, below: Any) -> int:
        return len(self._those(where, by, above, below))

    def _those(self, where: Mapping[str, Any], by: str, above: Any, below: Any) -> list[dict[str, Any]]:
        def belongs(entry: Mapping[str, Any]) -> bool:
            alike = (
                entry.get(name) in value if isinstance(value, list) else entry.get(name) == value
                for name, value in where.items()
            )
            after, before = above is None or entry[by] > above, below is None or entry[by] < below
            return all(alike) and after and before

        return [entry for entry in self._rows.values() if belongs(entry)]

    def delete(self, keys: Sequence[str], partition: str | None = None) -> None:
        with self._server.database(self._name).transaction():
            for key in keys:
                self._rows.pop(key, None)

    def _utc(self, entry: Entry) -> dict[str, Any]:
        if any(isinstance(value, datetime) and value.tzinfo is None for value in entry.values()):
            raise ValueError("a time without a time zone")
        return {name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in entry.items()}
