"""The figures that this product wants to reach, computed from the measures. Leaves out figures without a measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.cold import ColdStart
from benchmarks.jobs import EngineName
from benchmarks.sets import UnchangedSet
from benchmarks.turns import Line

_MIB = 1024 * 1024
MAX_STATEMENT_SECONDS = 2.0
"""The default of the setting."""
_HINTED = {"ModifiedBy": "modified-by", "ModifiedBy and FullEveryDays": "modified-by-weekly"}
"""The contenders that are asked only for what was written lately, by the settings that say so."""


@dataclass(frozen=True)
class Figure:
    """A measure and its target: the least value if `at_least`, else the greatest."""

    name: str
    measured: float
    target: float
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the measure is on the right side of the target."""
        return self.measured >= self.target if self.at_least else self.measured <= self.target


class _Lines:
    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    def seconds(self, workload: str, name: str) -> float | None:
        return next((line.seconds for line in self._lines if (line.workload, line.name) == (workload, name)), None)

    def ratio(self, workload: str, name: str, of: str = "ours") -> float | None:
        seconds, base_seconds = self.seconds(workload, name), self.seconds(workload, of)
        return seconds / base_seconds if seconds is not None and base_seconds else None

    def line(self, workload: str, name: str) -> Line | None:
        return next((line for line in self._lines if (line.workload, line.name) == (workload, name)), None)


def figures(
    engine: EngineName,
    lines: Sequence[Line],
    growth: Sequence[Line],
    cold: ColdStart | None,
    of_set: UnchangedSet | None,
) -> list[Figure]:
    """Returns the figures for which the engine and the measured workloads have measures."""
    result = list(_of_cosmos(_Lines(lines)) if engine == "cosmos" else _of_sql(engine, _Lines(lines)))
    result += _of_growth(growth)
    if of_set is not None:
        name = f"set of {of_set.tables} tables of {of_set.rows:,} rows, nothing changed"
        ratio = of_set.sync_seconds / of_set.floor_seconds
        result.append(Figure(f"{name}: time / COUNT(*), SUM(Version) of each table on both sides", ratio, 3))
        result.append(Figure(f"{name}: statements a table, with history", of_set.statements, 6))
        result.append(Figure(f"{name}: connections of both sides", of_set.connections, 4))
    if cold is not None:
        result.append(Figure("cold start: seconds of import function_app", cold.import_seconds, 0.4))
        result.append(Figure("cold start: database drivers loaded", len(cold.drivers_loaded), 0))
    return result


def _of_sql(engine: EngineName, lines: _Lines) -> Iterator[Figure]:
    sqlite = engine == "sqlite"
    no_more_than = [
        ("nothing changed: time / COUNT(*), SUM(Version), one side after the other", ("unchanged", "floor: sums"), 1.5),
        (
            "nothing changed: time / COUNT(*), SUM(Version), both sides at once",
            ("unchanged", "floor: sums at once"),
            1.3 if sqlite else 1.5,
        ),
        ("0.1 % changed, spread: time / key and version of both sides", ("spread", "floor: stamps"), 1.5),
    ]
    for name, (workload, floor), target in no_more_than:
        yield from _measured(name, lines.ratio(workload, "ours", floor), target)
    unchanged = lines.seconds("unchanged", "ours")
    for name, contender in _HINTED.items():
        hinted = lines.seconds("spread", contender)
        if hinted and unchanged:
            yield Figure(f"0.1 % changed, with {name}: time / nothing changed", hinted / unchanged, 1.2)
    at_least = [
        ("nothing changed: times faster than plain", lines.ratio("unchanged", "plain"), 20),
        ("0.1 % changed, spread: times faster than plain", lines.ratio("spread", "plain"), 10),
        ("first copy: rate / rate of bulk insert alone", lines.ratio("first", "floor: insert"), 1.5 if sqlite else 0.9),
        ("force: rate / rate of the server's own statements", lines.ratio("force", "floor: images and update"), 0.7),
        (
            "undo of a first copy: rate / rate of the server's own statements",
            lines.ratio("undo", "floor: images and delete"),
            0.7,
        ),
    ]
    for other, with_hint in (("dlt", 2), ("sling", 1)):
        first_copy = {("sqlserver", "dlt"): 4.0, ("sqlserver", "sling"): 6.0}.get((engine, other), 2.5)
        ratio = None if sqlite else lines.ratio("first", other)  # there it has no aim
        at_least += [
            (f"nothing changed: times faster than {other}", lines.ratio("unchanged", other), 1),
            *(
                (
                    f"0.1 % changed, with {name}: times faster than {other}",
                    lines.ratio("spread", other, contender),
                    with_hint,
                )
                for name, contender in _HINTED.items()
            ),
            (f"first copy: times faster than {other}", ratio, first_copy),
        ]
    for name, value, least in at_least:
        yield from _measured(name, value, least, at_least=True)


def _measured(name: str, value: float | None, target: float, *, at_least: bool = False) -> Iterator[Figure]:
    if value is not None:
        yield Figure(name, value, target, at_least)


def _of_cosmos(lines: _Lines) -> Iterator[Figure]:
    faster = lines.ratio("spread", "plain")
    if faster is not None:
        yield Figure("0.1 % of orders changed: times faster than plain", faster, 10, at_least=True)
    line = lines.line("spread", "ours")
    if line is not None and line.seconds is not None and line.reads.documents is not None:
        changed = max(1, line.rows // 1000)
        yield Figure("0.1 % of orders changed: documents read / changed", line.reads.documents / changed, 2)


def _of_growth(lines: Sequence[Line]) -> Iterator[Figure]:
    sizes = sorted({line.rows for line in lines})
    by_name: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: line.rows):
        if line.seconds is not None:
            by_name.setdefault(line.workload, []).append(line)
    for name, of_workload in by_name.items():
        peaks = [line.peak_bytes / _MIB for line in of_workload]
        yield Figure(f"memory, {name}: most MiB above idle at {_spelled(sizes)} rows", max(peaks), 64)
    for name, of_workload in by_name.items():
        if len(of_workload) < 2:
            continue
        smaller, larger = of_workload[-2:]
        if larger.rows == 10 * smaller.rows and smaller.seconds and larger.seconds:
            title = f"growth, {name}: time at {larger.rows:.0e} / at {smaller.rows:.0e} rows"
            yield Figure(title.replace("e+0", "e"), larger.seconds / smaller.seconds, 10.5)
    longest = [line.reads.longest_seconds for line in lines if line.rows == sizes[-1] and line.reads.longest_seconds]
    if longest:
        title = f"longest statement on the source in seconds, at {_spelled(sizes[-1:])} rows"
        yield Figure(title, max(longest), MAX_STATEMENT_SECONDS * 1.5)


def _spelled(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size:.0e}".replace("e+0", "e") for size in sizes)
