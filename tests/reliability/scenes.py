"""A mirrored service, a change of its source that the next run has to carry out, and what the runs then left.

What is there is read with the plain drivers. A scene can be put back to its beginning, so that many runs start alike.
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
from azure.cosmos import CosmosClient, DatabaseProxy

from backup.config.settings import load_settings
from backup.core.model import Trigger
from backup.dev import sample
from backup.services.registry import Registry
from backup.stores.exact_json import record_from_text
from tests.scenarios import places
from tests.scenarios.places import Contents, Cosmos, Service, Sql
from tests.scenarios.product import Counts

BATCHES = {"BackupRetry__BaseSeconds": "0", "BackupSync__BatchSize": "5", "BackupSync__ChunkSize": "30"}
ONE_THREAD = {"BackupSync__Parallelism": "1"}
"""So that the steps of a run come in one order."""

SMALL_DOCUMENT_BATCHES = {"BackupSync__BatchBytes": "2000"}


@dataclass
class Scene:
    """One service before its change: `missing` numbers are inserted, `gone` deleted, `updated` ones written anew."""

    service: Service
    last: int
    missing: range
    gone: range
    updated: range
    more: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        return {**self.service.settings, **BATCHES, **ONE_THREAD, **self.more}

    @property
    def registry(self) -> Registry:
        return Registry(load_settings(self.settings))

    def begin(self) -> None:
        """Fills the source with what it holds before the change, and mirrors it."""
        numbers = set(range(1, self.last + 1)) - set(self.missing)
        self._put(dict.fromkeys(numbers, 1))
        self.registry.get(self.service.name).initialize()
        self._sync()
        self.save()

    def save(self) -> None:
        """Keeps both sides as they are now, for `rewind`."""
        raise NotImplementedError

    def rewind(self) -> None:
        """Makes both sides mirrored, and such that the next change is as large as the one before."""
        raise NotImplementedError

    def change(self) -> None:
        """Changes the source."""
        self._put(dict.fromkeys(self.missing, 1) | dict.fromkeys(self.updated, 2))
        self._delete(self.gone)

    def settle(self) -> None:
        """Is told that the last change was carried out, and need not be by `rewind`."""

    def order(self, do: str, **more: Any) -> dict[str, Any]:
        """What `Mortal` is told."""
        return {"do": do, "service": self.service.name, "settings": self.settings, **more}

    def _put(self, versions: Mapping[int, int]) -> None:
        entry = {"customer": sample.customer, "order": sample.order}[self.service.name]
        sample.put(self.registry, self.service.name, [entry(n, version) for n, version in versions.items()])

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
            wanted = {f"order-{n:04}" for n in numbers}
            for one in container.read_all_items():
                if one["id"] in wanted:
                    container.delete_item(one["id"], partition_key=one["customerId"])


class SqliteScene(Scene):
    """In files, which are copied back."""

    def save(self) -> None:
        self._kept.mkdir(exist_ok=True)
        for path in self._folder.glob("*.db"):
            shutil.copy(path, self._kept)

    def rewind(self) -> None:
        for path in self._folder.glob("*.db*"):  # and the journal of a transaction that died
            path.unlink()
        for path in self._kept.iterdir():
            shutil.copy(path, self._folder)

    @property
    def _folder(self) -> Path:
        assert isinstance(self.service.source, Sql)
        return Path(str(sa.make_url(self.service.source.url).database)).parent

    @property
    def _kept(self) -> Path:
        return self._folder / "kept"


class PostgresScene(Scene):
    """In tables, which are filled again from copies."""

    def save(self) -> None:
        for side, names in self._tables():
            side.run("; ".join(f'CREATE TABLE "kept {name}" AS TABLE customer."{name}"' for name in names))

    def rewind(self) -> None:
        for side, names in self._tables():
            refilled = 'TRUNCATE customer."{0}"; INSERT INTO customer."{0}" TABLE "kept {0}"'
            side.run("; ".join(refilled.format(name) for name in names))

    def _tables(self) -> Iterator[tuple[Sql, list[str]]]:
        assert isinstance(self.service.source, Sql)
        assert isinstance(self.service.backup, Sql)
        yield self.service.source, ["Customers"]
        yield self.service.backup, ["Customers", "SyncHistory", "RecycleBin"]


class CosmosScene(Scene):
    """In containers, where going back is slow: each change deletes what the one before has inserted, and so on."""

    version = 1
    is_settled = True
    """Whether the last change is known to be carried out."""

    def save(self) -> None:
        """Has nothing to keep."""

    def rewind(self) -> None:
        if not self.is_settled:
            self._sync()

    def change(self) -> None:
        self.version += 1
        self.is_settled = False
        self._put(dict.fromkeys(self.missing, 1) | dict.fromkeys(self.updated, self.version))
        self._delete(self.gone)
        self.missing, self.gone = self.gone, self.missing

    def settle(self) -> None:
        self.is_settled = True


def on_sqlite(folder: Path) -> Scene:
    """93 customers in files; 7 are inserted, 12 updated, 7 deleted."""
    return _customers(SqliteScene, places.on_sqlite(folder).customer)


def on_postgres(source: str, backup: str) -> Scene:
    """The same customers in tables of two empty databases."""
    return _customers(PostgresScene, places.on_postgres(source, backup).customer)


def _customers(kind: type[Scene], service: Service) -> Scene:
    return kind(service, 100, missing=range(5, 101, 14), gone=range(3, 101, 14), updated=range(8, 101, 8))


def on_cosmos(folder: Path, source: str, backup: str) -> Scene:
    """18 orders in containers of two accounts; 2 are inserted, 4 updated, 2 deleted."""
    service = places.with_orders_on_cosmos(folder, source, backup).order
    more = {**SMALL_DOCUMENT_BATCHES, "BackupSync__ChunkSize": "10", "BackupSync__BatchSize": "1"}
    return CosmosScene(service, 20, missing=range(5, 21, 14), gone=range(3, 21, 14), updated=range(6, 21, 4), more=more)


# --- what is there ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """An entry of the recycle bin: whose it is, and the whole record without what the backup adds."""

    sync_id: str
    action: str
    key: Any
    record: dict[str, Any] | None


@dataclass(frozen=True)
class Seen:
    """A backup: its records by key without what the backup adds, the bin's entries, the runs in order."""

    contents: Contents
    bin: list[Kept]
    runs: list[dict[str, Any]]

    def since(self, earlier: Seen) -> Seen:
        """The same with only the runs that were not there earlier, and their entries."""
        past = {run["SyncId"] for run in earlier.runs}
        return Seen(
            self.contents,
            [one for one in self.bin if one.sync_id not in past],
            [run for run in self.runs if run["SyncId"] not in past],
        )


