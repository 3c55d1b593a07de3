"""All commands, grouped by job; and how the program starts and ends.

Results go to standard output, logs and progress to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from backup import __version__
from backup.core import interrupts
from backup.core.errors import Interrupted
from backup.core.log import quiet_libraries
from backup.entry.command_line import (
    copying,
    developing,
    examining,
    exporting,
    glance,
    granting,
    looking,
    notifying,
    planning,
    taking_back,
    working,
)
from backup.entry.command_line.configuration import choose
from backup.entry.command_line.log_lines import hold_logs, release_logs
from backup.entry.command_line.options import Config
from backup.entry.command_line.terminal import say, show_trouble
from backup.entry.streams import failure_of_output, flush_streams, open_closed_streams, outlive_readers
from backup.jobs.job_queue import close_job_queues
from backup.notify.delivery import wait_for_delivery

_HELP = (
    "Keeps queryable mirrors of live databases, and every record that a run overwrites or deletes.\n\n"
    "Settings come from the environment. Settings that it does not have come from local.settings.json in the current "
    "folder, or from the file that --config names."
)

_COMMANDS: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "Set up": {
        "init": planning.init_command,
        "plan": planning.plan_command,
        "grant": granting.grant_command,
        "initialize": copying.initialize_command,
        "doctor": examining.doctor_command,
        "export-config": exporting.export_config_command,
    },
    "Back up": {
        "sync": copying.sync_command,
        "verify": copying.verify_command,
        "purge": copying.purge_command,
        "work": working.work_command,
        "notify": notifying.notify_command,
    },
    "Look": {
        "overview": glance.overview_command,
        "health": looking.health_command,
        "history": looking.history_command,
        "changes": looking.changes_command,
        "show": looking.show_command,
    },
    "Take back": {
        "undo": taking_back.undo_command,
        "restore": taking_back.restore_command,
    },
    "Try and develop": {
        "demo": developing.demo_command,
        "sample": developing.sample_command,
        "serve": developing.serve_command,
    },
}
"""Every command by its job and its name, in the order of the help text."""

_DELIVERY_SECONDS = 15.0
"""How long a command waits at its end for sinks. What they do not take until then waits in the outbox."""


def _without_types(params: list[Any]) -> list[Any]:
    """The parameters, so that help shows `--json` for a flag, and not `--json <bool>`."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class _Command(TyperCommand):
    """A command whose help names no type of flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    """All commands; its help names no type of flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


cli = typer.Typer(
    cls=_Group,
    help=_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _job, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        cli.command(_name, cls=_Command, rich_help_panel=_job)(_command)


_STILL_DONE = "What the command did is done all the same; `python -m backup history` says what."


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"backup {__version__}")
        raise typer.Exit


@cli.callback()
def common_options(
    config: Config = None,
    version: Annotated[  # noqa: ARG001 - the callback uses it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Takes the options that stand before a command."""
    choose(config)


def run() -> None:
    """Runs the command line. A signal stops the command within seconds; the exit code is then 128 + its number. It is 1
    if standard output has not taken all results."""
    open_closed_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a character must fail no command
    outlive_readers()
    hold_logs()
    quiet_libraries()
    with interrupts.handled(_show_interrupted):
        try:
            cli()
        finally:
            if not interrupts.requested():
                wait_for_delivery(_DELIVERY_SECONDS)
            close_job_queues()
            release_logs()
            flush_streams()
            code = interrupts.exit_code()
            if code is not None:
                os._exit(code)  # does not wait for threads whose servers do not answer
            if reason := failure_of_output():
                show_trouble("", f"Standard output has not taken all results: {reason}.", _STILL_DONE)
                sys.exit(1)


def _show_interrupted() -> None:
    release_logs()
    show_trouble("", str(Interrupted()), "")
