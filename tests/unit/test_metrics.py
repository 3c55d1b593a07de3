"""The numbers for Prometheus: their format, and what they say of runs, services and jobs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import BadRequest, StoreUnavailable
from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.entry.metrics import Metric, Point, exposition, get_metrics
from backup.jobs.job import Request
from backup.jobs.job_queue import JobQueue, open_job_queue

NOW = datetime(2026, 11, 29, 6, 0, tzinfo=UTC)
LINE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*\}) (-?[\d.e+-]+)')


@pytest.fixture
def job_queue(tmp_path: Path) -> JobQueue:
    return open_job_queue(load_settings({"BackupJobs__File": str(tmp_path / "jobs.db")}), lambda: NOW)


def ended(service: str, hours_ago: float, verb: Verb = Verb.SYNC, error: str | None = None, **counts: int) -> Run:
    run = Run(service, Trigger.HTTP, False, NOW - timedelta(hours=hours_ago), verb=verb)
    status = Status.FAILED if error else Status.COMPLETED
    return run.ended(status, run.started_at + timedelta(seconds=1.5), Counts(**counts), error)


def numbers(job_queue: JobQueue, *names: str, **settings: str) -> dict[str, float]:
    """The samples by their name and labels; asserts that each line is one that Prometheus can read."""
    registry: Any = SimpleNamespace(directory=SimpleNamespace(entries=names))
    answer = get_metrics(job_queue, load_settings(settings), registry, {})
    assert answer.media == "text/plain; version=0.0.4"
    assert answer.content.endswith("\n")
    lines = [line for line in answer.content.splitlines() if not line.startswith("#")]
    samples = {}
    for line in lines:
        match = LINE.fullmatch(line)
        assert match is not None, line
        assert match[1] + match[2] not in samples, "a series has one sample"
        samples[match[1] + match[2]] = float(match[3])
    return samples


def test_runs_are_counted_by_service_and_verb_and_dry_runs_are_not(job_queue: JobQueue) -> None:
    charged = replace(ended("customer", 2, inserted=5, failed=2), request_charge=7.5)
    for run in (charged, charged, ended("customer", 1, error="It broke.", updated=1), ended("Customer", 1, Verb.UNDO)):
        job_queue.runs.save(run)
    job_queue.runs.save(replace(ended("customer", 1, inserted=99), dry_run=True))
    values = numbers(job_queue, "customer")
    sync, undo = '{service="customer",verb="sync"}', '{service="customer",verb="undo"}'
    assert (values[f"backup_runs_total{sync}"], values[f"backup_runs_total{undo}"]) == (2, 1)
    assert (values[f"backup_run_failures_total{sync}"], values[f"backup_run_failures_total{undo}"]) == (1, 0)
    assert values[f"backup_run_duration_seconds_sum{sync}"] == 3
    assert values[f"backup_run_duration_seconds_count{sync}"] == 2
    assert values['backup_records_total{service="customer",verb="sync",change="inserted"}'] == 5
    assert values['backup_records_total{service="customer",verb="sync",change="updated"}'] == 1
    assert values[f"backup_records_set_aside_total{sync}"] == 2
    assert values[f"backup_request_units_total{sync}"] == 7.5


def test_a_service_is_overdue_by_absence_and_its_last_success_has_an_age(job_queue: JobQueue) -> None:
    job_queue.runs.save(ended("customer", 2))
    job_queue.runs.save(ended("order", 30))
    job_queue.runs.save(ended("ahead", -30))  # by a wrong clock
    values = numbers(job_queue, "customer", "order", "ahead", "new", BackupSync__MaxAgeHours="26")
    assert values['backup_overdue{service="ahead"}'] == 1
    assert not any(name.startswith("backup_last_success") and "ahead" in name for name in values)
    overdue = {name: values[f'backup_overdue{{service="{name}"}}'] for name in ("customer", "order", "new")}
    assert overdue == {"customer": 0, "order": 1, "new": 1}
    assert values['backup_last_success_age_seconds{service="customer"}'] == pytest.approx(7200, abs=2)
    assert values['backup_allowed_age_seconds{service="order"}'] == 26 * 3600
    assert 'backup_last_success_timestamp_seconds{service="new"}' not in values
    assert values['backup_runs_total{service="new",verb="sync"}'] == 0
    assert values['backup_service_state{service="customer",state="safe"}'] == 1
    assert values['backup_service_state{service="order",state="safe"}'] == 0


def test_the_runs_of_a_sets_tables_count_for_the_set_and_its_syncs_once(job_queue: JobQueue) -> None:
    job_queue.runs.save(ended("shop", 1, inserted=10))
    for table in ("a", "b"):
        job_queue.runs.save(ended(f"shop/dbo.{table}", 1, inserted=5))
        job_queue.runs.save(ended(f"shop/dbo.{table}", 1, Verb.VERIFY, skipped=3))
    job_queue.runs.save(ended("gone", 1, inserted=1))
    values = numbers(job_queue, "shop")
    assert values['backup_records_total{service="shop",verb="sync",change="inserted"}'] == 10
    assert values['backup_runs_total{service="shop",verb="verify"}'] == 2
    assert not any("gone" in name for name in values)


def test_jobs_are_counted_by_state(job_queue: JobQueue) -> None:
    for _ in range(2):
        job_queue.records.enqueue(Request("customer"), "http")
    values = numbers(job_queue, "customer")
    assert (values['backup_jobs{state="enqueued"}'], values['backup_jobs{state="failed"}']) == (2, 0)


def test_labels_are_escaped() -> None:
    text = exposition([Metric("m", "gauge", "Of a name.", [Point({"service": 'a "b"\\\n'}, 0.5)])])
    assert text == '# HELP m Of a name.\n# TYPE m gauge\nm{service="a \\"b\\"\\\\\\n"} 0.5\n'


def test_two_hundred_services_cost_a_handful_of_reads(job_queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"service{number}" for number in range(200)]
    for name in names:
        job_queue.runs.save(ended(name, 1, inserted=1))
    reads: list[str] = []

    def watched(method: str) -> Callable[..., Any]:
        of_keys = getattr(job_queue.keys, method)

        def read(*given: Any, **more: Any) -> Any:
            reads.append(method)
            return of_keys(*given, **more)

        return read

    for method in ("scan", "get", "get_all"):
        monkeypatch.setattr(job_queue.keys, method, watched(method))
    assert len(numbers(job_queue, *names)) > 200
    assert len(reads) <= 4


def test_a_parameter_and_records_that_cannot_be_read_are_errors_and_no_numbers(tmp_path: Path) -> None:
    registry: Any = SimpleNamespace(directory=SimpleNamespace(entries=["customer"]))
    job_queue = open_job_queue(load_settings({"BackupJobs__File": str(tmp_path)}))
    with pytest.raises(BadRequest):
        get_metrics(job_queue, load_settings({}), registry, {"days": "1"})
    with pytest.raises(StoreUnavailable):
        get_metrics(job_queue, load_settings({}), registry, {})
