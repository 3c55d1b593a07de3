"""`python -m benchmarks`: builds the data, gives every contender its turns, and prints what it measured."""

from __future__ import annotations

import json
import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cold import cold_start
from benchmarks.contenders import CONTENDERS, USUAL
from benchmarks.engines import DATA, open_engine
from benchmarks.engines.base import EngineMissing
from benchmarks.figures import figures
from benchmarks.jobs import EngineName
from benchmarks.report import as_json, show, show_figures, show_machine
from benchmarks.sets import UnchangedSet, unchanged_set
from benchmarks.turns import Line, Turns
from benchmarks.workloads import GROWTH, WORKLOADS

ContenderName = StrEnum("ContenderName", list(CONTENDERS))  # type: ignore[misc]
WorkloadName = StrEnum("WorkloadName", [*WORKLOADS, "cold", "growth", "set"])  # type: ignore[misc]
_SIZES = (100_000, 1_000_000, 10_000_000)


def main(
    engine: Annotated[EngineName, typer.Option(help="what holds both sides")] = "sqlite",
    rows: Annotated[int, typer.Option(min=1000, help="customers, for the SQL engines")] = 1_000_000,
    orders: Annotated[int, typer.Option(min=1000, help="orders, for cosmos")] = 100_000,
    repeat: Annotated[int, typer.Option(min=1, help="rounds that are timed")] = 3,
    workload: Annotated[
        list[WorkloadName] | None, typer.Option(help="only these; all but growth and set if none")
    ] = None,
    contender: Annotated[list[ContenderName] | None, typer.Option(help="only these; the usual ones if none")] = None,
    size: Annotated[list[int] | None, typer.Option(min=1000, help="sizes of growth; 1e5, 1e6, 1e7 if none")] = None,
    folder: Annotated[Path, typer.Option(help="for files; what lies in it is lost")] = DATA,
    as_json_: Annotated[bool, typer.Option("--json", help="print JSON and nothing else on standard output")] = False,
) -> None:
    """Measures syncs beside other ways to do the same. See benchmarks/README.md."""
    logging.getLogger("azure").setLevel(logging.ERROR)
    progress = Console(stderr=True, highlight=False)
    console = Console() if Console().is_terminal else Console(width=170)
    names = [str(name) for name in workload or (*WORKLOADS, "cold")]
    chosen = [str(name) for name in contender or USUAL]
    count = orders if engine == "cosmos" else rows
    lines: list[Line] = []
    growth: list[Line] = []
    of_set: UnchangedSet | None = None

    def tell(message: str) -> None:
        progress.print(message, style="dim")

    def shown(measured_lines: list[Line]) -> list[Line]:
        if not as_json_:
            show(console, engine, measured_lines)
        return measured_lines

    if not as_json_:
        show_machine(console)
    try:
        if workload_names := [name for name in names if name in WORKLOADS]:
            with open_engine(engine, count, folder) as opened:
                turns = Turns(opened, [CONTENDERS[name] for name in chosen], repeat, tell)
                for name in workload_names:
                    lines += shown(turns.run(WORKLOADS[name]))
        if "growth" in names:
            for number in sorted(size or _SIZES):
                tell(f"{engine}: makes {number:,} rows")
                with open_engine(engine, number, folder) as opened:
                    turns = Turns(opened, [CONTENDERS["ours"]], repeat, tell)
                    for growth_workload in GROWTH:
                        growth += shown(turns.run(growth_workload))
        if "set" in names:
            tell(f"{engine}: makes a set of tables")
            of_set = unchanged_set(engine, folder, repeat)
    except EngineMissing as missing:
        progress.print(f"{engine} cannot be measured: {missing}", style="red")
        raise typer.Exit(2) from None
    cold = cold_start() if "cold" in names else None
    measured_figures = figures(engine, lines, growth, cold, of_set)
    if as_json_:
        options = {"rows": count, "repeat": repeat}
        print(json.dumps(as_json(engine, options, lines, growth, measured_figures, cold, of_set), indent=1))
        return
    if measured_figures:
        show_figures(console, measured_figures, cold)


cli = typer.Typer(pretty_exceptions_enable=False)
cli.command()(main)

if __name__ == "__main__":
    cli()
