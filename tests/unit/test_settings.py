"""The settings: every one of them, however it is spelt, and what a wrong one says."""

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from backup.config.bindings import RESUME_SCHEDULE, SCHEDULE, TIME_ZONE, schedule_binding
from backup.config.environment import use_local_settings
from backup.config.given_services import side_name
from backup.config.settings import Settings, every_setting, load_settings
from backup.core.errors import ConfigError
from backup.core.masks import Mask
from backup.services.spec import specs_of

NAMES = sorted(every_setting())
LIMITS = {
    "MaxDeletePercent": ("7.5", 7.5),
    "MaxDeletePercentPerWeek": ("7.5", 7.5),
    "DeleteGuardFloor": ("7", 7),
    "MaxDeletes": ("7", 7),
    "MaxUpdatePercent": ("7.5", 7.5),
    "MaxAgeHours": ("7.5", 7.5),
}
SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"
BESIDE = {
    "Notify__Webhooks": {"Notify__WebhookSecret": SECRET},
    "Notify__StorageQueue": {"AzureWebJobsStorage": "UseDevelopmentStorage=true"},
}
"""Settings without which a setting is refused."""
NUMBERS = {
    **{
        f"{part}__{name}": value
        for part in ("BackupSync", "BackupCustomerDb", "BackupOrderDb")
        for name, value in LIMITS.items()
    },
    "SourceCustomerDb__FullEveryDays": ("7.5", 7.5),
    "SourceOrderDb__FullEveryDays": ("7.5", 7.5),
    "BackupSync__ChunkSize": ("7", 7),
    "BackupSync__BatchSize": ("7", 7),
    "BackupSync__BatchBytes": ("7", 7),
    "BackupSync__RecycleDays": ("7.5", 7.5),
    "BackupHistory__RetentionDays": ("90.5", 90.5),
    "BackupVerify__EveryDays": ("7.5", 7.5),
    "BackupVerify__Sample": ("7", 7),
    "BackupJobs__AtOnce": ("7", 7),
    "BackupSync__Parallelism": ("7", 7),
    "BackupSync__MaxFailedRecords": ("7", 7),
    "BackupSync__MaxStatementSeconds": ("7.5", 7.5),
    "BackupSync__MaxCallSeconds": ("90.5", 90.5),
    "BackupSync__SliceSeconds": ("7.5", 7.5),
    "BackupSync__SyncWaitSeconds": ("7.5", 7.5),
    "BackupSync__OverlapSeconds": ("7.5", 7.5),
    "BackupSync__FullEveryDays": ("7.5", 7.5),
    "BackupSync__MaxRequestUnitsPerSecond": ("7.5", 7.5),
    "BackupRetry__MaxAttempts": ("7", 7),
    "BackupRetry__BaseSeconds": ("0.5", 0.5),
    "BackupRetry__MaxSeconds": ("7.5", 7.5),
}
VALUES = {
    **dict.fromkeys(NAMES, ("a value", "a value")),
    **NUMBERS,
    "BackupSchedule__CronExpression": ("0 30 2 * * *", "0 30 2 * * *"),
    "BackupSchedule__ResumeCronExpression": ("0 30 2 * * *", "0 30 2 * * *"),
    "BackupSchedule__TimeZone": ("Europe/Berlin", "Europe/Berlin"),
    "BackupSchedule__Enabled": ("false", False),
    "BackupSchedule__Mode": ("inline", "inline"),
    "BackupLog__Format": ("json", "json"),
    "BackupTelemetry__Exporter": ("process", "process"),
    "BackupSync__OnNewColumn": ("ignore", "ignore"),
    **{f"Backup{title}Db__CronExpression": ("0 30 2 * * *", "0 30 2 * * *") for title in ("Customer", "Order")},
    **{f"Backup{title}Db__TimeZone": ("Europe/Berlin", "Europe/Berlin") for title in ("Customer", "Order")},
    "Notify__Webhooks": ("https://a/x https://b/y", ("https://a/x", "https://b/y")),
    "Notify__WebhookSecret": (SECRET, (SECRET,)),
    "Notify__StorageQueue": ("events", "events"),
    "Notify__BrokerUrl": ("amqps://u:p@h/v", "amqps://u:p@h/v"),
    "Notify__BrokerQueue": ("events", "events"),
    "Notify__Urls": ("slack://a/b/c", ("slack://a/b/c",)),
    "Notify__Send": ("digest", "digest"),
    "Notify__DigestHour": ("7", 7),
    "Notify__HeartbeatUrl": ("https://h/x", "https://h/x"),
    "Notify__Source": ("/shop", "/shop"),
    **{f"Source{title}Db__Version": ("A, b", ("A", "b")) for title in ("Customer", "Order")},
    **{f"Source{title}Db__Where": ("A=b; c=1", {"A": "b", "c": 1}) for title in ("Customer", "Order")},
    **{f"Source{title}Db__Mask": ("A=null", {"A": Mask("null")}) for title in ("Customer", "Order")},
    "BACKUP_CONFIG": (os.devnull, os.devnull),
    "BACKUP_TOML": ("[defaults]", "[defaults]"),
}


