"""The app's settings: their names, their defaults, what they may be, and how they are read of variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta, tzinfo
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from backup.config.bindings import RESUME_SCHEDULE, SCHEDULE
from backup.config.environment import current_folder, default_jobs_file, own_variables
from backup.config.given_services import names_of, read_service, services_of, titles_in, unusable
from backup.config.ncrontab import time_zone
from backup.config.notify_settings import (
    Addresses,
    BrokerAddress,
    BrokerQueue,
    QueueName,
    SourceName,
    WebAddress,
    WebhookAddresses,
    WebhookSecrets,
    check_has_queues,
    check_signed,
    secrets_in,
)
from backup.config.references import refuse_reference
from backup.config.schedule import CronText, Schedule, ZoneName
from backup.config.service_settings import BackupSettings, ServiceSettings
from backup.config.set_file import SetText, find_text, read_sets
from backup.config.set_settings import SetSection, TableSection
from backup.config.setting_names import refuse_if_ours
from backup.core.log import register_secret, write_json

_LIMITS = (
    "max_delete_percent",
    "max_delete_percent_per_week",
    "delete_guard_floor",
    "max_deletes",
    "max_update_percent",
)
_HOST_FOLDER = Path(__file__).parents[2]  # where host.json is
_DAY = 86_400  # the longest wait in seconds, because locks and timers take no infinity


class Settings(BaseSettings):
    """Every setting, by its name in the environment. An empty value counts as a missing one."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, defer_build=True
    )

    services: Mapping[str, ServiceSettings] = {}
    """The settings of each service, by its name."""

    sets: Mapping[str, SetSection] = {}
    """The sets of backup.toml, by name."""

    set_file: str | None = Field(None, alias="BACKUP_CONFIG")
    set_text: str | None = Field(None, alias="BACKUP_TOML", repr=False)

    schedule: CronText = Field(SCHEDULE.default, alias="BackupSchedule__CronExpression")
    resume_schedule: CronText = Field(RESUME_SCHEDULE.default, alias="BackupSchedule__ResumeCronExpression")
    schedule_time_zone: ZoneName = Field("UTC", alias="BackupSchedule__TimeZone")
    schedule_enabled: bool = Field(True, alias="BackupSchedule__Enabled")
    schedule_mode: Literal["queue", "inline"] | None = Field(None, alias="BackupSchedule__Mode")

    jobs_file: str = Field(default_factory=default_jobs_file, alias="BackupJobs__File")
    jobs_at_once: int = Field(5, alias="BackupJobs__AtOnce", ge=1, le=100)

    chunk_size: int = Field(50_000, alias="BackupSync__ChunkSize", ge=1, le=1_000_000)
    batch_size: int = Field(2_000, alias="BackupSync__BatchSize", ge=1, le=100_000)
    batch_bytes: int = Field(8 * 1024 * 1024, alias="BackupSync__BatchBytes", ge=1)
    parallelism: int = Field(4, alias="BackupSync__Parallelism", ge=1, le=64)
    max_statement_seconds: float = Field(2, alias="BackupSync__MaxStatementSeconds", gt=0, le=3600)
    max_call_seconds: float = Field(600, alias="BackupSync__MaxCallSeconds", gt=0, le=_DAY)
    slice_seconds: float = Field(480, alias="BackupSync__SliceSeconds", gt=0, le=_DAY)
    wait_seconds: float = Field(200, alias="BackupSync__SyncWaitSeconds", ge=0, le=_DAY)
    overlap_seconds: float = Field(300, alias="BackupSync__OverlapSeconds", ge=0, le=365 * _DAY)
    full_every_days: float = Field(7, alias="BackupSync__FullEveryDays", ge=0, le=36_500)
    max_request_units_per_second: float | None = Field(
        None, alias="BackupSync__MaxRequestUnitsPerSecond", gt=0, allow_inf_nan=False
    )
    max_delete_percent: float = Field(10, alias="BackupSync__MaxDeletePercent", ge=0, le=100)
    max_delete_percent_per_week: float = Field(25, alias="BackupSync__MaxDeletePercentPerWeek", ge=0, le=100)
    delete_guard_floor: int = Field(20, alias="BackupSync__DeleteGuardFloor", ge=0)
    max_deletes: int | None = Field(None, alias="BackupSync__MaxDeletes", ge=0)
    max_update_percent: float | None = Field(None, alias="BackupSync__MaxUpdatePercent", ge=0, le=100)
    max_failed_records: int = Field(100, alias="BackupSync__MaxFailedRecords", ge=0, le=100_000)
    max_age_hours: float = Field(26, alias="BackupSync__MaxAgeHours", ge=0, le=87_600)
    on_new_column: Literal["add", "fail", "ignore"] = Field("add", alias="BackupSync__OnNewColumn")
    recycle_days: float = Field(30, alias="BackupSync__RecycleDays", gt=0, le=36_500)
    history_days: float = Field(400, alias="BackupHistory__RetentionDays", gt=0, le=36_500)
    verify_every_days: float = Field(7, alias="BackupVerify__EveryDays", ge=0, le=36_500)
    verify_sample: int = Field(100, alias="BackupVerify__Sample", ge=0, le=1_000_000)
    retry_max_attempts: int = Field(5, alias="BackupRetry__MaxAttempts", ge=1, le=100)
    retry_base_seconds: float = Field(2.0, alias="BackupRetry__BaseSeconds", ge=0, le=_DAY)
    retry_max_seconds: float = Field(32.0, alias="BackupRetry__MaxSeconds", ge=0, le=_DAY)

    notify_webhooks: WebhookAddresses = Field(default_factory=tuple, alias="Notify__Webhooks", repr=False)
    notify_webhook_secret: WebhookSecrets = Field(default_factory=tuple, alias="Notify__WebhookSecret", repr=False)
    notify_storage_queue: QueueName | None = Field(None, alias="Notify__StorageQueue")
    notify_broker: BrokerAddress | None = Field(None, alias="Notify__BrokerUrl", repr=False)
    notify_broker_queue: BrokerQueue = Field("backup-events", alias="Notify__BrokerQueue")
    notify_urls: Addresses = Field(default_factory=tuple, alias="Notify__Urls", repr=False)
    notify_send: Literal["failures", "all", "digest"] = Field("failures", alias="Notify__Send")
    notify_digest_hour: int = Field(7, alias="Notify__DigestHour", ge=0, le=23)
    notify_heartbeat: WebAddress | None = Field(None, alias="Notify__HeartbeatUrl", repr=False)
    notify_source: SourceName = Field("/backup-services", alias="Notify__Source")

    log_format: Literal["text", "json"] = Field("text", alias="BackupLog__Format")
    telemetry_exporter: Literal["azuremonitor", "process"] | None = Field(None, alias="BackupTelemetry__Exporter")

    cosmos_emulator_hosts: str = Field("", alias="CosmosDb__EmulatorHosts")

    mask_key: str = Field("", alias="BackupMask__Key", repr=False)

    storage_connection: str | None = Field(None, alias="AzureWebJobsStorage", repr=False)
    storage_account: str | None = Field(None, alias="AzureWebJobsStorage__accountName")
    storage_blob_uri: str | None = Field(None, alias="AzureWebJobsStorage__blobServiceUri")
    storage_queue_uri: str | None = Field(None, alias="AzureWebJobsStorage__queueServiceUri")
    storage_table_uri: str | None = Field(None, alias="AzureWebJobsStorage__tableServiceUri")
    storage_client_id: str | None = Field(None, alias="AzureWebJobsStorage__clientId")
    serve_key: str | None = Field(None, alias="SERVE_KEY", repr=False)

    @property
    def zone(self) -> tzinfo:
        """The time zone whose clock the schedule follows."""
        return time_zone(self.schedule_time_zone)

    @property
    def shared_schedule(self) -> Schedule:
        """The schedule of all services that have none of their own."""
        return Schedule(self.schedule, self.schedule_time_zone)

    def schedule_of(self, service: str) -> Schedule:
        """Returns the schedule of the service, or of the set. What it does not name itself, it has from the shared
        schedule."""
        own = self._own_of(service)
        if own is None:
            return self.shared_schedule
        return Schedule(own.schedule or self.schedule, own.time_zone or self.schedule_time_zone)

    def with_own_schedule(self, services: Iterable[str]) -> list[str]:
        """Returns those of the services whose schedule is not the shared one."""
        return [service for service in services if self.schedule_of(service) != self.shared_schedule]

    def service(self, name: str) -> ServiceSettings:
        """Returns the settings of the service of this name; of a preset without settings, the defaults. Raises KeyError
        for any other service that no setting names."""
        return self.services.get(name) or read_service(name, {})

    def guard(self, service: str) -> dict[str, Any]:
        """Returns the service's limits, by the names of `Guard`: its own limits, else those of all services."""
        settings = self.service(service)
        return {**self.guard_limits(settings.backup), "canary": settings.source.canary}

    def guard_limits(self, own: BackupSettings | TableSection) -> dict[str, Any]:
        """Returns the limits of this section, by the names of `Guard`: its own, else those of all services."""
        limits = {name: getattr(own, name) for name in _LIMITS}
        return {name: getattr(self, name) if value is None else value for name, value in limits.items()}

    def max_age(self, service: str) -> timedelta | None:
        """Returns how old the last successful sync of the service, or of the set, may be; None: as old as it likes."""
        own = self._own_of(service)
        hours = self.max_age_hours if own is None or own.max_age_hours is None else own.max_age_hours
        return timedelta(hours=hours) if hours else None

    def max_ages(self, services: Sequence[str]) -> list[float]:
        """Returns what `max_age` does, of each in the same order, in seconds; infinite for None. For many services."""
        own = self._own_max_hours()
        if not own:
            return [(self.max_age_hours or inf) * 3600] * len(services)
        names = [service.lower() for service in services]
        every = [own.get(name, own.get(name.partition("/")[0], self.max_age_hours)) for name in names]
        return [(hours or inf) * 3600 for hours in every]

    def _own_max_hours(self) -> Mapping[str, float]:
        """The MaxAgeHours of the services and sets that have one of their own, by their names in small letters."""
        sections: dict[str, BackupSettings | SetSection] = {
            **self.sets,
            **{name: service.backup for name, service in self.services.items()},
        }
        hours = ((name.lower(), section.max_age_hours) for name, section in sections.items())
        return {name: own for name, own in hours if own is not None}

    def _own_of(self, service: str) -> BackupSettings | SetSection | None:
        """What the service, or the set that it belongs to, says itself."""
        named = self.services.get(service.lower())
        if named is not None:
            return named.backup
        set_name = service.partition("/")[0].lower()
        return next((section for name, section in self.sets.items() if name.lower() == set_name), None)

    @property
    def has_storage_account(self) -> bool:
        """Whether the app has a storage account for its locks and its jobs."""
        return bool(self.storage_connection or self.storage_account or self.storage_blob_uri)

    @property
    def emulator_hosts(self) -> frozenset[str]:
        """The hosts whose certificate the app does not verify."""
        return frozenset(host.strip() for host in self.cosmos_emulator_hosts.split(",") if host.strip())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the name is pydantic's
        init_settings: PydanticBaseSettingsSource,
        *_: Any,
        **__: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Takes only what `load_settings` passes in, which reads the environment and refuses unknown names."""
        return (init_settings,)


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Returns the settings of `environment` (default: this process). The case of names does not count.

    Cost: reads a file of sets each time; parses only what has changed since. Raises ConfigError, which names the
    setting, for a value of the wrong form, for a reference to a vault that Azure could not resolve, and for a misspelt
    name.
    """
    variables = own_variables() if environment is None else dict(environment)
    # Before anything can be wrong: what is logged about other settings has this form too.
    write_json(_by_upper_name(variables).get("BACKUPLOG__FORMAT", "").strip() == "json")
    return _read(
        tuple(variables.items()), _set_text(variables, [current_folder(), _HOST_FOLDER] if environment is None else [])
    )


