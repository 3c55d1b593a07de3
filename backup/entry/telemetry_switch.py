"""Switches telemetry on where a setting says so. Imports its library only then; a failure stops no run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.core.log import event
from backup.entry.metrics import Metric, metrics_of_jobs, metrics_of_services
from backup.jobs.job_queue import job_queue_of

if TYPE_CHECKING:
    from backup.telemetry.listening import GaugeValue

_GAUGES = {
    "backup_last_success_age_seconds": "backup.last_success.age",
    "backup_overdue": "backup.overdue",
    "backup_jobs": "backup.jobs",
}
_told: set[str] = set()


def switch_on(load: Callable[[], Settings]) -> None:
    """Switches telemetry on if the settings say so and it is off. Logs once why it cannot be; raises nothing."""
    try:
        settings = load()
        if settings.telemetry_exporter is None:
            return
        from backup.telemetry.exporting_spans import start_telemetry

        start_telemetry(settings, lambda: _values(settings))
    except BackupError as error:
        # Settings that cannot be used are told by whoever works with them.
        if (reason := str(error)) not in _told:
            _told.add(reason)
            event("telemetry.not_started", level=logging.WARNING, error=error, hint=error.hint)


def _values(settings: Settings) -> list[GaugeValue]:
    """The gauges of all services, sets and jobs, by the records alone."""
    from backup.telemetry.listening import GaugeValue

    job_queue, names = job_queue_of(settings), [*settings.services, *settings.sets]
    metrics: list[Metric] = [*metrics_of_services(job_queue, settings, names), metrics_of_jobs(job_queue)]
    return [
        GaugeValue(_GAUGES[metric.name], point.value, point.labels)
        for metric in metrics
        if metric.name in _GAUGES
        for point in metric.samples
    ]
