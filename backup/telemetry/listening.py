"""Hears of spans and numbers, and gives them to OpenTelemetry. Imports its API; knows no exporter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any, NamedTuple

from opentelemetry import context, metrics, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from backup import __version__
from backup.core.spans import AnyWork

_PREFIX = "backup."
_UNITS = {"backup.run.duration": "s", "backup.last_success.age": "s", "backup.request_units": "{RU}"}


class GaugeValue(NamedTuple):
    """A number now: the name of its gauge, and what it is of."""

    name: str
    value: float
    attributes: Mapping[str, str]


class OtelSpan:
    """A span of OpenTelemetry."""

    def __init__(self, otel_span: trace.Span) -> None:
        self._span = otel_span

    def tell(self, **attributes: Any) -> None:
        """As `Span` says."""
        self._span.set_attributes(_attributes(attributes))

    def failed(self, error: BaseException) -> None:
        """As `Span` says."""
        self._span.set_attributes({"error.type": type(error).__name__})
        self._span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))


class OtelListener:
    """A `Listener` that has a tracer and a meter."""

    def __init__(self, tracers: trace.TracerProvider, meters: metrics.MeterProvider) -> None:
        self._tracer = tracers.get_tracer("backup", __version__)
        self._meter = meters.get_meter("backup", __version__)
        self._instruments: dict[str, Any] = {}
        self._lock = Lock()

    @contextmanager
    def span(self, name: str, attributes: dict[str, Any]) -> Iterator[OtelSpan]:
        """As `Listener` says. An error that leaves the block fails the span."""
        with self._tracer.start_as_current_span(
            name, attributes=_attributes(attributes), record_exception=False, set_status_on_exception=False
        ) as started:
            span = OtelSpan(started)
            try:
                yield span
            except BaseException as error:
                span.failed(error)
                raise

    def carried(self, work: AnyWork) -> AnyWork:
        """As `Listener` says."""
        here = context.get_current()

        @wraps(work)
        def there(*given: Any, **named: Any) -> Any:
            token = context.attach(here)
            try:
                return work(*given, **named)
            finally:
                context.detach(token)

        return there  # type: ignore[return-value] # it takes and returns what the work does

    def count(self, name: str, amount: float, attributes: dict[str, Any]) -> None:
        """As `Listener` says."""
        self._instrument(name, self._meter.create_counter).add(amount, _attributes(attributes))

    def measure(self, name: str, value: float, attributes: dict[str, Any]) -> None:
        """As `Listener` says."""
        self._instrument(name, self._meter.create_histogram).record(value, _attributes(attributes))

    @contextmanager
    def under(self, parent: str | None, state: str | None) -> Iterator[None]:
        """As `Listener` says."""
        carrier = {name: text for name, text in (("traceparent", parent), ("tracestate", state)) if text}
        token = context.attach(TraceContextTextMapPropagator().extract(carrier))
        try:
            yield
        finally:
            context.detach(token)

    def observe(self, names: Iterable[str], values: Callable[[], Iterable[GaugeValue]]) -> None:
        """From now on asks for the values of these gauges whenever somebody collects them."""
        for name in names:

            def callback(_: metrics.CallbackOptions, name: str = name) -> list[metrics.Observation]:
                return [
                    metrics.Observation(each.value, _attributes(each.attributes))
                    for each in values()
                    if each.name == name
                ]

            self._meter.create_observable_gauge(name, [callback], unit=_UNITS.get(name, ""))

    def _instrument(self, name: str, make: Callable[..., Any]) -> Any:
        with self._lock:
            if name not in self._instruments:
                self._instruments[name] = make(name, unit=_UNITS.get(name, ""))
            return self._instruments[name]


def _attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes as OpenTelemetry takes them: with a prefix, and without those that have no value."""
    return {
        f"{_PREFIX}{name}": value if isinstance(value, bool | int | float) else str(value)
        for name, value in given.items()
        if value is not None
    }
