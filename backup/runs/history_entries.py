"""The columns of a run, declared once: SyncHistory's table, its entries and the answers are made of them. No I/O."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import reduce
from typing import Any, NamedTuple

from backup.core.log import event
from backup.core.model import Counts, Proof, Run, Status, Total, Trigger, Verb
from backup.stores import Shape
from backup.stores.sibling import FieldType

VERSION = 3
"""Of the entries: 3 have a verb beside who asked; 2 a place, a number, an owner, a heartbeat; 1 had no version."""


# --- the columns ------------------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """How a value of a run is written into an entry and read from it; neither is asked about None."""

    write: Callable[[Any], Any] = lambda value: value
    read: Callable[[Any], Any] = lambda value: value


_AS_IT_IS, _FLAG = _Form(), _Form(read=bool)
_STATUS, _VERB, _TRIGGER = (_Form(str, kind) for kind in (Status, Verb, Trigger))
_HEX = _Form(lambda value: f"{value:032x}", lambda text: int(text, 16))
_LIST = _Form(lambda value: json.dumps(value) if value else None, lambda text: tuple(json.loads(text)))
_LINES = _Form(lambda value: "\n".join(value) or None, lambda text: tuple(text.splitlines()))
_PAIRS = _Form(_LIST.write, lambda text: tuple((key, reason) for key, reason in json.loads(text)))


@dataclass(frozen=True)
class HistoryColumn:
    """One thing that is said of a run.

    `of` is the part of the run that it holds and that is read from it again, or a function that says it of the run.
    Without a `type` it is no column of SyncHistory. `answered`: HTTP and `--json` give it, in the form of `shown` if
    that is there. An entry without a `required` one cannot be read.
    """

    name: str
    type: FieldType | None
    of: str | Callable[[Run], Any]
    form: _Form = _AS_IT_IS
    answered: bool = False
    shown: Callable[[Any], Any] | None = None
    required: bool = False

    def value(self, run: Run) -> Any:
        """What the run has there; None where it has nothing."""
        if callable(self.of):
            return self.of(run)
        return reduce(lambda part, name: None if part is None else getattr(part, name), self.of.split("."), run)

    def written(self, run: Run) -> Any:
        """That, as an entry has it."""
        value = self.value(run)
        return None if value is None else self.form.write(value)

    def answer(self, run: Run) -> Any:
        """That, as an answer has it."""
        return self.shown(self.value(run)) if self.shown else self.value(run)


def trigger_column(run: Run) -> str:
    """What `Trigger` says in every release: who asked for a sync, of another run its verb (of a drill: verify)."""
    if run.verb is Verb.SYNC and run.trigger is not None:
        return run.trigger.value
    return (Verb.VERIFY if run.verb is Verb.DRILL else run.verb).value


def _named(failures: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    return [{"Key": json.loads(key), "Reason": reason} for key, reason in failures]


COLUMNS = (
    HistoryColumn("SyncId", "name", "sync_id", answered=True, required=True),
    HistoryColumn("ServiceName", "name", "service", answered=True, required=True),
    HistoryColumn("SyncedAt", "time", lambda run: run.completed_at or run.started_at),
    HistoryColumn("StartedAt", "time", "started_at", answered=True, required=True),
    HistoryColumn("CompletedAt", "time", "completed_at", answered=True),
    HistoryColumn("DurationMs", None, "duration_ms", answered=True),
    HistoryColumn("Status", "name", "status", _STATUS, answered=True, required=True),
    HistoryColumn("Trigger", "name", trigger_column, answered=True, required=True),
    HistoryColumn("Forced", "flag", "forced", _FLAG),
    HistoryColumn("DryRun", "flag", "dry_run", _FLAG, answered=True),
    HistoryColumn("AllowMassDelete", "flag", "allow_mass_delete", _FLAG),
    HistoryColumn("InsertedCount", "integer", "counts.inserted", answered=True),
    HistoryColumn("UpdatedCount", "integer", "counts.updated", answered=True),
    HistoryColumn("DeletedCount", "integer", "counts.deleted", answered=True),
    HistoryColumn("SkippedCount", "integer", "counts.skipped", answered=True),
    HistoryColumn("TotalProcessed", None, lambda run: run.counts.processed, answered=True),
    HistoryColumn("Success", "flag", lambda run: run.status is Status.COMPLETED),
    HistoryColumn("Verified", "flag", lambda run: run.verified, answered=True),
    HistoryColumn("SourceCount", "integer", "proof.source.records"),
    HistoryColumn("SourceChecksum", "name", "proof.source.checksum", _HEX),
    HistoryColumn("BackupCount", "integer", "proof.backup.records"),
    HistoryColumn("BackupChecksum", "name", "proof.backup.checksum", _HEX),
    HistoryColumn("DifferingCount", "integer", "proof.differing"),
    HistoryColumn("InFlightCount", "integer", "proof.in_flight"),
    HistoryColumn("AddedColumns", "text", "added_columns", _LIST),
    HistoryColumn("RemovedColumns", "text", "removed_columns", _LIST),
    HistoryColumn("UndoneRuns", "text", "undone", _LIST),
    HistoryColumn("Percent", "integer", "percent", answered=True),
    HistoryColumn("Checkpoint", "text", "checkpoint"),
    HistoryColumn("Watermark", "name", "watermark"),
    HistoryColumn("RequestCharge", "decimal", "request_charge", answered=True),
    HistoryColumn("Notes", "text", "notes", _LINES, answered=True),
    HistoryColumn("ErrorMessage", "text", "error", answered=True),
    HistoryColumn("Place", "place", "place"),
    HistoryColumn("RunNumber", "integer", "number"),
    HistoryColumn("Owner", "name", "owner"),
    HistoryColumn("Attempt", "name", "attempt"),
    HistoryColumn("HeartbeatAt", "time", "heartbeat_at"),
    HistoryColumn("FailedCount", "integer", "counts.failed", answered=True),
    HistoryColumn("Failures", "text", "failures", _PAIRS, answered=True, shown=_named),
    HistoryColumn("Scratch", "name", "scratch"),
    HistoryColumn("ErrorKind", "name", "error_kind"),
    HistoryColumn("SchemaVersion", "integer", lambda _: VERSION),
    HistoryColumn("Verb", "name", "verb", _VERB, answered=True),
    HistoryColumn("TriggeredBy", "name", "trigger", _TRIGGER, answered=True),
)
"""In the order in which a new table has them; later releases add theirs at the end."""

HISTORY = Shape(
    name="SyncHistory",
    container="sync-history",
    key="SyncId",
    partition="ServiceName",
    fields={column.name: column.type for column in COLUMNS if column.type is not None},
)


# --- entries ----------------------------------------------------------------------------------------------------------

_STORED = [column for column in COLUMNS if column.type is not None]
# Not every database holds a column to its type.
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "place", "text", "json"), str),
    "integer": int,
    "decimal": (int, float, Decimal),
    "time": datetime,
    "flag": (bool, int),
}
_SYNC_TRIGGERS = frozenset(trigger.value for trigger in Trigger)


def asked_for(*verbs: Verb) -> list[str]:
    """What `Trigger` has in the entries of these verbs' runs. In those of earlier releases nothing else tells them."""
    others = {(Verb.VERIFY if verb is Verb.DRILL else verb).value for verb in verbs if verb is not Verb.SYNC}
    return sorted(others | (_SYNC_TRIGGERS if Verb.SYNC in verbs else set()))


