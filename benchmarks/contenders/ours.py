"""This product: `SyncService.sync`, through the registry that HTTP, timer and command line use."""

from __future__ import annotations

from benchmarks.contenders.base import Contender
from benchmarks.jobs import EngineName, Job, Place, Work


class Ours(Contender):
    """With the default settings, except where the two sides are."""

    name = "ours"
    undoes = True

    def cannot(self, engine: EngineName, workload: str) -> str | None:
        return "is measured on SQL alone" if (engine, workload) == ("cosmos", "undo") else None

    def prepare(self, job: Job) -> Work:
        from backup.config.settings import load_settings
        from backup.core.log import quiet_libraries
        from backup.core.run_values import Trigger
        from backup.services.registry import Registry
        from backup.services.service import Options

        quiet_libraries()
        registry = Registry(load_settings(self.settings(job.place)))
        name = job.place.service
        for side in ("source", "backup"):  # imports the drivers; before the first copy the backup does not answer
            registry.get(name).ping("source" if side == "source" else "backup")
        options = Options(force=job.task == "force")
        [last] = registry.get(name).past.history(1) if job.task == "undo" else [None]

        def work() -> None:
            if job.task == "copy":
                registry.get(name).initialize()
            if last is None:
                [outcome] = registry.sync(name, Trigger.CLI, options)
            else:
                outcome = registry.get(name).undo(last.sync_id)
            if outcome.error is not None:
                raise outcome.error

        return work

    def settings(self, place: Place) -> dict[str, str]:
        """Returns the settings with which it works."""
        return settings(place)


def settings(place: Place) -> dict[str, str]:
    """Returns the settings for the place alone. On Cosmos DB a night lasts seconds, so the overlap is 1 second."""
    values = {"BackupSync__OverlapSeconds": "1"} if place.engine == "cosmos" else {}
    for side, connection, table in (
        ("Source", place.source, place.source_table),
        ("Backup", place.backup, place.backup_table),
    ):
        prefix = f"{side}{place.service.title()}Db"
        values[f"{prefix}__ConnectionString"] = connection
        if place.engine == "cosmos":
            database, _, container = table.partition("/")
            values |= {f"{prefix}__DatabaseName": database, f"{prefix}__ContainerName": container}
        else:
            values[f"{prefix}__Table"] = table
    return values
