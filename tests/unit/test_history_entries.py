"""Which values of a run answers have, and without which an entry of SyncHistory cannot be read."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from backup.core.errors import Undecoded
from backup.core.run_values import Counts, Run, Status, Trigger
from backup.runs.history import History
from backup.runs.history_entries import COLUMNS, entry_of, run_of
from backup.stores.sibling import Entry
from tests.unit.memory_store import MemoryStore

AT = datetime(2026, 1, 1, tzinfo=UTC)
NEEDED = ["SyncId", "ServiceName", "StartedAt", "Status", "Trigger", "TriggeredBy"]
ANSWERED = [
    *("SyncId", "ServiceName", "StartedAt", "CompletedAt", "DurationMs", "Status", "Trigger", "DryRun"),
    *("InsertedCount", "UpdatedCount", "DeletedCount", "SkippedCount", "TotalProcessed", "Verified", "Percent"),
    *("RequestCharge", "Notes", "ErrorMessage", "FailedCount", "Failures", "Verb", "TriggeredBy", "ChangeLimit"),
    *("RemainingCount", "ReadAsOf"),
]


def test_answers_have_these_values_of_a_run() -> None:
    assert [column.name for column in COLUMNS if column.answered] == ANSWERED


@pytest.mark.parametrize("name", [column.name for column in COLUMNS if column.type is not None])
def test_an_entry_is_read_without_a_value_unless_nobody_could_tell_its_run(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    run = Run("customer", Trigger.CLI, False, AT).ended(Status.COMPLETED, AT, Counts(inserted=1))
    read = run_of({**entry_of(run), name: None})
    assert (read is None) == (name in NEEDED) == ("history.not_read" in caplog.text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("StartedAt", AT.replace(year=1)),
        ("CompletedAt", AT.replace(year=9999)),
        ("RunNumber", 2**63 - 1),
        ("Failures", "[" * 100_000),
    ],
)
def test_an_entry_that_nobody_can_reckon_with_counts_as_missing(name: str, value: Any) -> None:
    run = Run("customer", Trigger.CLI, False, AT).ended(Status.COMPLETED, AT, Counts(inserted=1))
    assert run_of({**entry_of(run), name: value}) is None


def test_an_entry_whose_sentences_the_backup_cannot_encode_has_them_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(MemoryStore("backup"))
    history.create()
    put = history.entries.put

    def encoded(entries: Sequence[Entry], *, new: bool = False) -> None:
        if not str(entries[0]["ErrorMessage"]).isascii():
            raise Undecoded
        put(entries, new=new)

    monkeypatch.setattr(history.entries, "put", encoded)
    run = Run("customer", Trigger.CLI, False, AT, place=history.place)
    history.save(run.ended(Status.FAILED, AT, Counts(), "No record ü."), new=True)
    [saved] = history.latest(run.service, 2)
    assert (saved.error, saved.notes) == (r"No record \xfc.", ())
