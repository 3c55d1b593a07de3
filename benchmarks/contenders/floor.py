"""The floor: the least that the driver needs for a part of the work. Makes no backup; each part is a turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from benchmarks import drivers
from benchmarks.contenders.base import Contender
from benchmarks.data import NAMES, customers, order
from benchmarks.jobs import EngineName, Job, OwnMeasures, Place, Work
from benchmarks.orders import container, drop_container, preload

_READS = {
    "count": "SELECT COUNT(*) FROM {table}",
    "sums": "SELECT COUNT(*), SUM({version}) FROM {table}",
    "stamps": "SELECT {key}, {version} FROM {table}",
    "rows": "SELECT {columns} FROM {table}",
}
_QUERIES = {
    "count": ("SELECT VALUE COUNT(1) FROM c",),
    "sums": ("SELECT VALUE COUNT(1) FROM c", "SELECT VALUE SUM(c._ts) FROM c"),
    "stamps": ("SELECT c.id, c.customerId, c.lastModified, c.status, c._etag FROM c",),
    "rows": ("SELECT * FROM c",),
}


class Floor(Contender):
    """Its parts: `count`, `sums` and `stamps` (key and version) ask both sides; `sums at once` asks both at the same
    time; `rows` reads the source; `insert` inserts the rows of the source; `images and update`, `images and delete`
    change all of them in two statements of the server's own."""

    name = "floor"
    mirrors = False

    def parts(self, workload: str) -> tuple[str, ...]:
        match workload:
            case "first":
                return ("rows", "insert")
            case "force":
                return ("rows", "insert", "images and update")
            case "undo":
                return ("images and delete",)
            case "unchanged":
                return ("count", "sums", "sums at once", "stamps")
            case _:
                return ("stamps",)

    def cannot(self, engine: EngineName, workload: str) -> str | None:
        if workload == "undo" and engine in ("sqlserver", "cosmos"):
            return "has no statement for images there"
        return None

    def prepare(self, job: Job) -> Work:
        place = job.place
        if job.part.startswith("images"):
            return _by_server(job)
        cosmos = place.engine == "cosmos"
        if cosmos:
            preload()
        else:
            drivers.preload(place.engine)
        if job.part in ("insert", ""):
            return lambda: _insert_documents(job) if cosmos else _insert(job)
        read = _read_documents if cosmos else _read
        part = job.part.removesuffix(" at once")
        sides: list[Callable[[], int]] = [lambda: read(place, "source", part)]
        if part != "rows":
            sides.append(lambda: read(place, "backup", part))
        if job.part.endswith("at once"):
            return lambda: OwnMeasures(records=_together(sides))
        return lambda: OwnMeasures(records=_in_turn(sides))


def _in_turn(sides: list[Callable[[], int]]) -> int:
    return [side() for side in sides][0]  # noqa: RUF015 - asks every side, returns the source's answer


def _together(sides: list[Callable[[], int]]) -> int:
    counts: list[int] = [0] * len(sides)

    def ask(number: int) -> None:
        counts[number] = sides[number]()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(sides))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts[0]


def _read(place: Place, side: str, part: str) -> int:
    engine = place.engine
    text, table = (place.source, place.source_table) if side == "source" else (place.backup, place.backup_table)
    statement = _READS[part].format(
        table=drivers.quoted(engine, table),
        key=drivers.quoted(engine, "Id"),
        version=drivers.quoted(engine, "Version"),
        columns=drivers.columns(engine),
    )
    with closing(drivers.connect(engine, text)) as connection:
        if part in ("count", "sums"):
            return int(drivers.query(connection, statement)[0][0])
        return sum(len(rows) for rows in drivers.read(engine, connection, statement))


def inserted(place: Place) -> Place:
    """Returns the place for the rows of the part `insert`: beside the floor's copy, for SQLite in its own file."""
    if place.engine == "sqlite":
        return replace(place, backup=place.backup.replace("backup.db", "inserted.db"))
    separator = "/" if place.engine == "cosmos" else "."
    return replace(place, backup_table=f"{place.backup_table.rpartition(separator)[0]}{separator}Inserted")


def _insert(job: Job) -> OwnMeasures:
    """Inserts all rows into a new table. The clock does not measure how the rows are made."""
    engine = job.place.engine
    place = inserted(job.place) if job.part else job.place
    if engine == "sqlite":
        drivers.sqlite_file(place.backup).unlink(missing_ok=True)
    with closing(drivers.connect(engine, place.backup)) as connection:
        drivers.create_schema(engine, connection, place.backup_table.rpartition(".")[0])
        drivers.run(connection, f"DROP TABLE IF EXISTS {drivers.quoted(engine, place.backup_table)}")
        clock = _Clock()
        with clock:
            drivers.run(connection, drivers.create_table(engine, place.backup_table))
        for rows in drivers.batches(customers(engine, 1, job.rows)):
            with clock:
                drivers.insert(engine, connection, place.backup_table, rows)
        with clock:
            connection.commit()
    return OwnMeasures(seconds=clock.seconds, cpu_seconds=clock.cpu_seconds, records=job.rows)


def _by_server(job: Job) -> Work:
    """Fills a table, untimed, and returns the work: its images go into a bin, then all its rows are changed."""
    engine, place = job.place.engine, inserted(job.place)
    schema = place.backup_table.rpartition(".")[0]
    names_beside = (f"{schema}.{name}".lstrip(".") for name in ("Beside", "Bin"))
    table, beside, bin_name = (drivers.quoted(engine, name) for name in (place.backup_table, *names_beside))
    _insert(job)
    change = f"DELETE FROM {table}"
    with closing(drivers.connect(engine, place.backup)) as connection:
        drivers.create_bin(engine, connection, bin_name)
        if job.part.endswith("update"):
            drivers.run(connection, f"DROP TABLE IF EXISTS {beside}")
            drivers.run(connection, f"CREATE TABLE {beside} AS SELECT * FROM {table}")
            names = [drivers.quoted(engine, name) for name in NAMES]
            values = ", ".join(f"{name} = beside.{name}" for name in names[1:])
            change = f"UPDATE {table} SET {values} FROM {beside} AS beside WHERE {table}.{names[0]} = beside.{names[0]}"

    def work() -> OwnMeasures:
        with closing(drivers.connect(engine, place.backup)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(drivers.make_images(engine, bin_name, table))
            cursor.execute(change)
            changed = cursor.rowcount
            connection.commit()
        return OwnMeasures(records=changed)

    return work


class _Clock:
    """Adds up the time of the blocks under it."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def __enter__(self) -> None:
        self._started, self._worked = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started
        self.cpu_seconds += time.process_time() - self._worked


def _read_documents(place: Place, side: str, part: str) -> int:
    source = side == "source"
    orders = container(place.source if source else place.backup, place.source_table if source else place.backup_table)
    count = 0
    for number, query in enumerate(_QUERIES[part]):
        answer = orders.query_items(query, enable_cross_partition_query=True)
        if part in ("count", "sums"):
            [value] = answer
            count = count if number else int(value)
        else:
            count = sum(1 for _ in answer)
    return count


def _insert_documents(job: Job) -> OwnMeasures:
    place = inserted(job.place) if job.part else job.place
    drop_container(place.backup, place.backup_table)
    orders = container(place.backup, place.backup_table, create=True)
    clock = _Clock()
    for document in map(order, range(1, job.rows + 1)):
        with clock:
            orders.upsert_item(document)
    return OwnMeasures(seconds=clock.seconds, cpu_seconds=clock.cpu_seconds, records=job.rows)
