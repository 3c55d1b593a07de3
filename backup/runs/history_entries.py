"""The columns of a run, declared once. SyncHistory's table, its entries and the answers follow from them. No I/O."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, datetime
from decimal import Decimal
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple, overload

from backup.core.log import event
from backup.core.run_values import Counts, Proof, Run, Status, Total, Trigger, Verb
from backup.stores import Shape
from backup.stores.sibling import FieldType

VERSION = 4
"""The version of the entries, and of those in the bin: since 4 the hash of an integer key is its digits. 3 added the
verb; 2 a place, a number, an owner and a heartbeat; 1 had no version."""


# --- the columns ------------------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """How to write a value of a run into an entry, and how to read it again. Nobody calls either with None."""

    write: Callable[[Any], Any] = lambda value: value
    read: Callable[[Any], Any] = lambda value: value


_AS_IT_IS, _FLAG = _Form(), _Form(read=bool)
_STATUS, _VERB, _TRIGGER = (_Form(str, kind) for kind in (Status, Verb, Trigger))
_COUNT_IF_ANY = _Form(lambda count: count or None)
_HEX = _Form(lambda value: f"{value:032x}", lambda text: int(text, 16))
_LIST = _Form(lambda value: json.dumps(value) if value else None, lambda text: tuple(json.loads(text)))
_LINES = _Form(lambda value: "\n".join(value) or None, lambda text: tuple(text.splitlines()))
_PAIRS = _Form(_LIST.write, lambda text: tuple((key, reason) for key, reason in json.loads(text)))


@dataclass(frozen=True)
class HistoryColumn:
    """One value of a run, in its entry and in answers.

    `of` is the name of the run's attribute, which is read from the entry again; or a function that makes the value from
    the run. Without a `type` the value is not in SyncHistory. `answered`: HTTP and `--json` return the value, in the
    form that `shown` gives it. An entry that lacks a `required` value cannot be read.
    """

    name: str
    type: FieldType | None
    of: str | Callable[[Run], Any]
    form: _Form = _AS_IT_IS
    answered: bool = False
    shown: Callable[[Any], Any] | None = None
    required: bool = False

    @cached_property
    def value(self) -> Callable[[Run], Any]:
        """Takes a run and returns its value; None where the run has none."""
        if not isinstance(self.of, str):
            return self.of
        get = attrgetter(self.of)
        return (lambda run: run.proof and get(run)) if self.of.startswith("proof.") else get

    def answer(self, run: Run) -> Any:
        """The run's value in the form of an answer."""
        return self.shown(self.value(run)) if self.shown else self.value(run)


def trigger_column(run: Run) -> str:
    """What `Trigger` says in every release: for a sync who asked for it, else the verb (for a drill: verify)."""
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
    HistoryColumn("ChangeLimit", "integer", "limit", answered=True),
    HistoryColumn("RemainingCount", "integer", "counts.remaining", _COUNT_IF_ANY, answered=True),
    HistoryColumn("Masks", "name", "masks"),
    HistoryColumn("Selection", "name", "selection"),
    HistoryColumn("ReadAsOf", "time", "read_as_of", answered=True),
)
"""In the order of a new table's columns. Later releases add columns at the end."""

HISTORY = Shape(
    name="SyncHistory",
    container="sync-history",
    key="SyncId",
    partition="ServiceName",
    fields={column.name: column.type for column in COLUMNS if column.type is not None},
    # The status is the last, so that the index alone tells which runs are open.
    indexes=(("ServiceName", "Place", "RunNumber", "Status"),),
)


# --- entries ----------------------------------------------------------------------------------------------------------

_STORED = [column for column in COLUMNS if column.type is not None]
_WRITTEN = [
    (column.name, column.value, None if column.form.write is _AS_IT_IS.write else column.form.write)
    for column in _STORED
]
"""For each column: its name, what takes its value from a run, and how the value is written; None: as it is."""

