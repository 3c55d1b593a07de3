"""That the rules over infra/ notice what they are for: each mistake is made on purpose."""

from __future__ import annotations

import json
import re

from tests.infra.bicep import INFRA, ROOT, BicepFile, bicep_file, bicep_files
from tests.infra.rules import ROLES, mistakes


def with_change(name: str, old: str, new: str) -> list[BicepFile]:
    """The files of infra/, with a change of one."""
    files = {file.name: file for file in bicep_files()}
    assert old in files[name].text
    return [*{**files, name: bicep_file(name, files[name].text.replace(old, new, 1))}.values()]


def test_all_rules_hold() -> None:
    assert mistakes(bicep_files()) == []


MISTAKES = {
    "app/storage.bicep": [
        ("allowSharedKeyAccess: false", "allowSharedKeyAccess: true", "allowSharedKeyAccess"),
        ("    allowSharedKeyAccess: false\n", "", "allowSharedKeyAccess"),
        ("defaultAction: 'Deny'", "defaultAction: 'Allow'", "defaultAction"),
        ("bypass: 'None'", "bypass: 'AzureServices'", "all of Azure"),
        ("isPrivate ? 'Disabled' : 'Enabled'", "'Enabled'", "publicNetworkAccess"),
        ("publicAccess: 'None'", "publicAccess: 'Blob'", "publicAccess"),
        ("kind: 'StorageV2'", "kind: 'StorageV3'", "account.kind is 'StorageV3', not one of"),
    ],
    "app/sql.bicep": [
        ("azureADOnlyAuthentication: true", "azureADOnlyAuthentication: false", "azureADOnly"),
        ("minimalTlsVersion: '1.2'", "minimalTlsVersion: '1.0'", "minimalTlsVersion"),
        ("    administrators: {", "    administratorLogin: 'sa'\n    administrators: {", "a login with"),
        ("servers/virtualNetworkRules@", "servers/firewallRules@", "must not be"),
        ("param deleteLock bool", "param deleteLock bool\nparam sqlPassword string", "for a secret"),
        ("autoPauseDelay", "autoPauseDelayMinutes", "Azure knows no property autoPauseDelayMinutes"),
        ("    virtualNetworkSubnetId: appSubnetId\n", "", "the property virtualNetworkSubnetId is missing"),
        ("servers@2023-08-01", "servers@2023-08-31", "Microsoft.Sql/servers@2023-08-31 is not kept"),
    ],
    "app/cosmos.bicep": [
        ("disableLocalAuth: true", "disableLocalAuth: false", "disableLocalAuth"),
        ("ipRules: []", "ipRules: [{ ipAddressOrRange: '0.0.0.0' }]", "the whole internet"),
        ("'00000000-0000-0000-0000-000000000002'", "'5bd9cd88-fe45-4216-938b-f97437e15450'", "a role"),
        ("tier: 'Continuous7Days'", "tier: 'Continuous14Days'", "tier is 'Continuous14Days'"),
        ("ignoreMissingVNetServiceEndpoint", "ignoreMissing", "Azure knows no property ignoreMissing"),
    ],
    "app/function.bicep": [
        ("httpsOnly: true", "httpsOnly: false", "httpsOnly"),
        ("allow: false", "allow: true", "properties.allow"),
        ("Microsoft.Web/sites@2024-04-01", "Microsoft.Web/sites@2024-04-01-preview", "a preview"),
        ("minTlsVersion: '1.2'", "minTlsVersion: '1.2'\n      ftpsState: 'Disabled'", "has no ftpsState"),
        ("httpsOnly: true", "httpsOnly: true\n    vnetRouteAllEnabled: true", "has no vnetRouteAllEnabled"),
        ("instanceMemoryMB", "instanceMemory", "Azure knows no property instanceMemory"),
    ],
    "app/network.bicep": [("[prefix]", "['10.0.0.0/16']", "nobody can choose")],
    "app/dns-zone.bicep": [("    resolutionPolicy: 'NxDomainRedirect'\n", "", "resolutionPolicy")],
    "app/watch.bicep": [
        ("DisableLocalAuth: true", "DisableLocalAuth: false", "DisableLocalAuth"),
        ("operator: 'GreaterThan'", "operator: 'MoreThan'", "operator is 'MoreThan'"),
    ],
    "main.bicep": [
        ("sourceSql = empty(", "sourceSql = 'Password=x' == '' ? '' : empty(", "a secret"),
        ("'app/identity.bicep'", "'br/public:avm/res/x:0.1.0'", "a registry"),
        ("    isPrivate: vnetEnabled\n  }\n}\n\nmodule watch", "  }\n}\n\nmodule watch", "isPrivate"),
        ("alertEmail: alertEmail", "alertMail: alertEmail", "alertMail"),
        ("identity.outputs.principalId", "identity.outputs.principal", "no output principal"),
        ("param useBackupFile", "param unused bool = false\nparam useBackupFile", "unused is never used"),
        ("? nothing : keyVaultId", "? '////////' : keyVaultId", "a scope without a name"),
    ],
}
"""By file: a text of it, what is written instead, and a part of what is told then."""


def test_each_mistake_is_told() -> None:
    for file, changes in MISTAKES.items():
        for old, new, message in changes:
            lines = mistakes(with_change(file, old, new))
            assert [line for line in lines if message in line], (file, new, lines)


def test_a_comment_is_no_mistake() -> None:
    assert mistakes(with_change("app/sql.bicep", "param serverName", "// never 0.0.0.0\nparam serverName")) == []


def test_each_role_that_is_granted_is_in_the_documents() -> None:
    granted = {role for file in bicep_files() for role in ROLES if role in file.text}
    assert granted == ROLES.keys()
    page = (ROOT / "docs/azure.md").read_text()
    assert [name for name in ROLES.values() if name not in page] == []


def variable_of(text: str) -> tuple[str, str]:
    """The environment variable that azd puts in, and what it takes where that is missing or empty."""
    match = re.fullmatch(r"\$\{(\w+)(?:=([^}]*))?\}", text)
    assert match, text
    return match[1], match[2] or ""


def test_a_variable_that_is_empty_gives_a_parameter_its_default() -> None:
    # The workflow hands over every variable, also those that nobody set; an empty text would be no number.
    [main] = [file for file in bicep_files() if file.name == "main.bicep"]
    given = json.loads((INFRA / "main.parameters.json").read_text())["parameters"]
    defaults = {name: parameter["default"] for name, parameter in main.part("parameters").items()}
    texts = {
        name: str(default).lower() if isinstance(default, bool) else str(default) for name, default in defaults.items()
    }
    assert {name: variable_of(given[name]["value"])[1] for name in texts if defaults[name] is not None} == {
        name: text for name, text in texts.items() if defaults[name] is not None
    }


def test_the_parameters_are_those_of_the_template_and_of_the_documents() -> None:
    [main] = [file for file in bicep_files() if file.name == "main.bicep"]
    given = json.loads((INFRA / "main.parameters.json").read_text())["parameters"]
    assert given.keys() == main.part("parameters").keys()
    variables = {variable_of(parameter["value"])[0] for parameter in given.values()}
    of_azd = {name for name in variables if name.startswith("AZURE_")}
    page = (ROOT / "docs/azure.md").read_text()
    assert {name for name in variables - of_azd if f"`{name}`" not in page} == set()
