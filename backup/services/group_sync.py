"""Syncs of several services by one call: side by side in their turns, those of a set in the order that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock

from backup.config.given_services import ALL
from backup.core import spans
from backup.runs.outcome import Outcome
from backup.services.directory import Directory
from backup.services.set_snapshot import SetSnapshot
from backup.services.table_order import parents_first
from backup.services.turns import SyncInTurn, in_turn


class GroupSync:
    """The syncs of one call. Each set has threads of its own, and so have the services of the settings."""

    def __init__(self, directory: Directory, syncs: Sequence[SyncInTurn]) -> None:
        self._directory = directory
        self._pools: list[ThreadPoolExecutor] = []
        self._syncs_of: dict[str, list[SyncInTurn]] = {}
        """By the name of the set; services of the settings have none."""

        for sync in syncs:
            service_set = directory.set_with(sync.service)
            self._syncs_of.setdefault(service_set.name if service_set else "", []).append(sync)

    def begin(self, look: Callable[[Sequence[SyncInTurn]], None] | None) -> list[Future[None]]:
        """Starts the syncs in threads; returns what ends with them. Those of a set wait for a `look` at them, which may
        settle some.

        Those of a whole set that is to be read as of one moment share a snapshot, which ends with the last of them."""
        futures: list[Future[None]] = []
        for set_name, syncs in self._syncs_of.items():
            snapshot = self._snapshot(set_name, syncs)
            for sync in syncs:
                sync.snapshot = snapshot
            if set_name and look is not None:
                looking = self._pool("look", 1)
                of_set = [looking.submit(spans.carried(self._look_and_sync), look, set_name, syncs)]
            else:
                of_set = in_turn(self._in_order(set_name, syncs), self._pool("sync", len(syncs), syncs[0].at_once))
            if snapshot is not None:
                _call_after(snapshot.close, of_set)
            futures += of_set
        return futures

    def _pool(self, name: str, *threads: int) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(min(threads), thread_name_prefix=name)
        self._pools.append(pool)
        return pool

    def _look_and_sync(
        self, look: Callable[[Sequence[SyncInTurn]], None], set_name: str, syncs: Sequence[SyncInTurn]
    ) -> None:
        """Looks at the syncs of a set, and then makes those that are left. Whoever began it may have left meanwhile."""
        try:
            look(syncs)
        finally:
            if left := [sync for sync in syncs if not sync.has_ended]:
                with ThreadPoolExecutor(min(len(left), left[0].at_once), thread_name_prefix="sync") as pool:
                    wait(in_turn(self._in_order(set_name, left), pool))

    def _snapshot(self, set_name: str, syncs: Sequence[SyncInTurn]) -> SetSnapshot | None:
        """What the syncs read in, if they are of a whole set that is consistent."""
        service_set = self._directory.sets.get(set_name.lower())
        if service_set is None or not service_set.is_consistent:
            return None
        is_whole = {sync.service for sync in syncs} >= {*service_set.names()}
        return service_set.snapshot() if is_whole else None

    def end(self, *, all_have_ended: bool) -> None:
        """Gives the threads back when they end. If all have ended, writes the entries that SyncHistory lacks."""
        for pool in self._pools:
            pool.shutdown(wait=all_have_ended)
        for sync in (sync for syncs in self._syncs_of.values() for sync in syncs if all_have_ended):
            sync.leave_entry()

    def _in_order(self, set_name: str, syncs: Sequence[SyncInTurn]) -> list[list[SyncInTurn]]:
        """The syncs of a set, by what must be synced first. They are one group, unless somebody has given the backup's
        tables foreign keys: then parents come first."""
        service_set = self._directory.sets.get(set_name.lower())
        if service_set is None or not service_set.members.copy_keys:
            return [[*syncs]]
        sync_of = {sync.service.partition("/")[2]: sync for sync in syncs}
        levels = parents_first([*sync_of], service_set.members.copy_keys).levels
        return [[sync_of[table] for table in level] for level in levels]

    def keep_foreign_keys(self) -> None:
        """Keeps the foreign keys of each set of which a sync has ended without an error: its backup is no source."""
        for set_name, syncs in self._syncs_of.items():
            if set_name and any(sync.has_ended and sync.outcome().error is None for sync in syncs):
                self._directory.sets[set_name.lower()].foreign_keys.keep()

    def whole_sets(self, name: str) -> Iterator[tuple[str, list[Outcome]]]:
        """Yields each set of which `name` stands for all services, and their outcomes."""
        for set_name, syncs in self._syncs_of.items():
            if set_name and name.lower() in (ALL, set_name.lower()):
                yield set_name, [sync.outcome() for sync in syncs]

    def outcomes(self) -> list[Outcome]:
        """Returns how each ended, or its run in progress; set by set."""
        return [sync.outcome() for syncs in self._syncs_of.values() for sync in syncs]


def _call_after(end: Callable[[], None], futures: Sequence[Future[None]]) -> None:
    """Calls `end` once all these have ended, in the thread of the last one."""
    lock, running = Lock(), len(futures)

    def count_down(_: Future[None]) -> None:
        nonlocal running
        with lock:
            running -= 1
            is_last = running == 0
        if is_last:
            end()

    for future in futures:
        future.add_done_callback(count_down)
