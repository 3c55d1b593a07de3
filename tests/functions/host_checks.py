"""Finds what the Functions host refuses though the worker, which indexes the app, does not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import azure.functions as func

from backup.config.ncrontab import next_due
from backup.core.errors import ConfigError

BUNDLE_VERSION = "[4.*, 5.0.0)"


def problems(app: func.FunctionApp, host: dict[str, Any], settings: dict[str, str]) -> list[str]:
    """One line for each mistake in the app, host.json or the documented settings; none if all is well.

    `settings` are the Values of local.settings.json.example: what a binding names must stand there.
    """
    triggers: dict[str, dict[str, Any]] = {}
    mistakes: list[str] = []
    for function in app.get_functions():
        name = str(function.get_function_name())
        bindings = [json.loads(binding) for binding in function.get_raw_bindings()]
        triggers[name] = next(binding for binding in bindings if binding["type"].endswith("Trigger"))
        mistakes += [f"{name}: {problem}" for problem in _of_bindings(bindings, settings)]
    mistakes += _of_names(list(triggers))
    mistakes += _of_routes({name: binding for name, binding in triggers.items() if binding["type"] == "httpTrigger"})
    mistakes += [
        f"{name}: {problem}"
        for name, binding in triggers.items()
        if binding["type"] == "timerTrigger"
        for problem in _of_timer(binding, settings)
    ]
    if host.get("version") != "2.0":
        mistakes.append('host.json: version is not "2.0"')
    if host.get("extensionBundle", {}).get("version") != BUNDLE_VERSION:
        mistakes.append(f"host.json: the extension bundle is not {BUNDLE_VERSION}")
    return mistakes


def _of_bindings(bindings: list[dict[str, Any]], settings: dict[str, str]) -> Iterator[str]:
    for binding in bindings:
        for setting in re.findall(r"%([^%]+)%", json.dumps(binding)):
            if setting not in settings:
                yield f"the setting {setting} is not documented"
        connection = binding.get("connection")
        # a connection is one setting, or the parts of an identity: Name__accountName, Name__credential …
        if connection and not any(
            documented == connection or documented.startswith(f"{connection}__") for documented in settings
        ):
            yield f"the connection {connection} is not documented"


def _of_names(names: list[str]) -> Iterator[str]:
    for name in names:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,127}", name, re.I) or name.lower() == "host":
            yield f"{name}: is not a valid function name"
    for first, second in combinations(names, 2):
        if first.lower() == second.lower():
            yield f"{first} and {second}: names differ only in case"


def _of_routes(triggers: dict[str, dict[str, Any]]) -> Iterator[str]:
    def route(name: str, *, as_written: bool = False) -> str:
        written = (triggers[name].get("route") or name).strip("/").lower()
        # {id} and {name} match the same; the host compares more narrowly, and then serves one of the two
        return written if as_written else re.sub(r"\{[^}]*\}", "{}", written)

    for name in triggers:
        if route(name).startswith(("admin", "runtime")):
            yield f"{name}: routes that begin with admin or runtime are the host's"
        if re.search(r"\{\*[^}]*\}.", route(name, as_written=True)):
            yield f"{name}: only the last part of a route may be {{*rest}}"
    for first, second in combinations(triggers, 2):
        methods = [set(triggers[name].get("methods") or ()) for name in (first, second)]
        every = not all(methods)  # no methods means every method
        if route(first) == route(second) and (every or methods[0] & methods[1]):
            yield f"{first} and {second}: the same route and method"
        for longer, shorter in ((first, second), (second, first)):
            rest = re.fullmatch(r"(.*)/\{\*\w+\}", route(longer, as_written=True))
            # The host tries longer routes first, and what {*rest} takes may be empty.
            if rest is not None and rest[1] == route(shorter, as_written=True) and (every or methods[0] & methods[1]):
                yield f"{longer}: takes the requests of {shorter}, without a :minlength(1)"


def _of_timer(trigger: dict[str, Any], settings: dict[str, str]) -> Iterator[str]:
    schedule = re.sub(r"%([^%]+)%", lambda match: settings.get(match[1], match[0]), trigger["schedule"])
    try:
        if "%" not in schedule:  # otherwise its setting is not documented, which is said already
            next_due(schedule, datetime.now(UTC))
    except ConfigError as error:
        yield str(error)
    if trigger.get("runOnStartup"):
        yield "runOnStartup runs it whenever an instance starts, also to scale out"
