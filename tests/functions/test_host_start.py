"""What the local host refuses at its start, where it listens, and how it ends."""

import contextlib
import http.client
import os
import signal
import socket
from pathlib import Path

import pytest

from backup.core.errors import ConfigError
from backup.dev import host
from tests.functions.hosted import (
    DEADLINE_SECONDS,
    HEALTH,
    STUCK,
    TIMER,
    call,
    read_until,
    serve_process,
    serving,
    write_app,
)
from tests.functions.worker import WorkerFailed, run_in_worker

pytestmark = pytest.mark.usefixtures("as_in_a_new_process")


@pytest.mark.parametrize(
    "function",
    [
        '@app.route("x")\ndef Bad(request: func.HttpRequest) -> func.HttpResponse: ...\n',
        '@app.route("x")\ndef Bad() -> func.HttpResponse: ...\n',
        '@app.timer_trigger("timer", "0 0 0 * * *")\ndef Bad(t: func.TimerRequest) -> None: ...\n',
        '@app.route("x")\ndef Bad(req: func.HttpRequest, more: str) -> func.HttpResponse: ...\n',
    ],
)
def test_parameters_that_do_not_match_the_bindings_are_refused_as_by_the_real_worker(
    tmp_path: Path, function: str
) -> None:
    root = write_app(tmp_path, HEALTH, function)
    with pytest.raises(ConfigError, match=r"^Bad takes "):
        host.build_app(root)
    with pytest.raises(WorkerFailed, match="Bad"):
        run_in_worker(root, {}, [])


def test_other_triggers_are_refused_by_name(tmp_path: Path) -> None:
    function = """
@app.blob_trigger(arg_name="blob", path="a/b", connection="AzureWebJobsStorage")
def Work(blob: func.InputStream) -> None: ...
"""
    with pytest.raises(ConfigError, match=r"^Work: the local host has no blobTrigger"):
        host.build_app(write_app(tmp_path, function))


@pytest.mark.parametrize("more", ["app = None\n", "second = func.FunctionApp()\n"])
def test_an_app_file_without_exactly_one_app_is_refused(tmp_path: Path, more: str) -> None:
    with pytest.raises(ConfigError, match="must define one FunctionApp"):
        host.build_app(write_app(tmp_path, more))


def test_a_schedule_whose_setting_is_missing_is_refused_by_the_name_of_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("Cron")
    with pytest.raises(ConfigError, match=r"^The setting Cron, .* is missing"):
        host.build_app(write_app(tmp_path, TIMER))


def test_a_schedule_finds_its_setting_regardless_of_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("Cron")
    monkeypatch.setenv("CRON", "0 0 0 * * *")
    with serving(write_app(tmp_path, TIMER)) as port:
        assert call(port, "GET", "/admin/functions").status == 200


def test_a_schedule_that_is_not_ncrontab_is_refused_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Cron", "0 0 * * *")
    with pytest.raises(ConfigError, match=r"'0 0 \* \* \*' is not an NCRONTAB expression"):
        host.build_app(write_app(tmp_path, TIMER))


@pytest.mark.parametrize("name", ["local.settings.json", "host.json"])
def test_a_settings_file_that_is_not_json_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write_app(tmp_path, HEALTH).joinpath(name).write_text("{")
    with pytest.raises(ConfigError, match=f"{name} is not valid JSON"):
        host.build_app(tmp_path)


def test_local_settings_fill_the_environment_and_do_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_BEFORE", "environment")
    values = {"SET_BEFORE": "file", "NOT_SET": "file", "A_FLAG": True}
    host.build_app(write_app(tmp_path, HEALTH, values=values))
    environment_values = [os.environ[name] for name in values]
    assert environment_values == ["environment", "file", "true"]


# serve


def test_serve_listens_on_one_loopback_address_only(tmp_path: Path) -> None:
    with serve_process(write_app(tmp_path, HEALTH)) as (_, port):
        assert call(port, "GET", "/api/health").body == "well"
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_cleanly_on_a_signal_even_while_a_function_runs(tmp_path: Path, stop: signal.Signals) -> None:
    with serve_process(write_app(tmp_path, STUCK)) as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/api/stuck")
            read_until(process, "Stuck has begun")
            process.send_signal(stop)
            read_until(process, "serve returned")
            assert process.wait(DEADLINE_SECONDS) == 0
