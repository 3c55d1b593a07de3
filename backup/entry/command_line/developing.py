"""Commands to try the app and to develop it: demo, sample, serve."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from backup.config.environment import current_folder
from backup.core import interrupts
from backup.core.errors import ConfigError
from backup.core.model import utc_now
from backup.core.suggestions import quantity
from backup.dev import sample
from backup.dev.demo import FILES, run_demo
from backup.dev.demo_set import SHOP_FILES, run_demo_of_a_set
from backup.entry.command_line.configuration import open_registry, settings_from
from backup.entry.command_line.log_lines import release_logs
from backup.entry.command_line.options import Config
from backup.entry.command_line.outcomes import show_outcomes
from backup.entry.command_line.past import show_history
from backup.entry.command_line.terminal import errors_shown, say, show_trouble
from backup.entry.command_line.working import working_on_jobs
from backup.entry.streams import flush_streams
from backup.jobs.job_queue import close_job_queues


def serve_command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one")] = 7071,
    config: Config = None,
) -> None:
    """Serve function_app.py on 127.0.0.1, without Core Tools.

    Requests need no key, unless SERVE_KEY is set.
    """
    with errors_shown(False):
        folder = current_folder()
        if not (folder / "function_app.py").exists():
            raise ConfigError(
                f"There is no function_app.py in {folder}: serve runs the function app of the current folder.",
                hint="Run serve in the folder of the project. All other commands run in any folder.",
            )
        from backup.dev.host import serve as serve_app

        if not open_registry(config).directory.names():
            show_trouble(
                "",
                "No service is configured yet: set what docs/configuration.md lists, or copy "
                "local.settings.json.example.",
                "",
            )
        release_logs()
        settings = settings_from(config)
        # With a storage account the local host reads its queue, as the Functions host does.
        with nullcontext() if settings.has_storage_account else working_on_jobs(settings):
            serve_app(folder, port, settings.serve_key)
            interrupts.request(signal.SIGTERM)  # for runs that have not ended
        interrupts.wait_until_idle()
        close_job_queues()
        flush_streams()
        os._exit(0)


def sample_command(config: Config = None) -> None:
    """Fill the configured sources with sample customers and orders.

    The sources must be empty.
    """
    with errors_shown(False):
        for name, count in sample.fill(open_registry(config)).items():
            say(f"{name}: {quantity(count, 'record')}")


def demo_command(
    folder: Annotated[Path, typer.Option(help="Folder for its databases, which it replaces")] = Path("data/demo"),
) -> None:
    """Sync two embedded databases four times and then a set of six tables, and show what each run did."""
    logging.getLogger("backup").setLevel(logging.WARNING)
    with errors_shown(False):
        registry = run_demo(folder, show_outcomes)
        run_demo_of_a_set(folder, show_outcomes)
        say("The last rows of SyncHistory", "bold")
        runs = [run for name in registry.directory.names() for run in registry.get(name).past.history(4)]
        show_history(sorted(runs, key=lambda run: run.started_at, reverse=True), utc_now())
        files = ", ".join((*FILES.values(), *SHOP_FILES))
        say(f"The databases, with SyncHistory in the backups, lie in {folder}/: {files}")
