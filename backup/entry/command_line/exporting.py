"""The command export-config: prints the configuration in effect, without its secrets."""

from __future__ import annotations

from typing import Annotated

import typer

from backup.config.exported import default_texts, exported_settings, exported_toml, secret_settings
from backup.config.settings import given_settings
from backup.core.errors import ConfigError
from backup.entry.command_line.configuration import settings_from
from backup.entry.command_line.options import Config
from backup.entry.command_line.terminal import errors_shown, show_trouble

_SETS = ("BACKUP_CONFIG", "BACKUP_TOML")


def export_config_command(
    toml: Annotated[bool, typer.Option("--toml", help="Print backup.toml alone")] = False,
    every: Annotated[bool, typer.Option("--all", help="Also settings that have their default")] = False,
    config: Config = None,
) -> None:
    """Print the configuration in effect without secrets, to set up another machine.

    It is a file like local.settings.json, with backup.toml in it. Each connection string and each secret is a reference
    such as ${SourceCustomerDb__ConnectionString}: set that variable on the other machine.
    """
    with errors_shown(False):
        settings_from(config)  # what cannot be used is not worth to be carried on
        given, sets = given_settings()
        if toml:
            if sets is None:
                raise ConfigError("There is no backup.toml.", hint="Without --toml the command prints the settings.")
            exported = exported_toml(sets.text)
        else:
            values = {**(default_texts() if every else {}), **given}
            named = {name: value for name, value in values.items() if name not in _SETS}
            exported = exported_settings(named, secret_settings() & given.keys(), sets and sets.text)
        print(exported.text, end="")
        if exported.variables:
            show_trouble("", "To be set on the other machine: " + ", ".join(exported.variables), "")
