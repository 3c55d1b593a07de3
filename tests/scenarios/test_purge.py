"""What a purge throws away of the history and the bin, and what it keeps; who starts one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import Locked, SourceMissing
from backup.core.run_values import Counts, Proof, Run, Status, Total, Trigger, Verb
from backup.entry import http
from backup.entry.dashboard_api import post_verify_job
from backup.jobs.job_queue import job_queue_of
from backup.runs.history import History
from backup.services.named_run import run_named
from backup.services.registry import Registry
from tests.scenarios.inside import command, done, raised, refused, synced
from tests.scenarios.places import Place

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@contextmanager
def history_of(place: Place, service: str) -> Iterator[History]:
    with place.registry.get(service).stores() as (_, backup):
        yield History(backup)


def ran(place: Place, service: str, days_ago: float, number: int, **fields: Any) -> Run:
    """A run of so long ago, now in SyncHistory; it completed and changed nothing, unless told otherwise."""
    began = NOW - days_ago * DAY
    with history_of(place, service) as history:
        run = Run(service, Trigger.CLI, False, began, verb=Verb.SYNC, place=history.place, number=number)
        proof = Proof(Total(1, 1), Total(1, 1))
        ended: dict[str, Any] = {"status": Status.COMPLETED, "completed_at": began + DAY / 100, "proof": proof}
        made = replace(run, **ended | fields)
        history.save(made)
    return made


def left(place: Place, service: str) -> set[str]:
    side = place.customer if service == "customer" else place.order
    return {entry["SyncId"] for entry in side.backup.history()}


@pytest.mark.parametrize("place", ["sqlite_place", "cosmos_place"], indirect=True)
def test_old_runs_go_but_for_what_may_still_be_asked_for_and_each_is_known_by_its_beginning(
    place: Place, tmp_path: Path
) -> None:
    service = "order"
    with_images = synced(place, service)
    with history_of(place, service) as history:
        history.save(replace(with_images, started_at=NOW - 500 * DAY, completed_at=NOW - 500 * DAY))
    last = synced(place, service)
    going = [
        ran(place, service, 900, -9),
        ran(place, service, 800, -8, status=Status.FAILED, counts=Counts(updated=3), error="it broke"),
        ran(place, service, 700, -7, dry_run=True),
        ran(place, service, 650, -6, verb=Verb.VERIFY),
    ]
    staying = [
        ran(place, service, 600, -5, status=Status.IN_PROGRESS, completed_at=None),
        ran(place, service, 590, -4, verb=Verb.VERIFY),  # the newest one
        ran(place, service, 399, -2),
    ]
    answer = done(command(tmp_path, place.settings, "purge", service, "--json"))
    assert [(result["Images"], result["Runs"]) for result in answer["Results"]] == [(0, len(going))]
    assert left(place, service) == {run.sync_id for run in (*staying, with_images, last)}
    for text in (with_images.sync_id[:8].upper(), with_images.sync_id[:13], with_images.sync_id[:35]):
        service_of, run_id = run_named(place.registry, text)
        assert (service_of.name, run_id) == (service, with_images.sync_id)


def test_the_newest_completed_run_stays_however_old_it_is_and_what_failed_after_it(sqlite_place: Place) -> None:
    ran(sqlite_place, "customer", 900, 1)
    completed = ran(sqlite_place, "customer", 800, 2)
    failed = ran(sqlite_place, "customer", 700, 3, status=Status.FAILED, error="it broke", added_columns=("New",))
    assert sqlite_place.registry.get("customer").past.purge().runs == 1
    assert left(sqlite_place, "customer") == {completed.sync_id, failed.sync_id}


def test_of_a_service_that_never_completed_nothing_goes(sqlite_place: Place) -> None:
    ran(sqlite_place, "customer", 900, 1, status=Status.FAILED, error="it broke")
    assert sqlite_place.registry.get("customer").past.purge().runs == 0


def test_fewer_days_than_the_bin_keeps_leave_what_restores_and_the_guard_ask_about(
    sqlite_place: Place, tmp_path: Path
) -> None:
    first = ran(sqlite_place, "customer", 60, 1)
    reaches = ran(sqlite_place, "customer", 40, 2)  # --at reaches back to the end of a completed sync
    changed = ran(sqlite_place, "customer", 20, 3, counts=Counts(deleted=9))
    ran(sqlite_place, "customer", 10, 4)
    dry = ran(sqlite_place, "customer", 9, 5, dry_run=True)
    last = ran(sqlite_place, "customer", 2, 6)
    ended = done(command(tmp_path, sqlite_place.customer.settings, "purge", "--history-days", "0", "--json"))
    assert [result["Runs"] for result in ended["Results"]] == [3]
    assert {first.sync_id, dry.sync_id} & left(sqlite_place, "customer") == set()
    assert left(sqlite_place, "customer") == {reaches.sync_id, changed.sync_id, last.sync_id}


def test_a_purge_waits_for_a_run_of_an_instance_with_another_kind_of_lock(sqlite_place: Place) -> None:
    fields = {
        "status": Status.IN_PROGRESS,
        "completed_at": None,
        "owner": "elsewhere",
        "heartbeat_at": datetime.now(UTC),
    }
    other = ran(sqlite_place, "customer", 0, 1, verb=Verb.RESTORE, **fields)
    with pytest.raises(Locked):
        sqlite_place.registry.get("customer").past.purge()
    with history_of(sqlite_place, "customer") as history:
        history.save(replace(other, heartbeat_at=NOW - DAY))
    sqlite_place.registry.get("customer").past.purge()


def test_of_a_set_that_nobody_can_list_a_purge_and_a_queued_verify_say_why(tmp_path: Path) -> None:
    sides = f'source = "sqlite:///{tmp_path}/gone.db"\nbackup = "sqlite:///{tmp_path}/b.db"'
    given = {"BACKUP_TOML": f'[set.shop]\n{sides}\ntables = ["*"]', "BackupJobs__File": str(tmp_path / "jobs.db")}
    assert refused(command(tmp_path, given, "purge", "shop", "--json"))[0] == "SourceMissing"
    settings = load_settings(given)
    with pytest.raises(SourceMissing):
        post_verify_job(job_queue_of(settings), Registry(settings), {}, b'{"service": "shop"}')


def test_a_sync_from_the_command_line_purges_what_is_due(sqlite_place: Place, tmp_path: Path) -> None:
    customers = sqlite_place.customer
    synced(sqlite_place, "customer")
    old = ran(sqlite_place, "customer", 500, 0)
    ran(sqlite_place, "customer", 0.1, -1)  # which confirms the time
    raised(sqlite_place, 1)
    soon = {**customers.settings, "BackupSync__RecycleDays": "1e-9"}
    assert command(tmp_path, {**soon}, "sync", "--dry-run").code == 0
    assert old.sync_id in left(sqlite_place, "customer")
    assert command(tmp_path, soon, "sync").code == 0
    assert old.sync_id not in left(sqlite_place, "customer")
    assert Registry(load_settings(soon)).get("customer").past.purge().images == 0


def test_a_purge_that_fails_is_no_failure_of_its_sync(
    sqlite_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("backup.services.past.Past.purge_if_due", lambda *_: 1 / 0)
    assert command(tmp_path, sqlite_place.customer.settings, "sync").code == 0
    assert "sync.not_purged service=customer" in caplog.text


# --- names of runs ----------------------------------------------------------------------------------------------------


def test_the_beginning_of_an_id_names_a_run_to_undo(sqlite_place: Place, tmp_path: Path) -> None:
    run = synced(sqlite_place, "customer")
    assert done(command(tmp_path, sqlite_place.settings, "undo", run.sync_id[:4], "--json"))["DeletedCount"] == 100
    answer = http.post_undo(sqlite_place.registry, run.sync_id[:8], {}, b"")
    assert (answer.status, answer.body["DeletedCount"]) == (200, 100)


def test_a_beginning_that_several_runs_share_is_refused_with_their_names(sqlite_place: Place, tmp_path: Path) -> None:
    ids = [
        "abcdef01-0000-4000-8000-000000000001",
        "abcdef01-0000-4000-8000-000000000002",
        "abcdef02-0000-4000-8000-000000000003",
    ]
    services = ["customer", "customer", "order"]
    for number, (name, sync_id) in enumerate(zip(services, ids, strict=True)):
        ran(sqlite_place, name, 1, number, sync_id=sync_id)
    error, message = refused(command(tmp_path, sqlite_place.settings, "undo", "abcdef", "--json"))
    assert (error, [sync_id for sync_id in ids if sync_id in message]) == ("BadRequest", ids)
    _, message = refused(command(tmp_path, sqlite_place.settings, "undo", ids[0][:-1], "--json"))
    assert [sync_id for sync_id in ids if sync_id in message] == ids[:2]
    for nobody in ("abcde00", "abcdef01-0001"):
        assert refused(command(tmp_path, sqlite_place.settings, "undo", nobody, "--json"))[0] == "UnknownRun"


def test_a_beginning_is_not_taken_for_unique_while_a_service_cannot_be_asked(
    sqlite_place: Place, tmp_path: Path
) -> None:
    run = synced(sqlite_place, "customer")
    (tmp_path / "orders_backup.db").unlink()
    assert refused(command(tmp_path, sqlite_place.settings, "undo", run.sync_id[:8], "--json"))[0] == "NotInitialized"
    assert done(command(tmp_path, sqlite_place.settings, "undo", run.sync_id, "--json"))["DeletedCount"] == 100
