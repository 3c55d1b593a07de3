"""The harness of the real worker, which other tests use."""

import json
from pathlib import Path

import pytest

from tests.functions.hosted import DEADLINE_SECONDS, ECHO, MEET, STUCK, write_app
from tests.functions.worker import WorkerFailed, run_in_worker, worker

pytestmark = pytest.mark.usefixtures("as_in_a_new_process")


def test_the_worker_runs_calls_side_by_side(tmp_path: Path) -> None:
    with worker(write_app(tmp_path, MEET), {}) as running:
        calls = [running.call("Meet") for _ in range(2)]
        assert [pending.result(DEADLINE_SECONDS)["body"] for pending in calls] == ["met", "met"]


def test_the_worker_keeps_what_the_app_prints_and_logs(tmp_path: Path) -> None:
    with worker(write_app(tmp_path, ECHO), {}) as running:
        assert running.http("Echo", "POST")["status"] == 207
        assert "printed by Echo" in running.log
        assert "logged by Echo" in running.log


def test_the_worker_runs_timers(tmp_path: Path) -> None:
    function = """
@app.timer_trigger(arg_name="timer", schedule="%Cron%")
def Punctual(timer: func.TimerRequest) -> None:
    if timer.past_due:
        raise RuntimeError("too late")
"""
    with worker(write_app(tmp_path, function), {}) as running:
        assert running.timer("Punctual") == {}
        assert "too late" in running.timer("Punctual", past_due=True)["failed"]


def test_the_worker_has_the_given_settings_and_none_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SourceDb__ConnectionString", "of this process")
    monkeypatch.setenv("AzureWebJobsStorage", "of this process")
    function = """
@app.route("settings")
def Settings(req: func.HttpRequest) -> func.HttpResponse:
    names = ["SourceDb__ConnectionString", "AzureWebJobsStorage", "BackupDb__ConnectionString"]
    return func.HttpResponse(json.dumps([os.environ.get(name) for name in names]))
"""
    env = {"BackupDb__ConnectionString": "given"}
    (answer,) = run_in_worker(write_app(tmp_path, function), env, [{"name": "Settings"}])
    assert json.loads(answer["body"]) == [None, None, "given"]


def test_a_worker_that_dies_fails_the_call_that_waits_for_it(tmp_path: Path) -> None:
    with worker(write_app(tmp_path, STUCK), {}) as running:
        waiting = running.call("Stuck")
        running.process.kill()
        with pytest.raises(WorkerFailed, match="The worker ended"):
            waiting.result(DEADLINE_SECONDS)