def value_of(settings: Settings, name: str) -> object:
    holder: BaseModel = settings
    if (side := side_name(name)) is not None:
        holder, name = getattr(settings.service(side.title.lower()), side.role), side.part
    fields = type(holder).model_fields
    [attribute] = [attribute for attribute, field in fields.items() if field.alias == name]
    return getattr(holder, attribute)


@pytest.mark.parametrize("spelled", [str, str.upper, str.lower])
def test_a_setting_is_read_by_its_name_whatever_the_case(spelled: Callable[[str], str]) -> None:
    for name in NAMES:
        text, value = VALUES[name]
        assert value_of(load_settings({spelled(name): text, **BESIDE.get(name, {})}), name) == value, name
    load_settings({})  # the form of log lines belongs to the process


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_setting_is_the_same_as_a_missing_one(empty: str) -> None:
    missing = load_settings({})
    for name in NAMES:
        settings = load_settings({name: empty})
        assert settings == missing, name
        assert settings.model_fields_set == set(), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SourceCustomerDb__Table", "customer.Customers"),
        ("SourceCustomerDb__Version", ("Version",)),
        ("SourceCustomerDb__Where", {}),
        ("BackupCustomerDb__Table", "customer.Customers"),
        ("BackupCustomerDb__DatabaseName", "CustomerDb_Backup"),
        ("SourceOrderDb__Table", "Orders"),
        ("SourceOrderDb__Version", ("lastModified", "status")),
        ("SourceOrderDb__Where", {"type": "Order"}),
        ("BackupOrderDb__Table", "Orders"),
        ("BackupSchedule__CronExpression", "0 0 0 * * *"),
        ("BackupSchedule__TimeZone", "UTC"),
        ("BackupSchedule__Enabled", True),
        ("BackupSync__ChunkSize", 50_000),
        ("BackupSync__BatchSize", 2_000),
        ("BackupSync__MaxDeletePercent", 10),
        ("BackupSync__MaxDeletePercentPerWeek", 25),
        ("BackupSync__DeleteGuardFloor", 20),
        ("BackupSync__MaxDeletes", None),
        ("BackupSync__MaxUpdatePercent", None),
        ("BackupSync__MaxAgeHours", 26),
        ("BackupSync__OnNewColumn", "add"),
        ("BackupSync__RecycleDays", 30),
        ("BackupHistory__RetentionDays", 400),
        ("BackupVerify__EveryDays", 7),
        ("BackupVerify__Sample", 100),
        ("BackupSync__Parallelism", 4),
        ("BackupSync__MaxStatementSeconds", 2),
        ("BackupSync__MaxCallSeconds", 600),
        ("BackupSync__SliceSeconds", 480),
        ("BackupSync__SyncWaitSeconds", 200),
        ("BackupSync__OverlapSeconds", 300),
        ("BackupSync__FullEveryDays", 7),
        ("BackupSync__MaxRequestUnitsPerSecond", None),
        ("BackupSchedule__ResumeCronExpression", "0 * * * * *"),
        ("BackupRetry__MaxAttempts", 5),
        ("BackupRetry__BaseSeconds", 2),
        ("BackupRetry__MaxSeconds", 32),
    ],
)
def test_a_missing_setting_has_its_documented_default(name: str, value: object) -> None:
    assert value_of(load_settings({}), name) == value


