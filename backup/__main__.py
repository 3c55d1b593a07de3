"""The command line: `python -m backup …`. Results go to standard output, logs and progress to standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from backup import api, sample
from backup.demo import FILES, run_demo
from backup.errors import BackupError
from backup.log import quiet_libraries, redact
from backup.models import Counts, Run, Trigger
from backup.registry import Registry
from backup.services import Outcome, foreseen, no_progress
from backup.services import Progress as Told
from backup.settings import load_settings, use_local_settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False)

Service = Annotated[str, typer.Argument(help="all, customer or order")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what HTTP would answer, and nothing else")]


@cli.command()
def initialize(as_json: AsJson = False) -> None:
    """Create the backup databases, schemas, tables and containers; safe to repeat."""
    with _errors(as_json):
        answer = api.initialize(_registry())
        _print(answer, as_json, lambda: _lines(answer.body["Results"]))


@cli.command()
def sync(
    service: Service = "all",
    force: Annotated[bool, typer.Option("--force", help="Copy every common record, changed or not")] = False,
    as_json: AsJson = False,
) -> None:
    """Sync one service or all of them and show the counts."""
    with _errors(as_json):
        registry = _registry()
        with _progress(registry, service) as progress:
            outcomes = registry.sync(service, Trigger.CLI, force=force, progress=progress)
        _print(api.shape_syncs(outcomes), as_json, lambda: _show_outcomes(None, outcomes))


@cli.command()
def history(
    service: Service = "all",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many runs of each service")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the latest runs, newest first."""
    with _errors(as_json):
        registry = _registry()
        runs = _runs(registry, registry.chosen(service), limit)
        _print(api.shape_history(runs), as_json, lambda: out.print(_runs_table("SyncHistory", runs, past=True)))


@cli.command()
def health(as_json: AsJson = False) -> None:
    """Ping every source and backup."""
    with _errors(as_json):
        answer = api.health(_registry, {"deep": "true"})
        _print(
            answer,
            as_json,
            lambda: _lines(answer.body["Checks"]),
        )


@cli.command()
def serve(port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 7071) -> None:
    """Serve function_app.py on 127.0.0.1 without Core Tools; asks for no key unless SERVE_KEY is set."""
    from backup.devhost import serve as serve_app

    with _errors(False):
        _registry_hint()
        serve_app(Path.cwd(), port, load_settings().serve_key)


@cli.command(name="sample")
def fill_sample() -> None:
    """Fill the configured, empty sources with sample customers and orders."""
    with _errors(False):
        for name, count in sample.fill(_registry()).items():
            out.print(f"{name}: {count} records")


@cli.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where its databases lie; made anew each time")] = Path("data/demo"),
) -> None:
    """Sync two embedded databases four times and show what each run did."""
    logging.getLogger("backup").setLevel(logging.WARNING)
    with _errors(False):
        registry = run_demo(folder, _show_outcomes)
        out.print(_runs_table("The last rows of SyncHistory", _runs(registry, registry.names(), 4), past=True))
        out.print(f"The databases, with SyncHistory in the backups, lie in {folder}/: {', '.join(FILES.values())}")


def main() -> None:
    """Runs the command line."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    quiet_libraries()
    cli()


def _registry() -> Registry:
    use_local_settings(Path.cwd())
    return Registry(load_settings())


def _registry_hint() -> None:
    if not _registry().names():
        err.print(
            "No service is configured yet: set the settings that README lists, or copy local.settings.json.example."
        )


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Turns an error into a message and exit code 1."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as caught:
        error = foreseen(caught)
        if as_json:
            print(api.error_answer(error).json)
        else:
            err.print(f"[bold red]{type(error).__name__}[/] {_plain(str(error))}")
            if error.hint:
                err.print(_plain(error.hint))
        raise typer.Exit(1) from None


def _print(answer: api.Answer, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        print(answer.json)
    else:
        show()
        if answer.body.get("Hint"):
            err.print(_plain(answer.body["Hint"]))
    if answer.status != 200:
        raise typer.Exit(1)


def _plain(text: str) -> str:
    """Text that rich shows as it is, without secrets."""
    return redact(text).replace("[", r"\[")


def _lines(entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        out.print(_plain("  ".join(f"{name}={value}" for name, value in entry.items() if value is not None)))
    if not entries:
        out.print("No service is configured.")


def _runs(registry: Registry, services: list[str], limit: int) -> list[Run]:
    runs = [run for name in services for run in registry.get(name).history(limit)]
    return sorted(runs, key=lambda run: run.started_at, reverse=True)


def _show_outcomes(title: str | None, outcomes: list[Outcome]) -> None:
    out.print(_runs_table(title, [outcome.run for outcome in outcomes]))
    for outcome in outcomes:
        if outcome.error:
            err.print(f"[red]{outcome.run.service}[/] {_plain(str(outcome.error))}")


def _runs_table(title: str | None, runs: list[Run], *, past: bool = False) -> Table:
    """Runs as rows of counts; `past` ones also with when they started, who asked and their id."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("Started (UTC)", "Trigger", "SyncId") if past else ():
        table.add_column(column, no_wrap=True)
    for column in ("Service", "Status"):
        table.add_column(column)
    for column in ("Inserted", "Updated", "Deleted", "Skipped", "Milliseconds"):
        table.add_column(column, justify="right")
    for run in runs:
        counts = run.counts
        told = (
            f"{run.started_at:%Y-%m-%d %H:%M:%S}",
            run.trigger + (", forced" if run.forced else ""),
            run.sync_id,
        )
        numbers = (counts.inserted, counts.updated, counts.deleted, counts.skipped, run.duration_ms or 0)
        table.add_row(*(told if past else ()), run.service, run.status, *map(str, numbers))
    return table


@contextmanager
def _progress(registry: Registry, service: str) -> Iterator[Told]:
    """On a terminal a bar for each service; elsewhere the log's lines are enough."""
    if not err.is_terminal:
        yield no_progress
        return
    logging.getLogger("backup").setLevel(logging.WARNING)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        tasks = {name: bars.add_task(name, total=_source_count(registry, name)) for name in registry.chosen(service)}

        def told(name: str, counts: Counts) -> None:
            bars.update(tasks[name], completed=counts.seen - counts.deleted)

        yield told


def _source_count(registry: Registry, name: str) -> int | None:
    try:
        return registry.get(name).count()
    except BackupError:
        return None  # the run itself will say why


if __name__ == "__main__":
    main()