def given_settings() -> tuple[dict[str, str], SetText | None]:
    """Returns the settings of this process that have a value, as texts, by the names that the documents have; and the
    text of backup.toml, wherever it comes from. Raises ConfigError for a file of sets that cannot be read."""
    variables = own_variables()
    setting_names = _known_names(variables)
    given = {
        setting_names[name.lower()]: value
        for name, value in variables.items()
        if name.lower() in setting_names and value.strip()
    }
    text = _set_text(variables, [current_folder(), _HOST_FOLDER])
    return {name: given[name] for name in setting_names.values() if name in given}, text


def _by_upper_name(variables: Mapping[str, str]) -> dict[str, str]:
    return {name.upper(): value for name, value in variables.items() if value.strip()}


def _set_text(variables: Mapping[str, str], folders: list[Path]) -> SetText | None:
    """The text of the sets: of a setting, or of the file in one of the folders."""
    where = _by_upper_name(variables)
    config, toml = where.get("BACKUP_CONFIG"), where.get("BACKUP_TOML")
    refuse_reference(config or "", "BACKUP_CONFIG")
    return find_text(config, toml, folders)


def _own_names() -> list[str]:
    """The names of the settings that every app has, whatever its services are called."""
    return [field.alias for field in Settings.model_fields.values() if field.alias]


