"""The demo: four syncs between embedded databases, and what each sync did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from backup.config.settings import load_settings
from backup.core.errors import ConfigError
from backup.core.run_values import Trigger
from backup.dev import sample
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.services.service import Options

FILES = {
    "SourceCustomerDb__ConnectionString": "customers.db",
    "BackupCustomerDb__ConnectionString": "customers_backup.db",
    "SourceOrderDb__ConnectionString": "orders.db",
    "BackupOrderDb__ConnectionString": "orders_backup.db",
}


def demo_registry(folder: Path) -> Registry:
    """Returns services on SQLite files in the folder."""
    return Registry(load_settings({name: f"sqlite:///{(folder / file).as_posix()}" for name, file in FILES.items()}))


def run_demo(folder: Path, show: Callable[[str, list[Outcome]], None]) -> Registry:
    """Makes the databases again, runs the four syncs and shows each with its title; returns the services.

    Removes only files with the demo's own names from the folder. Raises ConfigError if there can be no such folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} cannot be made: {error.strerror}.",
            hint="Name one in a place where you may write: demo --folder FOLDER.",
        ) from None
    for file in FILES.values():
        (folder / file).unlink(missing_ok=True)
    registry = demo_registry(folder)
    sample.fill(registry)
    for name in registry.directory.names():
        registry.get(name).initialize()

    def sync(title: str, force: bool = False) -> None:
        show(title, registry.sync("all", Trigger.CLI, Options(force)))

    sync("1. First sync: 100 customers and 55 orders are new")
    change_sources(registry)
    sync("2. After 5 customers updated, 3 deleted; 3 orders updated, 2 added")
    sync("3. Forced: every common record is copied again", force=True)
    sync("4. Nothing changed: everything is skipped")
    return registry


def change_sources(registry: Registry) -> None:
    """Updates 5 customers and 3 orders, deletes 3 customers, adds 2 orders."""
    sample.put(registry, "customer", (sample.customer(n, version=2) for n in range(1, 6)))
    sample.put(registry, "order", (sample.order(n, revision=2) for n in range(1, 4)))
    sample.put(registry, "order", (sample.order(n) for n in _new_orders()))
    with registry.get("customer").stores() as (source, _):
        source.delete([(n,) for n in (98, 99, 100)])


def _new_orders() -> Iterable[int]:
    last = sample.SAMPLES["order"].count
    return range(last + 1, last + 3)