def test_no_connection_has_a_default() -> None:
    settings = load_settings({})
    connections = [name for name in NAMES if "ConnectionString" in name or name.startswith("AzureWebJobsStorage")]
    assert [value_of(settings, name) for name in connections] == [None] * len(connections)


@pytest.mark.parametrize("service", ["customer", "order"])
def test_a_services_own_limit_goes_before_that_of_all(service: str) -> None:
    own, every = f"Backup{service.title()}Db__MaxDeletePercent", "BackupSync__MaxDeletePercent"
    canary = {f"Source{service.title()}Db__CanaryKey": "7"}
    settings = load_settings({own: "0", every: "50", "BackupSync__MaxDeletes": "9", **canary})
    limits = {"max_delete_percent_per_week": 25, "delete_guard_floor": 20, "max_deletes": 9, "max_update_percent": None}
    other = {"customer": "order", "order": "customer"}[service]
    assert settings.guard(service) == {**limits, "max_delete_percent": 0, "canary": "7"}
    assert settings.guard(other) == {**limits, "max_delete_percent": 50, "canary": None}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "SourceCustomerDb__ConectionString",
            "BackupOrderDb__Container",
            "backupschedule__cron",
            "BackupSync__Chunks",
        ),
        *("BackupRetry__", "CosmosDb__Hosts", "SourceCustomerDb__DatabaseNam", "BackupSchedule__CronExpression_"),
    ],
)
def test_a_misspelt_setting_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"There is no setting {name}"):
        load_settings({name: "x"})


def test_a_setting_written_otherwise_is_refused_with_the_one_that_was_meant() -> None:
    given = [
        *(
            (name.replace("__", between), name)
            for name in NAMES
            if "__" in name
            for between in (":", "_", ".", "-", "")
        ),
        ("backupschedule:enabled", "BackupSchedule__Enabled"),
        ("BACKUP_SYNC_CHUNK_SIZE", "BackupSync__ChunkSize"),
        ("BackupCustomerDb__Tabel", "BackupCustomerDb__Table"),
        ("SourceOrderDb:ConectionString", "SourceOrderDb__ConnectionString"),
        ("BackupSync_Paralelism", "BackupSync__Parallelism"),
        ("SourceCustmerDb__ConnectionString", "SourceCustomerDb__ConnectionString"),
        ("SourceCustomersDb__Tabel", "SourceCustomerDb__Table"),
        ("BackupOrdreDb:ContainerName", "BackupOrderDb__ContainerName"),
        ("BackupShedule__Enabled", "BackupSchedule__Enabled"),
        ("backupshedule__cron", "BackupSchedule__CronExpression"),
        ("BACKUP_SYNK__CHUNKSIZE", "BackupSync__ChunkSize"),
        ("BackupShedule_Enabled", "BackupSchedule__Enabled"),
        ("BakupRetry__MaxAttempts", "BackupRetry__MaxAttempts"),
        ("CosmosDbs__EmulatorHost", "CosmosDb__EmulatorHosts"),
        ("BackupSync__CronExpression", "BackupSchedule__CronExpression"),
        ("BackupNotify__Webhooks", "Notify__Webhooks"),
        ("BACKUP_NOTIFY__WEBHOOK", "Notify__Webhooks"),
    ]
    for name, meant in given:
        with pytest.raises(ConfigError, match=re.escape(f"There is no setting {name}. Did you mean {meant}?")):
            load_settings({name: "x"})


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("SourceInvoiceDb__ConectionString", ". Did you mean SourceInvoiceDb__ConnectionString?"),
        ("BackupInvoiceDb:Container", ". Did you mean BackupInvoiceDb__ContainerName?"),
        ("SourceInvoiceDb_ConnectionString", ". Did you mean SourceInvoiceDb__ConnectionString?"),
        ("SOURCEINVOICEDB.TABLE", ". Did you mean SourceInvoiceDb__Table?"),
        ("BackupInvoiceDb__Version", "."),
        ("sourceinvoicedb__x", "."),
    ],
)
def test_a_setting_that_no_side_of_a_service_has_is_refused(name: str, ending: str) -> None:
    both = {f"{role}InvoiceDb__ConnectionString": "sqlite:///x.db" for role in ("Source", "Backup")}
    for settings in ({name: "secret"}, {**both, name: "secret"}):
        with pytest.raises(ConfigError, match=re.escape(f"There is no setting {name}{ending}")) as raised:
            load_settings(settings)
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["SourceInvoice_LineDb__Table", "BACKUP_INVOICE_DB__MAXDELETES", "SourceRechnungÜDb__Where"]
)
def test_a_service_in_names_of_settings_has_letters_and_digits_alone(name: str) -> None:
    with pytest.raises(ConfigError, match=f"There is no setting {name}: a service's name has only letters and digits"):
        load_settings({name: "x"})


