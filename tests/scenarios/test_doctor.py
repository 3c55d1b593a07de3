"""The doctor on set-ups that are broken in one place each: the line that says so, and that nothing was changed."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from azure.core.exceptions import ClientAuthenticationError

from backup.config.settings import load_settings
from backup.core.errors import BadRequest, NotInitialized
from backup.core.model import Now, utc_now
from backup.doctor import app_parts, sides
from backup.doctor.examination import examine
from backup.doctor.findings import Check, Finding, Grade, findings_of, fine, worst
from backup.doctor.identities import identity_checks
from backup.entry.doctor_api import post_doctor
from backup.jobs.job import Request
from backup.jobs.job_queue import open_job_queue
from backup.runs.storage_account import storage_error
from backup.stores import tokens
from backup.stores.sides import Side
from tests.emulators.servers import postgres_database
from tests.scenarios import places
from tests.scenarios.inside import command, done
from tests.scenarios.places import Place, Service, Sql


def examined(settings: dict[str, str], now: Now = utc_now, **more: float) -> list[Finding]:
    return examine(load_settings(settings), now, **more)


def lines(findings: list[Finding]) -> set[tuple[str, str, str]]:
    """Grade, subject and check of what is not ok."""
    return {(each.grade.value, each.subject, each.check) for each in findings if each.grade is not Grade.OK}


def the(findings: list[Finding], subject: str, check: str) -> Finding:
    """The worst finding of a check."""
    chosen = [each for each in findings if (each.subject, each.check) == (subject, check)]
    return min(chosen, key=lambda each: list(Grade).index(each.grade))


@pytest.fixture
def own_file(tmp_path: Path) -> dict[str, str]:
    """The file of jobs of this test alone."""
    return {"BackupJobs__File": str(tmp_path / "jobs" / "jobs.db")}


def test_a_healthy_set_up_has_no_warning_and_stays_as_it_is(sqlite_place: Place, tmp_path: Path) -> None:
    def contents() -> dict[str, str]:
        return {path.name: sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir() if path.is_file()}

    before = contents()
    settings = {**sqlite_place.settings, "BackupJobs__File": str(tmp_path / "jobs.db")}
    answer = done(command(tmp_path, settings, "doctor", "--json"))
    assert (answer["Success"], answer["Status"], answer["Counts"]["Failed"]) == (True, "ok", 0)
    assert contents() == before, "the file of jobs is not made either"
    checks = {(row["Subject"], row["Check"]) for row in answer["Checks"]}
    for subject in ("customer source", "order backup"):
        assert {(subject, check) for check in ("connection", "clock", "table", "rights")} <= checks
    assert ("order backup", "SyncHistory") in checks


def test_a_missing_table_and_a_backup_that_was_never_made_are_told_apart(
    tmp_path: Path, own_file: dict[str, str]
) -> None:
    place = places.on_sqlite(tmp_path)
    places.filled_on_sqlite(tmp_path)
    (tmp_path / "orders_backup.db").unlink()
    settings = {**place.settings, **own_file, "SourceCustomerDb__Table": "Custmers"}
    findings = examined(settings)
    assert lines(findings) == {("failed", "customer source", "table"), ("warning", "order backup", "connection")}
    assert "initialize" in the(findings, "order backup", "connection").hint
    shown = command(tmp_path, settings, "doctor")
    assert shown.code == 1
    assert "1 failed, 1 warning" in shown.out


def test_a_backup_that_lies_in_its_source_is_told(sqlite_place: Place, own_file: dict[str, str]) -> None:
    source = sqlite_place.customer.source
    assert isinstance(source, places.Sql)
    findings = examined({**sqlite_place.settings, **own_file, "BackupCustomerDb__ConnectionString": source.url})
    assert ("failed", "customer", "places") in lines(findings)
    assert the(findings, "order", "places").grade is Grade.OK


def test_days_between_full_comparisons_that_no_column_allows_are_told(
    sqlite_place: Place, own_file: dict[str, str]
) -> None:
    findings = examined({**sqlite_place.settings, **own_file, "SourceCustomerDb__FullEveryDays": "7"})
    assert lines(findings) == {("warning", "customer source", "FullEveryDays")}


def test_a_folder_that_cannot_be_written_is_a_missing_right(
    sqlite_place: Place, own_file: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so this stands for a folder of another user.
    monkeypatch.setattr(os, "access", lambda path, mode: "orders_backup" not in str(path))
    findings = examined({**sqlite_place.settings, **own_file})
    assert lines(findings) == {("failed", "order backup", "rights")}
    assert "the login lacks writing on" in the(findings, "order backup", "rights").message


def test_settings_that_cannot_be_used_are_the_one_thing_that_is_told(tmp_path: Path) -> None:
    ended = command(tmp_path, {"BackupSync__ChunkSize": "many"}, "doctor", "--json")
    [failed] = [row for row in ended.json["Checks"] if row["Status"] == "failed"]
    assert (ended.code, failed["Subject"]) == (1, "settings")
    assert "BackupSync__ChunkSize" in failed["Message"]
    nothing = examined({})
    assert "no service is configured" in the(nothing, "settings", "services").message


def test_timers_that_do_nothing_or_too_long_are_told(
    sqlite_place: Place, own_file: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {
        "BackupSchedule__Enabled": "false",
        "BackupSync__SliceSeconds": "4000",
        "BackupOrderDb__TimeZone": "Asia/Tokyo",
    }
    findings = examined({**sqlite_place.settings, **own_file, **more})
    assert lines(findings) == {("warning", "timers", "schedule"), ("failed", "timers", "slices")}
    assert any("in Asia/Tokyo: next" in each.message for each in findings)
    monkeypatch.setenv("AzureFunctionsJobHost__functionTimeout", "02:00:00")  # as a deployment does
    assert lines(examined({**sqlite_place.settings, **own_file, **more})) == {("warning", "timers", "schedule")}


def test_jobs_that_nobody_works_on_are_told(sqlite_place: Place, own_file: dict[str, str]) -> None:
    settings = load_settings({**sqlite_place.settings, **own_file})
    job_queue = open_job_queue(settings, lambda: utc_now() - timedelta(hours=1))
    job_queue.records.enqueue(Request("customer"), "http")
    job_queue.keys.close()
    findings = examined({**sqlite_place.settings, **own_file})
    assert lines(findings) == {("failed", "jobs", "waiting")}


class Roles:
    """The service `shop` on PostgreSQL, each side as a login of its own; the superuser has the databases."""

    def __init__(self, source: str, backup: str) -> None:
        self.source, self.backup = Sql(source, "public.shop"), Sql(backup, "public.shop")
        self.login = f"doctor_{uuid.uuid4().hex[:8]}"
        self.source.run("CREATE TABLE {table} (id int PRIMARY KEY, name text)")
        self.source.run("INSERT INTO {table} VALUES (1, 'a')")
        Place(*[self.service(source, backup)] * 2).initialize()
        self.source.run(f"CREATE ROLE {self.login} LOGIN PASSWORD 'hidden-password'")

    def service(self, source: str, backup: str) -> Service:
        return Service("shop", Sql(source, "public.shop"), Sql(backup, "public.shop"))

    def as_login(self, url: str, password: str = "hidden-password") -> str:  # noqa: S107
        text = sa.make_url(url).set(username=self.login, password=password)
        return text.render_as_string(hide_password=False)

    @property
    def settings(self) -> dict[str, str]:
        return self.service(self.as_login(self.source.url), self.as_login(self.backup.url)).settings


@pytest.fixture
def roles(postgres: str) -> Iterator[Roles]:
    with postgres_database(postgres) as source, postgres_database(postgres) as backup:
        made = Roles(source, backup)
        yield made
        for side in (made.source, made.backup):
            side.run(f"DROP OWNED BY {made.login}")
        made.source.run(f"DROP ROLE {made.login}")


def test_rights_that_are_missing_and_too_many_are_named(roles: Roles, own_file: dict[str, str]) -> None:
    roles.source.run(f"GRANT SELECT, INSERT ON {{table}} TO {roles.login}")
    roles.backup.run(f"GRANT SELECT, INSERT ON {{table}} TO {roles.login}")
    findings = examined({**roles.settings, **own_file})
    assert "INSERT on public.shop" in the(findings, "shop source", "rights").message
    assert the(findings, "shop source", "rights").grade is Grade.WARNING
    lacking = the(findings, "shop backup", "rights")
    assert (lacking.grade, "UPDATE, DELETE on public.shop" in lacking.message) == (Grade.FAILED, True)
    assert "SELECT, INSERT, UPDATE, DELETE on public.RecycleBin" in lacking.message, (
        "no sync goes without its own tables"
    )
    assert any("ownership on public.shop" in each.message for each in findings if each.grade is Grade.WARNING)
    for table, right in (("public.other", "CREATE on schema public"), ("nowhere.other", "CREATE on the database")):
        to_make = the(examined({**roles.settings, **own_file, "BackupShopDb__Table": table}), "shop backup", "rights")
        assert (to_make.grade, right in to_make.message) == (Grade.FAILED, True), "nobody else makes what is not there"
    roles.source.run(f"REVOKE ALL ON {{table}} FROM {roles.login}")
    denied = the(examined({**roles.settings, **own_file}), "shop source", "table")
    assert (denied.grade, "GRANT SELECT" in denied.hint) == (Grade.FAILED, True)


def test_a_wrong_password_and_a_missing_driver_are_one_line_each_and_show_no_secret(
    roles: Roles, own_file: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = roles.service(roles.as_login(roles.source.url, "hidden-other"), roles.backup.url).settings
    findings = examined({**wrong, **own_file})
    assert ("failed", "shop source", "connection") in lines(findings)
    assert "password authentication failed" in the(findings, "shop source", "connection").message
    assert not any("hidden" in each.message + each.hint for each in findings)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    driver = the(examined({**roles.settings, **own_file}), "shop source", "connection")
    assert (driver.grade, "psycopg" in driver.message) == (Grade.FAILED, True)


@pytest.mark.parametrize(("minutes", "grade"), [(0, Grade.OK), (2, Grade.WARNING), (-10, Grade.FAILED)])
def test_a_clock_that_is_off_is_told(minutes: int, grade: Grade, roles: Roles, own_file: dict[str, str]) -> None:
    settings = roles.service(roles.source.url, roles.backup.url).settings
    findings = examined({**settings, **own_file}, lambda: utc_now() + timedelta(minutes=minutes))
    assert the(findings, "shop source", "clock").grade is grade


def test_a_silent_server_ends_as_a_line_and_its_other_services_are_not_waited_for(own_file: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        url = f"postgresql://u:hidden@127.0.0.1:{silent.getsockname()[1]}/d"
        names = [f"{side}Shop{letter}Db" for letter in "ABCDEFGH" for side in ("Source", "Backup")]
        settings = {f"{name}__ConnectionString": url for name in names}
        settings |= {f"{name}__Table": f"t.{name}" for name in names}
        findings = examined({**settings, **own_file}, call_seconds=0.5)
    assert the(findings, "shopa source", "connection").grade is Grade.FAILED
    assert "15 other sides" in the(findings, "shopa source", "others").message
    assert not any(each.check == "table" for each in findings)


def test_a_check_without_an_end_is_left_and_none_begins_when_the_time_is_up() -> None:
    gate = socket.socketpair()
    try:
        stuck = Check("a", "b", lambda: [fine("a", "b", str(gate[0].recv(1)))])
        [left] = findings_of([stuck], float("inf"), seconds=0.2)
        assert (left.grade, "no answer within 0.2 s" in left.message) == (Grade.FAILED, True)
    finally:
        for end in gate[::-1]:
            end.close()
    [late] = findings_of([Check("a", "b", lambda: [fine("a", "b", "c")])], 0.0)
    assert (late.grade, "not looked at" in late.message) == (Grade.FAILED, True)


def test_a_storage_account_that_is_stopped_fails_in_each_service(sqlite_place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    endpoints = ";".join(f"{kind}Endpoint=http://127.0.0.1:{port}/a" for kind in ("Blob", "Queue", "Table"))
    account = f"AccountName=a;AccountKey=aGlkZGVu;{endpoints}"
    findings = examined({**sqlite_place.settings, "AzureWebJobsStorage": account}, call_seconds=1)
    assert {("failed", "storage", kind) for kind in ("blob", "queue", "table")} <= lines(findings)
    assert "start Azurite" in the(findings, "storage", "blob").hint
    assert not any("aGlkZGVu" in each.message + each.hint for each in findings)


def test_a_storage_account_answers_and_its_poison_queue_is_seen(
    sqlite_place: Place, azurite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.core.exceptions import ResourceExistsError
    from azure.storage.queue import QueueClient

    settings = {**sqlite_place.settings, "AzureWebJobsStorage": azurite}
    with QueueClient.from_connection_string(azurite, "backup-jobs-poison") as poison:
        with suppress(ResourceExistsError):  # by another test: they share the account
            poison.create_queue()
        poison.clear_messages()
        assert ("warning", "storage", "poison queue") not in lines(examined(settings))
        poison.send_message("x")
        findings = examined(settings)
        poison.clear_messages()
    assert ("warning", "storage", "poison queue") in lines(findings)
    assert the(findings, "storage", "clock").grade is Grade.OK
    other_key = examined({**settings, "AzureWebJobsStorage": azurite.replace("AccountKey=E", "AccountKey=F")})
    assert {("failed", "storage", kind) for kind in ("blob", "queue", "table")} <= lines(other_key)
    assert "Check the account's key" in the(other_key, "storage", "queue").hint
    cut = examined({**settings, "AzureWebJobsStorage": azurite.replace("AccountKey=", "AccountKey=#")})
    assert "access keys in the portal" in the(cut, "storage", "queue").hint, "a key is no login that is missing"
    monkeypatch.setattr(app_parts, "QUEUE", "never-made")
    assert any("never-made is not there yet" in each.message for each in examined(settings))


def test_containers_are_looked_at_without_a_write(cosmos_orders: Place, own_file: dict[str, str]) -> None:
    before = cosmos_orders.order.source.contents()
    findings = examined({**cosmos_orders.settings, **own_file})
    assert lines(findings) == {("warning", "order source", "rights")}, "a key may also write to the source"
    assert cosmos_orders.order.source.contents() == before


def test_who_may_make_no_container_is_not_told_to_initialize(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise NotInitialized("There is no container.")

    store = SimpleNamespace(ping=missing, close=lambda: None)
    monkeypatch.setattr(sides, "open_store", lambda *_: store)
    examiner: Any = SimpleNamespace(limits=None, now=utc_now)
    spec: Any = SimpleNamespace(rules=None)
    for key, hint in (("", "az"), ("AccountKey=aGlkZGVu", "initialize")):
        side = Side("order", "backup", "X", f"AccountEndpoint=https://x.documents.azure.com:443/;{key}", database="d")
        [finding] = sides.server_check(examiner, side, spec).look()
        assert (finding.grade, hint in finding.hint) == (Grade.WARNING, True), key


def test_a_set_is_asked_once_for_all_its_tables(tmp_path: Path, own_file: dict[str, str]) -> None:
    places.filled_on_sqlite(tmp_path)
    file = f'[set.shop]\nsource = "sqlite:///{tmp_path}/customers.db"\nbackup = "sqlite:///{tmp_path}/customers_backup.db"\n'
    findings = examined({**own_file, "BACKUP_TOML": file + 'tables = ["Cust*"]'})
    assert (lines(findings), "the set has 1 table" in the(findings, "shop source", "tables").message) == (set(), True)
    wrong = examined({**own_file, "BACKUP_TOML": file + 'tables = ["Cust*", "Invoice"]'})
    assert "'Invoice'" in the(wrong, "shop source", "tables").message


def test_a_trigger_that_may_change_a_copy_is_named(roles: Roles, own_file: dict[str, str], tmp_path: Path) -> None:
    places.filled_on_sqlite(tmp_path)
    copies = Sql(f"sqlite:///{tmp_path}/customers_backup.db", "Customers")
    copies.run("CREATE TRIGGER shouts AFTER UPDATE ON {table} BEGIN SELECT 1; END")
    copies.run("CREATE TRIGGER counts AFTER DELETE ON {table} BEGIN SELECT 1; END")
    file = f'[set.shop]\nsource = "sqlite:///{tmp_path}/customers.db"\nbackup = "{copies.url}"\ntables = ["*"]'
    of_set = the(examined({**own_file, "BACKUP_TOML": file}), "shop backup", "triggers")
    assert (of_set.grade, of_set.message) == (
        Grade.WARNING,
        "may change what is written: 1 trigger (shouts of Customers)",
    )
    function = "suppress_redundant_updates_trigger()"
    roles.backup.run(f"CREATE TRIGGER same BEFORE UPDATE ON {{table}} FOR EACH ROW EXECUTE FUNCTION {function}")
    assert "(same of shop)" in the(examined({**roles.settings, **own_file}), "shop backup", "triggers").message


def test_a_set_tells_of_its_database_alone_and_of_tables_that_no_run_can_copy(
    tmp_path: Path, own_file: dict[str, str]
) -> None:
    places.filled_on_sqlite(tmp_path)
    file = f'[set.shop]\nsource = "sqlite:///{tmp_path}/customers.db"\nbackup = "sqlite:///{tmp_path}/copies.db"\n'
    Sql(f"sqlite:///{tmp_path}/customers.db", "notes").run("CREATE TABLE {table} (text, author)")
    settings = {**own_file, "BACKUP_TOML": file + 'tables = ["*"]'}
    keyless = the(examined(settings), "shop source", "tables")
    assert (keyless.grade, keyless.message) == (Grade.FAILED, "1 table without a primary key: notes")
    named = settings["BACKUP_TOML"] + '\n[set.shop.table.notes]\nkey = ["author"]'
    assert the(examined({**settings, "BACKUP_TOML": named}), "shop source", "tables").grade is Grade.OK
    gone = {**own_file, "BACKUP_TOML": settings["BACKUP_TOML"].replace("customers.db", "nothing.db")}
    for role in ("source", "backup"):
        finding = the(examined(gone), f"shop {role}", "connection")
        assert ("does not exist" in finding.message, "SyncHistory" in finding.message) == (True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not what the Functions host reads"),
        ("[]", "not what the Functions host reads"),
        ('{"extensions": {"queues": {"messageEncoding": "none"}}}', "messageEncoding is none"),
        ('{"functionTimeout": "ten minutes"}', "functionTimeout is ten minutes"),
        ('{"functionTimeout": "-1"}', ""),
        ("{}", ""),
    ],
)
def test_a_host_json_that_stops_the_host_or_its_queue_is_told(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "host.json").write_text(text)
    monkeypatch.setattr(app_parts, "_HOST", tmp_path / "host.json")
    [finding] = app_parts.host_findings()
    assert (finding.grade, message in finding.message) == (Grade.FAILED if message else Grade.OK, True)


def test_an_identity_without_a_token_is_told_once_for_all_sides(
    own_file: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def get_token(scope: str) -> Any:
        asked.append(scope)
        raise RuntimeError("hidden")

    monkeypatch.setattr(tokens, "credential", lambda client_id: SimpleNamespace(get_token=get_token))
    accounts = {f"{side}OrderDb": "AccountEndpoint=https://127.0.0.1:1/" for side in ("Source", "Backup")}
    settings = {f"{name}__{part}": "x" for name in accounts for part in ("DatabaseName", "ContainerName")}
    settings |= {f"{name}__ConnectionString": text for name, text in accounts.items()}
    settings["BackupOrderDb__ContainerName"] = "y"
    token = the(examined({**settings, **own_file}, call_seconds=0.5), "identity", "token")
    assert (token.grade, "RuntimeError" in token.message, "hidden" in token.message) == (Grade.FAILED, True, False)
    assert asked == ["https://127.0.0.1/.default"]


def test_an_expired_token_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"AzureWebJobsStorage__accountName": "shop"})
    ended = SimpleNamespace(token="hidden", expires_on=int((utc_now() - timedelta(hours=1)).timestamp()))
    monkeypatch.setattr(tokens, "credential", lambda _: SimpleNamespace(get_token=lambda _: ended))
    [check] = identity_checks(settings, [], utc_now)
    [finding] = check.look()
    assert (finding.grade, "ended 60 minutes ago" in finding.message) == (Grade.FAILED, True)
    assert "clock" in finding.hint
    assert "az login" in storage_error(ClientAuthenticationError("no token"), "the locks").hint


def test_over_http_it_takes_no_parameter_and_answers_200_also_when_something_is_wrong() -> None:
    answer = post_doctor(lambda: load_settings({"BackupSync__ChunkSize": "many"}), {}, b"")
    assert (answer.status, answer.body["Success"], answer.body["Status"]) == (200, False, "failed")
    with pytest.raises(BadRequest):
        post_doctor(lambda: load_settings({}), {"deep": "true"}, b"")
    with pytest.raises(BadRequest):
        post_doctor(lambda: load_settings({}), {}, b'{"a": 1}')


def test_the_worst_finding_decides() -> None:
    assert worst([]) is Grade.OK
    graded = [Finding(grade, "", "", "") for grade in (Grade.OK, Grade.WARNING)]
    assert worst(graded) is Grade.WARNING
