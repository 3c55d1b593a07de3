"""An undo of many services: takes back the last sync of each. Refused as a whole if one of them is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backup.core.errors import BackupError, Conflict
from backup.core.log import redact
from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.runs.outcome import NOBODY, Observer, Outcome
from backup.services.group_passes import GroupPasses, by_set, without_run
from backup.services.registry import Registry
from backup.services.service import Options
from backup.services.sets import ServiceSet
from backup.services.turns import AT_ONCE, side_by_side

_LATER_PASSES = 10
"""How often tables that refer to each other are undone again, at most."""


def undo_group(
    registry: Registry,
    name: str,
    *,
    dry_run: bool = False,
    observer: Observer = NOBODY,
    trigger: Trigger = Trigger.CLI,
) -> list[Outcome]:
    """Takes back the last sync of each service that a set or a pattern stands for. Returns an outcome of each.

    A service whose last sync changed nothing, or was taken back already, has an outcome without a run. So the same
    call may be repeated after a failure. First each undo has a dry run. If one of these fails, no record is changed,
    and all outcomes have errors.

    Only where somebody has given the backup's tables foreign keys, the order matters: children first, which deletes
    them before their parents. What was refused is undone again in the other order, which inserts parents first, and so
    on, as long as that takes something back.

    Raises UnknownService when there is no such service.
    """
    undos = [
        _GroupUndo(registry, own_set, names, observer, trigger) for own_set, names in by_set(registry, name).items()
    ]
    previews = {service: outcome for undo in undos for service, outcome in undo.preview().items()}
    refused = [outcome for outcome in previews.values() if outcome.error is not None]
    if refused and not dry_run:
        return [_held_back(outcome, refused[0]) for outcome in previews.values()]
    if dry_run:
        return [*previews.values()]
    outcomes = previews | {service: outcome for undo in undos for service, outcome in undo.run().items()}
    return [*outcomes.values()]


class _GroupUndo:
    """The undo of services whose backups lie in one database: those of a set, or those that settings name (None)."""

    def __init__(
        self,
        registry: Registry,
        own_set: ServiceSet | None,
        services: Sequence[str],
        observer: Observer,
        trigger: Trigger,
    ) -> None:
        self._registry, self._services, self._observer, self._trigger = registry, services, observer, trigger
        self._at_once = AT_ONCE if own_set is None else own_set.at_once
        self._passes = GroupPasses(own_set, services, () if own_set is None else own_set.members.copy_keys)
        self._run_of: dict[str, str] = {}

    def preview(self) -> dict[str, Outcome]:
        """A dry run of each service's undo. Remembers which run each is about."""

        def look(service: str) -> Outcome:
            try:
                opened = self._registry.get(service)
                last, reason = opened.past.last_sync()
                if last is None:
                    return without_run(service, Verb.UNDO, self._trigger, Options(), reason)
                self._run_of[service] = last.sync_id
                return opened.undo(last.sync_id, dry_run=True, observer=self._observer, trigger=self._trigger)
            except BackupError as error:
                return self._registry.failed(service, Verb.UNDO, self._trigger, Options(dry_run=True), error)

        return dict(zip(self._services, side_by_side(look, self._services, self._at_once), strict=True))

    def run(self) -> dict[str, Outcome]:
        """Undoes each run that `preview` found."""

        def undo(table: str) -> Outcome:
            service = passes.service_of[table]
            opened = self._registry.get(service)
            return opened.undo(self._run_of[service], observer=self._observer, trigger=self._trigger)

        def failed(service: str, error: BackupError) -> Outcome:
            return self._registry.failed(service, Verb.UNDO, self._trigger, Options(), error)

        passes, children_first = self._passes, True
        levels = passes.order.levels
        tables = frozenset(table for table, service in passes.service_of.items() if service in self._run_of)
        for _ in range(1 + _LATER_PASSES):
            changed = passes.make(reversed(levels) if children_first else levels, tables, undo, failed)
            tables = passes.refused()
            if not tables or (not changed and not children_first):
                break
            children_first = not children_first
        return {passes.service_of[table]: self._whole(table) for table in passes.outcomes}

    def _whole(self, table: str) -> Outcome:
        """The outcome of all runs of a table as one."""
        outcome = self._passes.whole(table)
        # A later run writes again what an earlier one wrote; what was deleted, it does not find any more.
        all_counts = [of_run.run.counts for of_run in self._passes.outcomes[table]]
        written = {kind: max(getattr(counts, kind) for counts in all_counts) for kind in ("inserted", "updated")}
        return replace(outcome, run=replace(outcome.run, counts=replace(outcome.run.counts, **written)))


def _held_back(preview: Outcome, refused: Outcome) -> Outcome:
    """The outcome of an undo that was not made, because that of another service is refused."""
    if preview.error is not None:
        return preview
    service = refused.run.service
    error = Conflict(
        f"{preview.run.service} was not undone, because the undo of {service} is refused. Nothing was changed.",
        hint=f"Mend what refuses the undo of {service}, or undo single runs by their ids.",
    )
    run: Run = preview.run.ended(Status.FAILED, preview.run.started_at, Counts(), redact(str(error)))
    return replace(preview, run=replace(run, error_kind=type(error).__name__), error=error, changes=())
