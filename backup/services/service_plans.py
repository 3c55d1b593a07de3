"""What a sync of a service would do, in words and numbers. Writes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from backup.core.conditions import condition_text
from backup.core.errors import BackupError, GuardTripped, NotInitialized, RecordsSetAside
from backup.core.model import utc_now
from backup.core.run_values import Run
from backup.core.suggestions import quantity
from backup.core.unexpected import as_backup_error
from backup.mirror.planned_changes import PlannedChanges
from backup.runs import upgrade
from backup.runs.history import History, is_synced
from backup.runs.open_runs import is_left_sync
from backup.services.registry import Registry
from backup.services.service import SyncService
from backup.services.set_notes import notes_of_set
from backup.services.set_specs import unique_key
from backup.services.spec import ServiceSpec
from backup.services.turns import side_by_side
from backup.stores import Drift, IndexPlan, Listed
from backup.stores.sides import kept_open
from backup.verbs.lately import deleted_lately
from backup.verbs.records_of_others import refuse_records_of_others
from backup.verbs.schema import RULES

_VERSION_NAMES = re.compile(
    r"(row_?)?version|.*(modified|updated|changed|edited|last_?(write|update|change|edit)).*"
    r"|.*(update|change|modification)_?(date|time|at|on).*|.*(etag|revision)",
    re.I,
)
_SET_ASIDE = "`python -m backup sync` names the first of them, each with its reason. All other records are synced."
_RENAMED = "The backup's table {} gets the new name first; its history and its bin follow."
_COMES_BACK = "The column {} is copied again; the sync copies every record again to fill it."
_VERSION_TYPES = re.compile(r"(?!point|interval).*(int|date|time|numeric|decimal|number).*", re.I)


@dataclass(frozen=True)
class ServicePlan:
    """What a sync would do with one service.

    `key` and `version` say what they are and why. `filter` is empty without one. `left_out` are the columns that are
    not copied, `masked` the columns or properties whose values are hidden, each with its mask. `transform` names its
    steps and its version. `changes` counts what the sync would do; None if nobody can tell, because the sync would fail
    with `error` before. Without `changes` nothing else may be known. `error` is also what would stop the sync, or make
    it end as Failed, though they are known. `notes` are sentences: what the backup lacks and would get, and what a
    person may want to know.
    """

    service: str
    key: str = ""
    version: str = ""
    filter: str = ""
    left_out: Sequence[str] = ()
    masked: Sequence[str] = ()
    transform: Sequence[str] = ()
    changes: PlannedChanges | None = None
    notes: Sequence[str] = ()
    error: BackupError | None = None


@dataclass(frozen=True)
class Plan:
    """The plans of the services that a name stands for, and what else is to say of their sets, in sentences."""

    services: Sequence[ServicePlan] = ()
    notes: Sequence[str] = ()
    errors: Sequence[BackupError] = field(default=())


def plan_of(registry: Registry, name: str) -> Plan:
    """Returns the plan of the services that `name` stands for. Cost: as their syncs without the writes. Raises
    UnknownService when there is none."""
    with kept_open(registry.directory.sides_of_sets(name), registry.limits):
        return _plan_of(registry, name)


def _plan_of(registry: Registry, name: str) -> Plan:
    directory = registry.directory
    services = directory.services(name)
    sets = {own_set.name: own_set for service in services if (own_set := directory.set_with(service)) is not None}
    if named := directory.sets.get(name.lower()):
        sets[named.name] = named

    def plan(service: str) -> ServicePlan:
        begun = ServicePlan(service)
        try:
            begun = _rules_of(registry, service)
            return _with_changes(registry, begun)
        except Exception as error:
            return _with(begun, error=as_backup_error(error))

    notes = [note for own_set in sets.values() for note in notes_of_set(own_set)]
    errors = [error for own_set in sets.values() for error in own_set.members.errors]
    for consistent in (own_set for own_set in sets.values() if own_set.is_consistent and own_set.members.listed):
        refusals = consistent.refusals()
        errors += refusals
        notes += [] if refusals else [f"{consistent.name}: a sync of the whole set reads its tables as of one moment."]
    return Plan(side_by_side(plan, services), notes, errors)


def _rules_of(registry: Registry, service: str) -> ServicePlan:
    """The plan as far as it follows from the file and the catalogue."""
    spec, listed = _spec_and_listed(registry, service)
    rules = spec.rules
    names = [column.name for column in listed.columns] if listed else []
    taken = rules.taken(names)
    left_out = [name for name in names if name not in taken]
    where = [condition_text(name, condition) for name, condition in rules.where.items()]
    plan = ServicePlan(
        spec.name,
        key_text_of(spec, listed),
        version_text_of(spec, listed),
        " and ".join([*where, *filter(None, [rules.where_sql])]),
        left_out,
        [f"{name} ({mask.kind})" for name, mask in rules.masking.masks.items()] if rules.masking else [],
        list(rules.transform.summary) if rules.transform else [],
    )
    if listed is not None and not listed.primary_key and not rules.key and not spec.source.container:
        plan = _with(plan, key="none")
    return plan


def _spec_and_listed(registry: Registry, service: str) -> tuple[ServiceSpec, Listed | None]:
    spec, _ = registry.directory.find(service)
    own_set = registry.directory.set_with(service)
    return spec, own_set.members.listed.get(service.partition("/")[2]) if own_set else None


def _with_changes(registry: Registry, plan: ServicePlan) -> ServicePlan:
    """The plan with what the sync would do. Raises why it would fail at once."""
    (spec, listed), service = _spec_and_listed(registry, plan.service), plan.service
    rules = spec.rules
    if spec.refused is not None:
        return _with(plan, error=spec.refused)
    try:
        planned, drift, unfilled = registry.get(service).planning.changes()
    except NotInitialized as error:
        if not spec.is_new:
            return _with(plan, error=error)
        if spec.rules.key_may_repeat:
            registry.get(service).planning.check_key()
        records = registry.get(service).count()
        return _with(
            plan,
            changes=PlannedChanges(inserts=records, source_records=records),
            notes=[
                "The backup has no table yet; the sync makes it.",
                *(
                    ["The function may leave out some of these records."]
                    * bool(rules.transform and rules.transform.may_leave_out)
                ),
                *version_hints(spec, listed),
                *_obstacle_notes(spec, registry.get(service)),
                *_index_notes(registry.get(service).planning.index_plan()),
            ],
        )
    old = spec.renamed_from
    stay = rules.keeps_deleted and planned.deletes
    notes = [_RENAMED.format(old.table)] if old is not None else []
    if stay:
        copies = quantity(planned.deletes, "copy stays", "copies stay")
        notes.append(f"deletes is keep: {copies} in the backup, each with the time.")
    notes += [*_drift_notes(drift), *map(_COMES_BACK.format, sorted(unfilled))]
    notes += [*_rules_notes(spec, registry.get(service)), *version_hints(spec, listed)]
    notes += _obstacle_notes(spec, registry.get(service))
    notes += _index_notes(registry.get(service).planning.index_plan())
    is_filling = bool(drift.added or drift.widened or unfilled)
    failure: BackupError | None = _stop_by_guard(spec, registry.get(service), planned, is_filling=is_filling)
    if failure is None and planned.set_aside:
        text = f"The sync sets aside {planned.set_aside} of its records, names them, and ends as Failed."
        failure = RecordsSetAside(text, hint=_SET_ASIDE)
    return _with(plan, changes=planned, notes=notes, error=failure)


def _with(plan: ServicePlan, **changes: object) -> ServicePlan:
    return ServicePlan(**{**vars(plan), **changes})


def key_text_of(spec: ServiceSpec, listed: Listed | None) -> str:
    """Returns the key of the service, and where it comes from."""
    if spec.source.container:
        if (paths := spec.rules.partition_paths) is None:
            return "partition key, id"
        return f"{', '.join(paths.source)}, id; copies by {', '.join(paths.copy)}"
    if listed is not None and listed.primary_key:
        return f"{', '.join(listed.primary_key)} (primary key)"
    if not spec.rules.key:
        return "" if spec.rules.of_set else "primary key"  # nobody has listed the table of a service by settings
    if spec.rules.key_may_repeat:
        return f"{', '.join(spec.rules.key)} (named; checked at every sync)"
    return f"{', '.join(spec.rules.key)} (unique index {unique_key(listed)[0]})"


def version_text_of(spec: ServiceSpec, listed: Listed | None) -> str:
    """Returns the version of the service, and where it comes from."""
    version = spec.rules.version
    if not version:
        return "_etag" if spec.source.container else "content"
    is_found = listed is not None and tuple(version) == (listed.row_version,) and version[0] not in spec.rules.required
    return f"{', '.join(version)} ({'rowversion' if is_found else 'named'})"


def version_hints(spec: ServiceSpec, listed: Listed | None) -> list[str]:
    """Returns a sentence about columns that look like a version, if the service has none."""
    if spec.rules.version or listed is None:
        return []
    copied = spec.rules.taken([column.name for column in listed.columns])
    masked = {*map(str.lower, spec.rules.masking.masks)} if spec.rules.masking else set[str]()
    alike = [
        column.name
        for column in listed.columns
        if _VERSION_NAMES.fullmatch(column.name) and _VERSION_TYPES.fullmatch(column.type or "")
        if column.name in copied and column.name.lower() not in masked  # else it cannot be one
    ]
    if not alike:
        return []
    return [
        f'{" and ".join(alike)} may be a version. If every write changes it, version = ["{alike[0]}"] lets a sync read '
        f"this column alone, and not the content of {quantity(len(copied), 'column')}."
    ]


def _rules_notes(spec: ServiceSpec, service: SyncService) -> list[str]:
    """A sentence if the rules are others than those of the sync in progress, or of the last one. Reads SyncHistory."""
    with service.stores() as (source, backup):
        opening = upgrade.read(backup, spec.name)
        if opening is None:
            return []
        rules = source.traits.masks, spec.selection

        def differ(run: Run) -> bool:
            return run.selection is not None and (run.masks, run.selection) != rules

        if any(is_left_sync(run) and differ(run) for run in opening.open_runs):
            return [f"{RULES} are others than those of the sync in progress: it begins from the start."]
        last = opening.first(is_synced, lambda: History(backup).last_synced(spec.name))
        if last is not None and differ(last):
            notes = [f"{RULES} are others than in the last sync; the numbers count what that changes."]
            if rules[0] is not None and last.masks != rules[0]:
                notes.append("Once every copy has the new masks, the bin's older images are purged.")
            return notes
    return []


def _stop_by_guard(
    spec: ServiceSpec, service: SyncService, planned: PlannedChanges, *, is_filling: bool
) -> GuardTripped | None:
    """Why the guard would stop the sync, if it would. Updates that only fill columns have no limit. Reads SyncHistory
    if there are deletes."""
    sizes = planned.source_records, planned.backup_records
    try:
        with service.stores() as (source, backup):
            guard = replace(spec.guard, deleted_lately=lambda: deleted_lately(History(backup), spec.name, utc_now()))
            guard.check_canary(source)
            asks = spec.rules.of_set and spec.renamed_from is None
            if asks and (opening := upgrade.read(backup, spec.name)) is not None:
                refuse_records_of_others(source, backup, spec.name, opening)
            if not is_filling:
                guard.check_updates(planned.updates, planned.backup_records, source.place.label)
            guard.check_deletes(planned.deletes, *sizes, "source", allowed=False, dry_run=True)
    except GuardTripped as error:
        return GuardTripped(f"The guard would stop it: {error}", hint=error.hint)
    return None


def _drift_notes(drift: Drift) -> list[str]:
    return [
        *(
            f"The backup lacks the column {name}; the sync adds it and copies every record again."
            for name in drift.added
        ),
        *(f"The column {name} is widened, and every record is copied again." for name in drift.widened),
        *(
            f"The column {name} is not copied any more; it stays in the backup with its old values."
            for name in drift.removed
        ),
        *(f"The column {name} is new and is not copied: on_new_column is ignore." for name in drift.ignored),
    ]


def _obstacle_notes(spec: ServiceSpec, service: SyncService) -> list[str]:
    """Why the source cannot say what was written lately, where it should."""
    wanted = spec.rules.modified_by or spec.needs_hint  # to open stores for nothing takes time
    obstacle = service.planning.obstacle() if wanted else None
    return [obstacle] if obstacle is not None else []


def _index_notes(plan: IndexPlan) -> list[str]:
    return [
        *(f"The sync makes the index {index.name}, over {', '.join(index.columns)}." for index in plan.missing),
        *(f"The index {name} of the source is left out: {reason}." for name, reason in plan.left_out.items()),
        *(f"The index {name} is gone from the source; the backup's stays." for name in plan.gone),
    ]
