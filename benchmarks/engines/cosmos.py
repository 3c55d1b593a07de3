"""Cosmos DB: an account for each side, a database for each contender. It saves no copies: contenders sync again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.data import Change, order
from benchmarks.engines.base import Engine, EngineMissing
from benchmarks.jobs import EngineName, Place
from benchmarks.orders import client, container, own

if TYPE_CHECKING:
    from tests.emulators.partitioned import Partitioned

_AT_ONCE = 4
_PAGE = 1_000  # documents, where nobody asks for fewer
_QUIET_SECONDS = 3


@contextmanager
def cosmos(rows: int, folder: Path) -> Iterator[CosmosEngine]:
    """Opens the accounts that TEST_COSMOS_SOURCE and TEST_COSMOS_BACKUP name, or starts two test servers.

    Raises EngineMissing without both.
    """
    from tests.emulators import servers
    from tests.emulators.partitioned import Partitioned

    def account(side: str) -> Partitioned | str:
        if named := os.environ.get(f"TEST_COSMOS_{side}"):
            return named
        plain = stack.enter_context(servers.plain_cosmos())
        return stack.enter_context(Partitioned(plain, page_size=_PAGE).running())

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        _trust_nothing(folder)
        try:
            source, backup = account("SOURCE"), account("BACKUP")
        except servers.ServerMissing as missing:
            raise EngineMissing(str(missing)) from None
        engine = CosmosEngine(rows, folder, source, backup)
        engine.build()
        try:
            yield engine
        finally:
            engine.leave()
            shutil.rmtree(folder, ignore_errors=True)


class CosmosEngine(Engine):
    """Containers `orders` in databases `bench_…`.

    A restored document has a new etag, so the contenders make their copies equal again by their own sync.
    """

    name: ClassVar[EngineName] = "cosmos"
    keeps = False

    def __init__(self, rows: int, folder: Path, source: Partitioned | str, backup: Partitioned | str) -> None:
        super().__init__(rows, folder)
        self._server = None if isinstance(source, str) else source
        self.source, self.backup = (one if isinstance(one, str) else one.account for one in (source, backup))

    def build(self) -> None:
        _drop(self.source, "bench_source")
        orders = container(self.source, "bench_source/orders", create=True)
        if self._server is not None:
            self._server.load("/dbs/bench_source/colls/orders", (order(n) for n in range(1, self.rows + 1)))
        else:
            self._put(orders, range(1, self.rows + 1), 1)
        # As after a quiet night: one document is new, and all others are older than an overlap of a second.
        time.sleep(_QUIET_SECONDS)
        self._put(orders, range(1, 2), 1)

    def place(self, contender: str) -> Place:
        return Place(
            engine="cosmos",
            service="order",
            source=self.source,
            source_table="bench_source/orders",
            backup=self.backup,
            backup_table=f"bench_{contender}/orders",
            folder=str(self.own_folder(contender)),
        )

    def change(self, change: Change) -> None:
        orders = container(self.source, "bench_source/orders")
        if change.kind == "update":
            self._put(orders, change.numbers, 2)
            return
        for n in change.numbers:
            orders.delete_item(order(n)["id"], partition_key=order(n)["customerId"])
        self.deleted = len(change.numbers)

    def undo(self, change: Change) -> None:
        self._put(container(self.source, "bench_source/orders"), change.numbers, 1)
        self.deleted = 0

    def clear(self, contender: str) -> None:
        _drop(self.backup, f"bench_{contender}")
        self.own_folder(contender).mkdir(parents=True, exist_ok=True)

    def save(self, contender: str) -> None:
        """Does nothing: see `keeps`."""

    def restore(self, contender: str) -> None:
        """Does nothing: see `keeps`."""

    def difference(self, place: Place, *, exact: bool) -> str | None:  # noqa: ARG002 - JSON has no other types
        source, backup = (
            _all(container(self.source, place.source_table)),
            _all(container(self.backup, place.backup_table)),
        )
        different = sum(backup.get(key) != document for key, document in source.items())
        extra = len(backup.keys() - source.keys())
        return None if not different and not extra else f"{different} documents differ, {extra} are too many"

    def leave(self) -> None:
        """Drops the databases of this benchmark."""
        for account in (self.source, self.backup):
            for database in list(client(account).list_databases()):
                if str(database["id"]).startswith("bench_"):
                    _drop(account, database["id"])

    def _put(self, orders: Any, numbers: range, revision: int) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda n: orders.upsert_item(order(n, revision)), numbers):
                pass


def _all(orders: Any) -> dict[tuple[str, str], int]:
    documents: Iterator[dict[str, Any]] = map(own, orders.read_all_items())
    return {(order["customerId"], order["id"]): hash(json.dumps(order, sort_keys=True)) for order in documents}


def _trust_nothing(folder: Path) -> None:
    """Saves each connection from reading the system's certificates: nobody verifies those of emulators anyway."""
    no_certificates = folder / "no-certificates"
    no_certificates.write_bytes(b"")
    if not os.environ.get("TEST_COSMOS_SOURCE"):
        os.environ |= {"SSL_CERT_FILE": str(no_certificates), "SSL_CERT_DIR": str(folder / "none")}


def _drop(account: str, database: str) -> None:
    from azure.cosmos.exceptions import CosmosResourceNotFoundError

    try:
        client(account).delete_database(database)
    except CosmosResourceNotFoundError:
        return
