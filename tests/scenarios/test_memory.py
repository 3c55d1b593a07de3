"""That memory does not grow with the table, and little with its largest record."""

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from backup.core.run_values import Trigger
from tests.reliability.effort import rounds
from tests.scenarios.places import Place, on_sqlite
from tests.scenarios.product import start_anew

SETTINGS = {"BackupSync__ChunkSize": "5000", "BackupSync__Parallelism": "1"}  # what threads add is the same and uneven
FEW, MANY = rounds((5_000, 25_000), (20_000, 80_000))
MAY_GROW_BY_KIB = rounds(4, 12) * 1024  # the stamps of so many more rows take 8 MiB, or 26
# A process counts as its own what its parent held when it was started. So the parent is a small one.
SMALL_PARENT = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True)"
# For each line with settings it works once more, and answers with the most memory that it has held since its start.
EACH_TIME = """
import json, os, resource, sys

for line in sys.stdin:
    os.environ.update(json.loads(line))
    work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
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

def work():
    registry = Registry(load_settings())
    [synced] = registry.sync("customer", Trigger.CLI)
    service = registry.get("customer")
    then = RestoreSpec(at=service.past.history(2)[-1].completed_at, overwrite_newer=True)
    for outcome in (synced, service.verify(Depth(full=True)), service.restore(then), service.undo(synced.run.sync_id)):
        assert outcome.error is None, outcome.error
"""
SYNCED = """
import os

from backup.services.registry import Registry
from backup.services.service import Options
from backup.config.settings import load_settings
from backup.core.run_values import Trigger

def sync(**options):
    [outcome] = Registry(load_settings()).sync("customer", Trigger.CLI, Options(**options))
    assert outcome.error is None, outcome.error
"""
COPIED_TWICE = f"""{SYNCED}
def work():
    os.environ["BackupSync__ChunkSize"] = "5000"
    sync()
    os.environ["BackupSync__ChunkSize"] = "200000"
    sync(force=True)
"""
EMPTIED = f"""{SYNCED}
def work():
    sync(allow_mass_delete=True)
"""


def fill(file: Path, rows: int) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE Customers (Id INTEGER PRIMARY KEY, Version INTEGER, Name TEXT)")
        database.executemany("INSERT INTO Customers VALUES (?, 1, 'Somebody')", ((n,) for n in range(1, rows + 1)))


@contextmanager
def working(folder: Path, work: str) -> Iterator[Callable[[Mapping[str, str]], int]]:
    """A new process that has defined this work. What it yields has it work with these settings, and tells the most
    memory that it has held since its start, in KiB."""
    streams = {"stdin": subprocess.PIPE}
    with start_anew(folder, {}, "-c", SMALL_PARENT, "-c", work + EACH_TIME, **streams) as process:
        orders, answers = process.stdin, process.stdout
        assert orders
        assert answers

        def peak_kib(settings: Mapping[str, str]) -> int:
            print(json.dumps(settings), file=orders, flush=True)
            if answer := answers.readline():
                return int(answer)
            raise AssertionError(process.communicate()[1])

        yield peak_kib
        process.communicate()


def growth_kib(folder: Path, work: str, few: tuple[int, int], many: tuple[int, int]) -> int:
    """How much more memory the work takes with many rows than with few, each in the source and in the backup."""
    peaks = []
    with working(folder, work) as peak_kib:
        for name, (source_rows, backup_rows) in (("few", few), ("many", many)):
            (folder / name).mkdir()
            place = on_sqlite(folder / name)
            fill(folder / name / "customers.db", source_rows)
            fill(folder / name / "customers_backup.db", backup_rows)
            place.registry.get("customer").initialize()
            peaks.append(peak_kib({**place.customer.settings, **SETTINGS}))
    return peaks[1] - peaks[0]


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    """Nor does a forced run hold the stamps of a chunk."""
    assert growth_kib(tmp_path, COPIED_TWICE, (FEW, 0), (MANY, 0)) < MAY_GROW_BY_KIB


def test_memory_does_not_grow_with_what_only_the_backup_has(tmp_path: Path) -> None:
    assert growth_kib(tmp_path, EMPTIED, (1, FEW), (1, MANY)) < MAY_GROW_BY_KIB


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
    with working(tmp_path, EVERYTHING) as peak_kib:
        few = peak_kib(settings)
        for version in (2, 3):
            random = Random(version)
            for key, value in enumerate((random.randbytes(RECORD_KIB << 10), large_text(random)), 1):
                change = f'UPDATE {{table}} SET "Version" = :version, "{[*values][key - 1]}" = :value WHERE "Id" = :key'
                source.run(change, version=version, value=value, key=key)
            if version == 2:
                assert place.registry.sync("customer", Trigger.CLI)[0].error is None
        many = peak_kib(settings)
    assert many - few < BATCH_KIB + 4 * RECORD_KIB + UNEVEN_KIB
