"""The product's own function_app.py under the real Functions worker, and as the host would look at it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.functions.worker import Worker, worker
from tests.scenarios.places import Place, filled_on_sqlite
from tests.scenarios.product import ROOT, environment, post, python

FUNCTION = "function"
ANONYMOUS = "anonymous"
HTTP_FUNCTIONS = {
    "TriggerSync": ("backup/sync", ["POST"], FUNCTION),
    "SyncCustomer": ("backup/sync/customer", ["POST"], FUNCTION),
    "SyncOrder": ("backup/sync/order", ["POST"], FUNCTION),
    "SyncService": ("backup/sync/{*service:minlength(1)}", ["POST"], FUNCTION),
    "VerifyBackup": ("backup/verify/{*service:minlength(1)}", ["POST"], FUNCTION),
    "UndoRun": ("backup/undo/{*syncId:minlength(1)}", ["POST"], FUNCTION),
    "RestoreSource": ("backup/restore/{*service:minlength(1)}", ["POST"], FUNCTION),
    "InitializeBackup": ("backup/initialize", ["POST"], FUNCTION),
    "HealthCheck": ("health", ["GET"], ANONYMOUS),
}
JOB_FUNCTIONS = {
    "StartSync": ("sync/start", ["POST"], FUNCTION),
    "GetJob": ("sync/job/{jobId}", ["GET"], FUNCTION),
    "GetHistory": ("sync/history", ["GET"], FUNCTION),
    "ListJobs": ("sync/dashboard/jobs", ["GET"], FUNCTION),
    "GetJobDetails": ("sync/dashboard/jobs/{id}", ["GET"], FUNCTION),
    "RetryJob": ("sync/dashboard/jobs/{id}/retry", ["POST"], FUNCTION),
    "DeleteJob": ("sync/dashboard/jobs/{id}", ["DELETE"], FUNCTION),
    "GetSummary": ("sync/dashboard/summary", ["GET"], FUNCTION),
    "GetStats": ("sync/dashboard/stats", ["GET"], FUNCTION),
    "ExamineSetup": ("backup/doctor", ["POST"], FUNCTION),
    "GetMetrics": ("metrics", ["GET"], FUNCTION),
    "GetSessionStats": ("sync/session/stats", ["GET"], FUNCTION),
    "GetCaller": ("sync/dashboard/me", ["GET"], FUNCTION),
    "GetOverview": ("sync/dashboard/overview", ["GET"], FUNCTION),
    "GetCalendar": ("sync/dashboard/calendar", ["GET"], FUNCTION),
    "GetRun": ("sync/dashboard/runs/{id}", ["GET"], FUNCTION),
    "GetRunChanges": ("sync/dashboard/runs/{id}/changes", ["GET"], FUNCTION),
    "GetChangedRecord": ("sync/dashboard/runs/{id}/changes/record", ["GET"], FUNCTION),
    "RestoreOfRun": ("sync/dashboard/runs/{id}/restore", ["POST"], FUNCTION),
    "UndoOfRun": ("sync/dashboard/runs/{id}/undo", ["POST"], FUNCTION),
    "StartVerify": ("sync/dashboard/verify", ["POST"], FUNCTION),
    "GetOpenApi": ("openapi.json", ["GET"], FUNCTION),
    "ChangeJobs": ("sync/dashboard/jobs/bulk", ["POST"], FUNCTION),
    "TestNotifications": ("sync/dashboard/notify/test", ["POST"], FUNCTION),
}
PAGE_FUNCTIONS = {
    "Dashboard": ("dashboard", ["GET"], ANONYMOUS),
    "DashboardFile": ("dashboard/{*file:minlength(1)}", ["GET"], ANONYMOUS),
}
# The library gives an app's functions out once, so each look is a process of its own.
BINDINGS = """
import json
from function_app import app

print(json.dumps({f.get_function_name(): [json.loads(b) for b in f.get_raw_bindings()] for f in app.get_functions()}))
"""
PROBLEMS = """
import json, pathlib
from function_app import app
from tests.functions.host_checks import problems

host = json.loads(pathlib.Path("host.json").read_text())
print(json.dumps(problems(app, host, json.loads(pathlib.Path("local.settings.json.example").read_text())["Values"])))
"""


def look(script: str, **settings: str) -> Any:
    """What the script prints in a new process, which has these settings."""
    ran = python(ROOT, settings, "-c", script)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Both services on SQLite, filled with the sample."""
    return filled_on_sqlite(tmp_path)


def log_of(running: Worker, start: str) -> list[str]:
    """The messages of the app's log that begin so."""
    lines = [line.partition(": ")[2] for line in running.log.splitlines()]
    return [line for line in lines if line.startswith(start)]


