"""Passes over the tables of a group of services, level by level of their foreign keys, and what each pass came to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from backup.core.errors import BackupError, RecordsSetAside
from backup.core.model import utc_now
from backup.core.run_values import Counts, Status, Trigger, Verb
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service import Options, new_run
from backup.services.sets import ServiceSet
from backup.services.several_as_one import runs_as_one
from backup.services.table_order import TableOrder, cycle_text, parents_first
from backup.services.turns import AT_ONCE, side_by_side
from backup.stores import ForeignKey


def by_set(registry: Registry, name: str) -> dict[ServiceSet | None, list[str]]:
    """The services that `name` stands for, also those whose table is gone, by their set; None: those of the settings.

    Raises UnknownService when there is none.
    """
    groups: dict[ServiceSet | None, list[str]] = {}
    for service in registry.directory.with_copies(name):
        groups.setdefault(registry.directory.set_with(service), []).append(service)
    return groups


def without_run(service: str, verb: Verb, trigger: Trigger, options: Options, reason: str) -> Outcome:
    """The outcome of a service for which the verb has nothing to do: it has no run, and a note says why."""
    run = replace(new_run(service, verb, trigger, options, utc_now()), sync_id="", notes=(reason,))
    return Outcome(run.ended(Status.COMPLETED, run.started_at, Counts()))


class GroupPasses:
    """The passes of one verb over services of one database: those of a set, or those of the settings (None)."""

    def __init__(self, own_set: ServiceSet | None, services: Sequence[str], foreign_keys: Iterable[ForeignKey]) -> None:
        self._at_once = AT_ONCE if own_set is None else own_set.at_once
        self.service_of = {service if own_set is None else service.partition("/")[2]: service for service in services}
        """The services by their tables."""
        self.order: TableOrder = parents_first([*self.service_of], foreign_keys)
        self.outcomes: dict[str, list[Outcome]] = {}
        """By table: one of each pass that was about it."""

    def make(
        self,
        levels: Iterable[Sequence[str]],
        tables: frozenset[str],
        work: Callable[[str], Outcome],
        failed: Callable[[str, BackupError], Outcome],
    ) -> int:
        """Calls `work` with each of these tables, those of a level side by side. Where it raises, `failed` makes the
        outcome, from the name of the service. Returns how many records the pass wrote or deleted."""

        def ended(table: str) -> Outcome:
            try:
                return work(table)
            except BackupError as error:
                return failed(self.service_of[table], error)

        changed = 0
        for level in levels:
            chosen = [table for table in level if table in tables]
            for table, outcome in zip(chosen, side_by_side(ended, chosen, self._at_once), strict=True):
                self.outcomes.setdefault(table, []).append(outcome)
                changed += outcome.run.counts.processed
        return changed

    def error(self, table: str) -> BackupError | None:
        """How the last pass over the table failed."""
        return self.outcomes[table][-1].error

    def refused(self) -> frozenset[str]:
        """The tables with foreign keys to or from others that had records refused in their last pass."""
        passed = self.order.linked & self.outcomes.keys()
        return frozenset(table for table in passed if isinstance(self.error(table), RecordsSetAside))

    def whole(self, table: str) -> Outcome:
        """The outcome of all passes over the table as one. It notes the cycles that the table is in."""
        outcome = runs_as_one(self.outcomes[table])
        notes = [cycle_text(cycle) for cycle in self.order.cycles if table in cycle]
        return replace(outcome, run=replace(outcome.run, notes=(*outcome.run.notes, *notes)))
