"""The page in a real browser, as people use it: by mouse, by keyboard, with hostile records, and without a server."""

from __future__ import annotations

import base64
import json
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import copy
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Route, expect

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.entry.dashboard_files import served
from backup.entry.job_shapes import shape_row
from backup.jobs.job import Request, State
from backup.jobs.job_queue import JobQueue, open_job_queue
from backup.jobs.worker import worker_of
from backup.services.registry import Registry
from tests.scenarios.browsing import ZONE, Tab
from tests.scenarios.places import Place
from tests.scenarios.product import DEADLINE_SECONDS, ROOT, start

KEY = "key-of-this-test"
ROUNDED = 2**53 + 1
"""No number of JavaScript is this one."""
LONG = "x" * 10_000
SCRIPT = "<script>alert('x')</script>"
LOOKED_AT_AGAIN = "() => document.dispatchEvent(new Event('visibilitychange'))"
TURNED = "\u202egnp.exe 🙂 עברית"


class Stage:
    """The app, served with a key; its records and its services at hand."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder, self.settings = folder, {**settings, "BackupJobs__File": str(folder / "jobs.db")}
        self.settings["BackupVerify__EveryDays"] = "0"  # else the timer may begin one when a minute begins
        for file in ("function_app.py", "host.json"):
            copy(ROOT / file, folder)
        self.port = 0

    @contextmanager
    def job_queue(self) -> Iterator[tuple[JobQueue, Registry]]:
        settings = load_settings(self.settings)
        job_queue = open_job_queue(settings)
        try:
            yield job_queue, Registry(settings, watcher=job_queue.watcher())
        finally:
            job_queue.keys.close()

    @contextmanager
    def served(self) -> Iterator[str]:
        """The page's address. A second server gets the port of the first."""
        settings = {**self.settings, "SERVE_KEY": KEY}
        arguments = ("-m", "backup", "serve", "--port", str(self.port))
        with start(self.folder, settings, *arguments, stdout=subprocess.DEVNULL) as process:
            try:
                assert process.stderr
                listening = "running on http://127.0.0.1:"
                line = next(line for line in process.stderr if listening in line)
                self.port = int(line.partition(listening)[2].split()[0])
                yield f"http://127.0.0.1:{self.port}/api/dashboard"
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=DEADLINE_SECONDS)
            finally:
                process.kill()


@pytest.fixture
def stage(sqlite_place: Place, tmp_path: Path) -> Stage:
    return Stage(tmp_path, sqlite_place.settings)


