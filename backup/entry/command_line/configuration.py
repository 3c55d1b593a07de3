"""Which file of settings a command reads, and the services that it configures."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path

from backup.config.environment import current_folder, use_local_settings
from backup.config.settings import Settings, load_settings
from backup.entry.record_concerns import concerns_by_records
from backup.entry.telemetry_switch import switch_on
from backup.jobs.job_queue import job_queue_of
from backup.notify.after_runs import watcher_of
from backup.runs.condition import Concern
from backup.services.registry import Registry

UNANSWERED_ATTEMPTS = 2
"""How often a command tries a call to an address where nothing listens. A person who waits wants to hear of a wrong
port at once; the second try is for a server that restarts."""

_chosen: ContextVar[Path | None] = ContextVar("the file named before the command", default=None)


def choose(path: Path | None) -> None:
    """Sets the file of settings for commands that name none; None: the current folder's local.settings.json, if any."""
    _chosen.set(path)


def settings_from(path: Path | None) -> Settings:
    """The settings of the environment, and those of the file that the environment does not have.

    `path` None: the file that `choose` set, else local.settings.json of the current folder. Raises ConfigError for a
    named file that does not exist, a file that cannot be read, and a setting that cannot be used.
    """
    named = path or _chosen.get()
    if named is not None and named.is_dir():
        named /= "local.settings.json"
    use_local_settings(named or current_folder())
    return load_settings()


def open_registry(path: Path | None) -> Registry:
    """The services that the settings configure."""
    settings = settings_from(path)
    switch_on(lambda: settings)
    return Registry(settings, UNANSWERED_ATTEMPTS, watcher=watcher_of(settings, job_queue_of(settings)))


def concerns_here(path: Path | None, registry: Registry) -> list[Concern]:
    """What is not well by the records of runs: silent services, differences, and sinks that take no events."""
    settings = settings_from(path)
    return concerns_by_records(settings, job_queue_of(settings), registry.directory.entries)
