"""Shows the measures, as tables for people and as JSON for machines."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cold import ColdStart
from benchmarks.figures import Figure
from benchmarks.sets import UnchangedSet
from benchmarks.turns import LONG_SECONDS, Line
from benchmarks.workloads import GROWTH, WORKLOADS

_MIB = 1024 * 1024
_TITLES = {workload.name: workload.title for workload in (*WORKLOADS.values(), *GROWTH)}


def machine() -> dict[str, Any]:
    """Returns what the machine is, and its load now."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def show_machine(console: Console) -> None:
    """Prints what the machine is, and warns if its load makes the times wrong."""
    facts = machine()
    console.print(
        f"{facts['system']}, {facts['cores']} cores, Python {facts['python']}, load {facts['load']}", highlight=False
    )
    if facts["load"] > 1.5 * (facts["cores"] or 1):
        console.print("The machine is busy with other work: do not trust the times.", style="bold red")
    console.print()


def show(console: Console, engine: str, lines: Sequence[Line]) -> None:
    """Prints the table of one workload."""
    console.print(_table(engine, lines))
    _explain(console, lines)


def show_figures(console: Console, figures: Sequence[Figure], cold: ColdStart | None) -> None:
    """Prints each figure with its target, and whether the product reaches it."""
    if cold is not None:
        loaded = ", ".join(cold.drivers_loaded) or "none"
        console.print(
            f"Cold start: import function_app {cold.import_seconds:.3f} s beyond a bare interpreter's"
            f" {cold.bare_seconds:.3f} s; database drivers loaded: {loaded}\n"
        )
    table = Table("Figure", title="Figures", title_justify="left")
    for name in ("Measured", "Target", "Reached"):
        table.add_column(name, justify="right")
    for figure in figures:
        target = f"{'≥' if figure.at_least else '≤'} {figure.target:g}"
        table.add_row(figure.name, _digits(figure.measured), target, "yes" if figure.reached else "[bold red]no[/]")
    console.print(table)


def as_json(
    engine: str,
    options: dict[str, Any],
    lines: Sequence[Line],
    growth: Sequence[Line],
    figures: Sequence[Figure],
    cold: ColdStart | None,
    of_set: UnchangedSet | None,
) -> dict[str, Any]:
    """Returns all measures of the run as JSON values."""
    return {
        "engine": engine,
        **options,
        "machine": machine(),
        "lines": [_line(line) for line in lines],
        "growth": [_line(line) for line in growth],
        "cold_start": None if cold is None else asdict(cold),
        "set": None if of_set is None else asdict(of_set),
        "figures": [{**asdict(figure), "reached": figure.reached} for figure in figures],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "workload": line.workload,
        "rows": line.rows,
        "contender": line.contender,
        "part": line.part,
        "correct": line.wrong is None if line.turns else None,
        "wrong": line.wrong,
        "cannot": line.cannot,
        "median_seconds": line.seconds,
        "cpu_seconds": line.cpu_seconds,
        "seconds": [turn.seconds for turn in line.turns],
        "rows_per_second": None if not line.seconds else line.rows / line.seconds,
        "idle_bytes": line.idle_bytes,
        "peak_bytes": line.peak_bytes,
        "source": asdict(line.reads),
    }


def _table(engine: str, lines: Sequence[Line]) -> Table:
    first = lines[0]
    ours = next((line.seconds for line in lines if line.contender == "ours"), None)
    cosmos = engine == "cosmos"
    table = Table(
        "Contender",
        title=f"{_TITLES[first.workload]} – {engine}, {first.rows:,} {'orders' if cosmos else 'customers'}",
        title_justify="left",
    )
    count_names = ("Requests", "Documents", "Charge") if cosmos else ("Statements",)
    for name in (
        "Turns",
        "Median s",
        "CPU s",
        "× ours",
        "Rows/s",
        "Read MiB",
        *count_names,
        "Longest s",
        "Peak MiB",
        "Idle MiB",
    ):
        table.add_column(name, justify="right")
    table.add_column("Result")
    for line in lines:
        seconds, reads = line.seconds, line.reads
        result = "right" if _bad(line) is None else "cannot" if line.cannot else f"[bold red]{_bad(line)}[/]"
        counts = (reads.statements, reads.documents, reads.charge) if cosmos else (reads.statements,)
        table.add_row(
            line.name,
            str(len(line.turns)) if line.turns else "–",
            _digits(seconds),
            _digits(line.cpu_seconds),
            _digits(seconds / ours if seconds is not None and ours else None),
            f"{line.rows / seconds:,.0f}" if seconds else "–",
            _digits(None if reads.bytes is None else reads.bytes / _MIB),
            *("–" if count is None else f"{count:,}" for count in counts),
            _digits(reads.longest_seconds),
            _digits(line.peak_bytes / _MIB if line.turns else None),
            _digits(line.idle_bytes / _MIB if line.turns else None),
            result,
        )
    return table


def _explain(console: Console, lines: Sequence[Line]) -> None:
    for line in lines:
        if kind := _bad(line):
            console.print(f"  {line.name} {kind}: {line.cannot or line.wrong}", markup=False, highlight=False)
        elif line.cut_short:
            console.print(f"  {line.name}: not repeated, it takes more than {LONG_SECONDS:g} s", highlight=False)
    console.print()


def _bad(line: Line) -> str | None:
    if line.cannot:
        return "cannot"
    if line.wrong is None:
        return None
    return "failed" if line.failed else "WRONG"


def _digits(value: float | None) -> str:
    """Returns the value with at least three significant digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"
