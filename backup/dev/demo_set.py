"""The set of the demo: a made shop of six tables, one of them masked. A row is deleted, and brought back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from backup.config.settings import load_settings
from backup.core.model import Action
from backup.core.run_values import Trigger
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.stores import Limits, Rules
from backup.stores.sides import Side, open_store
from backup.verbs.restore_spec import RestoreSpec

SHOP_FILES = ("shop.db", "shop_backup.db")

_FILE = """
[set.shop]
source = "sqlite:///{source}"
backup = "sqlite:///{backup}"
tables = ["*"]

[set.shop.table.Customers]
mask = {{ Email = {{ text = "hidden" }} }}
"""
_SHOP = (
    "CREATE TABLE Categories (Id INTEGER PRIMARY KEY, Name TEXT NOT NULL)",
    "CREATE TABLE Products (Id INTEGER PRIMARY KEY, Category INTEGER NOT NULL REFERENCES Categories, Name TEXT)",
    "CREATE TABLE Customers (Id INTEGER PRIMARY KEY, Name TEXT NOT NULL, Email TEXT)",
    "CREATE TABLE Orders (Id INTEGER PRIMARY KEY, Customer INTEGER NOT NULL REFERENCES Customers, Day TEXT NOT NULL)",
    'CREATE TABLE "Order Lines" ("Order" INTEGER NOT NULL REFERENCES Orders, Line INTEGER NOT NULL,'
    ' Product INTEGER NOT NULL REFERENCES Products, Price NUMERIC(9, 2) NOT NULL, PRIMARY KEY ("Order", Line))',
    'CREATE TABLE Payments (Id INTEGER PRIMARY KEY, "Order" INTEGER NOT NULL REFERENCES Orders, Paid TEXT NOT NULL)',
    "INSERT INTO Categories VALUES (1, 'Tea'), (2, 'Coffee')",
    "INSERT INTO Products VALUES (1, 1, 'Assam'), (2, 1, 'Rize'), (3, 2, 'Yirgacheffe')",
    "INSERT INTO Customers VALUES (1, 'Ada', 'ada@example.com'), (2, 'Çiğdem', 'cigdem@example.com')",
    "INSERT INTO Orders VALUES (1, 1, '2026-11-01'), (2, 2, '2026-11-02'), (3, 2, '2026-11-03')",
    'INSERT INTO "Order Lines" VALUES (1, 1, 1, 4.50), (1, 2, 3, 9.25), (2, 1, 2, 3.75), (3, 1, 3, 9.25)',
    "INSERT INTO Payments VALUES (1, 1, '2026-11-02'), (2, 2, '2026-11-02'), (3, 3, '2026-11-04')",
)


def run_demo_of_a_set(folder: Path, show: Callable[[str, list[Outcome]], None]) -> None:
    """Makes the shop again, syncs all its tables, deletes a row in the source and brings it back from the backup.

    Removes only files with the demo's own names from the folder.
    """
    for file in SHOP_FILES:
        (folder / file).unlink(missing_ok=True)
    source, backup = ((folder / file).resolve().as_posix() for file in SHOP_FILES)
    text = _FILE.format(source=source, backup=backup)
    registry = Registry(load_settings({"BACKUP_TOML": text, "BackupMask__Key": "of the demo alone"}))
    _execute(source, _SHOP)
    show("5. A set: six tables of a shop, named by one file", registry.sync("shop", Trigger.CLI))
    _execute(source, ["DELETE FROM Payments WHERE Id = 2"])
    [deleted] = registry.sync("shop/Payments", Trigger.CLI)
    show("6. After a payment was deleted in the shop by mistake", [deleted])
    spec = RestoreSpec(run=deleted.run.sync_id, only=Action.DELETED)
    restored = registry.get("shop/Payments").restore(spec)
    restored = replace(restored, run=replace(restored.run, notes=()))  # they name the run, whose id differs each time
    show("7. The payment is brought back from the backup", [restored])


def _execute(file: str, statements: Sequence[str]) -> None:
    from backup.stores.sql.store import SqlStore

    store = open_store(
        Side("shop", "target place", "shop.db", f"sqlite:///{file}", table="Categories"), Rules(), Limits()
    )
    if not isinstance(store, SqlStore):
        raise TypeError("the shop is a file of SQLite")
    store.access.create_database()
    for attempt in store.access.attempts("make the shop", writes=True):
        with attempt as cx:
            for statement in statements:
                cx.exec_driver_sql(statement)
    store.close()
