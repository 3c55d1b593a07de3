"""Calls every endpoint of the local host with what its description allows and does not, and checks each answer.

A program of its own: `python -m tests.functions.conformance EXAMPLES SEED [OPERATION …]`. It prints the statuses of
each operation, or of those that are named ("GetStats"), and ends with 1 if an answer was none of those described. Its
services and its records are those of the environment.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.dev.host import build_app
from backup.entry.openapi import description
from backup.jobs.job import Request
from backup.jobs.job_queue import job_queue_of
from backup.jobs.worker import worker_of
from backup.services.registry import Registry

KEY = "a-key"
BASE = "http://127.0.0.1"
# What only the backup's records can tell: a text that fits the description may be none of theirs.
TIME = re.compile(r"\d{4}-\d\d-\d\dT[^\s\"']*")
THE_APPS_OWN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
WITH_TIMES_OF_OTHERS = {"GetChangedRecord", "GetOpenApi", "DashboardFile"}  # of the records, of examples, of programs
KNOWN_TO_THE_RECORDS = {"cursor", "key", "keys", "at", "run", "confirm", "from", "to"}


def main(examples: int, with_seed: int, chosen: Sequence[str] = ()) -> int:
    app = build_app(Path(__file__).parent.parent.parent, KEY)
    known = a_past()
    schema = schemathesis.openapi.from_dict(description())
    schema.app = app
    schema.config.update(base_url=BASE)
    failures = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        if not chosen or operation.definition.raw["operationId"] in chosen:
            failures += not conforms(operation, known, examples, with_seed)
    return 1 if failures else 0


def a_past() -> dict[str, str]:
    """Makes a run and two jobs, one of them ended. Returns what addresses and bodies may name."""
    app_settings = load_settings()
    job_queue = job_queue_of(app_settings)
    Registry(app_settings, watcher=job_queue.watcher()).sync("all", Trigger.CLI)
    ended, _ = (job_queue.ask(Request("customer"), "http") for _ in range(2))
    job = worker_of(app_settings, job_queue).work(ended.job_id)
    assert job is not None
    assert job.sync_id is not None
    first_run = job_queue.runs.page(service="customer").runs[-1]["syncId"]
    return {"job": job.job_id, "run": first_run, "service": "customer", "key": "7", "file": "index.html"}


def conforms(operation: Any, known: dict[str, str], examples: int, with_seed: int) -> bool:
    """Calls the operation; two of three calls name what is there. Prints which statuses it answered."""
    statuses: Counter[int] = Counter()

    @seed(with_seed)
    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(), named=st.sampled_from([True, True, False]))
    def check(case: Any, named: bool) -> None:
        if named:
            name_what_is_there(case, known)
        answer = case.call(headers={"x-functions-key": KEY})
        statuses[answer.status_code] += 1
        sent = {*(case.query or {}), *(case.body if isinstance(case.body, dict) else {})}
        refused = answer.status_code == 400 and answer.json()["Error"] == "BadRequest"
        unsure = named or sent & KNOWN_TO_THE_RECORDS or not refused or "Several runs begin with" in answer.text
        case.validate_response(answer, excluded_checks=[positive_data_acceptance] if unsure else [])
        assert answer.status_code < 500, f"{answer.status_code}: {answer.text}"
        if answer.status_code == 200 and operation.definition.raw["operationId"] not in WITH_TIMES_OF_OTHERS:
            odd = [time for time in TIME.findall(answer.text) if not THE_APPS_OWN.fullmatch(time)]
            assert not odd, f"All times are written alike, but these are not: {odd}"

    try:
        check()
    except BaseException as failure:
        print(operation.label, *sorted(statuses), "FAILED", failure, sep="\n  ")
        return False
    print(operation.label, *sorted(statuses), sep="\t")
    return True


def name_what_is_there(case: Any, known: dict[str, str]) -> None:
    """Puts the run, the job and the service that are there into the case."""
    for name in case.path_parameters or {}:
        kind = name if name in known else "run" if name == "syncId" or "/runs/" in case.path else "job"
        case.path_parameters[name] = known[kind]
    if "key" in (case.query or {}):
        case.query["key"] = known["key"]
    if isinstance(case.body, dict):
        for name in KNOWN_TO_THE_RECORDS & case.body.keys():
            del case.body[name]
        for name in {"service", "syncType"} & case.body.keys():
            case.body[name] = known["service"]
        if "/undo" in case.path:
            case.body["through"] = True  # later runs stand against an undo of the run alone


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
