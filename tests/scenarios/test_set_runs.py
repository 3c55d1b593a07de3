"""A set as one run: its jobs, its slices, and what is recorded of it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from backup.config.settings import load_settings
from backup.core.errors import Interrupted, SetFailed
from backup.core.model import utc_now
from backup.core.run_values import Run, Status, Trigger
from backup.entry.dashboard_shapes import shape_overview
from backup.jobs.job import Request, State
from backup.jobs.job_queue import open_job_queue
from backup.jobs.records import SILENCE
from backup.jobs.run_keeper import RunKeeper
from backup.jobs.run_numbers import RunNumbers
from backup.jobs.worker import worker_of
from backup.runs.outcome import NOBODY, Outcome, Turn
from backup.services.registry import Registry
from backup.services.service import NO_OPTIONS
from backup.services.service_plans import plan_of
from backup.services.several_as_one import RunSoFar
from backup.services.turns import new_run_of_several
from backup.verbs import schema
from tests.scenarios.aging import let_pass
from tests.scenarios.shops import EXCLUDE, IN_FILES, SHOP, SLICES, Shop, work_on_set


def test_a_filter_that_changes_between_two_slices_of_a_sync_begins_it_anew(
    sqlite_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_shop.run(SHOP)
    sqlite_shop.settings["BackupSync__ChunkSize"] = "1"
    section = '[set.shop.table."Customer"]', "max_delete_percent = 90"

    sqlite_shop.registry(*section).get("shop/Customer").initialize()

    def killed(*_: object) -> None:
        raise Interrupted("killed")

    for before, after, ids in (("{ above = 1 }", "{ below = 3 }", [1, 2]), ("{ below = 3 }", "{ above = 1 }", [2, 3])):
        registry = sqlite_shop.registry(*section, f"where = {{ Id = {before} }}")
        assert registry.get("shop/Customer").sync(Trigger.CLI, turn=Turn(0)).in_progress  # it has passed one record
        registry = sqlite_shop.registry(*section, f"where = {{ Id = {after} }}")
        [plan] = plan_of(registry, "shop/Customer").services
        assert any("begins from the start" in note for note in plan.notes)
        service = registry.get("shop/Customer")
        with monkeypatch.context() as patch:  # right after it has written that it begins anew
            patch.setattr(schema, "refuse_early", killed)
            assert isinstance(sure(service.resume(Trigger.TIMER)).error, Interrupted)
        resumed = sure(service.resume(Trigger.TIMER))
        assert resumed.error is None, resumed.error
        assert any("others than when the sync began" in note for note in resumed.run.notes)
        assert [row[0] for row in sqlite_shop.rows('"Customer"')] == ids
        [plan] = plan_of(registry, "shop/Customer").services
        assert list(plan.notes) == []
    [plan] = plan_of(sqlite_shop.registry(*section), "shop/Customer").services
    assert any("others than in the last sync" in note for note in plan.notes)


def sure(outcome: Outcome | None) -> Outcome:
    """The outcome of a call that had something to do."""
    assert outcome is not None
    return outcome


@IN_FILES
def test_a_set_as_one_run_fails_with_the_number_of_those_that_were_done(shop: Shop) -> None:
    run = Run("shop", Trigger.JOB, False, utc_now())
    outcome = shop.registry('exclude = ["*tmp_*"]').sync_as_one(RunSoFar(run), NO_OPTIONS, NOBODY)
    assert isinstance(outcome.error, SetFailed)
    assert f"1 of 5 services of shop failed: {shop.name('Keyless')} (SchemaMismatch). 4 were done." in str(
        outcome.error
    )
    assert (outcome.run.status, outcome.run.counts.inserted) == (Status.FAILED, 8)
    whole = shop.registry(EXCLUDE).sync_as_one(RunSoFar(run), NO_OPTIONS, NOBODY)
    assert (whole.error, whole.run.status, whole.run.counts.skipped) == (None, Status.COMPLETED, 8)


@pytest.mark.parametrize("small", [{}, SLICES], ids=["in one go", "in slices"])
def test_a_job_of_a_set_is_one_run_in_the_records_and_the_numbers(
    sqlite_shop: Shop, tmp_path: Path, small: dict[str, str]
) -> None:
    sqlite_shop.run(SHOP)
    job, job_queue, percents = work_on_set(sqlite_shop, tmp_path, EXCLUDE, **small)
    assert (job.state, job.counts["inserted"], len(percents) > 1) == (State.SUCCEEDED, 8, bool(small))
    assert job_queue.runs.last_of_each(["shop"])["shop"]["versions"]["records"] == 8  # of all services, whichever slice
    run = job_queue.runs.get(job.sync_id or "")
    assert run is not None
    assert (run["service"], run["jobId"], run["status"]) == ("shop", job.job_id, "Completed")
    day = RunNumbers(job_queue.keys).day(date.fromisoformat(run["startedAt"][:10]))
    assert {service: numbers["runs"] for service, numbers in day.items()} == {"shop": 1}


def test_a_job_of_a_set_whose_worker_died_at_once_is_still_one_run(sqlite_shop: Shop, tmp_path: Path) -> None:
    sqlite_shop.run(SHOP)
    settings = load_settings({"BackupJobs__File": str(tmp_path / "jobs.db"), "BACKUP_TOML": sqlite_shop.text(EXCLUDE)})
    job_queue = open_job_queue(settings)
    job = job_queue.records.enqueue(Request("shop"), "http", owner="a process that has died")
    assert job is not None
    begun = new_run_of_several("shop", Trigger.JOB, NO_OPTIONS)
    job_queue.runs.save(begun, job_id=job.job_id)
    let_pass(job_queue.keys, 2 * SILENCE)
    worked = worker_of(settings, job_queue).work(job.job_id)
    assert worked is not None
    assert (worked.state, worked.sync_id, worked.counts["inserted"]) == (State.SUCCEEDED, begun.sync_id, 8)
    assert [run["status"] for run in job_queue.runs.page(service="shop").runs] == ["Completed"]


def test_a_job_of_a_set_whose_worker_died_later_counts_nothing_twice_and_forgets_no_failure(
    sqlite_shop: Shop, tmp_path: Path
) -> None:
    sqlite_shop.run(SHOP)
    text = sqlite_shop.text('exclude = ["*tmp_*"]')
    values = {"BackupJobs__File": str(tmp_path / "jobs.db"), "BACKUP_TOML": text, **SLICES}
    settings = load_settings(values)
    job_queue = open_job_queue(settings)
    job = job_queue.records.enqueue(Request("shop", force=True), "http")
    assert job is not None
    first = worker_of(settings, job_queue).work(job.job_id)
    assert first is not None
    dead = job_queue.records.claim(job.job_id, "a process that has died")
    assert dead is not None
    # By its heartbeats it had written more than the checkpoints of the runs say. The failure may be of its slice, too.
    counts = {**first.counts, "inserted": first.counts["inserted"] + 3}
    assert job_queue.records.beat(dead, counts=counts, error=None, error_kind=None) is not None
    inserted, job = [first.counts["inserted"]], None
    while job is None or job.state is State.ENQUEUED:
        let_pass(job_queue.keys, 2 * SILENCE)
        job = worker_of(settings, job_queue).work(first.job_id)
        assert job is not None
        inserted.append(job.counts["inserted"])
    assert (job.state, inserted[-1], inserted) == (State.FAILED, 8, sorted(inserted))
    run = job_queue.runs.get(job.sync_id or "")
    assert run is not None
    assert (run["status"], run["error"], job.error_kind) == ("Failed", job.error, "SetFailed")
    assert "1 service of shop failed: shop/Keyless (SchemaMismatch)" in str(job.error)
    assert len(inserted) > 2


def test_a_scheduled_job_of_a_set_purges_and_verifies_each_of_its_services(sqlite_shop: Shop, tmp_path: Path) -> None:
    sqlite_shop.run(SHOP)
    sqlite_shop.sync(EXCLUDE)
    names = sqlite_shop.column('SELECT DISTINCT "ServiceName" FROM "RecycleBin" ORDER BY 1')
    assert len(names) == 4
    verified = """SELECT "ServiceName" FROM "SyncHistory" WHERE "Trigger" = 'verify' AND "Verified" = 1 ORDER BY 1"""
    for occurrence, purged in ((None, False), ("2026-12-01T00:00:00+00:00", True)):
        work_on_set(sqlite_shop, tmp_path, EXCLUDE, "recycle_days = 1e-9", occurrence=occurrence)
        assert sqlite_shop.column('SELECT COUNT(*) FROM "RecycleBin"') == ([0] if purged else [8])
        assert sqlite_shop.column(verified) == (names if purged else [])


def test_a_set_that_http_synced_is_safe_and_has_proven_what_its_services_have(
    sqlite_shop: Shop, tmp_path: Path
) -> None:
    sqlite_shop.run(SHOP)
    values = {"BackupJobs__File": str(tmp_path / "jobs.db"), "BACKUP_TOML": sqlite_shop.text(EXCLUDE)}
    settings = load_settings(values)
    job_queue = open_job_queue(settings)
    registry = Registry(settings, watcher=RunKeeper(job_queue.runs))
    for name in ("all", "shop"):
        registry.sync(name, Trigger.HTTP, wait_seconds=60)
        [row] = shape_overview(job_queue, settings, ["shop"], None, 10, None)["services"]
        assert (row["state"], row["records"], row["versionsProven"]["verified"]) == ("Safe", 8, True)


def test_a_set_goes_on_in_the_next_slice_and_an_early_failure_is_not_forgotten(
    sqlite_shop: Shop, tmp_path: Path
) -> None:
    sqlite_shop.run(SHOP)
    job, job_queue, percents = work_on_set(sqlite_shop, tmp_path, 'exclude = ["*tmp_*"]', **SLICES)
    percents_told = [percent for percent in percents[:-1] if percent]
    assert len(percents_told) > 1
    assert percents_told == sorted(percents_told)
    assert job.counts["inserted"] == 8  # those of all slices, once
    assert (job.state, job.error_kind) == (State.FAILED, "SetFailed")
    assert "Keyless" in str(job.error)
    run = job_queue.runs.get(job.sync_id or "")
    assert run is not None
    assert (run["status"], run["errorKind"], run["error"]) == ("Failed", "SetFailed", job.error)
    names = ['"Customer"', '"Invoice"', '"Order Details"']
    assert [len(sqlite_shop.rows(name)) for name in names] == [3, 2, 2]
