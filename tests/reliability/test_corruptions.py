"""Single values of a backup changed behind the app's back, versions untouched: `verify --full` names each, no other.

And what a restore drill leaves behind: nothing.
"""

from __future__ import annotations

import itertools
import random
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from azure.cosmos import ContainerProxy

from backup.config.settings import load_settings
from backup.core.errors import StoreUnavailable
from backup.core.run_values import Status, Trigger
from backup.dev import sample
from backup.mirror.proof import DifferenceKind
from backup.mirror.tally import CHANGES_NAMED
from backup.mirror.verification import Depth
from backup.runs.outcome import Outcome
from backup.services.registry import Registry
from backup.stores.cosmos.store import CosmosStore
from backup.stores.sql.relational import SqlRelational
from tests.emulators.clients import cosmos_client
from tests.emulators.servers import lent_database
from tests.reliability import damage
from tests.reliability.chaos import CALM, Chaos
from tests.reliability.effort import SEED, rounds
from tests.reliability.writers import DEADLINE_SECONDS, Writers
from tests.scenarios import places
from tests.scenarios.inside import command
from tests.scenarios.places import Cosmos, Service, Sql

pytestmark = pytest.mark.timeout(rounds(180, 1800))

QUICK = {"BackupRetry__BaseSeconds": "0.01", "BackupSync__ChunkSize": "700", "BackupSync__BatchSize": "300"}
FULL = Depth(full=True)
FIRST_STILL = 100_000
"""Keys from here on are no writer's."""
ROWS, PLANTED = rounds((2_000, 200), (5_000, 1_000))
DOCUMENTS, DAMAGED = rounds((24, 20), (210, 200))

Differences = set[tuple[Any, tuple[str, ...]]]


@dataclass
class Mirrored:
    """A service and its backup, seen past the app."""

    service: Service
    settings: Mapping[str, str]

    @property
    def registry(self) -> Registry:
        return Registry(load_settings({**QUICK, **self.service.settings, **self.settings}))

    def sync(self) -> None:
        [outcome] = self.registry.sync(self.service.name, Trigger.CLI)
        assert outcome.run.status is Status.COMPLETED, outcome.run.error

    def verify(self, depth: Depth = FULL, *, drilled: bool = False) -> Outcome:
        return self.registry.get(self.service.name).verify(depth, drilled=drilled)


def contents(outcome: Outcome) -> Differences:
    """Records that differ in their content alone, each with the columns in which it does."""
    assert outcome.error is None, outcome.error
    assert outcome.report is not None
    return {
        (difference.key[-1], difference.names)
        for difference in outcome.report.differences
        if difference.kind is DifferenceKind.CONTENT
    }


# SQL


@dataclass(frozen=True)
class Table:
    """Columns with their types, what rows hold, and how each value is damaged."""

    columns: Mapping[str, str]
    value: Callable[[str, int, random.Random], Any]
    damages: Mapping[str, damage.Damage]

    def create(self, source: Sql) -> None:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in self.columns.items())
        source.run(f"CREATE TABLE {{table}} ({columns})")

    def fill(self, source: Sql, rows: int) -> None:
        chance = random.Random(SEED)
        keys = range(FIRST_STILL, FIRST_STILL + rows)
        records = [{"Id": n, "Version": 1} | {c: self.value(c, n, chance) for c in self.damages} for n in keys]
        run_many(source, sa.insert(named(source, ["Id", "Version", *self.damages])), records)

    def corrupt(self, backup: Sql, places: Sequence[tuple[int, str]], chance: random.Random) -> list[Any]:
        """Damages these values and returns what they were."""
        table = named(backup, ["Id", *self.damages])
        query = sa.select(table).where(table.c.Id.in_([key for key, _ in places]))
        rows = {row["Id"]: row for row in run(backup, query)}
        were = [rows[key][column] for key, column in places]
        values = [self.damages[column](was, chance) for was, (_, column) in zip(were, places, strict=True)]
        self.put(backup, places, values)
        return were

    def put(self, backup: Sql, places: Sequence[tuple[int, str]], values: Sequence[Any]) -> None:
        table = named(backup, ["Id", *self.damages])
        engine = sa.create_engine(backup.url, poolclass=sa.NullPool)
        with engine.begin() as cx:
            for (key, column), value in zip(places, values, strict=True):
                cx.execute(sa.update(table).where(table.c.Id == key).values({column: value}))


def named(place: Sql, columns: Sequence[str]) -> sa.TableClause:
    schema, _, name = place.table.rpartition(".")
    return sa.table(name, *map(sa.column, columns), schema=schema or None)


def run(place: Sql, query: sa.Select[Any]) -> list[dict[str, Any]]:
    engine = sa.create_engine(place.url, poolclass=sa.NullPool)
    with engine.connect() as cx:
        return [dict(row) for row in cx.execute(query).mappings()]


