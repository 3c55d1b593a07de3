"""The contract suite's bench of the store in memory: two databases of a server of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from backup.core.model import Key
from backup.stores import Rules, Store
from backup.stores.sides import Side
from tests.contract.benches import LIMITS, ROLES, Bench, Item, Role
from tests.unit.memory_server import Server, Stored
from tests.unit.memory_store import TABLE, MemoryStore


class MemoryBench(Bench):
    """A connection string is the name of a database; `nowhere` is one whose server does not answer."""

    kind = "memory"
    rules = Rules(version=("version",))

    def __init__(self) -> None:
        super().__init__({role: role for role in ROLES})
        self.server, self.silent = Server(), Server()
        self.silent.answers = False
        for role in ROLES:
            self.server.made(role)

    def open_at(self, side: Side, rules: Rules | None = None, **limits: Any) -> Store:
        limit = replace(LIMITS, **limits)
        return MemoryStore(
            "backup" if side.role == "backup" else "source",
            chunk_size=limit.chunk_size,
            batch_size=limit.batch_size,
            batch_bytes=limit.batch_bytes,
            server=self.silent if side.connection_string == self.nowhere() else self.server,
            database=side.connection_string,
        )

    def side(self, role: Role) -> Side:
        return Side("thing", role, f"{role.title()}ThingDb", self.connection_strings[role])

    def nowhere(self) -> str:
        return "nowhere"

    def absent_database(self, role: Role) -> Side:
        return replace(self.side(role), connection_string=f"absent_{uuid.uuid4().hex[:8]}")

    def create(self, items: Iterable[Item] = ()) -> None:
        self.server.made("source").tables[TABLE] = {}
        self.put("source", *items)

    def put(self, role: Role, *items: Item) -> None:
        for item in items:
            self._rows(role)[item.n] = {"id": item.n, "version": item.version, "etag": None, "content": item.text}

    def remove(self, role: Role, *numbers: int) -> None:
        for n in numbers:
            self._rows(role).pop(n, None)

    def items(self, role: Role) -> dict[int, Item]:
        return {n: Item(n, stored["version"], stored["content"]) for n, stored in self._rows(role).items()}

    def rows(self, role: Role) -> Mapping[int, Stored]:
        """All records as they are, in the order of their keys."""
        rows = self._rows(role)
        return {n: dict(rows[n]) for n in sorted(rows)}

    def _rows(self, role: Role) -> dict[Any, Stored]:
        return self.server.database(role).tables[TABLE]

    def key(self, n: int) -> Key:
        return (n,)

    def drop(self, role: Role) -> None:
        del self.server.database(role).tables[TABLE]
