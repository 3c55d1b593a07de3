"""That memory does not grow with the table, and little with its largest record."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from backup.core.run_values import Trigger
from tests.reliability.effort import rounds
from tests.scenarios.places import Place, on_sqlite
from tests.scenarios.product import python

SETTINGS = {"BackupSync__ChunkSize": "5000", "BackupSync__Parallelism": "1"}  # what threads add is the same and uneven
FEW, MANY = rounds((5_000, 25_000), (20_000, 80_000))
MAY_GROW_BY_KIB = rounds(4, 12) * 1024  # the stamps of so many more rows take 8 MiB, or 26
# A process counts as its own what its parent held when it was started. So the parent is a small one, which tells.
MEASURED = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
# Records of 12 MiB cost twice as much. Images whole instead of in parts cost 9 MiB more with 6, on PostgreSQL 14.
RECORD_KIB, BATCH_KIB, UNEVEN_KIB = (mib << 10 for mib in rounds((6, 1, 13), (12, 8, 8)))
# What cannot be compressed takes as much memory when it is only stored, and a third of the time.
EVERYTHING = """
import zlib
from functools import partial

zlib.compressobj = partial(zlib.compressobj, zlib.Z_NO_COMPRESSION)

from backup.services.registry import Registry
from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.mirror.verification import Depth
from backup.verbs.restore_spec import RestoreSpec

registry = Registry(load_settings())
[synced] = registry.sync("customer", Trigger.CLI)
service = registry.get("customer")
then = RestoreSpec(at=service.past.history(2)[-1].completed_at, overwrite_newer=True)
for outcome in (synced, service.verify(Depth(full=True)), service.restore(then), service.undo(synced.run.sync_id)):
    assert outcome.error is None, outcome.error
"""
COPIED_TWICE = """
import os

from backup.services.registry import Registry
from backup.services.service import Options
from backup.config.settings import load_settings
from backup.core.run_values import Trigger

for chunk_size, options in ((5_000, Options()), (200_000, Options(force=True))):
    os.environ["BackupSync__ChunkSize"] = str(chunk_size)
    [outcome] = Registry(load_settings()).sync("customer", Trigger.CLI, options)
    assert outcome.error is None, outcome.error
"""


def fill(file: Path, rows: int) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE Customers (Id INTEGER PRIMARY KEY, Version INTEGER, Name TEXT)")
        database.executemany("INSERT INTO Customers VALUES (?, 1, 'Somebody')", ((n,) for n in range(1, rows + 1)))


def measured(folder: Path, settings: Mapping[str, str], *command: str) -> int:
    """The most memory that Python holds at once when it runs this, in KiB."""
    ended = python(folder, settings, "-c", MEASURED, *command, anew=True)
    assert ended.code == 0, ended.err
    return int(ended.out)


def peak_kib(folder: Path, *command: str, source_rows: int, backup_rows: int) -> int:
    """The most memory that the command, a sync by default, holds at once with so many rows on the sides."""
    folder.mkdir()
    place = on_sqlite(folder)
    fill(folder / "customers.db", source_rows)
    fill(folder / "customers_backup.db", backup_rows)
    place.registry.get("customer").initialize()
    command = command or ("-m", "backup", "sync", "customer", "--allow-mass-delete")
    return measured(folder, {**place.customer.settings, **SETTINGS}, *command)


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    """Nor does a forced run hold the stamps of a chunk."""
    few = peak_kib(tmp_path / "few", "-c", COPIED_TWICE, source_rows=FEW, backup_rows=0)
    many = peak_kib(tmp_path / "many", "-c", COPIED_TWICE, source_rows=MANY, backup_rows=0)
    assert many - few < MAY_GROW_BY_KIB


def test_memory_does_not_grow_with_what_only_the_backup_has(tmp_path: Path) -> None:
    few = peak_kib(tmp_path / "few", source_rows=1, backup_rows=FEW)
    many = peak_kib(tmp_path / "many", source_rows=1, backup_rows=MANY)
    assert many - few < MAY_GROW_BY_KIB


def large_text(random: Random) -> str:
    """CJK letters that cannot be compressed; the record's size counts as UTF-8."""
    letters = bytearray(2 * ((RECORD_KIB << 10) // 3))
    letters[::2] = random.randbytes(len(letters) // 2)
    letters[1::2] = random.randbytes(len(letters) // 2).translate(bytes(0x4E + n % 80 for n in range(256)))
    return letters.decode("utf-16-le")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_large_record_costs_four_times_its_size_above_a_batch(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """One record has bytes, the next one text."""
    place: Place = request.getfixturevalue(f"{kind}_place")
    limits = {"BackupSync__BatchBytes": str(BATCH_KIB << 10)}
    source, settings = place.customer.source, {**place.customer.settings, **limits}
    values = {"Data": "blob" if kind == "sqlite" else "bytea", "Text": "text"}
    for name, type_ in values.items():
        source.run(f'ALTER TABLE {{table}} ADD "{name}" {type_}')
    few = measured(tmp_path, settings, "-c", EVERYTHING)
    for version in (2, 3):
        random = Random(version)
        for key, value in enumerate((random.randbytes(RECORD_KIB << 10), large_text(random)), 1):
            change = f'UPDATE {{table}} SET "Version" = :version, "{[*values][key - 1]}" = :value WHERE "Id" = :key'
            source.run(change, version=version, value=value, key=key)
        if version == 2:
            assert place.registry.sync("customer", Trigger.CLI)[0].error is None
    assert measured(tmp_path, settings, "-c", EVERYTHING) - few < BATCH_KIB + 4 * RECORD_KIB + UNEVEN_KIB
