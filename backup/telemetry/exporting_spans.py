"""Switches telemetry on, once in a process, to where the settings say. Imports an exporter only then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any

from backup import __version__
from backup.config.environment import variable_named
from backup.config.settings import Settings
from backup.core import spans
from backup.core.errors import ConfigError
from backup.core.log import event
from backup.core.unexpected import safe_text

if TYPE_CHECKING:
    from backup.telemetry.listening import GaugeValue

GAUGES = ("backup.last_success.age", "backup.overdue", "backup.jobs")

_LOGIN = "APPLICATIONINSIGHTS_AUTHENTICATION_STRING"
_lock = Lock()
_started: set[str] = set()
_HINT = (
    "Install it: pip install -r requirements/telemetry.txt; in Azure add the line `-r requirements/telemetry.txt` to "
    "requirements.txt. Or leave BackupTelemetry__Exporter empty."
)


def start_telemetry(settings: Settings, values: Callable[[], Iterable[GaugeValue]]) -> None:
    """Lets runs tell OpenTelemetry what they do, if a setting says so; a second call does nothing. `values` are those
    of the gauges, now.

    Raises ConfigError when the library is missing, or the connection string of Application Insights.
    """
    exporter = settings.telemetry_exporter
    if exporter is None or exporter in _started:
        return
    with _lock:
        if exporter in _started:
            return
        try:
            from backup.telemetry.listening import OtelListener

            tracers, meters = _of_azure() if exporter == "azuremonitor" else _of_process()
        except ImportError as error:
            raise ConfigError(f"The library {error.name} for telemetry is missing.", hint=_HINT) from None
        listener = OtelListener(tracers, meters)
        listener.observe(GAUGES, lambda: _certain(values))
        spans.tell_spans_to(listener)
        _started.add(exporter)
        event("telemetry.started", exporter=exporter)


def _certain(values: Callable[[], Iterable[GaugeValue]]) -> list[GaugeValue]:
    """The values; none if the records cannot be read: no number is better than an old one."""
    try:
        return [*values()]
    except Exception as error:
        event("telemetry.not_read", level=logging.WARNING, error=safe_text(error))
        return []


def _of_process() -> tuple[Any, Any]:
    """The providers that this process has already, such as those of `opentelemetry-instrument`."""
    from opentelemetry import metrics, trace

    return trace.get_tracer_provider(), metrics.get_meter_provider()


def _of_azure() -> tuple[Any, Any]:
    """Providers that send to Application Insights, in threads of their own."""
    from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter, AzureMonitorTraceExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    connection, login = variable_named("APPLICATIONINSIGHTS_CONNECTION_STRING"), variable_named(_LOGIN)
    if connection is None:
        raise ConfigError(
            "Setting APPLICATIONINSIGHTS_CONNECTION_STRING is missing: BackupTelemetry__Exporter is azuremonitor.",
            hint="It is in the portal, on the page of Application Insights; in Azure the app has it already.",
        )
    options: dict[str, Any] = {"connection_string": connection}
    if login is not None:
        from backup.stores.identity import credential

        pairs = dict(part.strip().partition("=")[::2] for part in login.split(";"))
        options["credential"] = credential(pairs.get("ClientId"))
    resource = Resource.create({"service.name": "backup-services", "service.version": __version__})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(AzureMonitorTraceExporter(**options)))
    reader = PeriodicExportingMetricReader(AzureMonitorMetricExporter(**options))
    return tracers, MeterProvider([reader], resource=resource)