def test_the_host_is_told_of_the_routes_methods_and_levels_as_documented() -> None:
    bindings = look(BINDINGS)
    triggers = {
        name: next(binding for binding in of_function if "Trigger" in binding["type"])
        for name, of_function in bindings.items()
    }
    timers = [triggers.pop(name) for name in ("ScheduledSync", "ResumeSync")]
    assert [timer["type"] for timer in timers] == ["timerTrigger"] * 2
    queues = [triggers.pop(name) for name in ("WorkOnJob", "PoisonedJob")]
    assert [(queue["queueName"], queue["connection"]) for queue in queues] == [
        ("backup-jobs", "AzureWebJobsStorage"),
        ("backup-jobs-poison", "AzureWebJobsStorage"),
    ]
    assert {
        name: (trigger["route"], trigger["methods"], trigger["authLevel"].lower()) for name, trigger in triggers.items()
    } == {
        **HTTP_FUNCTIONS,
        **JOB_FUNCTIONS,
        **PAGE_FUNCTIONS,
    }


@pytest.mark.parametrize(
    ("settings", "schedule"),
    [
        ({"BackupSchedule__CronExpression": "0 30 2 * * *"}, "%BackupSchedule__CronExpression%"),
        ({}, "0 0 0 * * *"),
    ],
)
def test_the_timer_is_bound_to_the_setting_or_without_it_to_the_default(
    settings: dict[str, str], schedule: str
) -> None:
    bindings = look(BINDINGS, **settings)
    [timer] = bindings["ScheduledSync"]
    assert timer["schedule"] == schedule
    assert not timer.get("runOnStartup")


@pytest.mark.parametrize("settings", [{}, {"BackupSchedule__CronExpression": "0 30 2 * * *"}])
def test_the_host_has_no_problem_with_the_app(settings: dict[str, str]) -> None:
    assert look(PROBLEMS, **settings) == []


def test_the_route_prefix_is_api() -> None:
    host = json.loads((ROOT / "host.json").read_text())
    assert host["extensions"]["http"]["routePrefix"] == "api"


def test_every_function_answers_under_the_real_worker(place: Place) -> None:
    with worker(ROOT, environment(place.settings)) as running:
        _, synced = post(running, "SyncOrder")
        known = {"service": "Customer", "syncId": synced["SyncId"].upper()}  # a path means the same in any case
        routes = {name: re.findall(r"{\*?(\w+)[:}]?", route) for name, (route, *_) in HTTP_FUNCTIONS.items()}
        answers = {name: post(running, name, **{part: known[part] for part in routes[name]})[0] for name in routes}
        timer = running.timer("ScheduledSync")
    assert answers == dict.fromkeys(HTTP_FUNCTIONS, 200)
    assert timer == {}


def test_answers_are_json_by_their_content_type_and_the_page_is_its_files(place: Place) -> None:
    with worker(ROOT, environment(place.settings)) as running:
        answers = [running.http("HealthCheck"), running.http("TriggerSync", "POST", body=b"{")]
        answers += [running.http("Dashboard"), running.http("DashboardFile", route={"file": "vendor/preact.mjs"})]
        headers = [{k.lower(): v for k, v in answer["headers"].items()} for answer in answers]
        condition = {"If-None-Match": headers[2]["etag"]}
        again = running.http("Dashboard", headers=condition)
    types = [header["content-type"] for header in headers]
    assert types == ["application/json"] * 2 + ["text/html; charset=utf-8", "text/javascript; charset=utf-8"]
    assert answers[3]["body"] == (ROOT / "backup/entry/dashboard/vendor/preact.mjs").read_text()
    assert (again["status"], again["body"]) == (304, "")


def test_what_the_host_does_not_pass_on_is_no_wish_to_write(place: Place) -> None:
    """It drops a body in chunks, and a parameter without a value: each may have been the dry run of one service."""
    with worker(ROOT, environment(place.settings)) as running:
        answers = [
            running.http("TriggerSync", "POST", headers={"Transfer-Encoding": "chunked"}),
            running.http("SyncCustomer", "POST", headers={"Content-Length": "15"}),
            running.http("SyncCustomer", "POST", "http://localhost/api/backup/sync/customer?force=true&dryRun"),
            running.http("HealthCheck", url="http://localhost/api/health?deep="),
        ]
        passed = running.http("HealthCheck", url="http://localhost/api/health?code=", headers={"Content-Length": "0"})
    assert [answer["status"] for answer in answers] == [400] * 4
    assert ["arrived" in answer["body"] for answer in answers] == [True, True, False, False]
    assert [service.backup.history() for service in place.services] == [[], []]
    assert passed["status"] == 200


