"""The settings that infra/ gives the app, and what azd hands to the command line, against the app's own settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from backup.config.service_settings import BY_DEFAULT
from backup.config.settings import Settings, every_setting, load_settings
from backup.services.registry import Registry
from tests.infra.bicep import INFRA, ROOT, BicepFile, bicep_files, inner


@cache
def files() -> Mapping[str, BicepFile]:
    return {file.name: file for file in bicep_files()}


def main() -> BicepFile:
    return files()["main.bicep"]


def app() -> BicepFile:
    return files()["app/function.bicep"]


def of_the_file() -> set[str]:
    return keys_of(main(), "fileSettings")


OF_THE_HOST = {
    "AzureWebJobsStorage__credential",
    "AzureFunctionsJobHost__functionTimeout",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "AZURE_CLIENT_ID",
}
"""What the Functions host and azure-identity read. docs/azure.md names each."""
SQL = "Server=x.database.windows.net;Database=y"
COSMOS = "AccountEndpoint=https://x.documents.azure.com:443/"


def keys_of(file: BicepFile, variable: str) -> set[str]:
    return set(file.part("variables")[variable]["value"])


def value_of(name: str) -> str:
    """A value as the deployment gives it."""
    given = {
        "BackupSchedule__CronExpression": "0 0 0 * * *",
        "BackupSchedule__TimeZone": "Europe/Berlin",
        "BackupSync__MaxAgeHours": "26",
        "BackupLog__Format": "json",
    }
    part = name.partition("__")[2]
    if part == "ConnectionString":
        return SQL if "Customer" in name else COSMOS
    if part.endswith("ServiceUri"):
        return f"https://x.{part.removesuffix('ServiceUri')}.core.windows.net/"
    return given.get(name, "customer.Customers" if part == "Table" else "some-value")


def app_settings() -> set[str]:
    return keys_of(app(), "appSettings")


def service_settings() -> set[str]:
    return keys_of(main(), "customerSettings") | keys_of(main(), "orderSettings")


def schedule_settings() -> set[str]:
    return keys_of(main(), "scheduleSettings")


FURTHER_SETTINGS = json.loads((INFRA / "settings.json").read_text())


def test_every_name_is_one_that_the_app_or_the_host_knows() -> None:
    known = {*every_setting(), *OF_THE_HOST}
    assert (app_settings() | service_settings() | schedule_settings() | set(FURTHER_SETTINGS)) - known == set()


def test_the_app_takes_these_settings_and_has_both_services() -> None:
    names = app_settings() | service_settings() | schedule_settings()
    settings = load_settings({name: value_of(name) for name in names} | FURTHER_SETTINGS)
    registry = Registry(settings)
    assert registry.directory.own_names == ["customer", "order"]
    assert settings.has_storage_account
    assert settings.log_format == "json"
    for name in registry.directory.own_names:
        registry.get(name)  # raises if one of its settings is missing


def test_none_that_a_service_needs_is_missing() -> None:
    needed = {
        *(f"{side}{title}Db__ConnectionString" for side in ("Source", "Backup") for title in BY_DEFAULT),
        *(f"{side}OrderDb__{part}" for side in ("Source", "Backup") for part in ("DatabaseName", "ContainerName")),
    }
    assert needed <= service_settings()


def test_all_three_services_of_the_storage_account_are_named_with_the_identity() -> None:
    of_storage = {
        str(field.alias) for field in Settings.model_fields.values() if "AzureWebJobsStorage__" in str(field.alias)
    }
    assert of_storage - app_settings() == {"AzureWebJobsStorage__accountName"}  # the other way to name it
    assert "AzureWebJobsStorage" not in app_settings()  # a connection string with a key


def test_what_flex_consumption_refuses_is_not_set() -> None:
    refused = {
        "FUNCTIONS_WORKER_RUNTIME",
        "FUNCTIONS_EXTENSION_VERSION",
        "WEBSITE_TIME_ZONE",
        "WEBSITE_RUN_FROM_PACKAGE",
    }
    assert refused & (app_settings() | schedule_settings() | service_settings()) == set()


def test_the_outputs_are_settings_of_the_app_or_names_of_azd() -> None:
    outputs = set(main().part("outputs"))
    own = {name for name in outputs if not name.startswith(("AZURE_", "SERVICE_"))}
    assert own - {*every_setting(), *of_the_file()} == set()
    # The version that is empty by a parameter is the app's default; all others reach the command line too.
    assert service_settings() - own == {"SourceCustomerDb__Version"}
    assert own - service_settings() == of_the_file()


def test_the_app_refuses_none_of_the_outputs() -> None:
    outputs = {name: value_of(name) for name in main().part("outputs") if name not in of_the_file()}
    assert Registry(load_settings(outputs)).directory.own_names == ["customer", "order"]


def test_a_backup_file_may_name_what_the_deployment_gives_it() -> None:
    assert of_the_file()
    for name in of_the_file():
        text = f'[set.x]\nsource = "${{{name}}}"\nbackup = "{SQL}"\ntables = ["*"]\n'
        settings = load_settings({"BACKUP_TOML": text, name: SQL})
        assert settings.sets["x"].source == SQL, name


def test_the_functions_host_gets_what_the_binding_of_the_queue_names() -> None:
    assert 'connection="AzureWebJobsStorage"' in (ROOT / "function_app.py").read_text()
    assert "AzureWebJobsStorage__queueServiceUri" in app_settings()


def test_the_plan_the_runtime_and_the_timeout_are_those_of_the_documents() -> None:
    resources: dict[str, Any] = {name: config for name, _, config in app().resources()}
    configured = resources["app"]["properties"]["functionAppConfig"]
    assert resources["plan"]["sku"]["name"] == "FC1"
    assert configured["runtime"] == {"name": "python", "version": "3.12"}
    assert configured["scaleAndConcurrency"]["instanceMemoryMB"] == 2048
    assert configured["scaleAndConcurrency"]["alwaysReady"] == []
    assert configured["deployment"]["storage"]["authentication"]["type"] == "UserAssignedIdentity"
    timeout = app().part("variables")["appSettings"]["value"]["AzureFunctionsJobHost__functionTimeout"]
    hours, minutes, seconds = map(int, timeout.split(":"))
    assert hours * 3600 + minutes * 60 + seconds > load_settings({}).slice_seconds


def test_the_backup_has_the_containers_that_initialize_makes() -> None:
    from backup.recycle_bin.entries import RECYCLE_BIN
    from backup.runs.history_entries import HISTORY

    [containers] = [variable["value"] for variable in [files()["app/cosmos.bicep"].part("variables")["containers"]]]
    made = {container["name"]: container for container in containers}
    for shape in (HISTORY, RECYCLE_BIN):
        properties = {name: name[0].lower() + name[1:] for name in shape.fields}
        container = made[shape.container]
        assert container["path"] == f"/{properties[shape.partition]}"
        # Only texts that no query has a condition on may be left out of the index.
        texts = {properties[name] for name, kind in shape.fields.items() if kind == "text"}
        assert {path.strip("/?") for path in container["unindexed"]} <= texts


def test_the_backup_on_cosmos_is_serverless_or_shares_autoscale() -> None:
    """The server refuses an account that is serverless and has a throughput."""
    cosmos = files()["app/cosmos.bicep"]
    made = {kind.rpartition("/")[2]: inner(config)["properties"] for _, kind, config in cosmos.resources()}
    capabilities, options = (
        choice["operator"]["operands"]
        for choice in (made["databaseAccounts"]["capabilities"], made["sqlDatabases"]["options"])
    )
    assert capabilities["condition"] == options["condition"] == "isServerless"
    assert "autoscaleThroughput == 0" in cosmos.text
    assert (capabilities["true_value"], capabilities["false_value"]) == ([{"name": "EnableServerless"}], [])
    autoscale = {"autoscaleSettings": {"maxThroughput": "autoscaleThroughput"}}
    assert (options["true_value"], options["false_value"]) == ({}, autoscale)
    assert "options" not in made["containers"]  # each would cost for itself
    assert main().part("parameters")["cosmosAutoscaleThroughput"]["default"] == 0


def test_the_settings_in_the_documents_are_the_outputs_of_the_template() -> None:
    page = (ROOT / "docs/azure.md").read_text()
    assert set(re.findall(r"`(SERVICE_\w+)`", page)) <= main().part("outputs").keys()
    assert {name for name in OF_THE_HOST | of_the_file() if f"`{name}`" not in page} == set()


def test_each_module_that_is_made_for_a_source_changes_nothing_else_there() -> None:
    kinds = {name: [kind for _, kind, _ in files()[name].resources()] for name in files() if "source-" in name}
    assert kinds == {
        "app/source-cosmos.bicep": ["Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments"],
        "app/source-sql.bicep": ["Microsoft.Sql/servers/virtualNetworkRules"],
    }
    [reader] = [inner(config) for _, _, config in files()["app/source-cosmos.bicep"].resources()]
    assert "dataReader" in str(reader["properties"]["roleDefinitionId"])
