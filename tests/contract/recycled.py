"""The recycle bin of a bench: runs that change its backup, and their images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from backup.core.errors import LockLost
from backup.core.model import Action, Chunk, Key, Record
from backup.core.run_values import Run
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import KeptImage
from backup.stores import CopyNote, Keep, Store
from tests.contract.benches import ROLES, RUN, Bench, CosmosBench, SqlBench
from tests.contract.memory_bench import MemoryBench

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
SYSTEM = {"_rid", "_self", "_etag", "_ts", "_attachments"}


def moment(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def run_at(minutes: int) -> tuple[Run, Callable[[], datetime]]:
    """A run, and its clock, which always says that minute."""
    return replace(RUN, sync_id=f"{minutes:08}-0000-4000-8000-000000000000"), lambda: moment(minutes)


class Recycled:
    """The bin of a backup, and runs that change the backup. The number of a run is the minute of its changes."""

    def __init__(self, source: Store, backup: Store, service: str = "contract") -> None:
        self.source, self.backup = source, backup
        self.bin = RecycleBin(backup, service)
        self.bin.create()

    def lose_lock_at(self, check: int) -> None:
        """From now on, the lock is lost at this check of a transaction at its end; they count from 1."""
        backup, checks = self.backup, count(1)

        class Fence:
            beside = backup

            def check_young(self) -> None:
                raise AssertionError("only for stores without transactions")

            def check_last(self, transaction: Any, again: bool) -> None:
                if next(checks) == check:
                    raise LockLost

        backup.fence_by(Fence())

    def keep(self, minutes: int) -> Keep:
        return self.bin.recorder(*run_at(minutes))

    def copies(self, keys: Sequence[Key], minutes: int) -> Sequence[Record]:
        """The source's records of these keys, as the backup keeps them."""
        run, now = run_at(minutes)
        records = [record for batch in self.source.read(frozenset(keys), Chunk()) for record in batch]
        return self.backup.copies.of(records, CopyNote(run.sync_id, now()))

    def write(self, keys: Sequence[Key], minutes: int) -> None:
        self.backup.write(self.copies(keys, minutes), self.keep(minutes))

    def delete(self, keys: Sequence[Key], minutes: int) -> None:
        self.backup.delete(keys, self.keep(minutes))

    def of(self, minutes: int) -> dict[Key, KeptImage]:
        """The entries of a run by key. A key has one entry."""
        all_kept = [kept for page in self.bin.of_run(run_at(minutes)[0].sync_id) for kept in page]
        by_key = {kept.key: kept for kept in all_kept}
        assert len(by_key) == len(all_kept)
        return by_key

    def actions(self, minutes: int) -> dict[Key, Action]:
        return {key: kept.action for key, kept in self.of(minutes).items()}

    def put_back(self, minutes: int) -> None:
        """Writes the run's images back. That write itself leaves no image."""
        images = [kept.record for kept in self.of(minutes).values() if kept.record is not None]
        self.backup.write([self.backup.copies.as_it_was(record) for record in images])

    def add(self, keys: Iterable[Any], minutes: int) -> None:
        """Adds entries without a change, as if a run had inserted these keys."""
        self.keep(minutes)([], None, [(key,) for key in keys])


def recycled(bench: Bench, **limits: Any) -> Recycled:
    """The bench's pair, the backup initialized, and its bin."""
    return Recycled(*bench.pair(**limits))


def alike_on_both_sides(bench: SqlBench) -> None:
    """Makes a collation `alike` on both sides of PostgreSQL, to which letters of another case are the same."""
    bench.sql("backup", f"CREATE SCHEMA {bench.quote(bench.schema or '')}")
    options = "(provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    for role in ROLES:
        bench.sql(role, f"CREATE COLLATION {bench.quoted('alike')} {options}")


def content_of_backup(bench: Bench) -> Any:
    """Everything in the backup, as the driver reads it: with the app's own marks, without the server's."""
    if isinstance(bench, CosmosBench):
        documents = bench.documents("backup")
        return sorted(json.dumps({k: v for k, v in document.items() if k not in SYSTEM}) for document in documents)
    if isinstance(bench, MemoryBench):
        return bench.rows("backup")
    assert isinstance(bench, SqlBench)
    return bench.rows("backup")


def keys(bench: Bench, *numbers: int) -> list[Key]:
    return [bench.key(n) for n in numbers]
