"""What the guard is told of a forced run: how many records it would update, of how many."""

from pathlib import Path

from backup.config.settings import load_settings
from backup.core.run_values import Trigger
from backup.mirror.planned_changes import count_changes
from backup.services.registry import Registry
from tests.scenarios import places


def test_every_record_is_counted_once_whether_its_chunk_differs_or_not(tmp_path: Path) -> None:
    service = places.filled_on_sqlite(tmp_path).customer
    registry = Registry(load_settings({**service.settings, "BackupSync__ChunkSize": "10"}))
    [outcome] = registry.sync("customer", Trigger.CLI)
    assert outcome.error is None
    service.source.run("UPDATE {table} SET Version = 2 WHERE Id IN (5, 55)")
    with registry.get("customer").stores() as (source, backup):
        planned = count_changes(source, backup)
        assert (planned.updates, planned.backup_records) == (2, 100)