def run_many(place: Sql, statement: sa.Insert, rows: Sequence[dict[str, Any]]) -> None:
    engine = sa.create_engine(place.url, poolclass=sa.NullPool)
    with engine.begin() as cx:
        cx.execute(statement, rows)


TEXTS = [None, "", "a", "a ", " a", "ä", "a\u0308", "東京", "🙂", "İstanbul", "line\nbreak", "x" * 300]


def sqlite_value(column: str, number: int, chance: random.Random) -> Any:
    match column:
        case "Number":
            return chance.choice([0, 1, -1, 2**53 + 1, -(2**63), number])
        case "Amount":
            return chance.choice([0.1, 1.0, 1e300, 5e-324, -2.5, chance.random()])
        case "Text":
            return chance.choice(TEXTS)
        case "Bytes":
            return chance.choice([None, b"", b"\0", chance.randbytes(50)])
    return chance.choice([0, 1, number, 0.0, 1.5, "1", "text", b"1"])


SQLITE = Table(
    {
        "Id": "INTEGER PRIMARY KEY",
        **{"Name": "VARCHAR(40)", "Balance": "NUMERIC(18, 2)"},  # the writers'
        **{"Number": "INTEGER", "Amount": "REAL", "Text": "TEXT", "Bytes": "BLOB", "Loose": ""},
        "Version": "INTEGER NOT NULL",
    },
    sqlite_value,
    {
        **{"Number": damage.another_integer, "Amount": damage.another_float, "Text": damage.another_text},
        **{"Bytes": damage.another_blob, "Loose": damage.another_type},
    },
)


def postgresql_value(column: str, number: int, chance: random.Random) -> Any:
    match column:
        case "Exact":
            return Decimal(number) / 1000
        case "Flag":
            return chance.choice([True, False])
    return sqlite_value(column, number, chance)


POSTGRESQL = Table(
    {
        "Id": "integer PRIMARY KEY",
        **{"Number": "bigint", "Amount": "double precision", "Text": "text", "Bytes": "bytea"},
        **{"Exact": "numeric(20, 6)", "Flag": "boolean", "Version": "integer"},
    },
    postgresql_value,
    {
        **{"Number": lambda value, chance: None if value < 0 else value - 1, "Amount": damage.another_float},
        **{
            "Text": damage.another_text,
            "Bytes": damage.another_blob,
            "Exact": damage.another_decimal,
            "Flag": damage.another_flag,
        },
    },
)


class VersionedHand:
    """A writer's connection to the SQLite source; no two of its writes have one version."""

    _versions = itertools.count(1)

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, timeout=DEADLINE_SECONDS, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = OFF")

    def insert(self, number: int, value: int) -> None:
        row = (number, f"v{value}", value, next(self._versions))
        self._connection.execute("INSERT INTO Customers (Id, Name, Balance, Version) VALUES (?, ?, ?, ?)", row)

    def update(self, number: int, value: int) -> None:
        row = (f"v{value}", value, next(self._versions), number)
        self._connection.execute("UPDATE Customers SET Name = ?, Balance = ?, Version = ? WHERE Id = ?", row)

    def delete(self, number: int) -> None:
        self._connection.execute("DELETE FROM Customers WHERE Id = ?", (number,))

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def mirrored_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a mirrored table of ROWS rows that are no writer's, for tests to copy."""
    folder = tmp_path_factory.mktemp("mirrored")
    sql_mirror(places.on_sqlite(folder).customer, SQLITE, ROWS)
    return folder


@pytest.fixture
def on_sqlite(mirrored_files: Path, tmp_path: Path) -> Mirrored:
    """Such a table of this test's own. Its one run of before was another place's, as far as its history says."""
    shutil.copytree(mirrored_files, tmp_path, dirs_exist_ok=True)
    return Mirrored(places.on_sqlite(tmp_path).customer, {})


@pytest.fixture
def on_postgres(postgres: str) -> Iterator[Mirrored]:
    """A mirrored table of 1,000 rows."""
    with lent_database(postgres) as source, lent_database(postgres) as backup:
        service = Service("customer", Sql(source, "Customers"), Sql(backup, "Customers"))
        yield sql_mirror(service, POSTGRESQL, 1_000)


def sql_mirror(service: Service, table: Table, rows: int) -> Mirrored:
    assert isinstance(service.source, Sql)
    if service.source.url.startswith("sqlite"):
        path_of(service.source).touch()
    table.create(service.source)
    table.fill(service.source, rows)
    mirrored = Mirrored(service, {})
    mirrored.registry.get("customer").initialize()
    mirrored.sync()
    return mirrored


def path_of(side: Sql | Cosmos) -> Path:
    assert isinstance(side, Sql)
    return Path(side.url.removeprefix("sqlite:///"))


