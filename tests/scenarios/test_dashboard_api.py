"""The API of the page: services at a glance, one run and its records, and what takes them back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import BackupError, BadRequest, UnknownRecord, UnknownRun, UnknownService
from backup.core.run_values import Counts, Proof, Run, Status, Trigger, Verb
from backup.entry import dashboard_api, job_api
from backup.jobs.job_queue import JobQueue, open_job_queue
from backup.jobs.key_values import Change
from backup.jobs.worker import worker_of
from backup.recycle_bin import bin as recycle_bin
from backup.services.registry import Registry
from tests.scenarios.inside import a_week, command, done, first_synced, raised, refused, synced
from tests.scenarios.places import Place, Sql

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


class Page:
    """What the page asks for, over a place with customers."""

    def __init__(self, place: Place | None, file: Path, **settings: str) -> None:
        own = place.settings if place else {}
        self.settings = load_settings({**own, "BackupJobs__File": str(file), **settings})
        self.job_queue: JobQueue = open_job_queue(self.settings)
        self.registry = Registry(self.settings, watcher=self.job_queue.watcher("Ada"))

    def changes(self, run: Run, **query: str) -> Any:
        return dashboard_api.get_run_changes(self.job_queue, self.registry, run.sync_id, query).body

    def record(self, run: Run, key: str) -> Any:
        return dashboard_api.get_changed_record(self.job_queue, self.registry, run.sync_id, {"key": key}).body

    def restore(self, run: Run, **body: Any) -> Any:
        return dashboard_api.post_run_restore(
            self.job_queue, self.registry, run.sync_id, {}, json.dumps(body).encode()
        ).body

    def undo(self, run: Run, **body: Any) -> Any:
        return dashboard_api.post_run_undo(
            self.job_queue, self.registry, run.sync_id, {}, json.dumps(body).encode()
        ).body

    def overview(self, **query: str) -> Any:
        return dashboard_api.get_overview(self.job_queue, self.settings, self.registry, query).body

    def calendar(self, **query: str) -> Any:
        return dashboard_api.get_calendar(self.job_queue, self.settings, self.registry, query).body


@pytest.fixture
def page(customers: Place, tmp_path: Path) -> Iterator[Page]:
    made = Page(customers, tmp_path / "jobs.db")
    yield made
    made.job_queue.keys.close()


def listed(page: Page, run: Run, **query: str) -> list[tuple[Any, str]]:
    """All changes of the run, page after page."""
    changes: list[tuple[Any, str]] = []
    body = page.changes(run, **query)
    changes += [(change["key"][0], change["change"]) for change in body["changes"]]
    while body["cursor"]:
        body = page.changes(run, **query, cursor=body["cursor"])
        changes += [(change["key"][0], change["change"]) for change in body["changes"]]
    return changes


def test_changes_of_a_run_are_all_there_and_once_whatever_the_page(customers: Place, page: Page) -> None:
    first, second = a_week(customers)
    changes = [(3, "Deleted"), (11, "Deleted"), (12, "Deleted"), (101, "Inserted"), (2, "Updated"), (10, "Updated")]
    for limit in ("1", "2", "500"):
        assert sorted(listed(page, second, limit=limit), key=lambda change: (change[1], change[0])) == changes
        assert sorted(listed(page, second, only="deleted", limit=limit)) == changes[:3]
        assert sorted(listed(page, second, only="updated", limit=limit)) == changes[4:]
        if limit != "1":  # a hundred keys that lie together in few entries
            assert sorted(listed(page, first, limit=limit)) == [(n, "Inserted") for n in range(1, 101)]


def test_old_and_new_stand_side_by_side(customers: Place, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycle_bin, "_RUNS_AT_FIRST", 1)  # the next image is that of a later look
    first, second = a_week(customers)
    raised(customers, 10, version=3)
    third = synced(customers, "customer")
    updated = page.record(second, "10")
    assert (updated["change"], updated["old"]["Version"], updated["new"]["Version"]) == ("Updated", 1, 2)
    assert updated["laterRun"] == third.sync_id
    assert "Version" in [column["name"] for column in updated["columns"] if column["differs"]]
    latest = page.record(third, "[10]")
    assert (latest["old"]["Version"], latest["new"]["Version"], latest["laterRun"]) == (2, 3, None)
    deleted, inserted = page.record(second, "3"), page.record(second, "101")
    assert (deleted["change"], deleted["old"]["Id"], deleted["new"]) == ("Deleted", 3, None)
    assert (inserted["change"], inserted["old"], inserted["new"]["Id"]) == ("Inserted", None, 101)
    with pytest.raises(UnknownRecord):
        page.record(second, "50")
    with pytest.raises(UnknownRun):
        page.record(replace(first, sync_id="0" * 8), "3")


def test_a_deleted_record_is_restored_only_where_the_name_of_the_service_is_typed(customers: Place, page: Page) -> None:
    _, second = a_week(customers)
    before = customers.customer.source.contents()
    preview = page.restore(second, keys=[3], only="deleted")
    assert (preview["DryRun"], preview["InsertedCount"]) == (True, 1)
    for name in ("", "order", "customer2"):
        with pytest.raises(BadRequest, match="Nothing was changed"):
            page.restore(second, only="deleted", confirm=name)
    assert customers.customer.source.contents() == before
    done = page.restore(second, keys=[3], only="deleted", confirm="customer")
    assert (done["DryRun"], done["InsertedCount"]) == (False, 1)
    assert set(customers.customer.source.contents()) - set(before) == {3}
    done = page.restore(second, only="deleted", confirm="Customer")
    assert set(customers.customer.source.contents()) - set(before) == {3, 11, 12}
    summary = dashboard_api.get_run(page.job_queue, page.registry, done["SyncId"], {}).body
    assert (summary["verb"], summary["requestedBy"]) == ("restore", "Ada")


def test_what_a_restore_overwrote_in_the_source_is_shown_too(customers: Place, page: Page) -> None:
    _, second = a_week(customers)
    done = page.restore(second, keys=[10], overwriteNewer=True, confirm="customer")
    restored = Run("customer", None, False, NOW, sync_id=done["SyncId"])
    [change] = page.changes(restored)["changes"]
    assert change == {"key": [10], "change": "Updated", "side": "source"}
    record = page.record(restored, "10")
    assert (record["side"], record["change"], record["old"]["Version"]) == ("source", "Updated", 2)


def test_a_run_is_undone_only_where_the_name_of_the_service_is_typed(customers: Place, page: Page) -> None:
    _, second = a_week(customers)
    before = customers.customer.backup.contents()
    assert page.undo(second)["DryRun"]
    with pytest.raises(BadRequest):
        page.undo(second, confirm="order")
    assert customers.customer.backup.contents() == before
    assert page.undo(second, confirm="customer")["TotalProcessed"] == 6
    assert set(customers.customer.backup.contents()) == set(range(1, 101))


def test_a_list_of_changes_refuses_what_it_does_not_know(customers: Place, page: Page) -> None:
    run = first_synced(customers, "customer")
    for query in ({"only": "copied"}, {"cursor": "0.zz.1"}, {"cursor": "7."}, {"limit": "0"}, {"key": "1"}):
        with pytest.raises(BadRequest):
            page.changes(run, **query)
    with pytest.raises(BadRequest):  # a cursor of another run
        page.changes(run, cursor=f"0.{'0' * 40}.1")


def ended(
    n: int, hours_ago: float, error: str | None = None, verb: Verb = Verb.SYNC, trigger: Trigger = Trigger.TIMER
) -> Run:
    run = Run(f"service{n}", trigger, False, NOW - timedelta(hours=hours_ago), verb=verb)
    status = Status.FAILED if error else Status.COMPLETED
    return run.ended(status, run.started_at + timedelta(seconds=10), Counts(inserted=n), error)


def services(number: int) -> dict[str, str]:
    names = {}
    for n in range(1, number + 1):
        names[f"SourceService{n}Db__ConnectionString"] = f"sqlite:///source{n}.db"
        names[f"BackupService{n}Db__ConnectionString"] = f"sqlite:///backup{n}.db"
        names[f"SourceService{n}Db__Table"] = "Things"
    return names


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Page]:
    """Five services that no database stands behind."""
    made = Page(None, tmp_path / "jobs.db", **services(5), BackupService4Db__MaxAgeHours="100")
    made.job_queue = replace(made.job_queue, now=lambda: NOW)
    yield made
    made.job_queue.keys.close()


def test_the_worst_service_comes_first_and_silence_alone_makes_one_overdue(many: Page) -> None:
    for run in (ended(2, 30), ended(3, 12), ended(3, 10, "It broke."), ended(4, 30), ended(5, 12)):
        many.job_queue.runs.save(run, due_at=run.started_at)
    body = many.overview()
    assert [(row["service"], row["state"], row["overdue"]) for row in body["services"]] == [
        ("service1", "Overdue", True),
        ("service2", "Overdue", True),
        ("service3", "Failed", False),
        ("service4", "Safe", False),
        ("service5", "Safe", False),
    ]
    assert body["totals"] == {"services": 5, "overdue": 2, "failed": 1, "differs": 0, "safe": 2, "running": 0}
    never, late = body["services"][:2]
    assert (never["lastSuccess"], never["lastSuccessAgeSeconds"]) == (None, None)
    assert (late["lastSuccessAgeSeconds"], late["allowedAgeSeconds"]) == (30 * 3600 - 10, 26 * 3600)
    assert body["services"][2]["lastFailure"]["error"] == "It broke."
    assert body["services"][3]["nextOccurrence"] == "2026-11-30T00:00:00.000Z"
    pages = [many.overview(limit="2")]
    while pages[-1]["cursor"]:
        pages.append(many.overview(limit="2", cursor=pages[-1]["cursor"]))
    with pytest.raises(BadRequest, match="cursor"):
        many.overview(cursor="service1")
    assert [row for part in pages for row in part["services"]] == body["services"]
    assert [row["service"] for row in many.overview(q="SERVICE3")["services"]] == ["service3"]


def test_a_service_without_a_glance_is_told_by_its_last_runs(many: Page) -> None:
    for run in (ended(2, 30), ended(3, 12), ended(3, 10, "It broke."), ended(4, 30), ended(5, 12)):
        many.job_queue.runs.save(run)
    before = many.overview()
    many.job_queue.keys.commit([Change(item.key, None) for item in many.job_queue.keys.scan("glance:", limit=99)])
    assert many.overview() == before
    assert [row["service"] for row in before["services"] if row["state"] == "Safe"] == ["service4", "service5"]


def test_a_set_is_as_safe_as_the_worst_of_its_services_once_it_was_synced_whole(tmp_path: Path) -> None:
    text = "[set.Shop]\nsource = 'sqlite:///s.db'\nbackup = 'sqlite:///b.db'\ntables = '*'\n"
    page = Page(None, tmp_path / "jobs.db", BACKUP_TOML=text)
    page.job_queue = replace(page.job_queue, now=lambda: NOW)

    def save(service: str, hours_ago: float, error: str | None = None, verb: Verb = Verb.SYNC, **fields: Any) -> None:
        page.job_queue.runs.save(replace(ended(1, hours_ago, error, verb), service=service, **fields))

    def state_of_set() -> tuple[Any, ...]:
        [row] = page.overview()["services"]
        failure = row["lastFailure"] or {}
        return row["state"], row["lastSuccessAgeSeconds"], failure.get("error")

    save("Shop/A", 60)
    assert state_of_set() == ("Overdue", None, None)  # nobody knows yet what else there is
    save("Shop", 50)
    save("Shop/Left", 3000)
    save("Shop/B", 20)
    assert state_of_set()[0] == "Overdue"  # A is as old as the set
    save("Shop/A", 10)
    assert state_of_set() == ("Safe", 20 * 3600 - 10, None)
    save("Shop/B", 5, "It broke.")
    assert state_of_set() == ("Failed", 20 * 3600 - 10, "It broke.")
    save("Shop/B", -30)  # by a clock that stood ahead
    assert page.overview(set="shop", q="/b")["services"][0]["state"] == "Overdue"
    save("Shop/B", 4)
    save("shop/a", 3, verb=Verb.VERIFY, proof=Proof(differing=1))
    assert state_of_set() == ("Differs", 10 * 3600 - 10, None)
    assert [row["services"] for row in page.overview()["services"]] == [2]
    save("Shop/A", 2.9, verb=Verb.VERIFY, proof=Proof())
    for hours_ago, kind, is_forgiven in ((2.8, "SetFailed", True), (2.4, "SetNotWhole", False)):
        save("Shop/A", hours_ago)
        save("Shop/B", hours_ago, "It broke.")
        save("Shop", hours_ago - 0.1, "1 of 2 failed.", error_kind=kind)
        assert state_of_set()[0] == "Failed"
        save("Shop/B", hours_ago - 0.2)  # by itself
        assert (state_of_set()[0] == "Safe") is is_forgiven
    save("Shop", 1.9)
    save("shop/a", 0.9, verb=Verb.VERIFY, proof=Proof(differing=1))
    of_set = page.overview(set="SHOP", q="/")
    assert [(row["service"], row["state"]) for row in of_set["services"]] == [("shop/a", "Differs"), ("Shop/B", "Safe")]
    assert (of_set["totals"]["services"], of_set["totals"]["differs"]) == (2, 1)
    save("shop/a", 0.8, verb=Verb.VERIFY, proof=Proof())
    save("Shop/Left", 0.75, "It broke.")
    for hours_ago, state in ((0.74, "Failed"), (0.3, "Safe")):  # of all that it has now; clocks differ by minutes
        save("Shop", hours_ago)
        assert state_of_set()[0] == state
    with pytest.raises(UnknownService, match=r"There is no set 'Shap'\. Did you mean Shop\?"):
        page.overview(set="Shap")
    page.job_queue.keys.close()


def test_what_was_proven_last_is_told(customers: Place, page: Page) -> None:
    synced_run = page.registry.sync("customer", Trigger.CLI)[0].run
    body = {"service": "customer", "drill": True}
    answer = dashboard_api.post_verify_job(page.job_queue, page.registry, {}, json.dumps(body).encode(), "Ada")
    assert answer.status == 202
    worker_of(page.settings, page.job_queue).work(answer.body["jobId"])
    job = job_api.get_job_details(page.job_queue, answer.body["jobId"], {}).body
    assert (job["state"], job["job"]["verb"], job["run"]["verb"]) == ("Succeeded", "drill", "drill")
    [row] = page.overview()["services"]
    assert (row["state"], row["records"], row["lastSuccess"]["syncId"]) == ("Safe", 100, synced_run.sync_id)
    assert row["lastRestoreDrill"]["syncId"] == row["contentsProven"]["syncId"] == job["syncId"]
    customers.customer.backup.run("UPDATE {table} SET Name = 'x' WHERE Id = 5")
    full = {"service": "customer", "full": True}
    answer = dashboard_api.post_verify_job(page.job_queue, page.registry, {}, json.dumps(full).encode())
    worker_of(page.settings, page.job_queue).work(answer.body["jobId"])
    [row] = page.overview()["services"]
    assert (row["state"], row["lastVerify"]["verified"]) == ("Differs", False)


def test_a_calendar_says_which_nights_were_made(many: Page) -> None:
    def night(n: int, days_ago: int, error: str | None = None) -> None:
        run = ended(n, 12 + 24 * days_ago, error)
        many.job_queue.runs.save(run, due_at=run.started_at)

    for n in (1, 2):
        night(n, 3)
        night(n, 2, "It broke." if n == 2 else None)
    night(1, 0)
    many.job_queue.runs.save(ended(1, 1, trigger=Trigger.CLI))  # by hand
    days = many.calendar(days="30")["days"]
    assert (len(days), days[0]["date"], days[-1]["date"]) == (30, "2026-10-31", "2026-11-29")
    assert [(day["runsDue"], day["runsMade"], day["share"]) for day in days[-5:]] == [
        (0, 0, None),
        (2, 2, 1.0),
        (2, 1, 0.5),
        (2, 0, 0.0),
        (2, 1, 0.5),
    ]
    assert (days[-1]["runs"], days[-1]["inserted"], days[-3]["failed"]) == (2, 2, 1)
    assert days[-1]["medianDurationMs"] == pytest.approx(10_000, rel=0.05)
    alone_days = many.calendar(days="30", service="Service1")["days"]
    assert [(day["runsDue"], day["runsMade"]) for day in alone_days[-3:]] == [(1, 1), (1, 0), (1, 1)]


def test_of_a_failure_it_is_told_whether_its_service_has_succeeded_since(many: Page) -> None:
    set_settings = {"BACKUP_TOML": "[set.Shop]\nsource = 'sqlite:///s.db'\nbackup = 'sqlite:///b.db'\ntables = '*'\n"}
    settings = load_settings({**services(5), **set_settings})
    for service, hours_ago, error in (
        ("service1", 9, "It broke."),
        ("service1", 8.9999, None),  # in the same second
        ("service1", 7, "It broke again."),
        ("service2", 7.5, "It broke."),
        ("service2", -30, None),  # by a clock that stood ahead
        ("Shop/A", 6, "It broke."),
        ("Shop/B", 6.5, "It broke."),
        ("Shop/B", 5, None),
        ("Shop", 5.5, None),
        ("Shop/B", 4, "It broke again."),
        ("gone", 3, "It broke."),
    ):
        many.job_queue.runs.save(replace(ended(1, hours_ago, error), service=service))
    runs = job_api.get_history(many.job_queue, settings, {"limit": "50"}).body["runs"]
    assert [(run["service"], run["error"][9:], run["succeededSince"]) for run in runs if run["status"] == "Failed"] == [
        ("gone", "", False),
        ("Shop/B", "again.", False),
        ("Shop/A", "", True),  # with its set
        ("Shop/B", "", True),
        ("service1", "again.", False),
        ("service2", "", False),
        ("service1", "", True),
    ]
    assert all("succeededSince" not in run for run in runs if run["status"] != "Failed")


def test_runs_are_searched_by_a_text(many: Page) -> None:
    for run in (ended(1, 3), ended(2, 2, "The moon is full."), ended(3, 1)):
        many.job_queue.runs.save(run)
    runs = job_api.get_history(many.job_queue, many.settings, {"q": "MOON"}).body["runs"]
    assert [run["service"] for run in runs] == ["service2"]


def test_a_run_that_a_dead_process_left_open_ends_in_the_records_too(customers: Place, page: Page) -> None:
    run = customers.registry.sync("customer", Trigger.CLI)[0].run  # without a word to the records
    left = replace(run, status=Status.IN_PROGRESS, completed_at=None)
    page.job_queue.runs.save(left, job_id="a-job", requested_by="Bob")
    assert isinstance(customers.customer.backup, Sql)
    open_again = '"Status" = \'InProgress\', "CompletedAt" = NULL, "Checkpoint" = NULL, "Owner" = NULL'
    customers.customer.backup.run(f'UPDATE "SyncHistory" SET {open_again}')
    page.registry.sync("customer", Trigger.CLI)
    record = page.job_queue.runs.get(run.sync_id) or {}
    assert (record["status"], record["errorKind"], record["jobId"], record["requestedBy"]) == (
        *("Failed", "Interrupted"),
        *("a-job", "Bob"),
    )


def test_many_jobs_are_retried_and_deleted_at_once(many: Page) -> None:
    def asked(action: str, *job_ids: str) -> Any:
        body = json.dumps({"action": action, "jobIds": job_ids}).encode()
        answer = dashboard_api.post_bulk(many.job_queue, {}, body, "Ada").body
        return answer["done"], [job["status"] for job in answer["jobs"]]

    start = json.dumps({"syncType": "all"}).encode()
    ids = job_api.post_start(many.job_queue, many.registry, {}, start).body["jobIds"]
    many.job_queue.records.claim(ids[1], "somebody")
    assert asked("retry", ids[0], "0000") == (0, [409, 404])
    assert asked("delete", *ids) == (5, [200, 202, 200, 200, 200])
    assert asked("retry", *ids[:2]) == (1, [200, 409])
    for body in (b"{}", b'{"action": "retry", "jobIds": []}', b'{"action": "stop", "jobIds": ["1"]}'):
        with pytest.raises(BackupError):
            dashboard_api.post_bulk(many.job_queue, {}, body)


def test_the_command_line_shows_one_record_before_and_after_a_run(customers: Place, tmp_path: Path) -> None:
    _, second = a_week(customers)
    shown = command(tmp_path, {**customers.settings, "COLUMNS": "80"}, "history", second.sync_id[:8], "--key", "10")
    assert shown.code == 0, shown.err
    [version] = [line for line in shown.out.splitlines() if " Version " in line]
    assert version.replace("│", " ").split() == ["*", "Version", "1", "2"]
    answer = done(command(tmp_path, customers.settings, "history", second.sync_id[:8], "--key", "3", "--json"))
    assert (answer["change"], answer["old"]["Id"], answer["new"]) == ("Deleted", 3, None)
    refusal = refused(command(tmp_path, customers.settings, "history", "--key", "3", "--json"))
    assert refusal[0] == "BadRequest"


def test_the_command_line_shows_every_service_at_a_glance(customers: Place, tmp_path: Path) -> None:
    settings = {**customers.settings, "BackupJobs__File": str(tmp_path / "jobs.db"), "COLUMNS": "100"}
    before = command(tmp_path, settings, "overview")
    assert (before.code, "Overdue" in before.out, "never" in before.out) == (1, True, True)
    assert command(tmp_path, settings, "sync", "customer").code == 0
    after = command(tmp_path, settings, "overview")
    assert (after.code, "Safe" in after.out) == (0, True), after.err
    assert done(command(tmp_path, settings, "overview", "CUST", "--json"))["totals"]["safe"] == 1
    assert command(tmp_path, settings, "overview", "custmer").code == 1
