"""This product where an index on `ModifiedAt` says what was written lately. Take part only by name."""

from __future__ import annotations

from contextlib import closing

from benchmarks import drivers
from benchmarks.contenders.ours import Ours, settings
from benchmarks.jobs import EngineName, Job, Place, Work


class Hinted(Ours):
    """Names `ModifiedAt` as the column that writes raise. Its index is made before the first copy, untimed."""

    name = "modified-by"

    def cannot(self, engine: EngineName, workload: str) -> str | None:
        if engine in ("sqlite", "postgresql"):
            return super().cannot(engine, workload)
        return "its index is made on SQLite and PostgreSQL alone"

    def prepare(self, job: Job) -> Work:
        place = job.place
        if job.task == "copy":
            index, table, column = (
                drivers.quoted(place.engine, name) for name in ("bench_modified", place.source_table, "ModifiedAt")
            )
            with closing(drivers.connect(place.engine, place.source)) as connection:
                drivers.run(connection, f"CREATE INDEX IF NOT EXISTS {index} ON {table} ({column})")
        return super().prepare(job)

    def settings(self, place: Place) -> dict[str, str]:
        return settings(place) | {f"Source{place.service.title()}Db__ModifiedBy": "ModifiedAt"}


class HintedWeekly(Hinted):
    """As `Hinted`, and compares everything once a week: between first copy and turn only numbers are compared."""

    name = "modified-by-weekly"

    def settings(self, place: Place) -> dict[str, str]:
        return super().settings(place) | {f"Source{place.service.title()}Db__FullEveryDays": "7"}
