"""The command line: `python -m backup …`. Results go to standard output, logs and progress to standard error."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # what is imported next takes a moment, in which nothing has been done yet
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))

import logging
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from backup.config.settings import load_settings, use_local_settings
from backup.core import interrupts
from backup.core.errors import Interrupted
from backup.core.log import quiet_libraries
from backup.core.model import Trigger
from backup.dev import sample
from backup.dev.demo import FILES, run_demo
from backup.entry import http
from backup.entry.requests import moment_of
from backup.entry.streams import flush, let_readers_leave
from backup.entry.terminal import (
    err,
    errors_shown,
    out,
    print_answer,
    print_lines,
    progress_bars,
    runs_of,
    runs_table,
    show_health,
    show_history,
    show_outcomes,
    show_past,
    show_verified,
)
from backup.mirror.comparison import Depth
from backup.services.registry import Registry
from backup.services.service import Options
from backup.verbs.restoring import Wish

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Service = Annotated[str, typer.Argument(help="all, customer or order")]
One = Annotated[str, typer.Argument(help="customer or order")]
Yes = Annotated[bool, typer.Option("--yes", help="Write; without it the command only says what would change")]
AllowMassDelete = Annotated[bool, typer.Option("--allow-mass-delete", help="Let this run pass the delete guard")]
Moment = Annotated[str | None, typer.Option("--at", metavar="TIME", help="ISO 8601 with offset: 2026-11-20T00:00:00Z")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what HTTP would answer, and nothing else")]


@cli.command("initialize")
def initialize_command(as_json: AsJson = False) -> None:
    """Create the backup databases, schemas, tables and containers; safe to repeat."""
    with errors_shown(as_json):
        answer = http.initialize(_registry())
        print_answer(answer, as_json, lambda: print_lines(answer))


@cli.command("sync")
def sync_command(
    service: Service = "all",
    force: Annotated[bool, typer.Option("--force", help="Copy every common record, changed or not")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count and name what would change")] = False,
    allow_mass_delete: AllowMassDelete = False,
    as_json: AsJson = False,
) -> None:
    """Sync one service or all of them and show the counts."""
    with errors_shown(as_json):
        registry = _registry()
        with progress_bars(registry, service) as progress:
            outcomes = registry.sync(service, Trigger.CLI, Options(force, dry_run, allow_mass_delete), progress)
        print_answer(http.shape_syncs(outcomes), as_json, lambda: show_outcomes(None, outcomes))


@cli.command("verify")
def verify_command(
    service: Service = "all",
    full: Annotated[bool, typer.Option("--full", help="Compare whole records, all of them")] = False,
    sample: Annotated[int, typer.Option(min=0, max=1_000_000, help="Compare also this many random records whole")] = 0,
    drill: Annotated[bool, typer.Option("--drill", help="Restore into a scratch place and compare that")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare source and backup and name what differs; exit code 1 when anything does."""
    with errors_shown(as_json):
        outcomes = _registry().verify(service, Depth(full, sample), drilled=drill)
        answer = http.shape_verifies(outcomes) if service.lower() == "all" else http.shape_verify(outcomes[0])
        print_answer(answer, as_json, lambda: show_verified(outcomes))
        if not answer.body["Verified"]:
            raise typer.Exit(1)


