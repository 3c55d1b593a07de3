"""Runs the command line inside the test's process: cheap enough for tests of many commands."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from backup.config.settings import load_settings
from backup.core.run_values import Run, Trigger
from backup.dev import sample
from backup.entry.command_line.app import cli
from backup.services.registry import Registry
from tests.scenarios.places import Place, Service, folder_of, with_files
from tests.scenarios.product import Counts, Ended, counts, environment


def command(folder: Path, settings: Mapping[str, str], *arguments: str) -> Ended:
    """Runs a command of `python -m backup` to its end, in this process, with its own environment and folder."""
    code, commands, runner = 0, _commands(), CliRunner()
    streams = runner.isolation(env={"COLUMNS": None, **environment(settings)})
    with contextlib.chdir(folder), streams as (out, err, _):
        try:
            commands.main(arguments, runner.get_default_prog_name(commands))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else bool(ended.code)
        sys.stdout.flush()
        sys.stderr.flush()
        return Ended(code, out.getvalue().decode(), err.getvalue().decode())


@cache
def _commands() -> Any:
    """What the runner would make anew of the functions of all commands each time, which takes longer than most."""
    return get_command(cli)


def done(ended: Ended) -> dict[str, Any]:
    """The JSON answer of a command; asserts that the command succeeded."""
    assert ended.code == 0, ended.out + ended.err
    return ended.json


def refused(ended: Ended) -> tuple[str, str]:
    """The kind of the error of a command, and its message with its hint; asserts that the command failed."""
    assert ended.code == 1, ended.out
    answer = ended.json
    assert not answer["Success"]
    return answer["Error"], f"{answer.get('Message')} {answer.get('Hint')}"


def counted(answer: Mapping[str, Any]) -> Counts:
    """The counts of an answer that is about one run."""
    [run_counts] = counts([answer]).values()
    return run_counts


def named(answer: Mapping[str, Any]) -> dict[Any, str]:
    """The change of each key in an answer. A key of one part is that part; other keys are JSON."""
    return {
        change["Key"][0] if len(change["Key"]) == 1 else json.dumps(change["Key"]): change["Change"]
        for change in answer["Changes"]
    }


def alone(service: Service) -> Place:
    """A place with only this service, filled with the sample; its backup is initialized."""
    place = Place(service, service)
    place.fill()
    return place


def few_orders(service: Service) -> Place:
    """A place with only this service and a dozen orders, for tests on a slow server; its backup is initialized."""
    place = Place(service, service)
    revised(place, *range(1, 13), revision=1)
    place.initialize()
    return place


def raised(place: Place, *numbers: int, version: int = 2) -> None:
    """Writes customers of a higher version, which have other values, to the source; inserts those that it lacks."""
    sample.put(place.registry, "customer", (sample.customer(n, version) for n in numbers))


def revised(place: Place, *numbers: int, revision: int = 2) -> None:
    """Writes orders of a higher revision, which have other values, to the source; inserts those that it lacks."""
    sample.put(place.registry, "order", (sample.order(n, revision) for n in numbers))


def remove(place: Place, service: str, *keys: str) -> None:
    """Deletes records from the source."""
    with place.registry.get(service).stores() as (source, _):
        source.delete([source.keys.from_text(key) for key in keys])


def first_synced(place: Place, service: str) -> Run:
    """What `synced` does first with a service in SQLite files that nobody has touched; made once for all tests."""
    folder = folder_of(getattr(place, service))
    return with_files(folder, f"the first sync of the {service}s", lambda: synced(place, service))


def synced(place: Place, service: str, **settings: str) -> Run:
    """Syncs the service, and returns the run; asserts that it did not fail."""
    registry = Registry(load_settings({**place.settings, **settings}))
    [outcome] = registry.sync(service, Trigger.CLI)
    assert outcome.error is None, outcome.error
    return outcome.run


def a_week(place: Place) -> tuple[Run, Run]:
    """A first copy and a run that inserted one record, updated two and deleted three; keys have one to three digits."""

    def make() -> tuple[Run, Run]:
        first = synced(place, "customer")
        raised(place, 2, 10, 101)
        remove(place, "customer", "3", "11", "12")
        return first, synced(place, "customer")

    return with_files(folder_of(place.customer), "a week", make)
