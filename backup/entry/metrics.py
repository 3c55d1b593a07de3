"""Numbers of runs, services and jobs in the text format of Prometheus. Reads the records alone: wakes no database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from backup import __version__
from backup.config.settings import Settings
from backup.core.run_values import Verb
from backup.entry.answers import Answer
from backup.entry.requests import check_query
from backup.entry.service_states import WORST_FIRST, ServiceStates
from backup.jobs.job import CLOCKS_DIFFER
from backup.jobs.job_queue import JobQueue
from backup.services.registry import Registry

TEXT_FORMAT = "text/plain; version=0.0.4"
"""The type of the content, without its encoding."""

_CHANGES = ("inserted", "updated", "deleted", "skipped")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Point(NamedTuple):
    """One number, and what it is of. `suffix` is what its name has behind that of its metric."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


class Metric(NamedTuple):
    """A name, what it means, and its samples."""

    name: str
    kind: Literal["counter", "gauge", "summary"]
    meaning: str
    samples: Iterable[Point]


def get_metrics(job_queue: JobQueue, settings: Settings, registry: Registry, query: Mapping[str, str]) -> Answer:
    """Answers with the numbers of all services. A set counts as one service. Cost: one read each of sums, glances, last
    runs and numbers of jobs, for up to a thousand services."""
    check_query(query)
    names = registry.directory.entries
    metrics = [
        *_of_runs(job_queue, names),
        *metrics_of_services(job_queue, settings, names),
        metrics_of_jobs(job_queue),
    ]
    version = Metric("backup_info", "gauge", "The version of the app.", [Point({"version": __version__}, 1)])
    return Answer(200, {}, text=exposition([version, *metrics]), media=TEXT_FORMAT)


def exposition(metrics: Sequence[Metric]) -> str:
    """Returns the metrics as text, each with its meaning and kind. A metric without samples is left out."""
    lines: list[str] = []
    for metric in metrics:
        samples = list(metric.samples)
        if samples:
            lines += [f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} {metric.kind}"]
            lines += [_line(metric.name, sample) for sample in samples]
    return "".join(f"{line}\n" for line in lines)


def _line(name: str, sample: Point) -> str:
    labels = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in sample.labels.items())
    value = int(sample.value) if sample.value == int(sample.value) else sample.value
    return f"{name}{sample.suffix}{{{labels}}} {value}"


def _of_runs(job_queue: JobQueue, names: Sequence[str]) -> list[Metric]:
    sums = _by_entry(job_queue.runs.sums_of_all(), names)
    rows = [({"service": name, "verb": verb}, sums[name][verb]) for name in names for verb in sums[name]]

    def counted(kind: str) -> list[Point]:
        return [Point(labels, row.get(kind, 0)) for labels, row in rows]

    records = [Point({**labels, "change": kind}, row.get(kind, 0)) for labels, row in rows for kind in _CHANGES]
    durations = [
        Point(labels, row.get(kind, 0), suffix)
        for labels, row in rows
        for kind, suffix in (("seconds", "_sum"), ("runs", "_count"))
    ]
    charges = [Point(labels, row["charge"]) for labels, row in rows if "charge" in row]
    return [
        Metric("backup_runs_total", "counter", "Runs that have ended.", counted("runs")),
        Metric("backup_run_failures_total", "counter", "Runs that have failed.", counted("failed")),
        Metric("backup_run_duration_seconds", "summary", "How long runs took.", durations),
        Metric("backup_records_total", "counter", "Records of ended runs, by what the runs did to them.", records),
        Metric(
            "backup_records_set_aside_total",
            "counter",
            "Records that could not be read or written.",
            counted("failedRecords"),
        ),
        Metric("backup_request_units_total", "counter", "Request units of Cosmos DB that runs have cost.", charges),
    ]


def metrics_of_services(job_queue: JobQueue, settings: Settings, names: Sequence[str]) -> list[Metric]:
    """Returns how safe the services and sets are now, and when they last succeeded and failed."""
    now = job_queue.now().astimezone(UTC)
    glances = job_queue.runs.glances(names)
    states = ServiceStates(settings, glances, now)
    views = [states.view(name, rank) for name, rank in zip(names, states.ranks(names), strict=True)]
    last = job_queue.runs.last_of_all()
    at, latest = int(now.timestamp()), int((now + CLOCKS_DIFFER).timestamp())
    successes = {
        view.name: success
        for view in views
        if (glance := glances.get(view.success_of.lower())) is not None
        and (success := glance.success) is not None
        and success <= latest  # one that is still to come was written by a wrong clock, and would look fresh
    }
    failures = {name: entry["at"] for name in names if (entry := last.get(name.lower(), {}).get("failure")) is not None}
    records = {name: last.get(name.lower(), {}).get("success", {}).get("records") for name in names}
    allowed = {name: settings.max_age(name) for name in names}
    return [
        Metric(
            "backup_overdue",
            "gauge",
            "1 where no sync has succeeded within the allowed age.",
            [Point({"service": view.name}, view.rank == 0) for view in views],
        ),
        Metric(
            "backup_service_state",
            "gauge",
            "1 for the state of the service, 0 for the others.",
            [
                Point({"service": view.name, "state": state.value.lower()}, view.rank == rank)
                for view in views
                for rank, state in enumerate(WORST_FIRST)
            ],
        ),
        _of_each("backup_last_success_timestamp_seconds", "When the last sync succeeded.", successes),
        _of_each(
            "backup_last_success_age_seconds",
            "How long ago the last sync succeeded.",
            {name: max(0, at - success) for name, success in successes.items()},
        ),
        _of_each(
            "backup_allowed_age_seconds",
            "How old the last success may be.",
            {name: age.total_seconds() for name, age in allowed.items() if age is not None},
        ),
        _of_each(
            "backup_last_failure_timestamp_seconds",
            "When a run failed last.",
            {name: datetime.fromisoformat(moment).timestamp() for name, moment in failures.items()},
        ),
        _of_each(
            "backup_records",
            "Records of the backup at the end of the last sync that succeeded.",
            {name: number for name, number in records.items() if number is not None},
        ),
    ]


def _of_each(name: str, meaning: str, values: Mapping[str, float]) -> Metric:
    return Metric(name, "gauge", meaning, [Point({"service": service}, value) for service, value in values.items()])


def metrics_of_jobs(job_queue: JobQueue) -> Metric:
    """Returns how many jobs are in each state now."""
    numbers = job_queue.records.numbers()
    samples = [Point({"state": state.value.lower()}, number) for state, number in numbers.items()]
    return Metric("backup_jobs", "gauge", "Jobs in each state; those that wait are the depth of the queue.", samples)


def _by_entry(
    sums: Mapping[str, Mapping[str, Mapping[str, float]]], names: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """The sums of each service and set, by verb; those of a set's services are added to the set's. A service without a
    run has a sync of zeros, so that its first failure is seen as an increase."""
    entry_of = {name.lower(): name for name in names}
    by_entry: dict[str, dict[str, dict[str, float]]] = {name: {Verb.SYNC.value: {}} for name in names}
    for service, verbs in sums.items():
        entry = entry_of.get(service) or entry_of.get(service.partition("/")[0])
        if entry is None:
            continue  # a service that is configured no more
        for verb, numbers in verbs.items():
            own = by_entry[entry].setdefault(verb, {})
            for kind, number in numbers.items():
                own[kind] = own.get(kind, 0) + number
    return by_entry
