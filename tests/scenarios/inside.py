"""The command line without a process of its own: what a test of many commands can afford."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from backup.config.settings import load_settings
from backup.core.model import Run, Trigger
from backup.dev import sample
from backup.entry.command_line.app import cli
from backup.services.registry import Registry
from tests.scenarios.places import Place, Service
from tests.scenarios.product import Counts, Ended, counts, environment


def command(folder: Path, settings: Mapping[str, str], *arguments: str) -> Ended:
    """Runs `python -m backup …` to its end, in this process but with the environment and folder of its own."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(cli, arguments, env={"COLUMNS": None, **environment(settings)})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def done(ended: Ended) -> dict[str, Any]:
    """The answer of a command that ran well."""
    assert ended.code == 0, ended.out + ended.err
    return ended.json


def refused(ended: Ended) -> tuple[str, str]:
    """The error of a command that did not, and its message with its hint."""
    assert ended.code == 1, ended.out
    answer = ended.json
    assert not answer["Success"]
    return answer["Error"], f"{answer.get('Message')} {answer.get('Hint')}"


def counted(answer: Mapping[str, Any]) -> Counts:
    """What the one run of an answer did."""
    [found] = counts([answer]).values()
    return found


def named(answer: Mapping[str, Any]) -> dict[Any, str]:
    """What an answer says would become of each key; a key of one part without its list, others as JSON."""
    return {
        change["Key"][0] if len(change["Key"]) == 1 else json.dumps(change["Key"]): change["Change"]
        for change in answer["Changes"]
    }


def alone(service: Service) -> Place:
    """A place whose only service this is, filled with its sample, its backup made."""
    place = Place(service, service)
    place.fill()
    return place


def few_orders(service: Service) -> Place:
    """The same with a dozen orders: what a test on a server can afford."""
    place = Place(service, service)
    revised(place, *range(1, 13), revision=1)
    place.initialize()
    return place


def raised(place: Place, *numbers: int, version: int = 2) -> None:
    """Gives customers of the source a higher version, which has other values; those that are new are added."""
    sample.put(place.registry, "customer", (sample.customer(n, version) for n in numbers))


def revised(place: Place, *numbers: int, revision: int = 2) -> None:
    """The same of orders."""
    sample.put(place.registry, "order", (sample.order(n, revision) for n in numbers))


def remove(place: Place, service: str, *keys: str) -> None:
    """Deletes records of the source."""
    with place.registry.get(service).stores() as (source, _):
        source.delete([source.keys.from_text(key) for key in keys])


def synced(place: Place, service: str, **settings: str) -> Run:
    """A sync that ran well."""
    registry = Registry(load_settings({**place.settings, **settings}))
    [outcome] = registry.sync(service, Trigger.CLI)
    assert outcome.error is None, outcome.error
    return outcome.run
