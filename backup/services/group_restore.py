"""A restore of many services, each in runs of its own: parents are written before children, and deleted after them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from backup.core.errors import BackupError, BadRequest, RecordsSetAside
from backup.core.log import event, redact
from backup.core.run_values import Status, Trigger, Verb
from backup.core.suggestions import quoted
from backup.runs.outcome import NOBODY, Observer, Outcome
from backup.services.group_passes import GroupPasses, by_set, without_run
from backup.services.registry import Registry
from backup.services.service import NO_OPTIONS, Options
from backup.services.sets import ServiceSet
from backup.verbs.restore_spec import RestoreSpec

_LATER_TRIES = 10
"""How often tables of a cycle are tried again, at most."""
_OF_TABLES = (
    "It is a {kind} of the source and shows rows of tables, so nothing was restored: restore those tables. "
    "To write through the {kind} where the server allows it, restore {name} by its name."
)


def restore_group(
    registry: Registry,
    name: str,
    spec: RestoreSpec,
    options: Options = NO_OPTIONS,
    to: str | None = None,
    observer: Observer = NOBODY,
    trigger: Trigger = Trigger.CLI,
    *,
    constraints: bool = False,
) -> list[Outcome]:
    """Restores the services that a set or a pattern stands for, also those whose table is gone from the source. Returns
    an outcome of each, parents first. A service that fails does not disturb the others.

    The order comes from the foreign keys in the source, as far as it can be asked, and in the place of `to`. Tables
    that refer to others may have several runs. With `delete_extra` a second run deletes, children before their parents.
    In a cycle a further run tries again what a foreign key refused. Their outcome is that of the last run, with the
    counts of all. A view of the source is left alone, with a note: its rows come from tables.

    With `constraints`, then makes in the place of `to` the foreign keys that the source has between these tables, or
    had at the last sync if it cannot be asked. One that cannot be made fails the outcome of its table; what was
    restored stays, and SyncHistory says Completed.

    Raises BadRequest for a spec that is about one service, for `to` with services of several sets, and for
    `constraints` where there can be none. Raises UnknownService when there is no such service, and what a store raises
    when the place of `to` cannot be asked, or the source for `constraints`. Then nothing was changed.
    """
    if spec.run is not None or spec.keys:
        raise BadRequest(
            f"A run and a key belong to one service, and {quoted(name)} stands for several. Nothing was changed.",
            hint="Name the service, or name a time instead of a run.",
        )
    groups = by_set(registry, name)
    if to is not None and len(groups) > 1:
        raise BadRequest(
            f"{quoted(name)} stands for services of several sets, and their tables may have the same names. "
            "Nothing was changed.",
            hint="Restore one set at a time into another database.",
        )
    if constraints:
        if to is None or None in groups:
            raise BadRequest(
                "Foreign keys are made only where a set is restored into another database. Nothing was changed.",
                hint="Name a set, and the other database with --to.",
            )
        for own_set in filter(None, groups):
            own_set.foreign_keys.check_addable(to)
    restores = [
        _GroupRestore(registry, own_set, names, spec, to, options, observer, trigger)
        for own_set, names in groups.items()
    ]
    return [outcome for restore in restores for outcome in restore.run(constraints=constraints)]


class _GroupRestore:
    """The restore of services that lie in one database: those of a set, or those that the settings name (None)."""

    def __init__(
        self,
        registry: Registry,
        own_set: ServiceSet | None,
        services: Sequence[str],
        spec: RestoreSpec,
        to: str | None,
        options: Options,
        observer: Observer,
        trigger: Trigger,
    ) -> None:
        self._registry, self._own_set, self._to = registry, own_set, to
        self._options, self._observer, self._trigger = options, observer, trigger
        foreign_keys = [] if own_set is None else own_set.foreign_keys.known(to)
        self._passes = GroupPasses(own_set, services, foreign_keys)
        self._spec = replace(spec, beside=self._passes.order.linked)

    def run(self, *, constraints: bool) -> list[Outcome]:
        """Restores; returns an outcome for each service."""
        passes, order, spec = self._passes, self._passes.order, self._spec
        deletes_apart = spec.delete_extra and not self._options.dry_run
        self._pass_over(order.levels, frozenset(passes.service_of), replace(spec, deletes_later=deletes_apart))
        if deletes_apart:
            not_stopped = (t for t in order.linked if isinstance(passes.error(t), RecordsSetAside | None))
            self._pass_over(reversed(order.levels), frozenset(not_stopped), spec)
        for _ in range(_LATER_TRIES if order.cycles or deletes_apart else 0):
            refused = passes.refused()
            if not refused or not self._pass_over(order.levels, refused, spec):
                break
        outcomes = {table: passes.whole(table) for level in order.levels for table in level}
        if constraints and self._own_set is not None:
            self._add_foreign_keys(outcomes, self._own_set, dry_run=self._options.dry_run)
        return [*outcomes.values()]

    def _pass_over(self, levels: Iterable[Sequence[str]], tables: frozenset[str], linked_spec: RestoreSpec) -> int:
        """Restores these tables level by level, those that foreign keys link by `linked_spec`. Returns how many records
        that wrote or deleted."""

        def restore(table: str) -> Outcome:
            spec = linked_spec if table in self._passes.order.linked else self._spec
            name = self._passes.service_of[table]
            if self._to is None and (kind := self._view_kind(table)):
                note = _OF_TABLES.format(kind=kind, name=name)
                return without_run(name, Verb.RESTORE, self._trigger, self._options, note)
            service = self._registry.get(name)
            return service.restore(spec, self._options, self._to, self._observer, self._trigger)

        return self._passes.make(levels, tables, restore, self._failed)

    def _view_kind(self, table: str) -> str | None:
        """What the source calls the view of this name; None for a table, and for one that it does not have."""
        listed = None if self._own_set is None else self._own_set.members.listed.get(table)
        return listed.kind if listed is not None and "view" in listed.kind else None

    def _failed(self, service: str, error: BackupError) -> Outcome:
        return self._registry.failed(service, Verb.RESTORE, self._trigger, self._options, error)

    def _add_foreign_keys(self, outcomes: dict[str, Outcome], own_set: ServiceSet, *, dry_run: bool) -> None:
        """Makes the foreign keys of the source, and notes in the outcomes of their tables what became of each."""
        foreign_keys = own_set.foreign_keys
        kept = foreign_keys.kept
        as_of = "" if kept is None else f" The source could not be asked: it is as kept since {kept.saved_at:%Y-%m-%d}."
        not_whole = {table for table, outcome in outcomes.items() if outcome.error is not None}
        for foreign_key in foreign_keys.known():
            child, error = outcomes.get(foreign_key.table), None
            if child is None or self._to is None:
                continue
            named = f"The foreign key {foreign_key.name} to {foreign_key.referred}"
            if foreign_key.referred not in outcomes:
                note = f"{named} was not made: that table was not restored with it."
            elif not_whole & {foreign_key.table, foreign_key.referred}:
                note = f"{named} was not made: not all of its rows were restored."
            elif not foreign_key.of_all_rows:
                note = f"{named} was not made: in the source it is of a partition, not of the whole table.{as_of}"
            elif dry_run:
                note = f"{named} would be made.{as_of}"
            else:
                try:
                    foreign_keys.add(foreign_key, self._to)
                    note = f"{named} is there.{as_of}"
                except BackupError as caught:
                    note, error = f"{named} could not be made.", caught
            event("restore.foreign_key", service=child.run.service, note=note, error=error)
            run = replace(child.run, notes=(*child.run.notes, note))
            if error is not None and child.error is None:
                run = run.ended(Status.FAILED, run.completed_at or run.started_at, run.counts, redact(str(error)))
                run = replace(run, error_kind=type(error).__name__)
            outcomes[foreign_key.table] = replace(child, run=run, error=child.error or error)
