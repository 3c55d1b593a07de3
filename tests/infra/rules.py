"""What must never stand in infra/: a line for each mistake. docs/decisions/deployment.md says why these rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.infra.bicep import BicepFile, inner
from tests.infra.resource_types import mistakes_of_types

MUST_BE: Mapping[str, Mapping[str, Any]] = {
    "Microsoft.Storage/storageAccounts": {
        "properties.allowSharedKeyAccess": False,
        "properties.allowBlobPublicAccess": False,
        "properties.minimumTlsVersion": "TLS1_2",
        "properties.supportsHttpsTrafficOnly": True,
        "properties.networkAcls.defaultAction": "Deny",
        "properties.networkAcls.bypass": "None",
    },
    "Microsoft.Storage/storageAccounts/blobServices/containers": {"properties.publicAccess": "None"},
    "Microsoft.Sql/servers": {
        "properties.administrators.azureADOnlyAuthentication": True,
        "properties.minimalTlsVersion": "1.2",
    },
    "Microsoft.DocumentDB/databaseAccounts": {
        "properties.disableLocalAuth": True,
        "properties.disableKeyBasedMetadataWriteAccess": True,
        "properties.minimalTlsVersion": "Tls12",
        "properties.ipRules": [],
    },
    "Microsoft.Web/sites": {
        "properties.httpsOnly": True,
        "properties.siteConfig.minTlsVersion": "1.2",
        "identity.type": "UserAssigned",
    },
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": {"properties.allow": False},
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": {"properties.resolutionPolicy": "NxDomainRedirect"},
    "Microsoft.Insights/components": {"properties.DisableLocalAuth": True},
    "Microsoft.OperationalInsights/workspaces": {"properties.features.disableLocalAuth": True},
}
ROLES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "00000000-0000-0000-0000-000000000001": "Cosmos DB Built-in Data Reader",
    "00000000-0000-0000-0000-000000000002": "Cosmos DB Built-in Data Contributor",
}
"""The roles that may be granted. docs/azure.md names each."""

_NEVER_WRITTEN = {
    r"\b0\.0\.0\.0\b|\b255\.255\.255\.255\b|/0'": "an address range of the whole internet or of all of Azure",
    r"listKeys|listAccountSas|listConnectionStrings|primaryKey\b": "a key of an account",
    r"(?i)(password|pwd|accountkey|sharedaccesskey|sharedaccesssignature)\s*=": "a secret in a connection string",
    r"'AzureServices'": "a way around the network rules for all of Azure",
    r"'br[:/]|'ts[:/]": "a module of a registry",
    r"@\d{4}-\d{2}-\d{2}-preview": "an API that is a preview",
    r"'//+'": "a resource id of slashes, which leads to a scope without a name",
    r"addressPrefix(?:es)?: \[?'": "addresses of a network that nobody can choose",
}
_NOT_ON_FLEX = {
    *("alwaysOn", "containerSize", "ftpsState", "functionAppScaleLimit", "linuxFxVersion", "preWarmedInstanceCount"),
    *("use32BitWorkerProcess", "vnetBackupRestoreEnabled", "vnetContentShareEnabled", "vnetImagePullEnabled"),
    "vnetRouteAllEnabled",
}
"""Properties of other plans, which Azure's documentation says to leave out: all traffic goes by the network anyway."""

_NEVER_MADE = ("firewallRules", "sqlRoleDefinitions", "Microsoft.Authorization/roleDefinitions")
_SECRET_NAME = re.compile(r"(?i)password|secret|token$|accountkey|apikey|credential")
_ROLE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_REFERENCE = re.compile(r"\b(\w+)(?:\[\w+\])?!?\.outputs\.(\w+)")
_NAMES_THAT_ARE_NO_SECRET = {"token"}  # what the names of resources are made of


def mistakes(files: Sequence[BicepFile]) -> list[str]:
    """One line for each mistake in the files; none if all is well."""
    by_name = {file.name: file for file in files}
    lines: list[str] = []
    for file in files:
        mistakes_of_it = [*_of(file), *_of_calls(file, by_name), *mistakes_of_types(file)]
        lines += [f"{file.name}: {mistake}" for mistake in mistakes_of_it]
    return lines


def _of(file: BicepFile) -> Iterator[str]:
    code = re.sub(r"^\s*//.*$|(?<=\s)//\s.*$", "", file.text, flags=re.M)
    for pattern, mistake in _NEVER_WRITTEN.items():
        if match := re.search(pattern, code):
            yield f"{mistake}: {match[0]}"
    for name in file.part("parameters"):
        if _SECRET_NAME.search(name) and name not in _NAMES_THAT_ARE_NO_SECRET:
            yield f"a parameter for a secret: {name}"
    for name in (*file.part("parameters"), *file.part("variables")):
        if len(re.findall(rf"\b{name}\b", code)) < 2:
            yield f"{name} is never used"  # which bicepconfig.json has the compiler refuse
    for role in set(_ROLE_ID.findall(code)) - ROLES.keys():
        yield f"a role that nobody needs: {role}"
    for name, kind, config in file.resources():
        if any(part in kind for part in _NEVER_MADE):
            yield f"a resource that must not be: {kind}"
        for path, wanted in MUST_BE.get(kind, {}).items():
            if (value := _at(config, path)) != wanted or type(value) is not type(wanted):
                yield f"{name}: {path} is {value!r}, not {wanted!r}"
        if "administratorLogin" in config.get("properties", {}):
            yield f"{name}: a login with a password"
        site = config.get("properties", {}) if kind == "Microsoft.Web/sites" else {}
        for property_name in sorted(_NOT_ON_FLEX & {*site, *site.get("siteConfig", {})}):
            yield f"{name}: Flex Consumption has no {property_name}"
        access = config.get("properties", {}).get("publicNetworkAccess")
        if access is not None and not _is_off_when_private(access):
            yield f"{name}: publicNetworkAccess is {access!r}"


def _of_calls(file: BicepFile, files: Mapping[str, BicepFile]) -> Iterator[str]:
    """What the compiler would say of calls of modules: parameters that are missing or unknown, outputs that are not."""
    called: dict[str, BicepFile] = {}
    folder = file.name.rpartition("/")[0]
    for name, module in file.part("modules").items():
        path = "/".join(filter(None, [folder, module["detail"]["path"]]))
        if path not in files:
            yield f"there is no module {path}"
            continue
        called[name] = files[path]
        parameters = called[name].part("parameters")
        given = set(inner(module["config"]).get("params", {}))
        needed = {parameter for parameter, declared in parameters.items() if declared.get("default") is None}
        if wrong := sorted(given - parameters.keys()) + sorted(needed - given):
            yield f"{name}: parameters of {path} that are unknown or missing: {', '.join(wrong)}"
    for name, output in _REFERENCE.findall(file.text):
        if name in called and output not in called[name].part("outputs"):
            yield f"{name} has no output {output}"


def _is_off_when_private(access: Any) -> bool:
    """Whether it is off, or on only without private endpoints; then rules of the network decide who is admitted."""
    if access == "Disabled":
        return True
    operands = access.get("operator", {}).get("operands", {}) if isinstance(access, dict) else {}
    return bool(operands.get("condition") == "isPrivate" and operands.get("true_value") == "Disabled")


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
