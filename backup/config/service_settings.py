"""The settings of one service: its two sides, its rules and its limits. Does not read the environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from backup.config.schedule import CronText, ZoneName
from backup.core.conditions import Value
from backup.core.masks import Mask, MaskKind
from backup.core.model import SIDES, SideName

BY_DEFAULT: Mapping[str, Mapping[str, str]] = {
    "Customer": {
        "SourceCustomerDb__Table": "customer.Customers",
        "SourceCustomerDb__Version": "Version",
        "BackupCustomerDb__Table": "customer.Customers",
        "BackupCustomerDb__DatabaseName": "CustomerDb_Backup",
    },
    "Order": {
        "SourceOrderDb__Table": "Orders",
        "SourceOrderDb__Version": "lastModified, status",
        "SourceOrderDb__Where": "type=Order",
        "BackupOrderDb__Table": "Orders",
    },
}
"""The presets: the services that the app knows without any setting, and the defaults of their settings."""

_TEXT = r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|[^\s=,;"'][^=,;]*?)"""
_NAMES = re.compile(rf"\s*({_TEXT})\s*(,|$)")
_PAIRS = re.compile(rf"\s*({_TEXT})\s*=\s*({_TEXT})\s*([,;]|$)")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")


def parse_version(text: Any) -> tuple[str, ...]:
    """Returns the names in a text like `lastModified, status`. Raises ValueError for a text that is not such a list."""
    names = [_plain(name) for (name,) in _parsed(_NAMES, text, "name columns like Version, or lastModified, status")]
    if len(set(names)) < len(names):
        raise ValueError("it names a column twice")
    return tuple(names)


def parse_where(text: Any) -> Mapping[str, Value]:
    """Returns the value of each name in a text like `Type=Order; Region="EU, west"`: a text, a number, true or false.

    Raises ValueError for a text that has no such pairs.
    """
    pairs = _parsed(_PAIRS, text, 'write pairs like Type=Order, or Type=Order; Region="EU, west"')
    where = {_plain(name): _value(value) for name, value in pairs}
    if len(where) < len(pairs):
        raise ValueError("it names a column twice")
    return where


def parse_mask(text: Any) -> Mapping[str, Mask]:
    """Returns the mask of each name in a text like `Email=email; Phone=null; Note="text:hidden"`.

    Raises ValueError for a text that has no such pairs, and for a mask that does not exist.
    """
    pairs = _parsed(_PAIRS, text, "write pairs like Email=email; Phone=null")
    masks = {_plain(name): mask_of(_plain(mask)) for name, mask in pairs}
    if len(masks) < len(pairs):
        raise ValueError("it names a column twice")
    return masks


def mask_of(text: str) -> Mask:
    """Returns the mask that a text like `hmac` or `text:hidden` names. Raises ValueError for one that does not
    exist."""
    kind, colon, fixed = text.partition(":")
    if kind == "text" and colon:
        return Mask("text", fixed)
    for mask_kind in get_args(MaskKind):
        if text == mask_kind != "text":
            return Mask(mask_kind)
    raise ValueError("a mask is null, hmac, email, year, or text: and the text")


def _parsed(pattern: re.Pattern[str], text: Any, wanted: str) -> list[tuple[str, ...]]:
    """Matches the pattern over the whole text; returns the groups of each match, without the separator."""
    matches, at = [], 0
    text = str(text).strip()
    while at < len(text):
        match = pattern.match(text, at)
        if match is None:
            raise ValueError(f"{wanted}; quote a name or value that contains a separator")
        *groups, separator = match.groups()
        matches.append(tuple(groups))
        at = match.end()
        if separator and not text[at:].strip():
            raise ValueError(f"it ends with a {separator!r}")
    return matches


def _value(text: str) -> Value:
    if text[0] in "\"'":
        return _plain(text)
    if text.lower() == "null":
        raise ValueError("a filter cannot pick records without a value; quote null if you mean the text")
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    number: Value = json.loads(text) if _NUMBER.fullmatch(text) else text
    return number


def _plain(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote) if quote in "\"'" else text


class SideSettings(BaseModel):
    """One side of a service. The aliases are the last parts of the settings' names."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    connection: str | None = Field(None, alias="ConnectionString", repr=False)
    table: str | None = Field(None, alias="Table")
    database: str | None = Field(None, alias="DatabaseName")
    container: str | None = Field(None, alias="ContainerName")


class SourceSettings(SideSettings):
    """The source, with its version, its filter, its masks, its column of the last write, and its canary.
    `full_every_days`: how often everything is compared, where a column of the last write spares it in between."""

    version: Annotated[tuple[str, ...], PlainValidator(parse_version)] = Field((), alias="Version")
    where: Annotated[Mapping[str, Value], PlainValidator(parse_where)] = Field({}, alias="Where")
    mask: Annotated[Mapping[str, Mask], PlainValidator(parse_mask)] = Field({}, alias="Mask")
    modified_by: str | None = Field(None, alias="ModifiedBy")
    full_every_days: float | None = Field(None, alias="FullEveryDays", ge=0, le=36_500)
    canary: str | None = Field(None, alias="CanaryKey")


class BackupSettings(SideSettings):
    """The backup, the service's own limits and its own schedule."""

    max_delete_percent: float | None = Field(None, alias="MaxDeletePercent", ge=0, le=100)
    max_delete_percent_per_week: float | None = Field(None, alias="MaxDeletePercentPerWeek", ge=0, le=100)
    delete_guard_floor: int | None = Field(None, alias="DeleteGuardFloor", ge=0)
    max_deletes: int | None = Field(None, alias="MaxDeletes", ge=0)
    max_update_percent: float | None = Field(None, alias="MaxUpdatePercent", ge=0, le=100)
    schedule: CronText | None = Field(None, alias="CronExpression")
    time_zone: ZoneName | None = Field(None, alias="TimeZone")
    max_age_hours: float | None = Field(None, alias="MaxAgeHours", ge=0, le=87_600)


SETTINGS_OF_SIDE: Mapping[SideName, type[SideSettings]] = {"source": SourceSettings, "backup": BackupSettings}

PARTS: Mapping[SideName, tuple[str, ...]] = {
    role: tuple(str(field.alias) for field in kind.model_fields.values()) for role, kind in SETTINGS_OF_SIDE.items()
}
"""The last parts that the names of a side's settings may have."""


class ServiceSettings(BaseModel):
    """The settings of a service. `name` is in small letters; `title` is the spelling in the names of the settings.
    `given`: the names of the settings that have a value."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    name: str
    title: str
    source: SourceSettings
    backup: BackupSettings
    given: frozenset[str] = frozenset()

    @property
    def is_known_by_itself(self) -> bool:
        """Whether the service is a preset: the app knows it, and the name of its backup, without any setting."""
        return self.title in BY_DEFAULT

    def setting(self, role: SideName, part: str) -> str:
        """Returns the name of a setting of this service."""
        return setting_of(role, self.title, part)

    def own(self, role: SideName, part: str) -> bool:
        """Whether this setting has a value of its own, and not the app's default."""
        return self.setting(role, part) in self.given


def setting_of(role: SideName, title: str, part: str) -> str:
    """Returns the name of a setting of a service's side, such as `SourceInvoiceDb__Table`."""
    return f"{role.title()}{title}Db__{part}"


def settings_of(title: str) -> list[str]:
    """Returns the names of all settings of a service."""
    return [setting_of(role, title, part) for role in SIDES for part in PARTS[role]]
