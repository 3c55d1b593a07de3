"""Tells the log about records whose version is lower than that of their copies: the source went back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from backup.core.log import event
from backup.core.model import Key
from backup.core.run_values import Run
from backup.mirror.compared import Compared
from backup.mirror.diff import went_back

_NAMED_IN_LOG = 10


def tell_lower_versions(run: Run, compared: Compared) -> None:
    """Tells about those of the updates whose version went back."""
    source_stamps, backup_stamps = compared.source_stamps, compared.backup_stamps
    lower = [
        (key, source_stamps[key].value[0], backup_stamps[key].value[0])
        for key in compared.changes.update
        if key in backup_stamps and went_back(source_stamps[key], backup_stamps[key])
    ]
    tell_number_of_lower(run, len(lower), sorted(lower, key=lambda record: str(record[0])))


def tell_number_of_lower(run: Run, records: int, first: Sequence[tuple[Key, Any, Any]]) -> None:
    """Tells about so many records, and names the `first`: key, version, and the version of the copy."""
    if not records:
        return
    keys = [f"{'/'.join(map(str, key))}: {copied} -> {version}" for key, version, copied in first[:_NAMED_IN_LOG]]
    event(
        "sync.version_went_back",
        level=logging.WARNING,
        service=run.service,
        sync_id=run.sync_id,
        records=records,
        keys=keys,
    )
