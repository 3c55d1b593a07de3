"""A service that the app has never heard of, made by settings alone, on every engine and through everything it does."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.cosmos import PartitionKey

from backup.config.settings import load_settings
from backup.core.errors import ConfigError, GuardTripped, UnknownService
from backup.core.run_values import Counts, Run, Trigger
from backup.dev import sample
from backup.entry import http
from backup.mirror.verification import Depth
from backup.runs.outcome import Outcome
from backup.services.named_run import run_named
from backup.services.registry import Registry
from backup.services.service import SyncService
from backup.services.spec import ServiceSpec, specs_of
from backup.verbs.restore_spec import RestoreSpec
from tests.emulators.clients import cosmos_client
from tests.emulators.servers import lent_database
from tests.scenarios import places
from tests.scenarios.places import Cosmos, Service, Sql

SALES = 8
"""Records of type Sale, by even ids; those of odd ones are of another type, and none of the service's."""

SQL = pytest.mark.parametrize("invoices", ["sqlite", "postgresql"], indirect=True)
SQLITE = pytest.mark.parametrize("invoices", ["sqlite"], indirect=True)
COSMOS = pytest.mark.parametrize("invoices", ["cosmos"], indirect=True)
LONG = "x" * 200


class Invoices(Service):
    """Invoices: their two sides, filled and changed."""

    @property
    def settings(self) -> dict[str, str]:
        """What a user would set: nothing of the backup's table or container."""
        own = self.backup.settings("BackupInvoiceDb")
        left_out = ("BackupInvoiceDb__Table", "BackupInvoiceDb__ContainerName")
        return self.source.settings("SourceInvoiceDb") | {k: v for k, v in own.items() if k not in left_out}

    def fill(self) -> None:
        if isinstance(self.source, Sql):
            if "." in self.source.table:
                self.source.run("CREATE SCHEMA sales")
            self.source.run('CREATE TABLE {table} ("Id" integer PRIMARY KEY, "Type" text, "Rev" integer, "Note" text)')
        else:
            with cosmos_client(self.source.account) as client:
                database = client.create_database_if_not_exists(self.source.database)
                database.create_container(self.source.container, PartitionKey("/Region"))
        self.put(1, "new", *range(1, 2 * SALES + 1))

    def put(self, rev: int, note: str, *ids: int, kind: str | None = None) -> None:
        """Writes records; of another kind than by their ids, if one is named."""
        kinds = {n: kind or ("Sale" if n % 2 == 0 else "Offer") for n in ids}
        if isinstance(self.source, Sql):
            self.source.run(f'DELETE FROM {{table}} WHERE "Id" IN ({", ".join(map(str, ids))})')
            rows = ", ".join(f"({n}, '{kind}', {rev}, '{note}')" for n, kind in kinds.items())
            self.source.run(f"INSERT INTO {{table}} VALUES {rows}")
            return
        with self._container() as container:
            for n, kind in kinds.items():
                container.upsert_item({"id": str(n), "Region": "EU", "Type": kind, "Rev": rev, "Note": note})

    def remove(self, n: int) -> None:
        if isinstance(self.source, Sql):
            self.source.run(f'DELETE FROM {{table}} WHERE "Id" = {n}')
            return
        with self._container() as container:
            container.delete_item(str(n), "EU")

    def _container(self) -> Any:
        assert isinstance(self.source, Cosmos)
        return _Container(self.source)

    def sales(self, side: Sql | Cosmos) -> dict[int, str]:
        """The notes of the side's records of the service, by id; asserts that the backup has no others."""
        records = {int(key): record for key, record in side.contents().items()}
        assert side is self.source or {record["Type"] for record in records.values()} <= {"Sale"}
        return {n: record["Note"] for n, record in records.items() if record["Type"] == "Sale"}


class _Container:
    def __init__(self, place: Cosmos) -> None:
        self._place, self._client = place, cosmos_client(place.account)

    def __enter__(self) -> Any:
        client = self._client.__enter__()  # type: ignore[no-untyped-call]
        return client.get_database_client(self._place.database).get_container_client(self._place.container)

    def __exit__(self, *error: object) -> None:
        self._client.__exit__(*error)  # type: ignore[no-untyped-call]


@pytest.fixture(params=["sqlite", "postgresql", "cosmos"])
def invoices(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Invoices]:
    if request.param == "sqlite":
        sides: list[Sql | Cosmos] = [Sql(f"sqlite:///{tmp_path}/{name}.db", "Invoices") for name in ("shop", "kept")]
        yield _filled(*sides)
    elif request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        with lent_database(server) as source, lent_database(server) as backup:
            yield _filled(*(Sql(url, "sales.Invoices") for url in (source, backup)))
    else:
        accounts = [request.getfixturevalue(name) for name in ("cosmos_server", "cosmos_server_backup")]
        name = f"shop-{uuid.uuid4().hex}"
        yield _filled(*(Cosmos(account, name, "invoices") for account in accounts))


