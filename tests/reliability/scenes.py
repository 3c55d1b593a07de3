"""A mirrored service, a change of its source that the next run must carry out, and what the runs left.

Reads with the plain drivers, never through a store. A scene can be rewound, so that many runs start alike.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from azure.cosmos import DatabaseProxy

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.dev import sample
from backup.services.registry import Registry
from backup.stores.exact_json import record_from_text
from tests.emulators.clients import cosmos_client
from tests.scenarios import places
from tests.scenarios.places import Contents, Cosmos, Service, Sql
from tests.scenarios.product import Counts

BATCHES = {"BackupRetry__BaseSeconds": "0", "BackupSync__BatchSize": "3", "BackupSync__ChunkSize": "30"}
"""A change takes several batches in a chunk, and several of deletes: a run can die between two of each."""
ONE_THREAD = {"BackupSync__Parallelism": "1"}
"""Makes the order of a run's steps always the same."""

SMALL_DOCUMENT_BATCHES = {"BackupSync__BatchBytes": "2000"}


@dataclass
class Scene:
    """One service, and the numbers of the records that a change of its source inserts, deletes and updates.

    The records have the numbers 1 to `last`.
    """

    service: Service
    last: int
    inserted: range
    deleted: range
    updated: range
    extra_settings: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        return {**self.service.settings, **BATCHES, **ONE_THREAD, **self.extra_settings}

    @property
    def registry(self) -> Registry:
        return Registry(load_settings(self.settings))

    def begin(self) -> None:
        """Fills the source as it is before the change, and syncs it."""
        numbers = set(range(1, self.last + 1)) - set(self.inserted)
        self._put(dict.fromkeys(numbers, 1))
        self.registry.get(self.service.name).initialize()
        self._sync()
        self.save()

    def save(self) -> None:
        """Saves both sides as they are now, for `rewind`."""
        raise NotImplementedError

    def rewind(self) -> None:
        """Makes both sides equal again, so that the next change is as large as the last."""
        raise NotImplementedError

    def change(self) -> None:
        """Changes the source."""
        self._put(dict.fromkeys(self.inserted, 1) | dict.fromkeys(self.updated, 2))
        self._delete(self.deleted)

    def settle(self) -> None:
        """Notes that a run has carried out the last change, so that `rewind` need not."""

    def order(self, do: str, **arguments: Any) -> dict[str, Any]:
        """An order for `Mortal`: the verb to run on this service, with its arguments."""
        return {"do": do, "service": self.service.name, "settings": self.settings, **arguments}

    def _put(self, versions: Mapping[int, int]) -> None:
        record = {"customer": sample.customer, "order": sample.order}[self.service.name]
        sample.put(self.registry, self.service.name, [record(n, version) for n, version in versions.items()])

    def _sync(self) -> None:
        [outcome] = self.registry.sync(self.service.name, Trigger.CLI)
        assert outcome.error is None, outcome

    def _delete(self, numbers: range) -> None:
        side = self.service.source
        if isinstance(side, Sql):
            side.run(f'DELETE FROM {{table}} WHERE "Id" IN ({", ".join(map(str, numbers))})')
            return
        with _database(side) as database:
            container = database.get_container_client(side.container)
            ids = {f"order-{n:04}" for n in numbers}
            for document in container.read_all_items():
                if document["id"] in ids:
                    container.delete_item(document["id"], partition_key=document["customerId"])


class SqliteScene(Scene):
    """In SQLite files. `rewind` copies saved files back."""

    def begin(self) -> None:
        name = f"{self.service.name} {self.last} {self.inserted} {self.extra_settings}"
        places.with_files(self._folder, name, super().begin)
        self.save()

    def save(self) -> None:
        self._saved.mkdir(exist_ok=True)
        for path in self._folder.glob("*.db"):
            shutil.copy(path, self._saved)

    def rewind(self) -> None:
        for path in self._folder.glob("*.db*"):  # also the journals of transactions that died
            path.unlink()
        for path in self._saved.iterdir():
            shutil.copy(path, self._folder)

    @property
    def _folder(self) -> Path:
        assert isinstance(self.service.source, Sql)
        return Path(str(sa.make_url(self.service.source.url).database)).parent

    @property
    def _saved(self) -> Path:
        return self._folder / "saved"


class PostgresScene(Scene):
    """In PostgreSQL tables. `rewind` fills them again from saved tables."""

    def save(self) -> None:
        for side, names in self._tables():
            saved = 'DROP TABLE IF EXISTS "saved {0}"; CREATE TABLE "saved {0}" AS TABLE customer."{0}"'
            side.run("; ".join(saved.format(name) for name in names))

    def rewind(self) -> None:
        for side, names in self._tables():
            refilled = 'TRUNCATE customer."{0}"; INSERT INTO customer."{0}" TABLE "saved {0}"'
            side.run("; ".join(refilled.format(name) for name in names))

    def _tables(self) -> Iterator[tuple[Sql, list[str]]]:
        assert isinstance(self.service.source, Sql)
        assert isinstance(self.service.backup, Sql)
        yield self.service.source, ["Customers"]
        yield self.service.backup, ["Customers", "SyncHistory", "RecycleBin"]


class CosmosScene(Scene):
    """In containers, where copying back is slow. Instead each change deletes what the last one inserted, and inserts
    what it deleted."""

    version = 1
    is_settled = True
    """Whether a run has carried out the last change."""

    def save(self) -> None:
        """Saves nothing."""

    def rewind(self) -> None:
        if not self.is_settled:
            self._sync()

    def change(self) -> None:
        self.version += 1
        self.is_settled = False
        self._put(dict.fromkeys(self.inserted, 1) | dict.fromkeys(self.updated, self.version))
        self._delete(self.deleted)
        self.inserted, self.deleted = self.deleted, self.inserted

    def settle(self) -> None:
        self.is_settled = True


