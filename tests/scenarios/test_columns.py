"""Values of columns that changed under the same versions: what a run copies again, and what only a verify finds."""

from pathlib import Path
from typing import Any

from backup.config.settings import load_settings
from backup.core.errors import SchemaMismatch
from backup.core.run_values import Counts, Trigger
from backup.runs.outcome import Observer
from backup.services.registry import Registry
from backup.services.service import SyncService
from tests.scenarios.inside import command
from tests.scenarios.places import Place, Service, Sql


def test_values_rewritten_with_their_column_are_copied_or_found(postgres_place: Place, tmp_path: Path) -> None:
    service = postgres_place.customer

    def run(*arguments: str) -> dict[str, Any]:
        return command(tmp_path, service.settings, *arguments, "--json").json

    assert run("sync", "customer")["Success"]
    service.source.run('ALTER TABLE {table} ALTER "City" TYPE text USING \'to \' || "City", ALTER "Name" TYPE text')
    assert run("sync", "customer")["Success"]
    assert service.is_mirrored()

    service.source.run('ALTER TABLE {table} ALTER "Email" TYPE varchar(9) USING left("Email", 9)')
    assert run("sync", "customer")["Error"] == "SchemaMismatch"
    service.backup.run("ALTER TABLE {table} ALTER \"Email\" TYPE varchar(9) USING ''")
    assert run("sync", "customer")["Success"]
    assert service.is_mirrored()

    for new, old in (("Kept", "Name"), ("Name", "City"), ("City", "Kept")):
        service.source.run(f'ALTER TABLE {{table}} RENAME "{old}" TO "{new}"')
    service.source.run('ALTER TABLE {table} DROP "Email", ADD "Email" varchar(9) DEFAULT \'anew\'')
    assert run("sync", "customer")["Success"]
    for depth in ("--full", "--sample=100"):
        verified = run("verify", "customer", depth)
        assert (verified["Verified"], verified["Content"]) == (False, 100)
        names = {name for difference in verified["Differences"] for name in difference["Names"]}
        assert names == {"Name", "City", "Email"}


def test_a_restore_from_before_a_column_says_that_it_is_emptied(sqlite_place: Place, tmp_path: Path) -> None:
    service = sqlite_place.customer

    def run(*arguments: str) -> dict[str, Any]:
        return command(tmp_path, service.settings, *arguments, "--json").json

    assert run("sync", "customer")["Success"]
    moment = service.backup.history()[-1]["CompletedAt"].replace(" ", "T") + "Z"
    service.source.run('ALTER TABLE {table} ADD COLUMN "Rank" integer')
    service.source.run('UPDATE {table} SET "Rank" = 1, "Version" = "Version" + 1 WHERE "Id" = 3')
    assert run("sync", "customer")["Success"]
    restored = run("restore", "customer", "--at", moment, "--yes")
    assert service.source.contents()[3]["Rank"] is None
    assert "the column Rank" in " ".join(restored["Notes"])


def test_a_column_that_gets_another_type_while_a_run_copies_it_fails_the_run_and_is_filled(
    postgres_place: Place,
) -> None:
    customer = postgres_place.customer
    customer.source.run('ALTER TABLE {table} ADD "Since" date')
    service = in_small_steps(customer)
    altering = Altering(customer, """ALTER TABLE {table} ALTER "Since" TYPE timestamp USING '2026-03-01 12:34:56'""")
    failed = service.sync(Trigger.CLI, observer=altering)
    assert isinstance(failed.error, SchemaMismatch)
    assert "another type while" in str(failed.error)
    assert isinstance(service.sync(Trigger.CLI).error, SchemaMismatch)  # the copy's column is a date
    customer.backup.run('ALTER TABLE {table} ALTER "Since" TYPE timestamp')
    assert service.sync(Trigger.CLI).error is None
    assert customer.is_mirrored()


def test_another_table_that_takes_the_name_while_a_run_copies_fails_the_run_and_is_copied_whole(
    postgres_place: Place,
) -> None:
    customer = postgres_place.customer
    assert isinstance(customer.source, Sql)
    schema, _, name = customer.source.table.rpartition(".")
    customer.source.run(f'CREATE TABLE "{schema}".other (LIKE {{table}} INCLUDING ALL)')
    customer.source.run(f'INSERT INTO "{schema}".other SELECT * FROM {{table}}')
    customer.source.run(f'UPDATE "{schema}".other SET "Name" = \'of the other\'')  # with the same versions
    service = in_small_steps(customer)
    swap = f'ALTER TABLE {{table}} RENAME TO former; ALTER TABLE "{schema}".other RENAME TO "{name}"'
    failed = service.sync(Trigger.CLI, observer=Altering(customer, swap))
    assert isinstance(failed.error, SchemaMismatch)
    assert "Another table took the place" in str(failed.error)
    assert service.sync(Trigger.CLI).error is None
    assert customer.is_mirrored()


def in_small_steps(service: Service) -> SyncService:
    settings = {**service.settings, "BackupSync__ChunkSize": "2", "BackupSync__Parallelism": "1"}
    return Registry(load_settings(settings)).get(service.name)


class Altering(Observer):
    """Runs a statement on the source once the first records of a run are written."""

    def __init__(self, service: Service, statement: str) -> None:
        self._service, self._statement = service, statement
        self._has_altered = False

    def progress(self, service: str, counts: Counts) -> None:
        if counts.processed and not self._has_altered:
            self._has_altered = True
            self._service.source.run(self._statement)