def backup_of(mirrored: Mirrored) -> Sql:
    assert isinstance(mirrored.service.backup, Sql)
    return mirrored.service.backup


def drawn(table: Table, rows: int, many: int, chance: random.Random) -> list[tuple[int, str]]:
    """One column of each of so many rows."""
    keys = chance.sample(range(FIRST_STILL, FIRST_STILL + rows), many)
    return [(key, chance.choice(sorted(table.damages))) for key in keys]


def as_differences(places: Sequence[tuple[Any, str]]) -> Differences:
    return {(key, (column,)) for key, column in places}


def test_each_of_many_corruptions_is_named_and_nothing_else_while_writers_work(on_sqlite: Mirrored) -> None:
    chance, backup = random.Random(f"{SEED} planted"), backup_of(on_sqlite)
    writers = Writers(lambda: VersionedHand(path_of(on_sqlite.service.source)), SEED, lasting=200, threads=2)
    writers.fill()
    on_sqlite.sync()
    planted = drawn(SQLITE, ROWS, PLANTED, chance)
    with writers:
        for some in (planted[: PLANTED // 2], planted[PLANTED // 2 :]):  # so that what the writers do is named too
            were = SQLITE.corrupt(backup, some, chance)
            for _ in range(rounds(1, 20)):
                writers.wait_for(20)
                outcome = on_sqlite.verify()
                assert contents(outcome) == as_differences(some)
                assert outcome.report is not None
                others = {
                    difference.key[0]
                    for difference in outcome.report.differences
                    if difference.kind is not DifferenceKind.CONTENT
                }
                assert all(key < FIRST_STILL for key in others), others
                on_sqlite.sync()
            SQLITE.put(backup, some, were)
        writers.stop()
    on_sqlite.sync()
    outcome = on_sqlite.verify()
    assert outcome.run.verified
    assert contents(outcome) == set()


def test_writers_alone_raise_no_alarm_about_content(on_sqlite: Mirrored) -> None:
    writers = Writers(lambda: VersionedHand(path_of(on_sqlite.service.source)), SEED, lasting=200, threads=3)
    writers.fill()
    with writers:
        for _ in range(rounds(2, 30)):
            on_sqlite.sync()
            writers.wait_for(20)
            assert contents(on_sqlite.verify()) == set()
        writers.stop()


def test_of_more_than_a_thousand_differences_a_thousand_are_named_and_all_are_counted(on_sqlite: Mirrored) -> None:
    backup_of(on_sqlite).run(f"UPDATE {{table}} SET Text = Text || '!' || Id WHERE Id < {FIRST_STILL + 900}")
    backup_of(on_sqlite).run(f"UPDATE {{table}} SET Text = 'other' WHERE Id < {FIRST_STILL + 1500}")
    outcome = on_sqlite.verify()
    assert outcome.report is not None
    assert outcome.report.counts == {DifferenceKind.CONTENT: 1500}
    assert outcome.run.proof is not None
    assert outcome.run.proof.differing == 1500
    assert len(outcome.report.differences) == CHANGES_NAMED
    assert outcome.run.verified is False


@pytest.mark.parametrize(("depth", "corruptions_seen"), [(Depth(), 0), (Depth(sample=ROWS), 50), (FULL, 50)])
def test_a_comparison_of_versions_alone_sees_no_corruption_and_a_sample_of_all_sees_each(
    on_sqlite: Mirrored, depth: Depth, corruptions_seen: int
) -> None:
    chance = random.Random(SEED)
    planted = drawn(SQLITE, ROWS, 50, chance)
    SQLITE.corrupt(backup_of(on_sqlite), planted, chance)
    outcome = on_sqlite.verify(depth)
    assert contents(outcome) == (as_differences(planted) if corruptions_seen else set())
    assert outcome.run.verified is not bool(corruptions_seen)


def test_the_command_line_names_a_corruption_and_ends_with_1(on_sqlite: Mirrored, tmp_path: Path) -> None:
    backup_of(on_sqlite).run(f"UPDATE {{table}} SET Text = 'a', Loose = 'b' WHERE Id = {FIRST_STILL}")
    ended = command(tmp_path, on_sqlite.service.settings, "verify", "customer", "--full", "--json")
    assert (ended.code, ended.json["Verified"]) == (1, False)
    assert ended.json["Differences"] == [{"Key": [FIRST_STILL], "Kind": "content", "Names": ["Loose", "Text"]}]


def test_each_corruption_on_postgresql_is_named_and_nothing_else(on_postgres: Mirrored) -> None:
    chance = random.Random(SEED)
    planted = drawn(POSTGRESQL, 1_000, 200, chance)
    POSTGRESQL.corrupt(backup_of(on_postgres), planted, chance)
    assert contents(on_postgres.verify()) == as_differences(planted)


# Cosmos DB


@pytest.fixture
def on_cosmos(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Iterator[Mirrored]:
    """DOCUMENTS mirrored documents."""
    # The proxies change nothing; the npm server is six times as fast behind one.
    with (
        Chaos(cosmos_server, CALM, SEED).running() as first,
        Chaos(cosmos_server_backup, CALM, SEED).running() as second,
    ):
        place = places.with_orders_on_cosmos(tmp_path, first.account, second.account)
        mirrored = Mirrored(place.order, {})
        make_documents(place.order, DOCUMENTS)
        mirrored.registry.get("order").initialize()
        mirrored.sync()
        yield mirrored


@contextmanager
def container(side: Sql | Cosmos) -> Iterator[ContainerProxy]:
    assert isinstance(side, Cosmos)
    with cosmos_client(side.account, enable_endpoint_discovery=False) as client:
        yield client.get_database_client(side.database).get_container_client(side.container)


def make_documents(service: Service, many: int) -> None:
    assert isinstance(service.backup, Cosmos)
    elsewhere = replace(service.backup, database=f"unused-{uuid.uuid4().hex}")
    settings = Service("order", service.source, elsewhere).settings
    sample.put(Registry(load_settings(settings)), "order", map(sample.order, range(1, many + 1)))


def test_each_corruption_on_cosmos_is_named_and_nothing_else(on_cosmos: Mirrored) -> None:
    chance, planted = random.Random(SEED), set()
    with container(on_cosmos.service.backup) as documents:
        copies = sorted(documents.read_all_items(), key=lambda document: str(document["id"]))
        for document in chance.sample(copies, DAMAGED):
            other, name = damage.another_document(dict(document), chance)
            documents.upsert_item(other)
            planted.add((document["id"], (name,)))
    assert contents(on_cosmos.verify()) == planted
    assert on_cosmos.verify(Depth()).run.verified


# Drills


def files_of(mirrored: Mirrored) -> set[str]:
    return {file.name for file in path_of(mirrored.service.source).parent.iterdir()}


def containers_of(mirrored: Mirrored) -> set[str]:
    backup = mirrored.service.backup
    assert isinstance(backup, Cosmos)
    with cosmos_client(backup.account, enable_endpoint_discovery=False) as client:
        return {properties["id"] for properties in client.get_database_client(backup.database).list_containers()}


@pytest.fixture
def place_of_drills(request: pytest.FixtureRequest) -> tuple[Mirrored, Callable[[Mirrored], set[str]]]:
    """A mirrored service, and what lies beside its backup."""
    name, beside = request.param
    return request.getfixturevalue(name), beside


WHERE_DRILLS_DIFFER = pytest.mark.parametrize(
    "place_of_drills",
    [("on_sqlite", files_of), ("on_cosmos", containers_of)],
    indirect=True,
    ids=["sqlite", "cosmos"],
)
"""One that servers copy, and one that this process does."""


@WHERE_DRILLS_DIFFER
def test_a_drill_leaves_nothing_behind(place_of_drills: tuple[Mirrored, Callable[[Mirrored], set[str]]]) -> None:
    mirrored, beside = place_of_drills
    before = beside(mirrored)
    outcome = mirrored.verify(drilled=True)
    assert outcome.error is None, outcome.error
    assert outcome.run.verified
    assert outcome.report is not None
    assert outcome.report.compared > 0
    assert beside(mirrored) == before


@WHERE_DRILLS_DIFFER
def test_a_drill_that_fails_half_way_leaves_nothing_behind(
    place_of_drills: tuple[Mirrored, Callable[[Mirrored], set[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored, beside = place_of_drills
    before = beside(mirrored)
    writes = 0

    relay, write = SqlRelational.relay, CosmosStore.write

    def relay_once(*arguments: Any) -> Iterator[Any]:
        nonlocal writes
        writes += 1
        yield next(iter(relay(*arguments)))
        raise StoreUnavailable

    def write_once(*arguments: Any, **options: Any) -> None:
        nonlocal writes
        writes += 1
        write(*arguments, **options)
        raise StoreUnavailable

    monkeypatch.setattr(SqlRelational, "relay", relay_once)
    monkeypatch.setattr(CosmosStore, "write", write_once)
    outcome = mirrored.verify(drilled=True)
    assert (writes, type(outcome.error)) == (1, StoreUnavailable)
    assert beside(mirrored) == before


def test_a_drill_finds_a_corruption(on_sqlite: Mirrored) -> None:
    chance = random.Random(SEED)
    planted = drawn(SQLITE, ROWS, 20, chance)
    SQLITE.corrupt(backup_of(on_sqlite), planted, chance)
    outcome = on_sqlite.verify(drilled=True)
    assert contents(outcome) == as_differences(planted)
    assert outcome.run.verified is False
