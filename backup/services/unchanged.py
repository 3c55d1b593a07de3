"""One look at many small tables of a set: those of which nothing has changed are settled at once, with their entries.

Only what a look can prove is settled by it. Everything else is left to a run of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from backup.core import interrupts
from backup.core.errors import BackupError
from backup.core.foreseen import foreseen
from backup.core.log import event
from backup.core.model import CheckLock, Now
from backup.core.run_values import Counts, Run, Status, Trigger
from backup.core.workers import Workers
from backup.mirror import proof
from backup.runs import unchanged_runs
from backup.runs.clock import clock_of
from backup.runs.lock import Lock
from backup.runs.opening import Opening, note_ahead
from backup.runs.outcome import Outcome, tell_end
from backup.runs.runner import count_run
from backup.runs.upgrade import OWN_NAMES
from backup.services.service import SyncService
from backup.stores import Limits, Store, open_store, open_tables
from backup.verbs.sync import notes_of

if TYPE_CHECKING:
    from backup.stores import ManyTables

TABLES_AT_ONCE = 100
"""How many tables a look takes together: it holds their locks, and then writes their entries in one statement."""

RECORDS_AT_MOST = 10_000
"""A table with more records at its last sync gets a run of its own: its fingerprint is what costs there."""


@dataclass(frozen=True)
class _Pair:
    """A service whose two tables are looked at, and the check of its lock."""

    service: SyncService
    source: Store
    backup: Store
    check_lock: CheckLock


class SetLook:
    """Looks at services of one set, which have one source and one backup."""

    def __init__(self, limits: Limits, lock: Lock, now: Now) -> None:
        self._limits, self._lock, self._now = limits, lock, now

    def unchanged(
        self, services: Sequence[SyncService], trigger: Trigger, seconds_left: Callable[[], float | None]
    ) -> Iterator[Outcome]:
        """Yields the outcomes of those services of which nothing has changed. Each has its entry in SyncHistory by
        then. It ends when no second is left, and at an error: what it has not settled is as if it had not looked."""
        plain = iter([service for service in services if service.spec.is_plain])
        while _has_time(seconds_left()) and (part := list(islice(plain, TABLES_AT_ONCE))):
            try:
                with interrupts.running(), ExitStack() as stack:
                    outcomes = self._part(part, trigger, stack)
            except Exception as error:  # the runs of these services will say what is wrong
                name, failure = part[0].name.partition("/")[0], foreseen(error)
                event("set.not_looked_at", level=logging.WARNING, set=name, error=failure)
                return
            yield from outcomes

    def _part(self, services: Sequence[SyncService], trigger: Trigger, stack: ExitStack) -> list[Outcome]:
        source, backup = (
            open_tables(side, self._limits) for side in (services[0].spec.source, services[0].spec.backup)
        )
        stack.callback(source.close)
        stack.callback(backup.close)
        if source.dialect.kind != backup.dialect.kind or source.is_same_database(backup):
            return []
        pairs = [pair for service in services if (pair := self._locked(service, source, backup, stack)) is not None]
        with Workers(2) as workers:
            in_source, in_backup = workers.both(source.describe, backup.describe)
            pairs = [p for p in pairs if p.source.place.location in in_source and p.backup.place.location in in_backup]
            places = {pair.service.name: pair.backup.catalog.qualified_name() for pair in pairs}
            openings = unchanged_runs.openings(backup, places) if places else {}
            clock = self._clock(openings, pairs)
            begun = {
                pair.service.name: run
                for pair in pairs
                if (opening := openings.get(pair.service.name)) is not None
                and (run := self._begun(pair, opening, trigger, opening.clock(clock, None)())) is not None
            }
            pairs = [pair for pair in pairs if pair.service.name in begun]
            of_source, of_backup = workers.both(
                lambda: source.fingerprints({pair.source.place.location for pair in pairs}),
                lambda: backup.fingerprints({pair.backup.place.location for pair in pairs}),
            )
        ended: dict[str, Run] = {}
        for pair in pairs:
            name = pair.service.name
            left, right = of_source.get(pair.source.place.location), of_backup.get(pair.backup.place.location)
            if left is not None and proof.are_equal(left, right):
                counts, now = Counts(skipped=left.records), openings[name].clock(clock, None)
                pair.check_lock()
                run = replace(begun[name], proof=proof.of_fingerprint(left))
                ended[name] = run.ended(Status.COMPLETED, max(now(), run.started_at), counts)
        written = unchanged_runs.add(backup, ended.values()) if ended else set()
        outcomes = [Outcome(run, recorded=True) for run in ended.values() if run.sync_id in written]
        for outcome in outcomes:
            tell_end(outcome)
            count_run(outcome)
        return outcomes

    def _locked(self, service: SyncService, sources: ManyTables, backups: ManyTables, stack: ExitStack) -> _Pair | None:
        """The service's tables and its lock; None if the lock is taken, or if only a run can say what is wrong."""
        spec = service.spec
        with suppress(BackupError):
            source = open_store(spec.source, spec.rules, self._limits, sources)
            backup = open_store(spec.backup, spec.rules, self._limits, backups)
            if backup.place.name.lower() in OWN_NAMES or service.may_share(source, backup):
                return None
            return _Pair(service, source, backup, stack.enter_context(self._lock(service.name, backup.place.location)))
        return None

    def _clock(self, openings: Mapping[str, Opening], pairs: Sequence[_Pair]) -> Now:
        """The clock of the backup's server, as SyncHistory's answer had it."""
        server_time = next((opening.server_time for opening in openings.values()), None)
        return clock_of(pairs[0].backup, self._now, server_time) if pairs else self._now

    def _begun(self, pair: _Pair, opening: Opening, trigger: Trigger, now: datetime) -> Run | None:
        """The service's run; None if its last run or its columns ask for a run of its own."""
        service, [last] = pair.service, opening.newest
        policy = service.policy
        records = last.proof.source.records if last.proof is not None else RECORDS_AT_MOST + 1
        if last.selection != policy.selection or records > RECORDS_AT_MOST or note_ahead(opening, service.name, now):
            return None
        relational = pair.backup.relational
        if relational is None:
            return None
        try:
            drift = relational.drift(pair.source, policy.on_new_column)
        except BackupError:
            return None
        if drift.statements or drift.added or drift.widened or drift.removed or drift.ignored:
            return None
        return Run(
            service.name,
            trigger,
            False,
            now,
            place=pair.backup.catalog.qualified_name(),
            number=opening.next_number,
            notes=tuple(notes_of(drift)),
            selection=policy.selection,
        )


def _has_time(seconds_left: float | None) -> bool:
    return seconds_left is None or seconds_left > 0
