"""Each mistake that only the Functions host would find is found by the static checks."""

from typing import Any

import azure.functions as func
import pytest

from tests.functions.host_checks import problems

HOST = {"version": "2.0", "extensionBundle": {"version": "[4.*, 5.0.0)"}}
SETTINGS = {"Cron": "0 0 0 * * *", "Store__accountName": "account"}


def add_route(app: func.FunctionApp, name: str, route: str | None = None, methods: Any = None) -> None:
    def handler(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse()

    app.function_name(name)(app.route(route, methods=methods)(handler))


def add_timer(app: func.FunctionApp, name: str, schedule: str, run_on_startup: bool = False) -> None:
    def handler(timer: func.TimerRequest) -> None:
        pass

    trigger = app.timer_trigger(arg_name="timer", schedule=schedule, run_on_startup=run_on_startup)
    app.function_name(name)(trigger(handler))


def add_queue(app: func.FunctionApp, name: str, connection: str) -> None:
    def handler(msg: func.QueueMessage) -> None:
        pass

    app.function_name(name)(app.queue_trigger(arg_name="msg", queue_name="q", connection=connection)(handler))


@pytest.fixture
def app() -> func.FunctionApp:
    """An app without a mistake, with something for each check to look at."""
    app = func.FunctionApp()
    add_route(app, "ReadThings", "things/{id}", methods=["GET"])
    add_route(app, "WriteThings", "things/{id}", methods=["POST"])
    add_route(app, "Health")
    add_timer(app, "Nightly", "%Cron%")
    add_queue(app, "Work", connection="Store")
    return app


def test_a_sound_app_has_no_problems(app: func.FunctionApp) -> None:
    assert problems(app, HOST, SETTINGS) == []


@pytest.mark.parametrize("route", ["things/{id}", "Things/{ID}", "/things/{name}/", "things/{id:int}"])
@pytest.mark.parametrize("methods", [["POST", "PUT"], None])
def test_finds_a_route_and_method_served_twice(app: func.FunctionApp, route: str, methods: list[str] | None) -> None:
    add_route(app, "Again", route, methods)
    assert "WriteThings and Again: the same route and method" in problems(app, HOST, SETTINGS)


@pytest.mark.parametrize("no_route", [None, ""])
def test_finds_a_route_that_repeats_the_name_of_a_function_without_one(
    app: func.FunctionApp, no_route: str | None
) -> None:
    add_route(app, "Plain", no_route)
    add_route(app, "Again", "plain", methods=["GET"])
    assert problems(app, HOST, SETTINGS) == ["Plain and Again: the same route and method"]


@pytest.mark.parametrize("route", ["admin", "admin/jobs", "Administration", "runtime/x"])
def test_finds_a_route_reserved_for_the_host(app: func.FunctionApp, route: str) -> None:
    add_route(app, "Mine", route)
    assert problems(app, HOST, SETTINGS) == ["Mine: routes that begin with admin or runtime are the host's"]


def test_finds_a_rest_of_a_route_that_takes_the_requests_of_a_shorter_one(app: func.FunctionApp) -> None:
    add_route(app, "Things", "things", methods=["GET", "PUT"])
    add_route(app, "AnyThing", "Things/{*rest}", methods=["PUT"])
    add_route(app, "OtherThing", "health/{*rest:minlength(1)}")
    assert problems(app, HOST, SETTINGS) == ["AnyThing: takes the requests of Things, without a :minlength(1)"]


def test_finds_a_rest_that_is_not_the_last_part_of_a_route(app: func.FunctionApp) -> None:
    add_route(app, "Mine", "mine/{*rest}/more")
    assert problems(app, HOST, SETTINGS) == ["Mine: only the last part of a route may be {*rest}"]


@pytest.mark.parametrize("name", ["1st", "_hidden", "a b", "Größe", "a" * 129, "Host"])
def test_finds_an_invalid_function_name(app: func.FunctionApp, name: str) -> None:
    add_route(app, name, "elsewhere")
    assert problems(app, HOST, SETTINGS) == [f"{name}: is not a valid function name"]


def test_finds_names_that_differ_only_in_case(app: func.FunctionApp) -> None:
    add_route(app, "health", "elsewhere")
    assert problems(app, HOST, SETTINGS) == ["Health and health: names differ only in case"]


@pytest.mark.parametrize(
    "schedule",
    ["* * * * *", "0 0 0 * * * *", "60 0 0 * * *", "0 0 0 L * *", "0 0 0 ? * *", "0 0 0 * * 1#1", "00:05:00"],
)
def test_finds_a_schedule_that_is_not_ncrontab(app: func.FunctionApp, schedule: str) -> None:
    add_timer(app, "Often", schedule)
    (problem,) = problems(app, HOST, SETTINGS)
    assert problem.startswith(f"Often: '{schedule}' is not an NCRONTAB expression")


def test_finds_a_documented_schedule_that_is_not_ncrontab(app: func.FunctionApp) -> None:
    (problem,) = problems(app, HOST, SETTINGS | {"Cron": "every night"})
    assert problem.startswith("Nightly: 'every night' is not an NCRONTAB expression")


def test_finds_an_undocumented_setting(app: func.FunctionApp) -> None:
    add_timer(app, "Often", "%CronOften%")
    assert problems(app, HOST, SETTINGS) == ["Often: the setting CronOften is not documented"]


@pytest.mark.parametrize("connection", ["Storage", "Sto"])
def test_finds_an_undocumented_connection(app: func.FunctionApp, connection: str) -> None:
    add_queue(app, "More", connection=connection)
    assert problems(app, HOST, SETTINGS) == [f"More: the connection {connection} is not documented"]


def test_a_connection_may_be_one_setting_or_the_parts_of_an_identity(app: func.FunctionApp) -> None:
    add_queue(app, "More", connection="Whole")
    assert problems(app, HOST, SETTINGS | {"Whole": "UseDevelopmentStorage=true"}) == []


def test_finds_a_timer_that_runs_on_startup(app: func.FunctionApp) -> None:
    add_timer(app, "Eager", "%Cron%", run_on_startup=True)
    assert problems(app, HOST, SETTINGS) == [
        "Eager: runOnStartup runs it whenever an instance starts, also to scale out"
    ]


@pytest.mark.parametrize("bundle", [{}, {"extensionBundle": {"version": "[3.*, 4.0.0)"}}])
def test_finds_a_missing_or_outdated_extension_bundle(app: func.FunctionApp, bundle: dict[str, Any]) -> None:
    assert problems(app, {"version": "2.0"} | bundle, SETTINGS) == [
        "host.json: the extension bundle is not [4.*, 5.0.0)"
    ]


def test_finds_a_host_json_of_another_version(app: func.FunctionApp) -> None:
    assert problems(app, HOST | {"version": "1.0"}, SETTINGS) == ['host.json: version is not "2.0"']