def both_sides(title: str, **parts: str) -> dict[str, str]:
    """A service's two connection strings, and the parts given as `Source__Version`."""
    sides = {f"{role}{title}Db__ConnectionString": f"sqlite:///{role}.db" for role in ("Source", "Backup")}
    return sides | {name.replace("__", f"{title}Db__"): value for name, value in parts.items()}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("SourceInvoiceDb__ConnectionString", "Setting BackupInvoiceDb__ConnectionString is missing"),
        ("BackupInvoiceDb__ConnectionString", "Setting SourceInvoiceDb__ConnectionString is missing"),
        ("SOURCEINVOICEDB__TABLE", "Setting SourceInvoiceDb__ConnectionString is missing"),
        ("BackupInvoiceDb__MaxDeletes", "Setting SourceInvoiceDb__ConnectionString is missing"),
    ],
)
def test_one_side_of_a_service_without_the_other_is_refused_by_what_is_missing(given: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^{problem}: service invoice has no (source|backup)") as raised:
        load_settings({given: "7", **both_sides("Customer")})
    assert "customer and order" in raised.value.hint


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("SourceCustmerDb__Table", "SourceCustomerDb__Table"),
        ("BackupOrdersDb__MaxDeletes", "BackupOrderDb__MaxDeletes"),
        ("BackupInvioceDb__ConnectionString", "BackupInvoiceDb__ConnectionString"),
        ("SOURCEINVOICESDB__WHERE", "SourceInvoiceDb__Where"),
    ],
)
def test_one_side_of_a_service_that_is_called_nearly_as_another_is_taken_for_a_mistake(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^There is no setting \w+\. Did you mean {meant}\?$") as raised:
        load_settings({given: "7" if given.endswith("Deletes") else "a=7", **both_sides("Invoice")})
    assert "needs two sides" in raised.value.hint


def test_a_service_is_called_as_its_settings_are_in_small_letters() -> None:
    given = {**both_sides("InvoiceLine", Backup__Table="x"), **both_sides("Order"), **both_sides("Customer")}
    for environment in (given, {name.upper(): value for name, value in given.items()}):
        assert list(load_settings(environment).services) == ["customer", "order", "invoiceline"]
    assert load_settings(given).services["invoiceline"].title == "InvoiceLine"


@pytest.mark.parametrize("title", ["All", "ALL"])
def test_no_service_is_called_as_all_of_them(title: str) -> None:
    with pytest.raises(ConfigError, match="'all', a name that stands for all"):
        load_settings(both_sides(title))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Version", ("Version",)),
        (" lastModified ,status", ("lastModified", "status")),
        ("\"a, b\" , 'it''s'", ("a, b", "it's")),
        ("Zuletzt geändert", ("Zuletzt geändert",)),
    ],
)
def test_a_version_is_a_list_of_columns(text: str, names: tuple[str, ...]) -> None:
    assert load_settings(both_sides("Invoice", Source__Version=text)).services["invoice"].source.version == names


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("Type=Order", {"Type": "Order"}),
        ("Type = Order ; Region=EU,Year=2026", {"Type": "Order", "Region": "EU", "Year": 2026}),
        ("""Name="a, ""b"" = c";City='x;y'""", {"Name": 'a, "b" = c', "City": "x;y"}),
        ("A=true, B=False, C='true', D=1.5, E='1', F=007, G=-3", None),
        ("Name=O'Brien", {"Name": "O'Brien"}),
        ('"a=b"=""', {"a=b": ""}),
    ],
)
def test_a_filter_is_pairs_of_names_and_values(text: str, where: dict[str, object] | None) -> None:
    conditions = load_settings(both_sides("Invoice", Source__Where=text)).services["invoice"].source.where
    wanted = where or {"A": True, "B": False, "C": "true", "D": 1.5, "E": "1", "F": "007", "G": -3}
    assert {name: (type(value), value) for name, value in conditions.items()} == {
        name: (type(value), value) for name, value in wanted.items()
    }