def _filled(source: Sql | Cosmos, backup: Sql | Cosmos) -> Invoices:
    made = Invoices("invoice", source, backup)
    made.fill()
    return made


def registry(settings: Mapping[str, str], **more: str) -> Registry:
    named = {f"SourceInvoiceDb__{part}": value for part, value in more.items()}
    return Registry(load_settings({"BackupRetry__BaseSeconds": "0", **settings, **named}))


def done(outcome: Outcome) -> Run:
    assert outcome.error is None, outcome.error
    return outcome.run


@pytest.mark.parametrize(
    ("invoices", "version"),
    [("sqlite", ""), ("sqlite", "Rev"), ("postgresql", ""), ("cosmos", "")],
    indirect=["invoices"],
)
def test_a_service_made_by_settings_alone_does_all_that_services_do(invoices: Invoices, version: str) -> None:
    services = registry(invoices.settings, Version=version, Where='"Type"=Sale')
    assert services.directory.names() == ["invoice"]
    service = services.get("Invoice")
    service.initialize()
    first = done(service.sync(Trigger.CLI))
    assert (first.counts, first.notes) == (Counts(inserted=SALES), ())
    assert invoices.sales(invoices.backup) == invoices.sales(invoices.source)
    assert done(service.sync(Trigger.CLI)).counts == Counts(skipped=SALES)

    invoices.put(2, "changed", 2)
    invoices.put(1, "added", 100)
    invoices.put(1, "none of its own", 101)
    invoices.put(1, "none of its own any more", 8, kind="Offer")
    invoices.remove(4)
    changed = done(service.sync(Trigger.CLI))
    assert (changed.counts, changed.verified) == (Counts(1, 1, 2, SALES - 3), True)
    assert invoices.sales(invoices.backup) == invoices.sales(invoices.source)
    assert done(service.verify(Depth(full=True))).verified

    undone = done(service.undo(changed.sync_id))
    assert undone.counts.processed == 4
    assert {n: note for n, note in invoices.sales(invoices.source).items() if n not in (2, 100)} == {
        n: note for n, note in invoices.sales(invoices.backup).items() if n not in (2, 4, 8)
    }
    assert {invoices.sales(invoices.backup)[n] for n in (2, 4, 8)} == {"new"}
    assert done(service.sync(Trigger.CLI)).counts == Counts(1, 1, 2, SALES - 3)

    invoices.remove(6)
    assert done(service.restore(RestoreSpec())).counts.inserted == 1
    assert invoices.sales(invoices.source)[6] == "new"
    assert done(service.sync(Trigger.CLI)).counts == Counts(skipped=SALES - 1)
    assert {run.service for run in service.past.history(99)} == {"invoice"}
    assert {entry["ServiceName"] for entry in invoices.backup.history()} == {"invoice"}


@SQLITE
def test_a_service_made_by_settings_alone_answers_over_http(invoices: Invoices) -> None:
    services = registry(invoices.settings)
    assert http.post_initialize(services, {}, b"").body["Results"] == [{"Service": "invoice", "Status": "Initialized"}]
    for service in ("INVOICE", "invoice"):
        answer = http.post_sync_of(services, service, {}, b"")
        assert (answer.status, answer.body["ServiceName"], answer.body["Verified"]) == (200, "invoice", True)
    [result] = http.post_sync(services, {}, b'{"service": "invoice"}').body["Results"]
    assert (result["SkippedCount"], result["Status"]) == (2 * SALES, "Completed")
    assert http.post_sync_of(services, "all", {}, b"").body["Results"][0]["SkippedCount"] == 2 * SALES
    assert http.post_verify(services, "invoice", {}, b'{"full": true}').body["Verified"]
    health = http.get_health(lambda: services, {"deep": "true"}).body
    assert [(check["Service"], check["Side"]) for check in health["Checks"]] == [
        ("invoice", "source"),
        ("invoice", "backup"),
    ]
    assert health["Status"] == "Healthy"
    with pytest.raises(UnknownService, match=r"'invoices' is configured\. Did you mean invoice\?"):
        http.post_sync_of(services, "invoices", {}, b"")


@SQL
@pytest.mark.parametrize("part", ["Version", "Where"])
def test_a_column_that_settings_name_and_no_table_has_fails_before_anything_is_changed(
    invoices: Invoices, part: str
) -> None:
    named = {"Version": "id, Revv", "Where": "TYPE=Sale; Revv=1"}[part]
    services = registry(invoices.settings, **{part: named})
    outcome = services.sync("invoice", Trigger.CLI)[0]
    with pytest.raises(ConfigError, match=rf"no column Revv, which the setting SourceInvoiceDb__{part} names. Did you"):
        services.get("invoice").initialize()
    assert isinstance(outcome.error, ConfigError)
    assert not (Path(str(getattr(invoices.backup, "url", "")).removeprefix("sqlite:///"))).exists()


