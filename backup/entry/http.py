"""The HTTP functions: each checks a request, calls the verb and returns its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backup.config.given_services import ALL
from backup.core.errors import BadRequest
from backup.core.model import Action, Now, utc_now
from backup.core.run_values import Trigger
from backup.core.suggestions import quoted
from backup.entry.answers import (
    Answer,
    answer_each,
    shape_one,
    shape_restores,
    shape_syncs,
    shape_undos,
    shape_verifies,
    shape_verify,
)
from backup.entry.health import MoreConcerns, look, shape_health
from backup.entry.requests import (
    RestoreRequest,
    SyncRequest,
    UndoRequest,
    VerifyRequest,
    check_no_body,
    check_query,
    parse_body,
    parse_flag,
    parse_limit,
)
from backup.mirror.verification import Depth
from backup.services.group_restore import restore_group
from backup.services.group_undo import undo_group
from backup.services.named_run import run_named
from backup.services.registry import Registry
from backup.services.service import Options
from backup.verbs.restore_spec import RestoreSpec


def post_sync(registry: Registry, query: Mapping[str, str], body: bytes, now: Now = utc_now) -> Answer:
    """Syncs the services that the body names.

    200 when all completed, 207 when some failed, a failure's own status when all failed. 202 when none failed and some
    are still in progress after `SyncWaitSeconds`.
    """
    check_query(query)
    request = parse_body(SyncRequest, body)
    options = Options(request.force_full_sync, request.dry_run, request.allow_mass_delete, request.limit)
    return shape_syncs(registry.sync(request.service, Trigger.HTTP, options, wait_seconds=registry.wait_seconds), now)


def post_sync_of(registry: Registry, service: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Syncs one service. The answer is its result with `Success`; 202 when it has not ended after `SyncWaitSeconds`.

    `service` "all", a set or a pattern syncs all these services, with the answer of `post_sync`.
    """
    flags = ("force", "dryRun", "allowMassDelete")
    check_query(query, *flags, "limit")
    force, dry_run, allow_mass_delete = (parse_flag(query, name) for name in flags)
    options = Options(force, dry_run, allow_mass_delete, parse_limit(query))
    check_no_body(body)
    outcomes = registry.sync(service, Trigger.HTTP, options, wait_seconds=registry.wait_seconds)
    return shape_syncs(outcomes) if registry.directory.is_group(service) else shape_one(outcomes[0])


def post_undo(registry: Registry, sync_id: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Undoes a run; or the last sync of each service, for a set or a pattern. Without `confirm` changes no record, and
    answers what would change."""
    check_query(query)
    request = parse_body(UndoRequest, body)
    if is_group_to_undo(registry, sync_id, through=request.through):
        return shape_undos(undo_group(registry, sync_id, dry_run=not request.confirm, trigger=Trigger.HTTP))
    service, run_id = run_named(registry, sync_id)
    return shape_one(service.undo(run_id, through=request.through, dry_run=not request.confirm, trigger=Trigger.HTTP))


def is_group_to_undo(registry: Registry, text: str, *, through: bool) -> bool:
    """Returns whether the text stands for a set or a pattern, and for no run. Raises BadRequest with `through`, which
    is about one run."""
    is_group = registry.directory.is_group(text) and text.lower() != ALL
    if is_group and through:
        raise BadRequest(
            f"{quoted(text)} stands for several services, and `through` is about one run. Nothing was changed.",
            hint="Name the run, or leave `through` out: of each service the last sync is undone.",
        )
    return is_group


def post_restore(registry: Registry, service: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Restores the service's source, or those of a set or a pattern. Without `confirm` changes no record, and answers
    what would change."""
    check_query(query)
    request = parse_body(RestoreRequest, body)
    is_group = registry.directory.is_group(service) and service.lower() != ALL
    restored_name, run = service if is_group else registry.get(service).name, request.run
    if run is not None and not is_group:  # `restore_group` refuses it
        run = run_named(registry, run, restored_name)[1]
    spec = RestoreSpec(
        request.at,
        tuple(request.keys),
        request.overwrite_newer,
        request.delete_extra,
        run,
        None if request.only is None else Action(request.only.title()),
        request.without_masked,
    )
    options = Options(dry_run=not request.confirm, allow_mass_delete=request.allow_mass_delete)
    if is_group:
        return shape_restores(restore_group(registry, service, spec, options, trigger=Trigger.HTTP))
    return shape_one(registry.get(service).restore(spec, options, trigger=Trigger.HTTP))


def post_verify(registry: Registry, service: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Verifies one service or all. 200 whether the two sides are equal or not: `Verified` says which."""
    check_query(query)
    request = parse_body(VerifyRequest, body)
    depth = Depth(request.full, request.sample)
    outcomes = registry.verify(service, depth, drilled=request.drill, trigger=Trigger.HTTP)
    return shape_verifies(outcomes) if registry.directory.is_group(service) else shape_verify(outcomes[0])


def post_initialize(registry: Registry, query: Mapping[str, str], body: bytes) -> Answer:
    """Initializes every configured service. Takes no parameters and no body."""
    check_query(query)
    check_no_body(body)
    return initialize(registry)


def initialize(registry: Registry, now: Now = utc_now) -> Answer:
    """Initializes every configured service. A failure of one does not stop the others."""

    def initialize_service(name: str) -> dict[str, Any]:
        registry.get(name).initialize()
        return {"Status": "Initialized"}

    return answer_each(registry.directory.chosen(ALL), initialize_service, "backups initialized", now)


def get_health(
    open_registry: Callable[[], Registry],
    query: Mapping[str, str],
    more_concerns: MoreConcerns | None = None,
    now: Now = utc_now,
) -> Answer:
    """Answers that the app is up; reads no settings and opens no store. With `?deep=true` checks every side."""
    check_query(query, "deep")
    deep = parse_flag(query, "deep")
    return shape_health(look(open_registry, more_concerns) if deep else None, now)
