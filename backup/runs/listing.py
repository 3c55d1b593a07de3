"""Runs as people ask for them: the latest, and those whose ids begin with some text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from backup.core.errors import BadRequest, Conflict, UnknownRun
from backup.core.run_values import Run, Status
from backup.runs.history import History
from backup.stores import Sibling

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
    """Up to `limit` runs, newest first; only those that began `since` then, only those that `failed`.

    Leaves out dry runs, and runs that were refused before they did anything, unless `every`. Costs a read of `limit`
    entries, and of those that it leaves out.
    """
    where: dict[str, Any] = {"Status": Status.FAILED.value} if failed else {}
    where |= {} if every else {"DryRun": [False, None]}
    runs: list[Run] = []
    below = None
    while page := history.runs(service, min(_PAGE, limit + _FEW), below=below, **where):
        recent_runs = [run for run in page if since is None or run.started_at >= since]
        runs += [run for run in recent_runs if every or not _is_refused(run)]
        below = page[-1].number
        if len(runs) >= limit or not recent_runs:
            break
    return runs[:limit]


def named(history: History, service: str, text: str, limit: int) -> list[str]:
    """The ids of the service's runs that begin with the text, up to `limit`; only the text itself if it is an id.
    Runs whose entries do not say their place count, too."""
    text = text.lower()
    where = {"ServiceName": service, "Place": [history.place, None]}
    if history.entries.find({**where, "SyncId": text}, order_by="SyncId", limit=1, fields=("SyncId",)):
        return [text]
    ids = ids_of(history.entries, where, text) if is_beginning(text) else ()
    return [sync_id for sync_id, _ in islice(ids, limit)]


def is_beginning(text: str) -> bool:
    """Whether an id may begin with the text."""
    return _BEGINNING.fullmatch(text) is not None


def ids_of(entries: Sibling, where: Mapping[str, Any], text: str) -> Iterator[tuple[str, str]]:
    """Yields the ids that begin with the text, each with its service, in their order. Costs a query a hundred."""
    # A server may ignore dashes when it sorts texts. The first part of an id has no dash.
    above, below, fields = text[:_FIRST_PART], f"{text[:_FIRST_PART]}g", ("SyncId", "ServiceName")
    while True:
        page = entries.find(where, order_by="SyncId", above=above, below=below, limit=_PAGE, fields=fields)
        yield from ((entry["SyncId"], str(entry["ServiceName"])) for entry in page if entry["SyncId"].startswith(text))
        if len(page) < _PAGE:
            return
        above = page[-1]["SyncId"]


def _is_refused(run: Run) -> bool:
    """Whether the run failed because its request could not be done, before it did anything."""
    return run.status is Status.FAILED and run.error_kind in _REFUSED and run.counts.processed == 0