def in_source(folder: Path, statement: str, file: str = "customers.db") -> list[Any]:
    connection = sqlite3.connect(folder / file)
    with connection:
        rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def test_a_night_that_failed_is_understood_and_mended_and_what_was_deleted_comes_back(
    browser: Browser, stage: Stage
) -> None:
    with stage.served() as address, Tab(browser, address) as tab:
        page = tab.page
        tab.type_key("another key")
        expect(page.get_by_role("alert")).to_contain_text("This key is wrong")
        tab.type_key(KEY)
        expect(page.get_by_role("heading", level=1)).to_have_text("2 of 2 services are not safe.")
        expect(tab.row("Services", "order")).to_contain_text("Never backed up")

        tab.section("Do now").get_by_role("button", name="Sync", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("All 2 services are safe.")
        expect(page).to_have_title("Backup: safe")
        assert tab.faults() == []

        (stage.folder / "orders.db").rename(stage.folder / "away.db")
        page.get_by_role("button", name="Sync now for order").click()
        failure = tab.section("Failures").get_by_role("listitem").filter(has_text="SourceMissing")
        expect(failure).to_contain_text("What to do:")
        expect(page.get_by_role("heading", level=1)).to_have_text("The last run of 1 service failed.")
        expect(tab.row("Services", "order")).to_contain_text("Last run failed")
        failure.get_by_role("button", name="Last lines of the log").click()
        expect(failure.get_by_label("The last lines of the log")).to_contain_text("sync.failed")
        (stage.folder / "away.db").rename(stage.folder / "orders.db")
        failure.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("All 2 services are safe.")
        expect(tab.section("Failures").get_by_role("listitem").first).to_contain_text("succeeded since")

        in_source(stage.folder, "DELETE FROM Customers WHERE Id IN (7, 8)")
        in_source(stage.folder, "UPDATE Customers SET Name = 'Renamed', Version = 9 WHERE Id = 3")
        page.get_by_role("button", name="Sync now for customer").click()
        tab.row("Runs", "1 updated, 2 deleted").get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sync of customer")
        changes = tab.section("What it did to records")
        changes.get_by_role("button", name="2 deleted", exact=True).click()
        changes.get_by_role("button", name="7", exact=True).click()
        expect(tab.row("The record before and after the run", "Email")).to_contain_text("customer7@example.com")
        changes.get_by_role("button", name="1 updated", exact=True).click()
        changes.get_by_role("button", name="3", exact=True).click()
        assert tab.row("The record before and after the run", "Name").inner_text().split("\t")[-1].strip() == "Renamed"

        dialog = page.get_by_role("dialog")
        restore = dialog.get_by_role("button", name="Restore", exact=True)
        in_source(stage.folder, "UPDATE Customers SET Version = 10 WHERE Id = 3")
        changes.get_by_role("button", name="Restore this record").click()
        expect(dialog).to_contain_text("stays, because it is newer in the source: 3")
        expect(restore).to_be_disabled()
        dialog.get_by_label("Also overwrite").check()
        expect(dialog).to_contain_text("This would change 1 record: 1 updated.")
        page.keyboard.press("Escape")

        changes.get_by_role("button", name="All", exact=True).click()
        changes.get_by_label("Choose record 7").check()
        changes.get_by_role("button", name="Restore 1 chosen record").click()
        expect(dialog).to_contain_text("This would change 1 record: 1 inserted.")
        dialog.get_by_label("type the service's name").fill("order")
        expect(restore).to_be_disabled()
        dialog.get_by_label("type the service's name").fill("customer")
        restore.click()
        expect(dialog).to_be_hidden()
        assert in_source(stage.folder, "SELECT Id FROM Customers WHERE Id IN (7, 8)") == [(7,)]

        page.get_by_role("button", name="Undo this run").click()
        expect(dialog).to_contain_text("This would change 3 records")
        dialog.get_by_label("type the service's name").fill("customer")
        dialog.get_by_role("button", name="Undo", exact=True).click()
        expect(dialog).to_be_hidden()
        assert in_source(stage.folder, "SELECT count(*) FROM Customers", "customers_backup.db") == [(100,)]
        assert tab.faults() == []

        in_source(stage.folder, "DELETE FROM Customers WHERE Id > 40")
        page.goto(f"{address}#/")
        page.get_by_role("button", name="Sync now for customer").click()
        guarded = tab.section("Failures").get_by_role("listitem").filter(has_text="GuardTripped")
        guarded.get_by_role("button", name="Allow these deletes once for customer").click()
        expect(dialog).to_contain_text("would be deleted to match the source")
        expect(dialog).to_contain_text("61 deleted.")
        assert tab.faults() == []
        allow = dialog.get_by_role("button", name="Allow once")
        dialog.get_by_label("type the service's name").fill("order")
        expect(allow).to_be_disabled()
        dialog.get_by_label("type the service's name").fill("customer")
        allow.click()
        expect(dialog).to_be_hidden()
        expect(tab.row("Runs", "61 deleted").filter(has_text="sync · by job")).to_contain_text("Completed")
        assert in_source(stage.folder, "SELECT count(*) FROM Customers", "customers_backup.db") == [(39,)]
        assert tab.troubles == []
        assert not any(KEY in request.url for request in tab.asked)
        keys = [request.headers.get("x-functions-key") for request in tab.asked if "/api/sync/" in request.url]
        assert keys == [None, "another key", *[KEY] * (len(keys) - 2)]


def hostile(stage: Stage) -> None:
    """A table with markup in names and values, a run over it, and jobs of hostile people that wait, run and failed."""
    columns = ", ".join(f'"c{number}" TEXT' for number in range(198))
    in_source(stage.folder, f'CREATE TABLE Notes (Id TEXT PRIMARY KEY, "{SCRIPT}" TEXT, {columns})', "notes.db")
    for key in (SCRIPT, TURNED, LONG):
        connection = sqlite3.connect(stage.folder / "notes.db")
        with connection:
            connection.execute(f'INSERT INTO Notes (Id, "{SCRIPT}", c0) VALUES (?, ?, ?)', (key, LONG, TURNED))
        connection.close()
    for side, file in (("Source", "notes.db"), ("Backup", "notes_backup.db")):
        stage.settings[f"{side}NoteDb__ConnectionString"] = f"sqlite:///{stage.folder / file}"
        stage.settings[f"{side}NoteDb__Table"] = "Notes"
    with stage.job_queue() as (job_queue, registry):
        registry.get("note").initialize()
        [outcome] = registry.sync("note", Trigger.CLI)
        assert outcome.error is None
        in_source(stage.folder, "UPDATE Notes SET c0 = '<b>bold</b>'", "notes.db")
        registry.sync("note", Trigger.CLI)
        jobs = [job_queue.records.enqueue(Request("note"), "http", requested_by=f"{SCRIPT}{TURNED}") for _ in range(4)]
        claimed = [job_queue.records.claim(job.job_id, "a test") for job in jobs if job]
        running, waiting, *failed = [job for job in claimed if job]
        job_queue.records.beat(running, percent=40, counts={"inserted": 3})
        job_queue.records.leave(waiting, State.SCHEDULED, LONG, due_at=job_queue.now() + timedelta(hours=1))
        for job in failed:
            job_queue.records.leave(
                job, State.FAILED, SCRIPT, error=f"{SCRIPT} {LONG}", error_kind="StoreError", hint=TURNED
            )


def guarded_set(stage: Stage) -> None:
    """A job of a set that the guard has stopped at two of three tables."""
    with stage.job_queue() as (job_queue, registry):
        for name in ("One", "Two", "Three"):
            in_source(stage.folder, f"CREATE TABLE {name} (Id INTEGER PRIMARY KEY)", "shop.db")
            numbers = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)"
            in_source(stage.folder, f"{numbers} INSERT INTO {name} SELECT i FROM n", "shop.db")
        registry.sync("shop", Trigger.CLI)
        for name in ("One", "Two"):
            in_source(stage.folder, f"DELETE FROM {name} WHERE Id > 1", "shop.db")
        job = worker_of(load_settings(stage.settings), job_queue).work(job_queue.ask(Request("shop"), "http").job_id)
        assert job is not None
        assert job.error_kind == "SetFailed"