def test_health_needs_no_settings_that_are_right() -> None:
    with worker(ROOT, environment({"BackupSync__ChunkSize": "many"})) as running:
        plain, deep = post(running, "HealthCheck"), post(running, "HealthCheck", query="?deep=true")
    assert (plain[0], plain[1]["Status"]) == (200, "Healthy")
    assert (deep[0], deep[1]["Status"]) == (200, "Degraded")
    assert [reason["Error"] for reason in deep[1]["Reasons"]] == ["ConfigError"]


def test_deep_health_is_200_when_every_side_answers_and_503_when_one_does_not(place: Place, tmp_path: Path) -> None:
    with worker(ROOT, environment(place.settings)) as running:
        post(running, "TriggerSync")
        up = post(running, "HealthCheck", query="?deep=true")
        (tmp_path / "customers.db").unlink()
        down = post(running, "HealthCheck", query="?deep=true")
        log = running.log
    assert (up[0], up[1]["Status"]) == (200, "Healthy")
    assert (down[0], down[1]["Status"]) == (503, "Unhealthy")
    assert [(check["Service"], check["Side"]) for check in down[1]["Checks"] if check["Status"] == "Unhealthy"] == [
        ("customer", "source")
    ]
    assert "customers.db" not in json.dumps(down[1])  # anybody may ask
    assert "customers.db" in log


def test_the_timer_syncs_everything_logs_start_services_and_summary_and_fails_when_one_fails(
    place: Place, tmp_path: Path
) -> None:
    with worker(ROOT, environment(place.settings)) as running:
        assert running.timer("ScheduledSync") == {}
        lines = log_of(running, "schedule.")
        mirrored = [service.is_mirrored() for service in place.services]
        (tmp_path / "orders.db").unlink()
        failed = running.timer("ScheduledSync")
    assert "order: SourceMissing" in failed["failed"]  # so that alerts on failed invocations see it
    assert [line.split()[0] for line in lines] == [
        *("schedule.started", "schedule.service", "schedule.service"),
        *("schedule.purged", "schedule.verified", "schedule.purged", "schedule.verified", "schedule.finished"),
    ]
    assert "next=" in lines[-1]
    assert all(mirrored)


def test_a_late_timer_still_runs_and_says_so(place: Place) -> None:
    with worker(ROOT, environment(place.settings)) as running:
        assert running.timer("ScheduledSync", past_due=True) == {}
        assert "past_due=True" in log_of(running, "schedule.started")[0]


def test_a_disabled_timer_only_says_so(place: Place) -> None:
    with worker(ROOT, environment({**place.settings, "BackupSchedule__Enabled": "false"})) as running:
        assert running.timer("ScheduledSync") == {}
        lines = log_of(running, "schedule."), log_of(running, "sync.")
    assert [len(logged) for logged in lines] == [1, 0]
    assert lines[0][0].startswith("schedule.disabled")
    assert [service.backup.history() for service in place.services] == [[], []]


def test_a_misspelt_setting_is_a_400_that_names_it_and_does_not_take_the_app_down(place: Place) -> None:
    settings = {**place.settings, "BackupSync__ChunkSizes": "7"}
    with worker(ROOT, environment(settings)) as running:
        status, answer = post(running, "TriggerSync")
    assert (status, answer["Error"]) == (400, "ConfigError")
    assert "BackupSync__ChunkSizes" in answer["Message"]


def test_no_service_at_all_is_a_404_that_says_so() -> None:
    with worker(ROOT, environment({})) as running:
        answers = [post(running, name) for name in ("TriggerSync", "SyncCustomer", "InitializeBackup")]
    assert [status for status, _ in answers] == [404, 404, 404]
    assert all(answer["Hint"] for _, answer in answers)


def test_a_request_is_never_logged_with_its_secrets(tmp_path: Path) -> None:
    settings = {
        "SourceCustomerDb__ConnectionString": "postgresql://u:hidden-one@127.0.0.1:1/x",
        "BackupCustomerDb__ConnectionString": "Server=127.0.0.1,1;Database=x;User Id=u;Password=hidden-two",
        "BackupRetry__MaxAttempts": "1",
    }
    with worker(ROOT, environment(settings)) as running:
        answers = [running.http(name, "POST") for name in ("TriggerSync", "SyncCustomer", "InitializeBackup")]
        answers.append(running.http("HealthCheck", url="http://localhost/api/health?deep=true"))
        log = running.log
    assert "hidden" not in log + json.dumps(answers)
