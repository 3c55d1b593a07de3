"""A source in a SQLite file is left as it is; where that cannot be, it is said why."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backup.config.settings import load_settings
from backup.core.errors import BackupError
from backup.core.model import CheckLock
from backup.core.run_values import Status, Trigger, Verb
from backup.mirror.verification import Depth
from backup.services.registry import Registry
from backup.services.service import SyncService
from backup.stores import Limits

OTHER_USER = 65_534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A source of three customers in WAL mode, whose program is gone and has left them in its -wal."""
    written, left = tmp_path / "written.db", tmp_path / "customers.db"
    with sqlite3.connect(written) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE Customers (Id INTEGER PRIMARY KEY, Version INTEGER)")
        connection.executemany("INSERT INTO Customers VALUES (?, 1)", [(1,), (2,), (3,)])
        connection.commit()
        for end in ("", "-wal"):
            Path(f"{left}{end}").write_bytes(Path(f"{written}{end}").read_bytes())
    connection.close()
    return left


def settings_of(file: Path, how: str = "") -> dict[str, str]:
    return {
        "SourceCustomerDb__ConnectionString": f"sqlite:///{file}{how}",
        "BackupCustomerDb__ConnectionString": f"sqlite:///{file.parent}/backup/customers.db",
        "BackupRetry__MaxAttempts": "1",
    }


def service(file: Path, how: str = "") -> SyncService:
    return Registry(load_settings(settings_of(file, how))).get("customer")


def bytes_of(file: Path) -> list[bytes]:
    return [Path(f"{file}{end}").read_bytes() for end in ("", "-wal") if Path(f"{file}{end}").exists()]


def settled(file: Path) -> None:
    """Has the file's program close it in order: all is in the file, which stays in WAL mode."""
    connection = sqlite3.connect(file)
    connection.execute("SELECT count(*) FROM Customers")
    connection.close()


def refusal(service: SyncService) -> str:
    with pytest.raises(BackupError) as caught:
        service.count()
    return f"{caught.value} {caught.value.hint}"


def test_nothing_but_a_restore_changes_a_byte_of_a_source(file: Path) -> None:
    before, customers = bytes_of(file), service(file)
    customers.initialize()
    synced = customers.sync(Trigger.CLI)
    verified = customers.verify(Depth(full=True))
    customers.past.show("2")
    pinged = customers.ping("source")
    assert bytes_of(file) == before
    assert (synced.run.status, synced.run.counts.inserted, customers.count()) == (Status.COMPLETED, 3, 3)
    assert verified.run.verified
    assert pinged.error is None
    assert [run.verb for run in customers.past.history(9)] == [Verb.VERIFY, Verb.SYNC]


def test_a_source_in_wal_mode_is_read_for_its_owner_and_refused_to_whoever_would_leave_files_to_himself(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(file)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    assert "in WAL mode and belongs to another user" in refusal(service(file))
    assert service(file, "?immutable=1").count() == 3
    assert [path.name for path in file.parent.glob("customers.db*")] == ["customers.db"]
    with sqlite3.connect(file) as program:
        program.execute("SELECT count(*) FROM Customers")  # the owner's own -wal and -shm are there now
        assert service(file).count() == 3
    program.close()


@contextmanager
def unprivileged(*paths: Path) -> Iterator[None]:
    """This process without root's rights, as the owner of the paths."""
    if os.geteuid() != 0:
        yield
        return
    for path in paths:
        os.chown(path, OTHER_USER, OTHER_USER)
        for folder in (path, *path.parents):
            folder.chmod(folder.stat().st_mode | (0o111 if folder.is_dir() else 0))
    os.seteuid(OTHER_USER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_source_in_a_read_only_folder_is_read_or_refused_with_its_reason(file: Path, mode: str) -> None:
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.close()
    file.parent.chmod(0o555)
    try:
        with unprivileged(file):
            if mode == "delete":
                assert service(file).count() == 3
            else:
                assert "cannot be made or read in this folder" in refusal(service(file))
    finally:
        file.parent.chmod(0o755)


def test_a_source_whose_program_died_in_a_write_is_not_repaired(tmp_path: Path) -> None:
    file, written = tmp_path / "customers.db", tmp_path / "written.db"
    with sqlite3.connect(written) as connection:
        connection.execute("CREATE TABLE Customers (Id INTEGER PRIMARY KEY, Version INTEGER)")
        connection.commit()
        connection.execute("PRAGMA cache_size = 1")
        connection.executemany("INSERT INTO Customers VALUES (?, 1)", [(i,) for i in range(9_000)])
        for end in ("", "-journal"):
            Path(f"{file}{end}").write_bytes(Path(f"{written}{end}").read_bytes())
        connection.rollback()
    connection.close()
    before = file.read_bytes()
    assert "the journal of a write that did not end" in refusal(service(file))
    assert file.read_bytes() == before


def test_a_mode_of_the_urls_own_is_kept(file: Path) -> None:
    settled(file)
    assert service(file, "?mode=rw").count() == 3
    assert [path.name for path in file.parent.glob("customers.db*")] == ["customers.db"]  # a writer tidies up
    read_only = service(Path(f"file:{file}"), "?mode=ro&uri=true")
    assert read_only.count() == 3


def test_a_file_that_takes_the_place_of_the_source_while_a_run_takes_its_lock_is_what_it_reads(file: Path) -> None:
    settled(file)
    new = file.with_name("new.db")

    @contextmanager
    def replacing(_service: str, _place: str) -> Iterator[CheckLock]:
        new.replace(file)
        yield lambda: None

    customers = service(file)
    customers.initialize()
    for _ in range(2):
        customers.sync(Trigger.CLI)
    new.write_bytes(file.read_bytes())
    with closing(sqlite3.connect(new)) as connection, connection:
        connection.execute("INSERT INTO Customers VALUES (4, 1)")
    outcome = SyncService(customers.spec, load_settings(settings_of(file)), Limits(), replacing).sync(Trigger.CLI)
    assert (outcome.error, outcome.run.counts.inserted) == (None, 1)
