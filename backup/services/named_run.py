"""Finds the run whose id, or the beginning of it, somebody has typed. Only reads."""

from __future__ import annotations

from backup.config.given_services import ALL
from backup.core.errors import BackupError, BadRequest, UnknownRun
from backup.core.suggestions import quoted
from backup.services.registry import Registry
from backup.services.service import SyncService
from backup.services.turns import side_by_side

_LONGEST_SYNC_ID = 100
_CANDIDATES = 10
"""At most how many runs an error names whose ids begin alike."""


def run_named(registry: Registry, text: str, service: str = ALL) -> tuple[SyncService, str]:
    """Returns the run whose id is the text, or begins with it, and its service. Case does not count.

    Raises UnknownRun when no run does. Raises BadRequest, which names the runs, when several do. When a service
    cannot be asked, raises its error, unless another service has a run with exactly this id.
    """
    directory = registry.directory
    names = directory.services(service)
    may_be_an_id = text != "" and text.isascii() and text.isprintable() and len(text) <= _LONGEST_SYNC_ID

    def look(name: str) -> list[tuple[SyncService, str]] | BackupError:
        try:
            candidate = registry.get(name)
            return [(candidate, sync_id) for sync_id in candidate.past.runs_named(text, _CANDIDATES)]
        except BackupError as error:
            return error

    answers = side_by_side(look, directory.with_run(text, names) if may_be_an_id else ())
    runs = [run for answer in answers if not isinstance(answer, BackupError) for run in answer]
    for run in runs:
        if run[1] == text.lower():
            return run
    for answer in answers:
        if isinstance(answer, BackupError):
            raise answer
    if not runs:
        nobody = "No service has a" if service.lower() == ALL else f"The service {service.lower()} has no"
        is_entry = text.lower() in (*map(str.lower, directory.entries), ALL)
        is_service = is_entry or directory.set_with(text) is not None
        hint = f"That is a service. `python -m backup history {text}` lists its runs." if is_service else None
        raise UnknownRun(f"{nobody} run {quoted(text)}.", hint=hint)
    if len(runs) > 1:
        listed = ", ".join(f"{sync_id} of {owner.name}" for owner, sync_id in runs[:_CANDIDATES])
        rest = " …" if len(runs) > _CANDIDATES else ""
        raise BadRequest(f"Several runs begin with {quoted(text)}: {listed}{rest}.", hint="Give more of the id.")
    return runs[0]
