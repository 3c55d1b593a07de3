"""What tests of undo, restore and show read and do past the product."""

from __future__ import annotations

import json
import uuid
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from azure.cosmos import DatabaseProxy

from backup.core.run_values import Run
from backup.recycle_bin.bin import RecycleBin
from backup.recycle_bin.entries import KeptImage
from tests.emulators.clients import cosmos_client
from tests.scenarios.inside import remove, revised
from tests.scenarios.places import Cosmos, Place, Sql

OF_THE_SERVER = {"_rid", "_self", "_etag", "_ts", "_attachments"}
FORGETS_AT_ONCE = {"BackupSync__RecycleDays": "1e-9"}
AHEAD, LONG_AGO = "9999-01-01T00:00:00Z", "2001-01-01T01:00:00+01:00"


def rows(side: Sql, query: str = "SELECT * FROM {table}") -> list[tuple[Any, ...]]:
    """What the query gives, as the driver gives it; {table} stands for the table's name."""
    schema, _, name = side.table.rpartition(".")
    engine = sa.create_engine(side.url, poolclass=sa.NullPool)
    with engine.connect() as cx:
        table = cx.dialect.identifier_preparer.format_table(sa.table(name, schema=schema or None))
        return [tuple(row) for row in cx.exec_driver_sql(query.format(table=table))]


def compress(side: Sql | Cosmos, which: Callable[[str], bool]) -> None:
    """Compresses the images, under the keys that `which` wants, of the bin beside the table, as large ones are."""
    assert isinstance(side, Sql)
    bin_ = replace(side, table=".".join([*side.table.split(".")[:-1], "RecycleBin"]))
    for entry_id, key, record in rows(bin_, 'SELECT "EntryId", "RecordKey", "Record" FROM {table}'):
        if record and record.startswith("{") and which(key):
            zipped = f"zlib:{b64encode(zlib.compress(record.encode())).decode()}"
            bin_.run('UPDATE {table} SET "Record" = :zipped WHERE "EntryId" = :id', zipped=zipped, id=entry_id)


def run_sql(side: Sql | Cosmos, statement: str) -> None:
    """Executes a statement on a table."""
    assert isinstance(side, Sql)
    side.run(statement)


@contextmanager
def database(side: Cosmos) -> Iterator[DatabaseProxy]:
    with cosmos_client(side.account) as client:
        yield client.get_database_client(side.database)


def whole(side: Sql | Cosmos) -> list[str]:
    """All that is there, value for value, with the app's own marks; only what the server writes anew is left out."""
    if isinstance(side, Sql):
        return sorted(map(repr, rows(side)))
    with database(side) as opened:
        documents = list(opened.get_container_client(side.container).read_all_items())
    return sorted(json.dumps({k: v for k, v in document.items() if k not in OF_THE_SERVER}) for document in documents)


def empty(side: Sql | Cosmos) -> None:
    if isinstance(side, Sql):
        run_sql(side, "DELETE FROM {table}")
        return
    with database(side) as opened:
        container = opened.get_container_client(side.container)
        for document in list(container.read_all_items()):
            container.delete_item(document["id"], partition_key=document["customerId"])


def drop(side: Sql | Cosmos) -> None:
    if isinstance(side, Sql):
        run_sql(side, "DROP TABLE {table}")
        return
    with database(side) as opened:
        opened.delete_container(side.container)


def change_orders(place: Place) -> None:
    """Updates 3 orders, adds 2, deletes 2."""
    revised(place, 1, 2, 3, 56, 57)
    remove(place, "order", "order-0009", "order-0010")


def kept_by(place: Place, service: str, sync_id: str) -> list[KeptImage]:
    """The run's images."""
    with place.registry.get(service).stores() as (_, backup):
        return [kept for page in RecycleBin(backup, service).of_run(sync_id) for kept in page]


def after(run: Run) -> str:
    """A time at which the run had ended and no later one begun."""
    assert run.completed_at is not None
    return run.completed_at.isoformat()


@contextmanager
def another_place(source: Sql | Cosmos, backup: Sql | Cosmos) -> Iterator[tuple[str, Sql | Cosmos]]:
    """Where a source of this kind may be restored to, and its connection string; the database is not there yet."""
    if isinstance(source, Cosmos):
        assert isinstance(backup, Cosmos)
        yield backup.account, replace(source, account=backup.account)
        with cosmos_client(backup.account) as client:
            client.delete_database(source.database)
        return
    url, name = sa.make_url(source.url), f"restored_{uuid.uuid4().hex}"
    to = url.set(database=name).render_as_string(hide_password=False)
    yield to, replace(source, url=to)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as cx:
        cx.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
