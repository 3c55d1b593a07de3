"""The description of the HTTP API against the functions, both ways; and the answers against the description."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from backup.core.model import utc_now
from backup.core.run_values import Run, Trigger
from backup.entry.answer_models import RunResult
from backup.entry.answers import result_of
from backup.entry.openapi import description
from backup.entry.operations import OPERATIONS
from tests.reliability.effort import SEED, rounds
from tests.scenarios.places import Place, filled_on_sqlite
from tests.scenarios.product import ROOT, python

# What the functions say themselves: their triggers, and what they answer to a parameter and a field that none has.
LOOK = '''
import base64, json, os
import azure.functions as func
from function_app import app

def call(function, trigger, **request):
    names = [part.split(":")[0].strip("*?") for part in trigger["route"].replace("}", "{").split("{")[1::2]]
    values = dict.fromkeys(names, "customer")
    made = func.HttpRequest(trigger["methods"][0], "/", route_params=values, **request)
    return function.get_user_function()(made)

def answer(function, trigger, **request):
    made = call(function, trigger, **request)
    return json.loads(made.get_body())["Hint"] if made.mimetype == "application/json" else ""

def statuses(function, trigger):
    """Behind Easy Auth: of nobody, of a reader, of an operator. A parameter that no function takes is a 400."""
    os.environ["WEBSITE_AUTH_ENABLED"] = "True"
    headers = [{}]
    for role in ("backup.reader", "backup.operator"):
        claims = json.dumps({"claims": [{"typ": "roles", "val": role}]}).encode()
        headers.append({"X-MS-CLIENT-PRINCIPAL": base64.b64encode(claims).decode()})
    found = [call(function, trigger, params={"zz": "1"}, body=b"", headers=each).status_code for each in headers]
    del os.environ["WEBSITE_AUTH_ENABLED"]
    return found

told = {}
for function in app.get_functions():
    [trigger] = [b for b in map(json.loads, function.get_raw_bindings()) if b["type"].endswith("Trigger")]
    if trigger["type"] != "httpTrigger":
        continue
    hints = [answer(function, trigger, params={"zz": "1"}, body=b"")]
    if trigger["methods"] == ["POST"]:
        hints.append(answer(function, trigger, params={}, body=b'{"zz": 1}'))
    told[function.get_function_name()] = {**trigger, "hints": hints, "statuses": statuses(function, trigger)}
print(json.dumps(told))
'''


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return filled_on_sqlite(tmp_path)


def listed(hint: str, start: str) -> set[str]:
    """The names that a function says it takes."""
    if hint == f"{start}no query parameters.":
        return set()
    return set(hint.removeprefix(start).removesuffix(".").split(", ")) if hint.startswith(start) else set()


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each HTTP function's trigger, and its answers to a parameter and a field that none has, and to roles."""
    folder = tmp_path_factory.mktemp("functions")
    settings = {**filled_on_sqlite(folder).settings, "BackupJobs__File": str(folder / "jobs.db")}
    ran = python(ROOT, settings, "-c", LOOK)
    assert ran.code == 0, ran.err
    return dict(json.loads(ran.out))


def test_every_function_asks_for_the_role_that_it_needs(functions: dict[str, Any]) -> None:
    wanted = {"GET": [403, 400, 400], "POST": [403, 403, 400], "DELETE": [403, 403, 400]}
    for name, function in functions.items():
        if function["authLevel"] == "ANONYMOUS":
            assert {401, 403}.isdisjoint(function["statuses"]), name
        else:
            assert (name, function["statuses"]) == (name, wanted[function["methods"][0]])


def test_the_description_has_what_the_functions_have_and_nothing_else(functions: dict[str, Any]) -> None:
    described: dict[str, Any] = description()
    schemas = described["components"]["schemas"]
    operations = {
        operation["operationId"]: (path, method.upper(), operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert operations.keys() == functions.keys()
    for name, (path, method, operation) in operations.items():
        function = functions[name]
        route = re.sub(r"\{\*?(\w+)[^}]*\}", r"{\1}", function["route"])
        assert (path, [method]) == (f"/api/{route}", function["methods"])
        assert ("security" in operation, "401" in operation["responses"]) == (
            (True, False) if function["authLevel"] == "ANONYMOUS" else (False, True)
        ), name
        parameters = {
            kind: {p["name"] for p in operation["parameters"] if p["in"] == kind} for kind in ("path", "query")
        }
        assert parameters["path"] == set(re.findall(r"{(\w+)}", path)), name
        assert parameters["query"] == listed(function["hints"][0], "This route takes "), name
        fields = listed(function["hints"][1], "Send a JSON object with any of ") if method == "POST" else set()
        reference = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        body = schemas[reference["$ref"].rpartition("/")[2]] if reference else {"properties": {}}
        assert set(body["properties"]) == fields, name
        assert reference == {} or body["additionalProperties"] is False


def test_the_model_of_a_run_has_the_columns_that_are_answered() -> None:
    fields = {field.alias for field in RunResult.model_fields.values()} - {"Changes"}
    assert fields == result_of(Run("customer", Trigger.HTTP, False, utc_now())).keys()


def test_every_answer_is_one_of_those_described(place: Place, tmp_path: Path) -> None:
    settings = {**place.settings, "BackupJobs__File": str(tmp_path / "jobs.db")}
    ran = python(ROOT, settings, "-m", "tests.functions.conformance", str(rounds(3, 200)), str(SEED))
    assert ran.code == 0, ran.out or ran.err
    statuses = {label: codes for label, *codes in (line.split("\t") for line in ran.out.splitlines())}
    assert len(statuses) == len(OPERATIONS)
    never = [label for label, codes in statuses.items() if not {"200", "202"} & {*codes}]
    assert never == ["POST /api/sync/dashboard/notify/test"]  # no sink is configured
