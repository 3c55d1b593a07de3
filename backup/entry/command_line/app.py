"""The command line's commands, in groups by job, and how the program starts and ends.

Results go to standard output, logs and progress to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from typing import Annotated

import typer

from backup import __version__
from backup.core import interrupts
from backup.core.errors import Interrupted
from backup.core.log import quiet_libraries
from backup.entry.command_line import copying, developing, looking, taking_back, working
from backup.entry.command_line.configuration import choose
from backup.entry.command_line.log_lines import hold_logs, let_go
from backup.entry.command_line.options import Config
from backup.entry.command_line.terminal import say, show_trouble
from backup.entry.streams import flush, let_readers_leave

_HELP = """Keeps queryable mirrors of live databases, with all that they replace.

Settings come from the environment, and from local.settings.json in the current folder or the file of --config."""

_COMMANDS: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "Back up": {
        "initialize": copying.initialize_command,
        "sync": copying.sync_command,
        "verify": copying.verify_command,
        "purge": copying.purge_command,
        "work": working.work_command,
    },
    "Look": {
        "history": looking.history_command,
        "show": looking.show_command,
        "changes": looking.changes_command,
        "health": looking.health_command,
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
"""Every command, by its job and its name, in the order in which help lists them."""

cli = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _job, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        cli.command(_name, rich_help_panel=_job)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"backup {__version__}")
        raise typer.Exit


@cli.callback()
def common_options(
    config: Config = None,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Takes what stands before a command."""
    choose(config)


def run() -> None:
    """Runs the command line; a signal ends what runs within seconds, and its number tells in the exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of few characters is no reason to fail
    let_readers_leave()
    hold_logs()
    quiet_libraries()
    with interrupts.handled(_tell_of_the_end):
        try:
            cli()
        finally:
            let_go()
            flush()
            code = interrupts.exit_code()
            if code is not None:
                os._exit(code)  # without waiting for threads whose servers do not answer


def _tell_of_the_end() -> None:
    let_go()
    show_trouble("", str(Interrupted()), "")
