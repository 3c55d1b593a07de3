"""What OpenTelemetry hears of runs: spans of runs, chunks and batches, and numbers; and nothing where it is off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import azure.functions as func
import pytest
from opentelemetry import context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import function_app
from backup.config.settings import load_settings
from backup.core import spans
from backup.core.errors import TransientStoreError
from backup.core.retry import Retry
from backup.core.run_values import Run, Trigger
from backup.entry import telemetry_switch
from backup.jobs.job_queue import job_queue_of
from backup.services.registry import Registry
from backup.telemetry.exporting_spans import GAUGES
from backup.telemetry.listening import GaugeValue, OtelListener
from tests.scenarios.inside import raised
from tests.scenarios.places import Place
from tests.scenarios.product import ROOT

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Heard:
    """What was exported: the spans, and the numbers by their names and attributes."""

    def __init__(self) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.listener = OtelListener(tracers, MeterProvider([self._reader]))

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def numbers(self) -> dict[tuple[str, str], Any]:
        data = self._reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return {
            (metric.name, ",".join(str(value) for value in (point.attributes or {}).values())): point
            for metric in metrics
            for point in metric.data.data_points
        }


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    spans.tell_spans_to(made.listener)
    yield made
    spans.tell_spans_to(None)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_run_is_a_span_its_chunks_are_parts_of_it_and_batches_of_chunks(heard: Heard, sqlite_place: Place) -> None:
    registry = Registry(load_settings({**sqlite_place.settings, "BackupSync__ChunkSize": "40"}))
    with spans.under(PARENT):
        outcomes = registry.sync("all", Trigger.HTTP)
    runs, chunks, batches = (heard.spans(f"backup.{name}") for name in ("run", "chunk", "batch"))
    batches += heard.spans("backup.relay")  # servers that copy among themselves
    runs_by_service = {attributes(run)["backup.service"]: attributes(run) for run in runs}
    assert runs_by_service.keys() == {"customer", "order"}
    by_id = {outcome.run.sync_id: outcome.run for outcome in outcomes}
    for run in runs_by_service.values():
        assert run["backup.status"] == "Completed"
        assert run["backup.inserted"] == by_id[run["backup.sync_id"]].counts.inserted > 0
        assert run["backup.verified"] is True
    assert {span.parent.span_id for span in runs if span.parent} == {int(PARENT.split("-")[2], 16)}, "the host's span"
    assert {span.context.trace_id for span in (*runs, *chunks, *batches) if span.context} == {int(PARENT[3:35], 16)}
    run_ids = {span.context.span_id for span in runs if span.context}
    chunk_ids = {span.context.span_id for span in chunks if span.context}
    assert len(chunks) >= 5
    assert {span.parent.span_id for span in chunks if span.parent} == run_ids
    assert {span.parent.span_id for span in batches if span.parent} <= chunk_ids
    assert sum(attributes(span)["backup.records"] for span in batches) == 155
    assert context.get_current() == {}, "the host's context stays in its invocation"


def test_a_run_is_a_part_of_the_hosts_invocation(
    heard: Heard, sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sqlite_place.settings.items():
        monkeypatch.setenv(name, value)
    trigger: Any = function_app.SyncOrder
    invocation = SimpleNamespace(trace_context=SimpleNamespace(trace_parent=PARENT, trace_state=None))
    request = func.HttpRequest("POST", "/api/backup/sync/order", body=b"")
    assert trigger.build().get_user_function()(request, invocation).status_code == 200
    [run] = heard.spans("backup.run")
    assert run.parent is not None
    assert f"{run.parent.trace_id:032x}-{run.parent.span_id:016x}" == PARENT[3:52]


def test_a_failed_run_says_its_kind_and_quotes_nothing(heard: Heard, sqlite_place: Place) -> None:
    [first] = sqlite_place.registry.sync("customer", Trigger.CLI)
    assert first.error is None
    for number in range(1, 101):
        with sqlite_place.registry.get("customer").stores() as (source, _):
            source.delete([source.keys.from_text(str(number))])
    [outcome] = sqlite_place.registry.sync("customer", Trigger.CLI)
    failed = heard.spans("backup.run")[-1]
    assert type(outcome.error).__name__ == "GuardTripped"
    assert (attributes(failed)["error.type"], failed.status.description) == ("GuardTripped", "GuardTripped")
    assert failed.events == ()
    numbers = heard.numbers()
    assert numbers["backup.runs", "customer,sync,Failed"].value == 1
    assert numbers["backup.runs", "customer,sync,Completed"].value == 1


def test_numbers_are_counted_once_and_durations_are_seconds(heard: Heard, sqlite_place: Place) -> None:
    registry = sqlite_place.registry
    registry.sync("customer", Trigger.CLI)
    raised(sqlite_place, 1, 2)
    registry.sync("customer", Trigger.CLI)
    numbers = heard.numbers()
    assert numbers["backup.records", "customer,sync,inserted"].value == 100
    assert numbers["backup.records", "customer,sync,updated"].value == 2
    durations = numbers["backup.run.duration", "customer,sync"]
    assert (durations.count, durations.sum < 60) == (2, True)


def test_retries_are_counted_and_gauges_are_asked_when_somebody_collects(heard: Heard) -> None:
    tries = 0
    for attempt in Retry(base_seconds=0).attempts("try"):
        with attempt:
            tries += 1
            if tries < 3:
                raise TransientStoreError
    assert heard.numbers()["backup.retries", "TransientStoreError"].value == 2
    heard.listener.observe(["backup.jobs"], lambda: [GaugeValue("backup.jobs", 3, {"state": "enqueued"})])
    assert heard.numbers()["backup.jobs", "enqueued"].value == 3


def test_the_gauges_are_those_of_prometheus(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "BackupJobs__File": str(tmp_path / "jobs.db"),
            **{
                f"{side}ShopDb__{part}": text
                for side in ("Source", "Backup")
                for part, text in (("ConnectionString", f"sqlite:///{side}.db"), ("Table", "t"))
            },
        }
    )
    run = Run("shop", Trigger.HTTP, False, datetime(2026, 11, 29, tzinfo=UTC))
    job_queue_of(settings).runs.save(run.ended(run.status.COMPLETED, run.started_at, run.counts, None))
    values = telemetry_switch._values(settings)
    assert {value.name for value in values} == set(GAUGES)
    [overdue] = [value for value in values if value.name == "backup.overdue"]
    assert overdue.attributes == {"service": "shop"}


def test_off_it_costs_nothing_and_loads_nothing(sqlite_place: Place) -> None:
    assert spans.span("a", b=1) is spans.span("c")
    assert spans.carried(print) is print
    script = (
        "import sys, function_app; from backup.entry.telemetry_switch import switch_on;"
        "from backup.config.settings import load_settings; switch_on(lambda: load_settings({}));"
        "print(*[name for name in sys.modules if name.partition('.')[0] == 'opentelemetry'])"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_what_cannot_be_switched_on_is_told_once_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("APPLICATIONINSIGHTS_CONNECTION_STRING", raising=False)
    caplog.set_level("WARNING")
    for _ in range(2):
        telemetry_switch.switch_on(lambda: load_settings({"BackupTelemetry__Exporter": "azuremonitor"}))
    [line] = [line for line in caplog.messages if line.startswith("telemetry.not_started")]
    assert "APPLICATIONINSIGHTS_CONNECTION_STRING" in line
    assert not spans.is_heard()