@cli.command("undo")
def undo_command(
    sync_id: Annotated[str, typer.Argument(help="The run, as `history` names it")],
    through: Annotated[bool, typer.Option("--through", help="Undo all later runs as well, newest first")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make the backup what it was before a run."""
    with errors_shown(as_json):
        registry = _registry()
        service = registry.with_run(sync_id)
        with progress_bars(registry, service.name) as progress:
            outcome = service.undo(sync_id, through=through, dry_run=not yes, progress=progress)
        print_answer(http.shape_one(outcome), as_json, lambda: show_outcomes(_preview(yes), [outcome]))


@cli.command("restore")
def restore_command(
    service: One,
    at: Moment = None,
    key: Annotated[list[str] | None, typer.Option(help="Only this record; may be given several times")] = None,
    to: Annotated[str | None, typer.Option(metavar="CONNECTION", help="Another database than the source")] = None,
    overwrite_newer: Annotated[
        bool, typer.Option("--overwrite-newer", help="Also records that are newer than their copy")
    ] = False,
    delete_extra: Annotated[bool, typer.Option("--delete-extra", help="Delete what the backup does not have")] = False,
    allow_mass_delete: AllowMassDelete = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change, also with --yes")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Write the backup's state, now or as of a time, into the source or another database."""
    with errors_shown(as_json):
        registry = _registry()
        wish = Wish(None if at is None else moment_of(at), tuple(key or ()), overwrite_newer, delete_extra)
        writes = yes and not dry_run
        options = Options(dry_run=not writes, allow_mass_delete=allow_mass_delete)
        with progress_bars(registry, service) as progress:
            outcome = registry.get(service).restore(wish, options, to, progress)
        print_answer(http.shape_one(outcome), as_json, lambda: show_outcomes(_preview(writes), [outcome]))


@cli.command("show")
def show_command(
    service: One,
    key: Annotated[str, typer.Argument(help="Its key; a JSON list where the key has several parts")],
    at: Moment = None,
    as_json: AsJson = False,
) -> None:
    """Show one record's past: what it was, when it changed, by which run."""
    with errors_shown(as_json):
        moment = None if at is None else moment_of(at)
        shown = _registry().get(service).show(key, moment)
        print_answer(http.shape_past(shown), as_json, lambda: show_past(shown, moment))


@cli.command("history")
def history_command(
    service: Service = "all",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many runs of each service")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the latest runs, newest first."""
    with errors_shown(as_json):
        registry = _registry()
        runs = runs_of(registry, registry.chosen(service), limit)
        print_answer(http.shape_history(runs), as_json, lambda: show_history(runs))


@cli.command("health")
def health_command(as_json: AsJson = False) -> None:
    """Ask every source and backup, and say how the last syncs ended; exit code 1 when all is not well."""
    with errors_shown(as_json):
        state = http.look(_registry)
        print_answer(http.shape_health(state), as_json, lambda: show_health(state))
        if state.status != "Healthy":
            raise typer.Exit(1)


@cli.command("serve")
def serve_command(port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 7071) -> None:
    """Serve function_app.py on 127.0.0.1 without Core Tools; asks for no key unless SERVE_KEY is set."""
    from backup.dev.host import serve as serve_app

    with errors_shown(False):
        _registry_hint()
        serve_app(Path.cwd(), port, load_settings().serve_key)
        interrupts.request(signal.SIGTERM)  # for runs that still go on
        interrupts.wait_until_idle()
        flush()
        os._exit(0)


@cli.command(name="sample")
def fill_sample() -> None:
    """Fill the configured, empty sources with sample customers and orders."""
    with errors_shown(False):
        for name, count in sample.fill(_registry()).items():
            out.print(f"{name}: {count} records")


@cli.command("demo")
def demo_command(
    folder: Annotated[Path, typer.Option(help="Where its databases lie; made anew each time")] = Path("data/demo"),
) -> None:
    """Sync two embedded databases four times and show what each run did."""
    logging.getLogger("backup").setLevel(logging.WARNING)
    with errors_shown(False):
        registry = run_demo(folder, show_outcomes)
        out.print(runs_table("The last rows of SyncHistory", runs_of(registry, registry.names(), 4), past=True))
        out.print(f"The databases, with SyncHistory in the backups, lie in {folder}/: {', '.join(FILES.values())}")


def _preview(writes: bool) -> str | None:
    return None if writes else "Nothing was written. This would change; --yes writes it:"


def main() -> None:
    """Runs the command line; a signal ends what runs within seconds, and its number tells in the exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of few characters is no reason to fail
    let_readers_leave()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    quiet_libraries()
    with interrupts.handled(lambda: err.print(f"{Interrupted()}")):
        try:
            cli()
        finally:
            flush()
            code = interrupts.exit_code()
            if code is not None:
                os._exit(code)  # without waiting for threads whose servers do not answer


def _registry() -> Registry:
    use_local_settings(Path.cwd())
    # Whoever waits for it wants to hear of a wrong port at once; a second try rides out a server's restart.
    return Registry(load_settings(), unanswered_attempts=2)


def _registry_hint() -> None:
    if not _registry().names():
        err.print(
            "No service is configured yet: set what docs/configuration.md lists, or copy local.settings.json.example."
        )


if __name__ == "__main__":
    main()