def look(backup: Sql | Cosmos) -> Seen:
    """What is in the backup now."""
    if isinstance(backup, Sql):
        table = replace(backup, table=f"{backup.table.rpartition('.')[0]}.RecycleBin".lstrip("."))
        entries = table._run(sa.select(sa.text("*")).select_from(table._named()))
        return Seen(backup.contents(), list(map(_kept, entries)), backup.history())
    with _database(backup) as database:  # one client for all: each costs more than what it is asked

        def all_of(container: str) -> list[dict[str, Any]]:
            return list(database.get_container_client(container).read_all_items())

        return Seen(
            {one["id"]: {n: v for n, v in one.items() if not n.startswith("_")} for one in all_of(backup.container)},
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
    """What a run would insert, update, delete and skip."""
    both = source.keys() & backup.keys()
    same = sum(source[key] == backup[key] for key in both)
    return len(source.keys() - both), len(both) - same, len(backup.keys() - both), same


def counts_of(run: Mapping[str, Any]) -> tuple[int, ...]:
    """The counts of an entry of SyncHistory."""
    return tuple(run[f"{name}Count"] for name in ("Inserted", "Updated", "Deleted", "Skipped"))


def is_whole(kept: Mapping[str, Any] | None, plain: Mapping[str, Any]) -> bool:
    """Whether a kept record has all values of a record that a plain driver has read."""
    return kept is not None and kept.keys() == plain.keys() and all(_is_same(kept[n], v) for n, v in plain.items())


def _is_same(kept: Any, plain: Any) -> bool:
    if isinstance(plain, datetime) and isinstance(kept, str):  # the server's text
        return datetime.fromisoformat(kept) == plain
    return bool(kept == plain)


def check_bin(kept: list[Kept], before: Contents, after: Contents) -> None:
    """No key has two entries of one run, and each entry is what was before the change: `before`, never `after`."""
    owners = [(one.sync_id, one.key) for one in kept]
    twice = {owner for owner in owners if owners.count(owner) > 1}
    assert not twice, f"in the bin twice: {twice}"
    for one in kept:
        expected = "Inserted" if one.key not in before else "Updated" if one.key in after else "Deleted"
        assert one.action == expected, one
        right = one.record is None if one.key not in before else is_whole(one.record, before[one.key])
        assert right, f"not the value before the change: {one}"


@contextmanager
def _database(side: Cosmos) -> Iterator[DatabaseProxy]:
    with CosmosClient.from_connection_string(side.account) as client:
        yield client.get_database_client(side.database)
