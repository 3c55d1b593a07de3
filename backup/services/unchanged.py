"""One look at many small tables of a set: those of which nothing has changed are settled at once, with their entries.

Only what a look can prove is settled by it. Everything else is left to a run of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from backup.core import interrupts
from backup.core.errors import BackupError
from backup.core.log import event
from backup.core.model import CheckLock, Now
from backup.core.run_values import Counts, Run, Status, Trigger
from backup.core.unexpected import as_backup_error
from backup.core.workers import Workers
from backup.mirror import proof
from backup.runs import unchanged_runs
from backup.runs.lock import Lock
from backup.runs.opening import Opening, note_ahead
from backup.runs.outcome import Outcome, tell_end
from backup.runs.run_spans import count_run
from backup.services.service import SyncService
from backup.services.set_snapshot import ALONE, SetSnapshot
from backup.services.table_pairs import Both, SetSides, TablePair, asked_tables, pair_of
from backup.stores import Limits
from backup.stores.sides import open_tables

if TYPE_CHECKING:
    from backup.stores.sql.many_tables import AskedTable

TABLES_AT_ONCE = 100
"""How many tables a look takes together: it holds their locks, and then writes their entries in one statement."""

RECORDS_AT_MOST = 10_000
"""A table with more records at its last sync gets a run of its own: its fingerprint is what costs there."""


class _Locked(NamedTuple):
    """A service that is looked at, its tables, and the check of its lock."""

    service: SyncService
    pair: TablePair
    check_lock: CheckLock


class _Begun(NamedTuple):
    """A run of a service that may be settled, but for its end; the check of its lock, its clock, and its tables.
    `follows_indexes`: the backup gets the indexes of the source."""

    name: str
    follows_indexes: bool
    run: Callable[..., Run]
    check_lock: CheckLock
    now: Now
    source: AskedTable
    backup: AskedTable


class SetLook:
    """Looks at services of one set, which have one source and one backup."""

    def __init__(self, limits: Limits, lock: Lock, now: Now, snapshot: SetSnapshot | None = None) -> None:
        """With a `snapshot` of the set it reads the source there."""
        self._limits, self._lock, self._now, self._snapshot = limits, lock, now, snapshot

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
                name, failure = part[0].name.partition("/")[0], as_backup_error(error)
                event("set.not_looked_at", level=logging.WARNING, set=name, error=failure)
                return
            yield from outcomes

    def _part(self, services: Sequence[SyncService], trigger: Trigger, stack: ExitStack) -> list[Outcome]:
        spec, reads = services[0].spec, None if self._snapshot is None else self._snapshot.reads_of(None)
        sides = SetSides(open_tables(spec.source, self._limits, reads), open_tables(spec.backup, self._limits))
        for tables in sides:
            stack.callback(tables.close)
        if sides.source.dialect.kind != sides.backup.dialect.kind or sides.source.is_same_database(sides.backup):
            return []
        with Workers(2) as workers:
            begun = self._begin(services, trigger, sides, workers, stack)
            of_source, of_backup = workers.both(
                lambda: sides.source.fingerprints([each.source for each in begun]),
                lambda: sides.backup.fingerprints([each.backup for each in begun]),
            )
        equal = [
            (each, left)
            for each, left, right in zip(begun, of_source, of_backup, strict=True)
            if left is not None and proof.are_equal(left, right)
        ]
        lacking = _lacking_indexes([each for each, _ in equal], sides)
        equal = [(each, fingerprint) for each, fingerprint in equal if each.name not in lacking]
        read_as_of = None if reads is None else reads.read_as_of
        if reads is not None and read_as_of is None:
            return []  # what it has read is of several moments; each run says so
        ended: list[Run] = []
        for each, fingerprint in equal:
            each.check_lock()
            counts = Counts(skipped=fingerprint.records)
            shown = proof.of_fingerprint(fingerprint)
            end = {"completed_at": each.now(), "read_as_of": read_as_of}
            ended.append(each.run(status=Status.COMPLETED, counts=counts, proof=shown, **end))
        written = unchanged_runs.add(sides.backup, ended) if ended else set()
        outcomes = [Outcome(run, recorded=True) for run in ended if run.sync_id in written]
        for outcome in outcomes:
            tell_end(outcome)
            count_run(outcome)
        return outcomes

    def _begin(
        self, services: Sequence[SyncService], trigger: Trigger, sides: SetSides, workers: Workers, stack: ExitStack
    ) -> list[_Begun]:
        """Takes the locks, and begins the runs of those services whose past and whose columns leave nothing to do."""
        locked = [each for service in services if (each := self._locked(service, sides, stack)) is not None]
        in_source, in_backup = workers.both(
            lambda: sides.source.describe([each.pair.source_name for each in locked]),
            lambda: sides.backup.describe([each.pair.backup_name for each in locked]),
        )
        in_both = [
            (each, Both(source, backup))
            for each, source, backup in zip(locked, in_source, in_backup, strict=True)
            if source is not None and backup is not None
        ]
        places = {each.service.name: described.backup.table.spelled for each, described in in_both}
        openings = unchanged_runs.openings(sides.backup, places) if places else {}
        # The clock of the backup's server, as SyncHistory's answer had it.
        clock = next((opening.server_time.clock for opening in openings.values() if opening.server_time), self._now)
        begun = []
        for each, described in in_both:
            name, policy, spec = each.service.name, each.service.policy, each.service.spec
            opening = openings.get(name)
            if opening is None or not _may_build_on(opening, policy.selection):
                continue
            tables = asked_tables(each.pair, sides, described, policy.on_new_column, self._limits)
            now = opening.clock(clock, None)
            started_at = now()
            if tables is None or note_ahead(opening, name, started_at):
                continue
            run = partial(
                Run,
                name,
                trigger,
                False,
                started_at,
                place=places[name],
                number=opening.next_number,
                notes=(*tables.notes, ALONE) if self._snapshot is None and spec.is_consistent else tables.notes,
                selection=policy.selection,
                # If nothing has changed, what was in the backup up to the last watermark still is.
                watermark=opening.newest[0].watermark,
            )
            begun.append(
                _Begun(name, spec.rules.follows_indexes, run, each.check_lock, now, tables.source, tables.backup)
            )
        return begun

    def _locked(self, service: SyncService, sides: SetSides, stack: ExitStack) -> _Locked | None:
        """The service's tables and its lock; None if the lock is taken, or if only a run can say what is wrong."""
        with suppress(BackupError):
            if self._snapshot is not None:
                self._snapshot.reads_of(service.spec.source.table)
            if (pair := pair_of(service, sides, self._limits)) is not None:
                check_lock = stack.enter_context(self._lock(service.name, pair.backup.location))
                return _Locked(service, pair, check_lock)
        return None


def _lacking_indexes(equal: Sequence[_Begun], sides: SetSides) -> set[str]:
    """The services whose backup lacks an index that it gets, by their names. Asks nobody if no backup gets any."""
    following = [each for each in equal if each.follows_indexes]
    if not following:
        return set()
    plans = sides.backup.index_plans(
        [each.backup for each in following], sides.source, [each.source for each in following]
    )
    return {each.name for each, plan in zip(following, plans, strict=True) if plan.missing}


def _may_build_on(opening: Opening, selection: str | None) -> bool:
    """Whether the newest run had the same rules, and few records."""
    [last] = opening.newest
    records = last.proof.source.records if last.proof is not None else RECORDS_AT_MOST + 1
    return last.selection == selection and records <= RECORDS_AT_MOST


def _has_time(seconds_left: float | None) -> bool:
    return seconds_left is None or seconds_left > 0