@pytest.mark.parametrize(
    ("part", "text"),
    [
        *(("Version", text) for text in (",", "a,,b", "a,", "a, a", '"a', "a=b", '"a"b')),
        *(("Where", text) for text in ("a", "a=", "=b", "a=b,", "a=b;;c=d", "a=b, a=c", "a=null", "a=NULL", "a='b")),
        *(("Where", text) for text in ("a=='b'", "a=b c=d", "a=b=c")),
    ],
)
def test_a_version_or_a_filter_that_cannot_be_read_is_refused_by_the_settings_name(part: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^Setting SourceInvoiceDb__{part} has a value that cannot be used"):
        load_settings(both_sides("Invoice", **{f"Source__{part}": text}))


@pytest.mark.parametrize(
    "name",
    [
        *("AzureWebJobsStorage__fileServiceUri", "AzureWebJobsStorage__credential", "SOURCE_DB_HOST", "BACKUP_DB"),
        *("BACKUPMYDB_HOST", "SOURCEMONGODB_URL"),
        *("SourceDb__ConnectionString", "BACKUP_SCHEDULE", "MongoDb__Hosts", "Source:Db", "BACKUPDB__X"),
        *("PATH", "FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsFeatureFlags", "Logging__LogLevel", "BackupScheduler__X"),
        *("BACKUPSYNCER", "AzureWebJobsSecretStorageType", "SERVE_KEYS"),
    ],
)
def test_settings_of_others_are_no_business_of_the_app(name: str) -> None:
    assert load_settings({name: "x"}) == load_settings({})


def test_a_value_that_cannot_be_used_is_refused_by_the_settings_name() -> None:
    given = [
        *((name, value) for name in NUMBERS for value in ("many", "-1", "1,5", "0x10", "1 2")),
        *((name, "1e999") for name in ("BackupSync__ChunkSize", "BackupRetry__MaxAttempts")),
        *((name, "0") for name in ("BackupSync__ChunkSize", "BackupSync__BatchSize", "BackupRetry__MaxAttempts")),
        *((name, value) for name in NUMBERS for value in ("nan", "inf")),
        *((name, "100.1") for name in NUMBERS if name.endswith("Percent")),
        *((name, "1e300") for name in NUMBERS if name.endswith("Seconds")),
        *(("BackupSync__RecycleDays", value) for value in ("0", "36501")),
        *(("BackupHistory__RetentionDays", value) for value in ("0", "36501")),
        *((name, "-1") for name in ("BackupSync__OverlapSeconds", "BackupSync__FullEveryDays")),
        ("BackupSync__MaxRequestUnitsPerSecond", "0"),
        *(("BackupSync__OnNewColumn", value) for value in ("drop", "Add", "add,fail")),
        *(
            ("BackupSchedule__TimeZone", value)
            for value in (
                "Berlin",
                "W. Europe Standard Time",
                "Europe",
                "../../etc/passwd",
                "Europe/Berlin\x00",
                "+01:00",
            )
        ),
        *(("BackupSchedule__Enabled", value) for value in ("maybe", "2", "truee")),
        *(
            ("BackupSchedule__CronExpression", value)
            for value in ("0 0 * * *", "daily", "99 0 0 * * *", "0 0 0 * * * *")
        ),
    ]
    for name, value in given:
        with pytest.raises(ConfigError, match=f"^Setting {name} has a value that cannot be used"):
            load_settings({name: value})


@pytest.mark.parametrize(
    "form", ["@Microsoft.KeyVault({})", " '@microsoft.keyvault ({})'", "a@Microsoft.AppConfiguration({})"]
)
def test_a_reference_that_was_not_resolved_is_called_so_in_every_setting(form: str) -> None:
    for name in NAMES:
        with pytest.raises(ConfigError, match=f"^Setting {name} is still a reference") as raised:
            load_settings({name: form.format("VaultName=v;SecretName=s3cret")})
        assert "s3cret" not in str(raised.value) + raised.value.hint


@pytest.mark.parametrize(
    ("before", "given", "after", "meant"),
    [
        ("0 0", "22-2", "* * *", "22-23,0-2"),
        ("0 0 0 * *", "FRI-MON", "", "FRI-SAT,SUN-MON"),
        ("0 0 0 * *", "sat-sun", "", "SAT,SUN"),
        ("0 0 0 * *", "5-mon", "", "5-6,0-MON"),
        ("0 0 0 *", "Dec-Jan", "*", "DEC,JAN"),
        ("", "59-0", "* * * * *", "59,0"),
        ("0 0 0", "20-10", "* *", "20-31,1-10"),
    ],
)
def test_a_range_that_goes_down_is_refused_with_what_to_write(before: str, given: str, after: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"from the smaller to the greater; write {meant}"):
        load_settings({"BackupSchedule__CronExpression": f"{before} {given} {after}"})
    load_settings({"BackupSchedule__CronExpression": f"{before} {meant} {after}"})


@pytest.mark.parametrize(
    "schedule",
    [
        *("0 50-10/5 * * * *", "0 0 0 * * SAT-SUN/2"),
        *("0 0 0 31 2 *", "0 0 0 L * *", "0 0 0 * * 7", "0 0 0 * * 1#2", "0 0 0 ? * *", "0 0 0 1, * *"),
        "0 0 0 R * *",
    ],
)
def test_a_schedule_that_the_host_does_not_understand_is_refused(schedule: str) -> None:
    with pytest.raises(ConfigError, match="BackupSchedule__CronExpression"):
        load_settings({"BackupSchedule__CronExpression": schedule})


@given(st.sampled_from(NAMES), st.text(st.characters(exclude_characters="\x00", codec="utf-8")))
def test_a_setting_is_read_or_refused_by_its_name_whatever_its_value(name: str, value: str) -> None:
    refusal = ""
    try:
        load_settings({name: value})
    except ConfigError as error:
        refusal = str(error)
    assert refusal == "" or name in refusal


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_refusal_does_not_repeat_a_value_that_may_be_a_secret(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings({name: "Password=pasted-into-the-wrong-place"})
    assert "pasted" not in str(raised.value) + raised.value.hint


def test_settings_do_not_show_secrets() -> None:
    names = [
        name for name in NAMES if name.endswith("ConnectionString") or name in ("AzureWebJobsStorage", "SERVE_KEY")
    ]
    settings = load_settings(dict.fromkeys(names, "Password=hidden"))
    assert "hidden" not in f"{settings!r} {specs_of(settings)!r}"


def test_the_environment_is_read_when_no_other_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BackupSync__ChunkSize", "11")
    assert load_settings().chunk_size == 11


# The timer's binding


def test_triggers_and_settings_have_the_same_names_for_schedules() -> None:
    fields = [Settings.model_fields[name].alias for name in ("schedule", "resume_schedule", "schedule_time_zone")]
    assert fields == [SCHEDULE.setting, RESUME_SCHEDULE.setting, TIME_ZONE]


def test_a_timer_is_bound_to_its_setting_where_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BackupSchedule__CronExpression", "0 30 2 * * *")
    monkeypatch.setenv("BackupSchedule__ResumeCronExpression", "0 30 2 * * *")
    assert schedule_binding(SCHEDULE) == "%BackupSchedule__CronExpression%"
    assert schedule_binding(RESUME_SCHEDULE) == "%BackupSchedule__ResumeCronExpression%"


def test_a_time_zone_that_is_misspelt_is_answered_with_one_that_exists() -> None:
    with pytest.raises(ConfigError, match="did you mean Europe/Berlin"):
        load_settings({"BackupSchedule__TimeZone": "Europe/Berln"})
    with pytest.raises(ConfigError, match="such as Europe/Berlin"):  # not EST, which is seven hours from it
        load_settings({"BackupSchedule__TimeZone": "CEST"})


@pytest.mark.parametrize(
    ("zone", "schedule", "bound"),
    [
        ("Europe/Berlin", "0 30 2 * * *", "0 0,30 * * * *"),  # the gap ends at a full hour
        ("Asia/Kathmandu", "15 30 2 * * 1-5", "15 45 * * * *"),
        ("UTC", "0 30 2 * * *", "%BackupSchedule__CronExpression%"),
        ("Nowhere", "0 30 2 * * *", "%BackupSchedule__CronExpression%"),
        ("Europe/Berlin", "nonsense", "%BackupSchedule__CronExpression%"),
    ],
)
def test_a_timer_of_another_zone_fires_whenever_it_may_be_due(
    monkeypatch: pytest.MonkeyPatch, zone: str, schedule: str, bound: str
) -> None:
    monkeypatch.setenv("BackupSchedule__CronExpression", schedule)
    monkeypatch.setenv("BackupSchedule__TimeZone", zone)
    assert schedule_binding(SCHEDULE) == bound
    assert schedule_binding(RESUME_SCHEDULE) == "0 * * * * *"


@pytest.mark.parametrize("value", [None, "", " "])
def test_the_timer_is_bound_to_the_default_where_the_setting_is_missing(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("BackupSchedule__CronExpression", raising=False)
    if value is not None:
        monkeypatch.setenv("BackupSchedule__CronExpression", value)
    assert schedule_binding(SCHEDULE) == "0 0 0 * * *"


# local.settings.json


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment of this test's own, in place of the process's."""
    mine: dict[str, str] = {"BackupSync__ChunkSize": "1"}
    monkeypatch.setattr("backup.config.environment.os", SimpleNamespace(environ=mine))
    return mine


def test_local_settings_fill_the_environment_and_do_not_replace_it(environment: dict[str, str], tmp_path: Path) -> None:
    values = {"BackupSync__ChunkSize": "2", "BackupSync__BatchSize": "3"}
    text = json.dumps({"IsEncrypted": False, "Values": values})
    (tmp_path / "local.settings.json").write_text(text, encoding="utf-8-sig")  # as editors on Windows do
    use_local_settings(tmp_path)
    assert environment == {"BackupSync__ChunkSize": "1", "BackupSync__BatchSize": "3"}


def test_without_local_settings_nothing_changes(environment: dict[str, str], tmp_path: Path) -> None:
    use_local_settings(tmp_path)
    assert environment == {"BackupSync__ChunkSize": "1"}


@pytest.mark.parametrize("text", ["{", "[]", '{"Values": []}', '{"Values": "x"}', "\x00", '{"Values": null}'])
def test_local_settings_that_cannot_be_read_are_one_error_that_names_the_file(
    environment: dict[str, str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "local.settings.json").write_text(text)
    with pytest.raises(ConfigError, match=r"local\.settings\.json"):
        use_local_settings(tmp_path)


def test_the_example_of_local_settings_lists_every_setting_and_can_be_used() -> None:
    example = Path(__file__).parent.parent.parent / "local.settings.json.example"
    values = json.loads(example.read_text())["Values"]
    identity = {name for name in NAMES if name.startswith("AzureWebJobsStorage__")}  # instead of a connection string
    assert set(NAMES) - identity == values.keys() - {"FUNCTIONS_WORKER_RUNTIME"}
    load_settings(values)


def test_a_folder_that_was_removed_under_the_process_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="The folder that this process runs in cannot be used: No such file"):
        load_settings()