def test_hostile_names_and_values_are_text_on_a_phone_in_the_dark(browser: Browser, stage: Stage) -> None:
    hostile(stage)
    sides = (
        f"{side} = 'sqlite:///{stage.folder / file}'" for side, file in (("source", "shop.db"), ("backup", "b.db"))
    )
    stage.settings["BACKUP_TOML"] = "\n".join(("[set.shop]", *sides, "tables = ['*']"))
    with stage.served() as address, Tab(browser, address, width=380, scheme="dark") as tab:
        page = tab.page
        tab.type_key(KEY)
        failures = tab.section("Failures")
        expect(failures.get_by_role("listitem")).to_have_count(2)
        expect(failures.get_by_role("listitem").first).to_contain_text(SCRIPT)
        failures.get_by_role("listitem").first.get_by_role("button", name="Show all 1").click()
        assert not tab.is_wider_than_its_window
        jobs = tab.section("Running and waiting")
        expect(jobs.get_by_role("listitem").first).to_contain_text(f"by {SCRIPT}")
        assert tab.faults() == []

        jobs.get_by_role("button", name="Stop", exact=True).click()
        expect(jobs.get_by_role("listitem").first).to_contain_text("Stopping at its next batch")
        jobs.get_by_role("button", name="Delete", exact=True).click()
        expect(jobs.get_by_role("listitem")).to_have_count(1)
        for box in failures.get_by_role("checkbox").all():
            box.check()
        failures.get_by_role("button", name="Delete 2 jobs").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete 2 jobs").click()
        expect(failures).to_contain_text("No failure is on record.")

        guarded_set(stage)
        page.goto(f"{address}#/service/shop")
        allow = "Allow these deletes once for shop"
        expect(failures.get_by_role("button", name=allow)).to_have_count(2)
        failures.get_by_role("button", name="Allow these deletes once for shop/One").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("59 deleted")
        dialog.get_by_label("type the service's name").fill("shop/One")
        dialog.get_by_role("button", name="Allow once").click()
        expect(failures.get_by_role("button", name=allow)).to_have_count(1)
        expect(tab.row("Its services", "shop/One")).to_contain_text("Safe")
        expect(tab.row("Its services", "shop/Two")).to_contain_text("Last run failed")
        assert tab.faults() == []
        assert not tab.is_wider_than_its_window
        tab.section("Its services").get_by_role("link", name="shop/Two").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("shop/Two")
        expect(tab.row("State", "shop/Two")).to_contain_text("Last run failed")

        page.goto(f"{address}#/?service=note&verb=sync")
        tab.row("Runs", "3 updated").get_by_role("link").click()
        changes = tab.section("What it did to records")
        expect(changes.get_by_role("listitem")).to_have_count(3)
        changes.get_by_role("button", name=SCRIPT).click()
        record = page.get_by_role("region", name="The record before and after the run")
        expect(record).to_contain_text("<b>bold</b>")
        page.get_by_role("button", name="Show all 20").click()
        expect(record.get_by_role("row")).to_have_count(202)
        record.get_by_role("button", name="Show all 10,000 characters").first.click()
        expect(record).to_contain_text(LONG)
        assert tab.faults() == []
        assert not tab.is_wider_than_its_window
        assert tab.troubles == []


