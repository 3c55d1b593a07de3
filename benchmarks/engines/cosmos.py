"""Cosmos DB: an account for each side, a database for each contender.

The test servers keep what they held after a first copy, and hold it again before each turn. An account cannot: there
the contenders sync again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

from benchmarks.data import Change, order
from benchmarks.engines.base import Engine, EngineMissing
from benchmarks.jobs import EngineName, Place
from benchmarks.orders import client, container, own

if TYPE_CHECKING:
    from tests.emulators.partitioned import Partitioned
    from tests.emulators.physical import Kept

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
        plain = stack.enter_context(servers.cosmos()).plain
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

    It `keeps` on two test servers. Elsewhere a document that is put back has a new etag.
    """

    name: ClassVar[EngineName] = "cosmos"

    def __init__(self, rows: int, folder: Path, source: Partitioned | str, backup: Partitioned | str) -> None:
        super().__init__(rows, folder)
        self._servers = None if isinstance(source, str) or isinstance(backup, str) else (source, backup)
        self._kept: dict[str, Mapping[str, Sequence[Kept]]] = {}
        self.keeps = self._servers is not None
        self.source, self.backup = (side if isinstance(side, str) else side.account for side in (source, backup))

    def build(self) -> None:
        _drop(self.source, "bench_source")
        orders = container(self.source, "bench_source/orders", create=True)
        if self._servers is not None:
            self._servers[0].load(_path("bench_source/orders"), (order(n) for n in range(1, self.rows + 1)))
        else:
            self._put(orders, range(1, self.rows + 1), 1)
        # As after a quiet night: one document is new, and all others are older than an overlap of a second.
        time.sleep(_QUIET_SECONDS)
        self._put(orders, range(1, 2), 1)
        if self._servers is not None:
            self._kept["source"] = self._servers[0].kept("/dbs/bench_source")

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
        if self._servers is None:
            self._put(container(self.source, "bench_source/orders"), change.numbers, 1)
        else:
            self._servers[0].put_back(self._kept["source"])
        self.deleted = 0

    def clear(self, contender: str) -> None:
        _drop(self.backup, f"bench_{contender}")
        self.own_folder(contender).mkdir(parents=True, exist_ok=True)

    def save(self, contender: str) -> None:
        super().save(contender)
        if self._servers is not None:
            self._kept[contender] = self._servers[1].kept(f"/dbs/bench_{contender}")

    def restore(self, contender: str) -> None:
        super().restore(contender)
        if self._servers is not None:
            self._servers[1].put_back(self._kept[contender])

    def without_requests(self) -> AbstractContextManager[None] | None:
        return None if self._servers is None else _written_at_once(self._servers[1])

    def difference(self, place: Place, *, exact: bool) -> str | None:  # noqa: ARG002 - JSON has no other types
        if self._servers is None:
            sources = container(self.source, place.source_table).read_all_items()
            backups = container(self.backup, place.backup_table).read_all_items()
        else:
            sources = self._servers[0].documents(_path(place.source_table))
            backups = self._servers[1].documents(_path(place.backup_table))
        source, backup = _by_key(sources), _by_key(backups)
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


@contextmanager
def _written_at_once(server: Partitioned) -> Iterator[None]:
    """Has the server take new documents of this process, which the SDK would send in a request each: most of a first
    copy. Whatever else is asked goes through the SDK."""
    from azure.cosmos import ContainerProxy

    sent = ContainerProxy.execute_item_batch

    def write(proxy: ContainerProxy, document: dict[str, Any], **_: Any) -> None:
        server.load(f"/{proxy.container_link}", [document])

    def write_all(proxy: ContainerProxy, operations: Any, *others: Any, **options: Any) -> Any:
        if any(kind not in ("create", "upsert") for kind, *_ in operations):
            return sent(proxy, operations, *others, **options)
        server.load(f"/{proxy.container_link}", [document for _, (document,), *_ in operations])
        return []

    with mock.patch.multiple(ContainerProxy, create_item=write, upsert_item=write, execute_item_batch=write_all):
        yield


def _path(table: str) -> str:
    database, _, name = table.partition("/")
    return f"/dbs/{database}/colls/{name}"


def _by_key(documents: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    return {(order["customerId"], order["id"]): hash(json.dumps(own(order), sort_keys=True)) for order in documents}


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
