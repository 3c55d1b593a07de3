"""Which columns of the backup lack the source's values in old rows, by what earlier runs have noted."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from backup.core.run_values import Run
from backup.runs.history import History, is_synced
from backup.runs.opening import Opening

_LOOKED_BACK = 1_000


def columns_to_fill(history: History, service: str, opening: Opening, shared: Collection[str]) -> set[str]:
    """Returns the columns of both sides (`shared`) that do not have the source's values in old rows.

    A run added them and died before it filled them; or the source lacked them at the last sync and has them again.
    """
    columns: set[str] = set()
    for run in _runs(history, service, opening):
        if run.dry_run:
            continue
        columns.update(run.removed_columns)
        if is_synced(run):
            break
        columns.update(run.added_columns)
    lower_names = {name.lower() for name in columns}
    return {name for name in shared if name.lower() in lower_names}


def _runs(history: History, service: str, opening: Opening) -> Iterator[Run]:
    """The runs of the service, newest first; reads those that the opening does not have when the caller asks for the
    first of them."""
    newest = opening.newest
    yield from newest
    if not opening.is_whole:
        yield from history.runs(service, _LOOKED_BACK, below=newest[-1].number if newest else None)