def test_nothing_is_safe_of_which_nothing_is_known_and_no_number_is_rounded(browser: Browser) -> None:
    """No server: the files as they are, and answers that do not add up, cannot be drawn, or are errors."""
    tab, unknown = Tab(browser, "http://127.0.0.1:9/api/dashboard"), "Whether the services are safe is not known now."
    page, heading = tab.page, tab.page.get_by_role("heading", level=1)
    keys = (ROUNDED, "a", "a\u200b", "")
    run = {"syncId": "1", "service": "one", "verb": "sync", "status": "Completed", "counts": {"deleted": 1}}
    answers: dict[str, Any] = {
        "overview": {"totals": {"services": 1}, "services": [], "cursor": None},
        "me": {"name": None, "mayWrite": True},
        "runs/1": run,
        "runs/1/changes": {"changes": [{"key": [key], "change": "Deleted"} for key in keys], "cursor": None},
        "runs/1/changes/record": {
            "old": {"Id": ROUNDED},
            "new": {"constructor": "x"},
            "columns": [{"name": name, "differs": True} for name in ("Id", "constructor")],
        },
    }

    def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path.removeprefix("/api/")
        if path.startswith("dashboard"):
            file = served(path.partition("/")[2], tab.address)
            route.fulfill(status=file.status, body=file.content, headers=dict(file.headers))
        else:
            told = answers.get(path.removeprefix("sync/dashboard/"))
            route.fulfill(status=200 if told else 500, json=told or {"Message": "No."})

    page.route("**/api/**", answer)
    with tab:
        expect(heading).to_have_text(unknown)
        expect(page).to_have_title("(?) not known – Backup")
        totals = {"services": 1, "overdue": 0, "failed": 0, "differs": 0, "safe": 1}
        answers["overview"] |= {"totals": totals, "services": [{"service": None, "state": "Safe"}]}
        page.evaluate(LOOKED_AT_AGAIN)
        expect(heading).to_have_text("The service is safe.")
        expect(page.get_by_text("An answer of the app cannot be shown").first).to_be_visible()
        answers["overview"] = None
        page.evaluate(LOOKED_AT_AGAIN)
        expect(heading).to_have_text(unknown)
        expect(page.get_by_text("It was: The service is safe.")).to_be_visible()

        page.goto(f"{tab.address}#/run/1")
        with page.expect_request(f"**/record?key=%5B{ROUNDED}%5D"):
            page.get_by_role("button", name=str(ROUNDED)).click()
        expect(tab.row("The record before and after the run", "Id")).to_contain_text(str(ROUNDED))
        expect(tab.row("The record before and after the run", "constructor")).to_contain_text("not there")
        assert [name[2:] for name in page.locator(".change-head button").all_inner_texts()] == [
            str(ROUNDED),
            "a",
            '"a\\u{200b}"',
            '""',
        ]
        assert tab.troubles == []