def _known_names(variables: Mapping[str, str]) -> dict[str, str]:
    """The settings that these variables may have, by their names in small letters."""
    return {name.lower(): name for name in (*_own_names(), *names_of(titles_in(list(variables))))}


@lru_cache(maxsize=4)  # each request asks several times, and hundreds of services take long to parse
def _read(items: tuple[tuple[str, str], ...], text: SetText | None) -> Settings:
    """Parses the variables and the text of the sets. Raises as `load_settings` does, each time again."""
    variables = dict(items)
    own = {name.lower(): name for name in _own_names()}
    setting_names = _known_names(variables)
    every_name = tuple(setting_names.values())
    for name, value in variables.items():
        if name.lower() in setting_names:
            refuse_reference(value, setting_names[name.lower()])
        else:
            refuse_if_ours(name, every_name)
    values = {own[name.lower()]: value for name, value in variables.items() if name.lower() in own and value.strip()}
    services = services_of(variables)
    sets = read_sets(text, variables) if text is not None else {}
    given = {"services": services, "sets": sets}
    try:
        settings = Settings(**values, **{name: value for name, value in given.items() if value})  # type: ignore[arg-type]
    except ValidationError as error:
        raise unusable(error) from None
    for secret in _secrets_of(settings):
        register_secret(secret)
    if settings.notify_webhooks:
        check_signed(settings.notify_webhook_secret)
    if settings.notify_storage_queue:
        check_has_queues(settings.has_storage_account)
    return settings


def _secrets_of(settings: Settings) -> Iterator[str | None]:
    addresses = (*settings.notify_webhooks, *settings.notify_urls, settings.notify_broker, settings.notify_heartbeat)
    yield from (settings.serve_key, settings.mask_key, *_keys_in(settings.storage_connection or ""))
    yield from settings.notify_webhook_secret
    yield from (secret for address in addresses if address for secret in secrets_in(address))


def _keys_in(connection: str) -> list[str]:
    pairs = [part.partition("=") for part in connection.split(";")]
    return [value for name, _, value in pairs if name.strip().lower() in ("accountkey", "sharedaccesssignature")]


def every_setting() -> list[str]:
    """Returns the names of all settings: the app's own, and those of the presets. Any other service has the same
    settings as these."""
    return [*_own_names(), *names_of(titles_in([]))]
