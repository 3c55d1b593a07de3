"""Runs as people ask for them: the latest, and those whose ids begin so."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from backup.core.errors import BadRequest, Conflict, UnknownRun
from backup.core.model import Run, Status
from backup.runs.history import History

_PAGE = 100
_FEW = 20
_BEGINNING = re.compile("[0-9a-f][0-9a-f-]*")
_FIRST_PART = 8  # characters of an id before its first dash
_REFUSED = frozenset(kind.__name__ for kind in (BadRequest, Conflict, UnknownRun))


def listed(
    history: History,
    service: str,
    limit: int,
    *,
    since: datetime | None = None,
    failed: bool = False,
    every: bool = False,
) -> list[Run]:
    """Up to `limit` runs, newest first: those that began `since` then, or only those that `failed`.

    Unless `every` is asked for, without dry runs and without what was refused before anything was done. Costs a
    read of `limit` entries, and of those that it leaves out.
    """
    where: dict[str, Any] = {"Status": Status.FAILED.value} if failed else {}
    where |= {} if every else {"DryRun": [False, None]}
    runs: list[Run] = []
    below = None
    while page := history.runs(service, min(_PAGE, limit + _FEW), below=below, **where):
        young = [run for run in page if since is None or run.started_at >= since]
        runs += [run for run in young if every or not _is_refused(run)]
        below = page[-1].number
        if len(runs) >= limit or not young:
            break
    return runs[:limit]


def named(history: History, service: str, text: str, limit: int) -> list[str]:
    """The ids of up to `limit` runs of the service that begin with the text, or the one that is the text; also of
    those whose entries do not say what they are about."""
    text = text.lower()
    where = {"ServiceName": service, "Place": [history.place, None]}
    if history.entries.find({**where, "SyncId": text}, order_by="SyncId", limit=1, fields=("SyncId",)):
        return [text]
    if not _BEGINNING.fullmatch(text):
        return []
    # A dash may count for nothing in the order of texts; the first part of an id has none.
    above, below, ids = text[:_FIRST_PART], f"{text[:_FIRST_PART]}g", list[str]()
    while len(ids) < limit:
        page = history.entries.find(where, order_by="SyncId", above=above, below=below, limit=_PAGE, fields=("SyncId",))
        ids += [entry["SyncId"] for entry in page if entry["SyncId"].startswith(text)]
        if len(page) < _PAGE:
            break
        above = page[-1]["SyncId"]
    return ids[:limit]


def _is_refused(run: Run) -> bool:
    """Whether it was asked for what could not be done, and did nothing."""
    return run.status is Status.FAILED and run.error_kind in _REFUSED and run.counts.processed == 0