def on_sqlite(folder: Path) -> Scene:
    """43 customers in SQLite files. A change inserts 3, updates 5 and deletes 4."""
    return _customers(SqliteScene, places.on_sqlite(folder).customer)


def on_postgres(source: str, backup: str) -> Scene:
    """43 customers in tables of two empty databases. A change inserts 3, updates 5 and deletes 4."""
    return _customers(PostgresScene, places.on_postgres(source, backup).customer)


def _customers(kind: type[Scene], service: Service) -> Scene:
    return kind(service, 46, inserted=range(5, 47, 14), deleted=range(3, 47, 14), updated=range(8, 47, 8))


def on_cosmos(folder: Path, source: str, backup: str) -> Scene:
    """12 orders in containers of two accounts. A change inserts 2, updates 2 and deletes 2."""
    service = places.with_orders_on_cosmos(folder, source, backup).order
    extra_settings = {**SMALL_DOCUMENT_BATCHES, "BackupSync__ChunkSize": "7", "BackupSync__BatchSize": "1"}
    return CosmosScene(
        service,
        14,
        inserted=range(5, 15, 7),
        deleted=range(3, 15, 7),
        updated=range(6, 15, 5),
        extra_settings=extra_settings,
    )


# --- what a backup has ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """An entry of the recycle bin: its run, and the whole record without what the backup adds to records."""

    sync_id: str
    action: str
    key: Any
    record: dict[str, Any] | None


@dataclass(frozen=True)
class BackupState:
    """A backup: its records by key without what the backup adds, the bin's entries, and the runs, oldest first."""

    contents: Contents
    bin: list[Kept]
    runs: list[dict[str, Any]]

    def since(self, earlier: BackupState) -> BackupState:
        """This backup with only the runs that `earlier` does not have, and with their entries."""
        past = {run["SyncId"] for run in earlier.runs}
        return BackupState(
            self.contents,
            [entry for entry in self.bin if entry.sync_id not in past],
            [run for run in self.runs if run["SyncId"] not in past],
        )


def look(backup: Sql | Cosmos) -> BackupState:
    """Reads what is in the backup now."""
    if isinstance(backup, Sql):
        table = replace(backup, table=f"{backup.table.rpartition('.')[0]}.RecycleBin".lstrip("."))
        entries = table._run(sa.select(sa.text("*")).select_from(table._named()))
        return BackupState(backup.contents(), list(map(_kept, entries)), backup.history())
    with _database(backup) as database:  # one client for all three: to open a client costs more than to read

        def all_of(container: str) -> list[dict[str, Any]]:
            return list(database.get_container_client(container).read_all_items())

        return BackupState(
            {
                document["id"]: {name: value for name, value in document.items() if not name.startswith("_")}
                for document in all_of(backup.container)
            },
            [_kept(_titled(entry)) for entry in all_of("recycle-bin")],
            sorted(map(_titled, all_of("sync-history")), key=lambda run: str(run["StartedAt"])),
        )


def _titled(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name[:1].upper() + name[1:]: value for name, value in document.items()}


def _kept(entry: Mapping[str, Any]) -> Kept:
    record = None if entry["Record"] is None else record_from_text(entry["Record"])
    if record is not None:
        record = {name: value for name, value in record.items() if name not in ("SyncedAt", "_backup")}
    return Kept(entry["SyncId"], entry["Action"], json.loads(entry["RecordKey"])[-1], record)


def difference(source: Contents, backup: Contents) -> Counts:
    """How many records a run would insert, update, delete and skip."""
    both = source.keys() & backup.keys()
    same = sum(source[key] == backup[key] for key in both)
    return len(source.keys() - both), len(both) - same, len(backup.keys() - both), same


def counts_of(run: Mapping[str, Any]) -> tuple[int, ...]:
    """The counts of an entry of SyncHistory."""
    return tuple(run[f"{name}Count"] for name in ("Inserted", "Updated", "Deleted", "Skipped"))


def is_whole(kept: Mapping[str, Any] | None, plain: Mapping[str, Any]) -> bool:
    """Whether the recycle bin's record has all values of the record that a plain driver read."""
    return kept is not None and kept.keys() == plain.keys() and all(_is_same(kept[n], v) for n, v in plain.items())


def _is_same(kept: Any, plain: Any) -> bool:
    if isinstance(plain, datetime) and isinstance(kept, str):  # the server's text
        return datetime.fromisoformat(kept) == plain
    return bool(kept == plain)


def check_bin(kept: list[Kept], before: Contents, after: Contents) -> None:
    """Asserts that no key has two entries of the same run, and that each entry has the record of `before`."""
    owners = [(entry.sync_id, entry.key) for entry in kept]
    twice = {owner for owner in owners if owners.count(owner) > 1}
    assert not twice, f"in the bin twice: {twice}"
    for entry in kept:
        expected = "Inserted" if entry.key not in before else "Updated" if entry.key in after else "Deleted"
        assert entry.action == expected, entry
        right = entry.record is None if entry.key not in before else is_whole(entry.record, before[entry.key])
        assert right, f"not the value before the change: {entry}"


@contextmanager
def _database(side: Cosmos) -> Iterator[DatabaseProxy]:
    with cosmos_client(side.account) as client:
        yield client.get_database_client(side.database)
