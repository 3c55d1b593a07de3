"""Undo, restore and show of tables with other shapes: composite keys, generated and identity columns."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.services.registry import Registry
from tests.scenarios.inside import command, counted, done, named, refused, synced
from tests.scenarios.places import Place, Service, Sql
from tests.scenarios.taking_back import rows, whole


def things_in(source: str, backup: str, create: str, insert: str) -> tuple[Place, Sql]:
    """Customers in a table `Things` of the test's own making, their backup made; and their source."""
    table = Sql(source, "Things")
    table.run(f"CREATE TABLE {{table}} ({create})")
    table.run(insert)
    service = Service("customer", table, Sql(backup, "Things"))
    place = Place(service, service)
    place.initialize()
    return place, table


def test_composite_keys_are_json_lists(tmp_path: Path) -> None:
    create = "A INTEGER NOT NULL, B TEXT NOT NULL, Version INTEGER, PRIMARY KEY (B, A)"
    insert = "INSERT INTO {table} VALUES (1, 'x', 1), (2, 'x', 1), (1, 'ä\"', 1)"
    files = f"sqlite:///{tmp_path / 'source.db'}", f"sqlite:///{tmp_path / 'backup.db'}"
    place, source = things_in(*files, create, insert)
    synced(place, "customer")
    before = rows(source)
    source.run("DELETE FROM {table}")
    keys = ("--key", '["x", 1]', "--key", json.dumps(['ä"', 1]))
    preview = done(command(tmp_path, place.settings, "restore", "customer", *keys, "--json"))
    assert named(preview) == {'["x", 1]': "Inserted", json.dumps(['ä"', 1]): "Inserted"}
    done(command(tmp_path, place.settings, "restore", "customer", *keys, "--yes", "--json"))
    assert sorted(rows(source)) == sorted(row for row in before if row[:2] != (2, "x"))
    entries = len(place.customer.backup.history())
    assert refused(command(tmp_path, place.settings, "restore", "customer", "--key", "x", "--yes", "--json"))[0] == (
        "BadRequest"
    )
    assert len(place.customer.backup.history()) == entries  # it is refused before it is a run


def check_source_restored(place: Place, source: Sql, folder: Path) -> None:
    """Loses a record and spoils another, restores, and has the source as it was."""
    synced(place, "customer")
    before = whole(source)
    source.run("DELETE FROM {table} WHERE id = 1")
    source.run("UPDATE {table} SET version = 0, a = NULL WHERE id = 2")
    ended = command(folder, place.settings, "restore", "customer", "--yes", "--json")
    assert counted(done(ended)) == (1, 1, 0, 1)
    assert whole(source) == before
    again = synced(place, "customer").counts
    assert (again.processed, again.skipped) == (0, 3)


def test_generated_columns_of_a_source_are_left_to_sqlite(tmp_path: Path) -> None:
    create = (
        "id INTEGER PRIMARY KEY, version INTEGER, a INT, b INT GENERATED ALWAYS AS (a * 2), c TEXT AS ('c' || a) STORED"
    )
    insert = "INSERT INTO {table} (id, version, a) VALUES (1, 1, 10), (2, 1, 20), (3, 1, NULL)"
    files = f"sqlite:///{tmp_path / 'source.db'}", f"sqlite:///{tmp_path / 'backup.db'}"
    check_source_restored(*things_in(*files, create, insert), tmp_path)


@pytest.mark.parametrize("generated", ["BY DEFAULT", "ALWAYS"])
def test_generated_and_identity_columns_of_a_source_are_restored_on_postgresql(
    two_postgres_databases: tuple[str, str], tmp_path: Path, generated: str
) -> None:
    create = (
        f"id bigint GENERATED {generated} AS IDENTITY PRIMARY KEY, version integer, a integer,"
        " b integer GENERATED ALWAYS AS (a * 2) STORED"
    )
    insert = "INSERT INTO {table} (version, a) VALUES (1, 10), (1, 20), (1, NULL)"
    check_source_restored(*things_in(*two_postgres_databases, create, insert), tmp_path)


def test_an_identity_key_is_restored_on_sql_server(sqlserver_urls: tuple[str, str], tmp_path: Path) -> None:
    source, backup = sqlserver_urls
    table = f"Things_{uuid.uuid4().hex}"
    settings = {
        "SourceCustomerDb__ConnectionString": source,
        "SourceCustomerDb__Table": table,
        "BackupCustomerDb__ConnectionString": backup,
        "BackupCustomerDb__Table": table,
    }
    registry = Registry(load_settings(settings))
    with registry.get("customer").stores() as (here, _):
        engine = here.access.dialect.engine  # type: ignore[attr-defined]
    with engine.begin() as cx:
        cx.exec_driver_sql(
            f"CREATE TABLE {table} (Id int IDENTITY PRIMARY KEY, Version int, A int, B AS (A * 2) PERSISTED)"
        )
        cx.exec_driver_sql(f"INSERT INTO {table} (Version, A) VALUES (1, 10), (1, 20), (1, NULL)")
    registry.get("customer").initialize()
    [outcome] = registry.sync("customer", Trigger.CLI)
    assert outcome.error is None
    with engine.begin() as cx:
        before = list(cx.exec_driver_sql(f"SELECT * FROM {table} ORDER BY Id"))
        cx.exec_driver_sql(f"DELETE FROM {table} WHERE Id = 1")
        cx.exec_driver_sql(f"UPDATE {table} SET Version = 0, A = NULL WHERE Id = 2")
    done(command(tmp_path, settings, "restore", "customer", "--yes", "--json"))
    with engine.begin() as cx:
        assert list(cx.exec_driver_sql(f"SELECT * FROM {table} ORDER BY Id")) == before
        cx.exec_driver_sql(f"DROP TABLE {table}")
    engine.dispose()
