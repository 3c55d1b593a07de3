"""A set: the services that one entry of backup.toml makes of the tables or containers that exist now."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from threading import Lock as ThreadLock
from typing import Any

from backup.config.set_settings import SetSection, TableSection, options_of
from backup.config.settings import Settings
from backup.core.errors import (
    BackupError,
    BadRequest,
    ConfigError,
    NotInitialized,
    SourceMissing,
    StoreError,
    UnknownService,
)
from backup.core.log import event
from backup.core.masks import Masking
from backup.core.model import utc_now
from backup.core.suggestions import did_you_mean, quoted
from backup.core.transforms import Transform
from backup.mirror.guard import Guard
from backup.runs.history import History
from backup.runs.set_catalog import KeptForeignKeys, keep_foreign_keys, kept_foreign_keys
from backup.runs.upgrade import OWN_NAMES
from backup.services.patterns import is_pattern, matching
from backup.services.places import TARGET
from backup.services.spec import ServiceSpec
from backup.stores import (
    ForeignKey,
    Limits,
    Listed,
    Rules,
    Side,
    SideName,
    Store,
    add_foreign_key,
    dialect_of,
    list_places,
    open_store,
)

AT_ONCE_IN_A_SET = 4
"""How many services of a set run at once, unless the set says another number."""

_GUARD = (
    "max_delete_percent",
    "max_delete_percent_per_week",
    "delete_guard_floor",
    "max_deletes",
    "max_update_percent",
)


@dataclass(frozen=True)
class Members:
    """What a set has now. `specs`: its services by table, big tables first. `listed`: what the catalogue says of them.

    `errors`: why the set is not whole, such as a pattern that stands for nothing. `ignored`: new tables that the file
    tells to ignore. `gone`: tables of the backup that the source does not have any more. `copy_keys`: foreign
    keys that somebody has given to the backup's tables; a sync makes none.
    """

    specs: Mapping[str, ServiceSpec] = field(default_factory=dict)
    listed: Mapping[str, Listed] = field(default_factory=dict)
    errors: Sequence[BackupError] = ()
    ignored: Sequence[str] = ()
    gone: Sequence[str] = ()
    copy_keys: Sequence[ForeignKey] = ()


class ServiceSet:
    """The services of one set. It asks its databases once, when somebody first needs to know. For any thread."""

    def __init__(self, name: str, section: SetSection, settings: Settings, limits: Limits) -> None:
        self.name, self._section, self._settings, self._limits = name, section, settings, limits
        self._asking = ThreadLock()

    @property
    def at_once(self) -> int:
        """How many of its services run at once."""
        return self._section.services_at_once or AT_ONCE_IN_A_SET

    @property
    def members(self) -> Members:
        """What the set has now. Costs a handful of statements on each side, once. Raises no error: `errors` has it."""
        with self._asking:
            return self._members

    def names(self) -> list[str]:
        """The names of its services. The set's own name is among them if the set is not whole: its work fails with the
        reason."""
        members = self.members
        return [*([self.name] if members.errors else []), *(spec.name for spec in members.specs.values())]

    def spec_of(self, table: str) -> ServiceSpec:
        """The service of this table; case counts only where two tables differ in nothing else.

        A table that neither side has now is a service too if nobody can be asked: its past is still there. Raises
        UnknownService for a name that neither side has.
        """
        members = self.members
        if spec := members.specs.get(_only(table, members.specs)):
            return spec
        known = [*members.gone, *members.ignored]
        if name := _only(table, known):
            return self._spec(name, None)
        if any(isinstance(error, StoreError) for error in members.errors):
            return self._spec(table, None)
        raise UnknownService(
            f"The set {self.name} has no service for {quoted(table)}.{did_you_mean(table, [*members.specs, *known])}",
            hint=f"`python -m backup plan {self.name}` lists its services.",
        )

    def with_copies(self) -> list[str]:
        """The names of its services, also of those whose table is gone from the source."""
        members = self.members
        return [*(spec.name for spec in members.specs.values()), *(f"{self.name}/{table}" for table in members.gone)]

    def foreign_keys(self, target: str | None = None) -> list[ForeignKey]:
        """The foreign keys of the set's tables in the source, and those in the database of the connection string
        `target`. For a source that cannot be asked, those that the last sync of the set has kept. Raises what a store
        raises for a target that exists."""
        foreign_keys = [key for listed in self.members.listed.values() for key in listed.foreign_keys]
        if (kept := self.kept) is not None:
            foreign_keys = [*kept.foreign_keys]
        if target is not None and not self._section.is_cosmos:
            with suppress(SourceMissing):  # the restore makes it
                places = list_places(self._target(target), self._limits)
                foreign_keys += [key for listed in places for key in listed.foreign_keys]
        return foreign_keys

    def check_constraints(self, target: str) -> None:
        """Raises BadRequest where `add_foreign_key` cannot add one, and the error of a source that cannot be asked for
        its foreign keys, if no sync has kept them."""
        if self._section.is_cosmos or dialect_of(self._target(target), self._limits).in_process:
            product = "Cosmos DB has no foreign keys" if self._section.is_cosmos else "SQLite cannot add foreign keys"
            raise BadRequest(f"{product}. Nothing was changed.", hint="Restore without constraints.")
        if not self.members.listed and self.kept is None:
            for error in self.members.errors:
                raise error

    @cached_property
    def kept(self) -> KeptForeignKeys | None:
        """The foreign keys that the last sync has kept beside the backup, if the source cannot be asked; else None.
        Costs one query then."""
        if self._section.is_cosmos or self.members.listed or not self.members.errors:
            return None
        try:
            with self._beside() as backup:
                return kept_foreign_keys(backup, self.name)
        except BackupError as error:
            event("set.foreign_keys_not_read", level=logging.WARNING, set=self.name, error=error, hint=error.hint)
            return None

    def keep_foreign_keys(self) -> None:
        """Keeps the foreign keys of the source beside the backup, if it could be asked. Costs one query, and a write
        where something has changed. Logs an error: the copies are right without it."""
        members = self.members
        if self._section.is_cosmos or not members.listed:
            return
        foreign_keys = [key for listed in members.listed.values() for key in listed.foreign_keys]
        try:
            with self._beside() as backup:
                keep_foreign_keys(backup, self.name, foreign_keys, utc_now())
        except BackupError as error:
            event("set.foreign_keys_not_kept", level=logging.WARNING, set=self.name, error=error, hint=error.hint)

    def add_foreign_key(self, foreign_key: ForeignKey, target: str) -> None:
        """As `stores.add_foreign_key`, in the database of the connection string `target`."""
        add_foreign_key(self._target(target), foreign_key, self._limits)

    def _target(self, connection_string: str) -> Side:
        side = self._side("source", "")
        return replace(side, role="target place", setting=TARGET, connection_string=connection_string)

    def database(self, role: SideName) -> Side:
        """The side of all its services, without a table."""
        return self._side(role, "")

    @property
    def named_tables(self) -> Sequence[str]:
        """The tables or containers that the file names one by one; empty if it also has patterns."""
        patterns = self._section.patterns
        return () if any(map(is_pattern, patterns)) or not all("." in name for name in patterns) else patterns

    def tables_in(self, side: Side) -> list[str]:
        """The tables that the set has now, as the login of this side sees them. Raises what a store raises."""
        return [*self._chosen(list_places(side, self._limits))[0]]

    def rival_of(self, table: str) -> ServiceSpec | None:
        """The service that this set would have for a table of this name, for comparing places; None without one. Asks
        no database."""
        section = self._section
        if any(matching(pattern, [table]) for pattern in section.exclude):
            return None
        return self._spec(table, None) if any(matching(pattern, [table]) for pattern in section.patterns) else None

    def open_services(self) -> list[str] | None:
        """The names of its services with a run in progress, by SyncHistory beside the backup; None if that cannot be
        read now. Costs one query."""
        try:
            with self._history() as history:
                return list(filter(self._is_own, history.open_services()))
        except NotInitialized:
            return []
        except StoreError as error:
            event("sync.not_looked_for", level=logging.WARNING, service=self.name, error=error)
            return None

    def last_begun(self) -> datetime | None:
        """When the newest sync of its services began; None without one. Costs one query. Raises what a store raises."""
        with self._history() as history:
            return next((at for service, at in history.newest_starts() if self._is_own(service)), None)

    def _is_own(self, service: str) -> bool:
        """Whether the service is one of this set. A table that the file excludes now is none any more."""
        set_name, _, table = service.partition("/")
        return set_name.lower() == self.name.lower() and self.rival_of(table) is not None

    @contextmanager
    def _history(self) -> Iterator[History]:
        """SyncHistory beside the backup, for questions about no table alone."""
        with self._beside() as backup:
            yield History(backup)

    @contextmanager
    def _beside(self) -> Iterator[Store]:
        """A store for what lies beside the backup of the whole set."""
        backup = open_store(self._side("backup", "SyncHistory"), Rules(of_set=True), self._limits)
        try:
            yield backup
        finally:
            backup.close()

    # --- what it has now ----------------------------------------------------------------------------------------------

    @cached_property
    def _members(self) -> Members:
        in_backup = self._in_backup()
        try:
            in_source = list_places(self._side("source", ""), self._limits)
        except BackupError as error:
            # Each table that has a copy fails with an entry of its own, and its past can be seen.
            event("set.not_listed", level=logging.WARNING, set=self.name, error=error, hint=error.hint)
            copies = self._gone((), in_backup)
            return Members({name: self._spec(name, None) for name in copies}, errors=[error])
        chosen, errors = self._chosen(in_source)
        copied = {name for listed in in_backup if (name := _only(listed.name, chosen))}
        specs, ignored, renamed = {}, [], set[str]()
        source_names = [listed.name for listed in in_source]
        for name, listed in sorted(chosen.items(), key=lambda item: (-(item[1].records or 0), item[0])):
            is_new = name not in copied
            old_name = self._old_name(name, in_backup)
            is_late = is_new and not old_name and bool(copied) and name not in self._section.patterns
            if is_late and self._section.on_new_table == "ignore":
                ignored.append(name)
                continue
            try:
                spec = self._spec(name, listed, is_new=is_new)
            except ConfigError as error:  # such as a name that nobody can type
                errors.append(error)
                continue
            if is_late and self._section.on_new_table == "fail":
                spec = replace(spec, refused=_new_table(spec.name))
            if old_name:
                spec = self._renamed(spec, old_name, is_new=is_new, in_source=bool(_only(old_name, source_names)))
                renamed.add(old_name)
            specs[name] = spec
        if not specs and not errors and not ignored:
            hint = "Correct tables, containers or exclude in backup.toml."
            errors.append(ConfigError(f"The set {self.name} has no table or container: all are excluded.", hint=hint))
        gone = [name for name in self._gone(in_source, in_backup) if name not in renamed]
        if gone or ignored:
            event("set.tables", level=logging.WARNING, set=self.name, gone=", ".join(gone), ignored=", ".join(ignored))
        copy_keys = [key for listed in in_backup for key in listed.foreign_keys]
        return Members(specs, chosen, errors, ignored, gone, copy_keys)

    def _in_backup(self) -> list[Listed]:
        try:
            return list_places(self._side("backup", ""), self._limits)
        except NotInitialized:  # the first run makes the database
            return []
        except BackupError as error:  # each service will fail with it, one by one
            event("set.not_listed", level=logging.WARNING, set=self.name, error=error, hint=error.hint)
            return []

    def _chosen(self, in_source: Sequence[Listed]) -> tuple[dict[str, Listed], list[BackupError]]:
        """The tables that the patterns stand for, and the patterns that stand for nothing."""
        section, names = self._section, [listed.name for listed in in_source]
        by_name = {listed.name: listed for listed in in_source}
        kind = "container" if section.is_cosmos else "table"
        chosen: dict[str, Listed] = {}
        errors: list[BackupError] = []
        keyed = {name for section_name in section.sections for name in matching(section_name, names)}
        for pattern in section.patterns:
            matched = matching(pattern, names)
            if not matched:
                meant = did_you_mean(pattern, names)
                errors.append(
                    ConfigError(
                        f"The set {self.name} has the pattern {quoted(pattern)}, and the source has no {kind} for it."
                        f"{meant}",
                        hint="Correct it in backup.toml. All other services of the set were tried.",
                    )
                )
            for name in matched:
                # A view has no key of its own, so a pattern for many tables takes it only with a section of its own.
                if not by_name[name].is_view or not is_pattern(pattern) or name in keyed:
                    chosen[name] = by_name[name]
        for pattern in section.exclude:
            for name in matching(pattern, names):
                chosen.pop(name, None)
        for name in section.sections:
            if not matching(name, chosen):
                errors.append(
                    ConfigError(
                        f"backup.toml has a section for {quoted(name)} in the set {self.name}, which has no such "
                        f"{kind}."
                        f"{did_you_mean(name, chosen)}",
                        hint="Correct it in backup.toml. All other services of the set were tried.",
                    )
                )
        return chosen, errors

    def _gone(self, in_source: Sequence[Listed], in_backup: Sequence[Listed]) -> list[str]:
        """The copies in the backup whose table the source does not have any more."""
        present = {listed.name.lower() for listed in in_source}
        return [
            listed.name
            for listed in in_backup
            if listed.name.lower() not in present
            and listed.name.rpartition(".")[2].lower() not in OWN_NAMES
            and (self._section.is_cosmos or any(column.name == "SyncedAt" for column in listed.columns))
            and self.rival_of(listed.name) is not None
        ]

    # --- one service --------------------------------------------------------------------------------------------------

    def _spec(self, table: str, listed: Listed | None, *, is_new: bool = False) -> ServiceSpec:
        section, options = self._options(table)
        rules = rules_of(options, section, listed)
        if (units := self._section.throughput) is not None and units.shared:
            rules = replace(rules, database_throughput=units)
        if options.mask:
            try:
                rules = replace(rules, masking=Masking(options.mask, self._settings.mask_key))
            except ConfigError as error:
                raise ConfigError(f"{self.name}/{table} is left out. {error}", hint=error.hint) from None
        if options.transform:
            transform = Transform(options.transform, options.transform_version, options.types, self._settings.mask_key)
            rules = replace(rules, transform=transform)
        limits: dict[str, Any] = {name: getattr(options, name) for name in _GUARD}
        limits = {name: getattr(self._settings, name) if value is None else value for name, value in limits.items()}
        name = f"{self.name}/{table}"
        spec = ServiceSpec(
            *(name, self._side("source", table), self._side("backup", table), rules, Guard(**limits)),
            recycle_days=options.recycle_days,
            on_new_column=options.on_new_column,
            is_new=is_new,
        )
        if listed is not None and listed.primary_key and options.key:
            key, named = [name.lower() for name in listed.primary_key], [name.lower() for name in options.key]
            if key != named:
                primary = ", ".join(listed.primary_key)
                text = f"{name} has the primary key {primary}, and {section}.key names other columns."
                return replace(spec, refused=ConfigError(text, hint="Remove key there: a primary key is its key."))
        return spec

    def _old_name(self, table: str, in_backup: Sequence[Listed]) -> str:
        """The name in the backup of the table from which the file says that this one was renamed; empty without one."""
        _, options = self._options(table)
        return _only(options.renamed_from, [listed.name for listed in in_backup]) if options.renamed_from else ""

    def _renamed(self, spec: ServiceSpec, old_name: str, *, is_new: bool, in_source: bool) -> ServiceSpec:
        """The service of a table that was renamed from `old_name`, of which the backup has a copy. Two names that both
        exist on one side are no renaming: the source's tables are two then, and the backup's copies too."""
        if is_new and in_source:
            text = f"The source has {old_name} as well, so {spec.name} was not renamed from it."
            hint = "Remove renamed_from: each has a copy of its own then."
            return replace(spec, refused=ConfigError(text, hint=hint))
        if not is_new and not in_source:
            text = f"The backup has copies under both names, {old_name} and that of {spec.name}. Nothing was renamed."
            hint = "Remove renamed_from to go on with the new copy; the old one stays. Or drop one of the two."
            return replace(spec, refused=ConfigError(text, hint=hint))
        return replace(spec, renamed_from=self._side("backup", old_name)) if is_new else spec

    def _options(self, table: str) -> tuple[str, TableSection]:
        """What counts for the table, and what messages call its section."""
        sections = self._section.sections
        named = next((name for name in sections if matching(name, [table])), None)
        kind = "container" if self._section.is_cosmos else "table"
        own = sections[named] if named is not None else TableSection()
        return f'set.{self.name}.{kind}."{named or table}"', options_of(self._section, own)

    def _side(self, role: SideName, table: str) -> Side:
        section, is_cosmos = self._section, self._section.is_cosmos
        database = section.database if role == "source" else section.backup_database or section.database
        return Side(
            service=f"{self.name}/{table}" if table else self.name,
            role=role,
            setting=f"set.{self.name}.{role}",
            connection_string=section.source if role == "source" else section.backup,
            table=None if is_cosmos or not table else table,
            container=table if is_cosmos and table else None,
            database=database,
            emulator_hosts=self._settings.emulator_hosts,
            of_set=True,
        )


def rules_of(options: TableSection, section: str, listed: Listed | None) -> Rules:
    """Returns the rules of a table: the key and the version that the file names, else those that the catalogue has."""
    version = options.version or (() if listed is None or listed.row_version is None else (listed.row_version,))
    key: Sequence[str] = ()
    if listed is None or not listed.primary_key:
        key = options.key or unique_key(listed)[1]
    required = {
        **dict.fromkeys(options.where, f"{section}.where"),
        **dict.fromkeys(options.version, f"{section}.version"),
        **dict.fromkeys(options.key, f"{section}.key"),
        **dict.fromkeys((*options.columns.include, *options.columns.exclude), f"{section}.columns"),
    }
    return Rules(
        tuple(version),
        options.where,
        required,
        options.where_sql,
        tuple(key),
        key_may_repeat=bool(options.key),
        include=options.columns.include,
        exclude=options.columns.exclude,
        of_set=True,
        keeps_deleted=options.deletes == "keep",
        follows_indexes=bool(options.indexes),
        throughput=None if options.throughput is None or options.throughput.shared else options.throughput,
    )


def unique_key(listed: Listed | None) -> tuple[str, Sequence[str]]:
    """Returns the unique index that stands in for a primary key, and its columns: the one with the fewest columns, the
    first by name of several. Both are empty without one."""
    indexes = sorted((listed.unique_keys if listed else {}).items(), key=lambda item: (len(item[1]), item[0]))
    return indexes[0] if indexes else ("", ())


def _only(name: str, names: Collection[str]) -> str:
    """The one of the names that is meant: with the same case, else without regard to case; empty if there is none."""
    if name in names:
        return name
    alike = [candidate for candidate in names if candidate.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else ""


def _new_table(name: str) -> ConfigError:
    return ConfigError(
        f"{name} is new in the source, and on_new_table is fail. It was not backed up.",
        hint="Run initialize to take it in, or name it in exclude.",
    )