def test_the_keyboard_alone_does_it_and_the_page_survives_a_silent_server_and_rests_while_nobody_sees_it(
    browser: Browser, stage: Stage
) -> None:
    with Tab(browser, "about:blank", has_own_clock=True) as tab:
        page, keys = tab.page, tab.page.keyboard
        page.clock.install()
        with stage.served() as address:
            tab.address = address
            page.goto(address)
            page.get_by_label("Function key").wait_for()
            assert page.evaluate("() => document.activeElement.type") == "password"
            keys.type(KEY)
            keys.press("Enter")
            tab.row("Services", "customer").wait_for()
            tab.tab_to("Sync now for customer")
            keys.press("Enter")
            expect(tab.row("Services", "customer")).to_contain_text("Safe")
            tab.tab_to("More … for customer")
            keys.press("Enter")
            expect(page.get_by_role("dialog")).to_be_visible()
            keys.press("Escape")
            expect(page.get_by_role("dialog")).to_be_hidden()
            page.wait_for_function("() => document.activeElement.textContent === 'More … for customer'", timeout=5_000)
            tab.tab_to("Runs")
            tab.tab_to("customer")
            keys.press("Enter")
            expect(page.get_by_role("heading", level=1)).to_be_focused()
            expect(page.get_by_text(ZONE)).to_be_visible()
            changes = tab.section("What it did to records")
            expect(changes.get_by_role("listitem").first).to_contain_text("inserted")
        silence = page.get_by_text("The server does not answer")
        changes.get_by_role("button", name="100 inserted").click()
        expect(changes).to_contain_text("Trying again")
        expect(silence).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sync of customer")
        with stage.served():
            expect(silence).to_be_hidden()
            expect(changes.get_by_role("listitem").first).to_contain_text("inserted")

            page.evaluate("() => Object.defineProperty(document, 'visibilityState', {get: () => window.seen})")
            page.evaluate("() => { window.seen = 'hidden' }")
            page.clock.run_for(5_000)  # what was begun before comes to its end
            asked = len(tab.asked)
            page.clock.fast_forward(3_600_000)
            assert len(tab.asked) == asked
            with page.expect_request("**/dashboard/runs/*"):
                page.evaluate(
                    "() => { window.seen = 'visible'; document.dispatchEvent(new Event('visibilitychange')) }"
                )
            expect(page.get_by_text("1 h ahead")).to_be_visible()  # the clock of the browser, of the server's

            page.goto(f"{address}#/service/customer")
            expect(tab.row("State", "customer")).to_contain_text("Safe")
            page.goto(f"{address}#/")
            expect(page.get_by_role("heading", level=1)).to_have_text("1 of 2 services is not safe.")
            page.evaluate("() => { window.seen = 'hidden' }")
            page.clock.fast_forward(100_000)
            expect(page).to_have_title("(?) not known – Backup")
            page.route("**/overview*", lambda _: None)  # it does not answer yet
            page.evaluate("() => { window.seen = 'visible'; document.dispatchEvent(new Event('visibilitychange')) }")
            expect(page.get_by_role("heading", level=1)).to_have_text("Whether the services are safe is not known now.")
            assert tab.troubles == []


def test_a_person_without_a_role_is_told_so_once_and_a_reader_gets_no_button_that_writes(
    browser: Browser, stage: Stage
) -> None:
    with stage.job_queue() as (job_queue, registry):
        registry.get("customer").initialize()
        [outcome] = registry.sync("customer", Trigger.CLI)
        asked = job_queue.ask(Request("customer"), "http")
    stage.settings["WEBSITE_AUTH_ENABLED"] = "True"
    with stage.served() as address, Tab(browser, address) as tab:
        tab.type_key(KEY)
        expect(tab.page.get_by_role("heading", level=1)).to_have_text("You may not look here")
        expect(tab.page.get_by_role("alert")).to_contain_text("Nobody is signed in.")
        assert tab.faults() == []

        claims = [{"typ": "name", "val": "Ada"}, {"typ": "roles", "val": "backup.reader"}]
        principal = base64.b64encode(json.dumps({"claims": claims}).encode()).decode()
        tab.page.set_extra_http_headers({"X-MS-CLIENT-PRINCIPAL": principal})
        tab.page.get_by_role("button", name="Try again").click()
        expect(tab.page.get_by_text("Ada may look only")).to_be_visible()
        words = {
            "Services",
            "Failures",
            "Running",
            "Runs",
            "Charts",
            "Nights",
            "Forget the key",
            "Clear",
            "30 days",
            "90 days",
        }
        tab.row("Runs", "100 inserted").wait_for()
        tab.row("Services", "customer").wait_for()
        assert {*tab.page.get_by_role("button").all_inner_texts()} <= words
        tab.page.goto(f"{address}#/run/{outcome.run.sync_id}")
        tab.section("What it did to records").get_by_role("listitem").first.get_by_role("button").click()
        tab.row("The record before and after the run", "Email").wait_for()
        assert tab.page.get_by_role("button", name=re.compile("Restore|Undo")).count() == 0
        tab.page.goto(f"{address}#/job/{asked.job_id}")
        expect(tab.page.get_by_role("heading", level=1)).to_have_text("Job of customer")
        expect(tab.page.get_by_role("region", name="States of the job")).to_be_visible()
        assert tab.page.get_by_role("button", name=re.compile("Delete|Stop|Retry")).count() == 0

        with stage.job_queue() as (job_queue, _):
            job = shape_row(replace(asked, created_at=job_queue.now() - timedelta(minutes=5), state=State.ENQUEUED))
        jobs, queue = {"jobs": [{**job, "stateAt": job["createdAt"]}], "cursor": None}, {"queueStats": {"servers": 0}}
        tab.page.route("**/dashboard/jobs?state=Enqueued*", lambda route: route.fulfill(json=jobs))
        tab.page.route("**/dashboard/summary*", lambda route: route.fulfill(json=queue))
        tab.page.goto(f"{address}#/")
        expect(tab.section("Running and waiting").get_by_role("alert")).to_contain_text("Nothing works on jobs")
        assert tab.troubles == []
