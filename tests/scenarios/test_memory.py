"""That memory does not grow with the table."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.scenarios.places import on_sqlite
from tests.scenarios.product import python

SETTINGS = {"BackupSync__ChunkSize": "5000", "BackupSync__Parallelism": "1"}  # what threads add is the same and uneven
FEW, MANY = 20_000, 80_000
MAY_GROW_BY_KIB = 12 * 1024  # the stamps of so many more rows take 26 MiB
# A process counts as its own what its parent held when it was started. So the parent is a small one, which tells.
MEASURED = """
import resource, subprocess, sys
command = [sys.executable, "-m", "backup", "sync", "customer", "--allow-mass-delete"]
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def fill(file: Path, rows: int) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE Customers (Id INTEGER PRIMARY KEY, Version INTEGER, Name TEXT)")
        database.executemany("INSERT INTO Customers VALUES (?, 1, 'Somebody')", ((n,) for n in range(1, rows + 1)))


def peak_kib(folder: Path, *, source_rows: int, backup_rows: int) -> int:
    """The most memory that a sync of sides with so many rows holds at once."""
    folder.mkdir()
    place = on_sqlite(folder)
    fill(folder / "customers.db", source_rows)
    fill(folder / "customers_backup.db", backup_rows)
    place.registry.get("customer").initialize()
    ended = python(folder, {**place.customer.settings, **SETTINGS}, "-c", MEASURED)
    assert ended.code == 0, ended.err
    return int(ended.out)


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    few = peak_kib(tmp_path / "few", source_rows=FEW, backup_rows=0)
    many = peak_kib(tmp_path / "many", source_rows=MANY, backup_rows=0)
    assert many - few < MAY_GROW_BY_KIB


def test_memory_does_not_grow_with_what_only_the_backup_has(tmp_path: Path) -> None:
    few = peak_kib(tmp_path / "few", source_rows=1, backup_rows=FEW)
    many = peak_kib(tmp_path / "many", source_rows=1, backup_rows=MANY)
    assert many - few < MAY_GROW_BY_KIB