# SQLite and Cosmos DB keep values of any type in any column.
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "place", "text", "json"), str),
    "integer": int,
    "decimal": (int, float, Decimal),
    "time": datetime,
    "flag": (bool, int),
}
_READ = [
    (
        column.name,
        column.required,
        _TYPES[column.type or ""],
        column.type in ("integer", "time"),
        None if column.form.read is _AS_IT_IS.read else column.form.read,
        *(column.of.rpartition(".")[::2] if isinstance(column.of, str) else (None, "")),
    )
    for column in _STORED
]
"""For each column: its name, whether it is required, the types that its value may have, whether it may be out of range,
how it is read (None: as it is), the part of the run that the value goes to, and its name there."""

_LARGEST_NUMBER = 2**62

_SYNC_TRIGGERS = frozenset(trigger.value for trigger in Trigger)


def is_out_of_range(value: Any) -> bool:
    """Whether an entry's value is a time or a number that nobody can reckon with: days or one more would be too much
    for its type. No run has written it."""
    if isinstance(value, datetime):
        return not MINYEAR < value.year < MAXYEAR
    return isinstance(value, int) and not -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER


def asked_for(*verbs: Verb) -> list[str]:
    """The values of `Trigger` in the entries of these verbs' runs. Entries of earlier releases have no `Verb`."""
    names = {(Verb.VERIFY if verb is Verb.DRILL else verb).value for verb in verbs if verb is not Verb.SYNC}
    return sorted(names | (_SYNC_TRIGGERS if Verb.SYNC in verbs else set()))


def entry_of(run: Run) -> dict[str, Any]:
    """The run's entry as it stands."""
    entry = {}
    for name, value_of, write in _WRITTEN:
        value = value_of(run)
        entry[name] = value if value is None or write is None else write(value)
    return entry


def run_of(entry: Mapping[str, Any]) -> Run | None:
    """The entry's run. None, and a line in the log, for an entry that cannot be read: it counts as missing."""
    try:
        return _read(entry)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        sync_id, kind = entry.get("SyncId"), type(error).__name__
        event("history.not_read", level=logging.WARNING, service=entry.get("ServiceName"), sync_id=sync_id, error=kind)
        return None


class Runs(Sequence[Run]):
    """The runs of these entries, without those that cannot be read. An entry is read when somebody first asks for its
    run: who looks at the newest one alone does not pay for all. For any thread."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._entries = entries
        self._runs: dict[int, Run | None] = {}

    def __iter__(self) -> Iterator[Run]:
        for number, entry in enumerate(self._entries):
            if number not in self._runs:
                self._runs[number] = run_of(entry)
            if (run := self._runs[number]) is not None:
                yield run

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, place: int) -> Run: ...
    @overload
    def __getitem__(self, place: slice) -> list[Run]: ...
    def __getitem__(self, place: int | slice) -> Run | list[Run]:
        if isinstance(place, int) and place >= 0:
            for number, run in enumerate(self):
                if number == place:
                    return run
            raise IndexError(place)
        return list(self)[place]


def _read(entry: Mapping[str, Any]) -> Run:
    run: dict[str, Any] = {"forced": False, "trigger": None}
    counts, proof, source, backup = dict[str, Any](), dict[str, Any](), dict[str, Any](), dict[str, Any]()
    parts = {"": run, "counts": counts, "proof": proof, "proof.source": source, "proof.backup": backup}
    for column, required, types, has_range, read, part, name in _READ:
        value = entry[column]
        if value is None and not required:
            continue
        if not isinstance(value, types) or (has_range and is_out_of_range(value)):
            raise TypeError(column)
        if part is not None:
            parts[part][name] = value if read is None else read(value)
    if "verb" not in run:  # of an earlier release
        is_sync = entry["Trigger"] in _SYNC_TRIGGERS
        run |= {"trigger": Trigger(entry["Trigger"])} if is_sync else {"verb": Verb(entry["Trigger"])}
    if source:
        totals = {
            "source": Total(source["records"], source.get("checksum")),
            "backup": Total(backup["records"], backup.get("checksum")),
        }
        run["proof"] = Proof(**totals, differing=proof["differing"], in_flight=proof["in_flight"])
    made = Run(**run, counts=Counts(**counts))
    if entry["Trigger"] != trigger_column(made):
        raise ValueError(entry["Trigger"])
    return made