def test_a_filter_of_numbers_and_flags_finds_these_and_no_texts_like_them(invoices: Invoices) -> None:
    invoices.put(7, "seventh", 2)
    services = registry(invoices.settings, Where="Rev=7; Type='Sale'")
    services.get("invoice").initialize()
    assert done(services.get("invoice").sync(Trigger.CLI)).counts == Counts(inserted=1)
    texts = registry(invoices.settings, Where='Rev="7"; Type=Sale').sync("invoice", Trigger.CLI)[0]
    if isinstance(invoices.source, Cosmos):
        assert texts.run.counts == Counts()  # no document has the text, on neither side
    else:
        assert done(texts).counts == Counts(skipped=1)


def test_a_filter_that_picks_nothing_is_told_of(invoices: Invoices) -> None:
    services = registry(invoices.settings, Where="Type=Sail; Rev=1")
    services.get("invoice").initialize()
    run = done(services.get("invoice").sync(Trigger.CLI))
    note = "The source has no record for which Type='Sail'; Rev=1: see whether Where is what was meant."
    assert (run.counts, run.notes) == (Counts(), (note,))


@SQL
def test_a_value_that_a_column_cannot_have_is_refused_by_the_setting(invoices: Invoices) -> None:
    with pytest.raises(
        ConfigError, match=r"column Rev of the source of invoice .* has the type (?i:integer)"
    ) as raised:
        registry(invoices.settings, Where="Rev=seven").get("invoice").initialize()
    assert "SourceInvoiceDb__Where" in raised.value.hint


@SQLITE
def test_a_services_own_limits_and_canary_count(invoices: Invoices) -> None:
    own = {"BackupInvoiceDb__MaxDeletes": "1", **invoices.settings}
    services = registry(own, CanaryKey="2")
    services.get("invoice").initialize()
    done(services.get("invoice").sync(Trigger.CLI))
    for n in (1, 3):
        invoices.remove(n)
    refused = services.sync("invoice", Trigger.CLI)[0].error
    assert isinstance(refused, GuardTripped)
    assert "MaxDeletes is 1" in str(refused)
    invoices.remove(2)
    refused = services.sync("invoice", Trigger.CLI)[0].error
    assert isinstance(refused, GuardTripped)
    assert "CanaryKey" in str(refused)


def test_a_sql_source_without_a_table_names_the_setting(tmp_path: Path) -> None:
    sides = {f"{role}InvoiceDb__ConnectionString": f"sqlite:///{tmp_path}/{role}.db" for role in ("Source", "Backup")}
    with pytest.raises(ConfigError, match="SourceInvoiceDb__Table is missing"):
        registry(sides).get("invoice").initialize()
    assert [*tmp_path.iterdir()] == []


@SQLITE
def test_the_sample_fills_no_service_that_it_does_not_know(invoices: Invoices, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="None of the services has a sample"):
        sample.fill(registry(invoices.settings))
    orders = places.on_sqlite(tmp_path).order
    assert sample.fill(registry({**invoices.settings, **orders.settings})) == {"order": 55}


@COSMOS
def test_a_cosmos_backup_in_its_sources_account_needs_another_database(invoices: Invoices) -> None:
    assert isinstance(invoices.source, Cosmos)
    one_account = {**invoices.settings, "BackupInvoiceDb__ConnectionString": invoices.source.account}
    del one_account["BackupInvoiceDb__DatabaseName"]
    with pytest.raises(ConfigError, match="SourceInvoiceDb and BackupInvoiceDb name the same place"):
        registry(one_account).get("invoice").initialize()


@pytest.mark.parametrize(
    ("invoices", "name"),
    [
        *(("sqlite", name) for name in ("chinook/dbo.Customer", "a\\b#c?d %2F", "顧客" * 100, LONG)),
        *((engine, "chinook/dbo.顧客\\b#c?d" + "🙂" * 80) for engine in ("postgresql", "cosmos")),
    ],
    indirect=["invoices"],
    ids=lambda value: value[:20],
)
def test_a_service_of_any_name_is_synced_undone_and_told_of(invoices: Invoices, name: str) -> None:
    [spec] = specs_of(load_settings(invoices.settings))
    services = Registry(load_settings({}), specs=[_named(spec, name)])
    service: SyncService = services.get(name.upper())
    service.initialize()
    answer = http.post_sync_of(services, name, {}, b"")
    assert (answer.status, answer.body["ServiceName"]) == (200, name)
    assert done(service.undo(answer.body["SyncId"])).counts.deleted == 2 * SALES
    assert [run.service for run in service.past.history(9)] == [name, name]
    assert {entry["ServiceName"] for entry in invoices.backup.history()} == {name}
    assert run_named(services, answer.body["SyncId"])[0].name == name
    assert http.get_health(lambda: services, {"deep": "true"}).body["Checks"][0]["Service"] == name


def _named(spec: ServiceSpec, name: str) -> ServiceSpec:
    return replace(
        spec, name=name, source=replace(spec.source, service=name), backup=replace(spec.backup, service=name)
    )
