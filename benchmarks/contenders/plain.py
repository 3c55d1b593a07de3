"""The textbook algorithm: read both sides, compare in a dict, write row by row, commit once at the end."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from benchmarks import drivers
from benchmarks.contenders.base import Contender
from benchmarks.data import NAMES
from benchmarks.jobs import EngineName, Job, Work
from benchmarks.orders import container, own, preload

Rows = dict[Any, tuple[Any, ...]]


class Plain(Contender):
    """Holds whole records of both sides in memory. Has no history, no bin, no proof."""

    name = "plain"

    def prepare(self, job: Job) -> Work:
        if job.place.engine == "cosmos":
            preload()
            return lambda: _documents(job)
        drivers.preload(job.place.engine)
        return lambda: _rows(job)


def _rows(job: Job) -> None:
    engine, place = job.place.engine, job.place
    with (
        closing(drivers.connect(engine, place.source)) as source,
        closing(drivers.connect(engine, place.backup)) as backup,
    ):
        if job.task == "copy":
            drivers.create_schema(engine, backup, place.backup_table.rpartition(".")[0])
            drivers.run(backup, drivers.create_table(engine, place.backup_table))
        source_rows, backup_rows = _all(engine, source, place.source_table), _all(engine, backup, place.backup_table)
        table, mark = drivers.quoted(engine, place.backup_table), drivers.mark(engine)
        insert = f"INSERT INTO {table} ({drivers.columns(engine)}) VALUES ({', '.join([mark] * len(NAMES))})"
        assignments = ", ".join(f"{drivers.quoted(engine, name)} = {mark}" for name in NAMES[1:])
        key = f"WHERE {drivers.quoted(engine, NAMES[0])} = {mark}"
        with closing(backup.cursor()) as cursor:
            for number, row in source_rows.items():
                if number not in backup_rows:
                    cursor.execute(insert, row)
                elif row != backup_rows[number] or job.task == "force":
                    cursor.execute(f"UPDATE {table} SET {assignments} {key}", (*row[1:], number))
            for number in backup_rows.keys() - source_rows.keys():
                cursor.execute(f"DELETE FROM {table} {key}", (number,))
        backup.commit()


def _all(engine: EngineName, connection: Any, table: str) -> Rows:
    statement = f"SELECT {drivers.columns(engine)} FROM {drivers.quoted(engine, table)}"
    return {row[0]: tuple(row) for rows in drivers.read(engine, connection, statement) for row in rows}


def _documents(job: Job) -> None:
    place = job.place
    source = container(place.source, place.source_table)
    backup = container(place.backup, place.backup_table, create=job.task == "copy")
    source_documents, backup_documents = _all_documents(source), _all_documents(backup)
    for identity, document in source_documents.items():
        if document != backup_documents.get(identity) or job.task == "force":
            backup.upsert_item(json.loads(document))
    for customer, name in backup_documents.keys() - source_documents.keys():
        backup.delete_item(name, partition_key=customer)


def _all_documents(orders: Any) -> dict[tuple[str, str], str]:
    documents = map(
        own, orders.query_items("SELECT * FROM c WHERE c.type = 'Order'", enable_cross_partition_query=True)
    )
    return {(order["customerId"], order["id"]): json.dumps(order, sort_keys=True) for order in documents}