def entry_of(run: Run) -> dict[str, Any]:
    """The run's entry as it stands."""
    return {column.name: column.written(run) for column in _STORED}


def run_of(entry: Mapping[str, Any]) -> Run | None:
    """The entry's run; None, with a line in the log, of one that cannot be read, which counts as not there."""
    try:
        return _read(entry)
    except (ValueError, TypeError, KeyError) as error:
        sync_id, kind = entry.get("SyncId"), type(error).__name__
        event("history.not_read", level=logging.WARNING, service=entry.get("ServiceName"), sync_id=sync_id, error=kind)
        return None


def _read(entry: Mapping[str, Any]) -> Run:
    values: dict[str, Any] = {"forced": False, "trigger": None}
    for column in _STORED:
        value = entry[column.name]
        if value is None and not column.required:
            continue
        if not isinstance(value, _TYPES[column.type or ""]):
            raise TypeError(column.name)
        if isinstance(column.of, str):
            values[column.of] = column.form.read(value)
    if "verb" not in values:  # of an earlier release
        is_sync = entry["Trigger"] in _SYNC_TRIGGERS
        values |= {"trigger": Trigger(entry["Trigger"])} if is_sync else {"verb": Verb(entry["Trigger"])}
    groups = ("counts.", "proof.source.", "proof.backup.", "proof.")
    counts, source, backup, proof = (_part(values, prefix) for prefix in groups)
    run = Run(**values, counts=Counts(**counts), proof=_proof(source, backup, proof) if source else None)
    if entry["Trigger"] != trigger_column(run):
        raise ValueError(entry["Trigger"])
    return run


def _part(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The values whose names begin so, taken out, by the rest of their names."""
    return {name.removeprefix(prefix): values.pop(name) for name in [*values] if name.startswith(prefix)}


def _proof(source: Mapping[str, Any], backup: Mapping[str, Any], proof: Mapping[str, Any]) -> Proof:
    ours, theirs = (Total(side["records"], side["checksum"]) for side in (source, backup))
    return Proof(ours, theirs, proof["differing"], proof["in_flight"])
