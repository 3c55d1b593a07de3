"""A set's services one by one: what its entry of backup.toml makes of the name of a table or container."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache

from backup.config.set_settings import SetSection, TableSection, options_of
from backup.config.settings import Settings
from backup.core.errors import ConfigError
from backup.core.masks import Masking
from backup.core.patterns import matching
from backup.core.transforms import Transform
from backup.mirror.guard import Guard
from backup.services.places import TARGET
from backup.services.spec import ServiceSpec, specs_of
from backup.services.table_sections import TableSections
from backup.stores import Limits, Listed, Rules, SideName, Store
from backup.stores.sides import Side, open_store


class SetSpecs:
    """The sides and the services of one set, by the names of tables. Asks no database. For any thread."""

    def __init__(
        self, name: str, section: SetSection, settings: Settings, limits: Limits, tables: Iterable[str] = ()
    ) -> None:
        """`tables` are those that the set may have, as far as anybody knows."""
        self.name, self.section, self.limits, self._settings = name, section, limits, settings
        self._sections = TableSections(section, tables)
        self.own_options = lru_cache(maxsize=4_096)(self._sections.of)
        """Takes a table; returns what its sections say."""

    @property
    def made_of(self) -> tuple[SetSection, Settings]:
        """What its services follow from, beside the catalogues."""
        return self.section, self._settings

    def among(self, tables: Iterable[str]) -> SetSpecs:
        """The same set, which is now known to have no other tables than these."""
        return SetSpecs(self.name, self.section, self._settings, self.limits, tables)

    def spec(self, table: str, listed: Listed | None, *, is_new: bool = False) -> ServiceSpec:
        """Returns the service of the table, of which the catalogue says `listed`. Raises ConfigError for a service that
        the file cannot make, such as one with a name that nobody can type."""
        own, told_by = self.own_options(table)
        options = options_of(self.section, own)
        kind = "container" if self.section.is_cosmos else "table"
        named = {option: f'set.{self.name}.{kind}."{name}".{option}' for option, name in told_by.items()}
        rules = rules_of(options, named, listed)
        if (units := self.section.throughput) is not None and units.shared:
            rules = replace(rules, database_throughput=units)
        modified_by = options.modified_by or ""
        if own.modified_by or _may_have(listed, modified_by):
            rules = replace(rules, modified_by=modified_by)
        if options.mask:
            try:
                rules = replace(rules, masking=Masking(options.mask, self._settings.mask_key))
            except ConfigError as error:
                raise ConfigError(f"{self.name}/{table} is left out. {error}", hint=error.hint) from None
        if options.transform:
            transform = Transform(options.transform, options.transform_version, options.types, self._settings.mask_key)
            rules = replace(rules, transform=transform)
        name = f"{self.name}/{table}"
        spec = ServiceSpec(
            name,
            self.side("source", table),
            self.side("backup", table),
            rules,
            Guard(**self._settings.guard_limits(options)),
            recycle_days=options.recycle_days,
            on_new_column=options.on_new_column,
            is_new=is_new,
            is_consistent=self.section.consistent,
            full_every_days=options.full_every_days,
            may_lack_hint=bool(modified_by) and not rules.modified_by,
        )
        primary = [] if listed is None else listed.primary_key
        if primary and options.key and {*map(str.lower, primary)} != {*map(str.lower, options.key)}:
            text = f"{name} has the primary key {', '.join(primary)}, and {named['key']} names other columns."
            return replace(spec, refused=ConfigError(text, hint="Remove key there: a primary key is its key."))
        return spec

    def takes(self, table: str) -> bool:
        """Whether a table of this name would belong to the set."""
        section = self.section
        if any(matching(pattern, [table]) for pattern in section.exclude):
            return False
        return any(matching(pattern, [table]) for pattern in section.patterns)

    def rival_of(self, table: str) -> ServiceSpec | None:
        """The sides of the service that this set would have for a table of this name, for comparing places, without its
        rules; None without one. Asks no database."""
        if not self.takes(table):
            return None
        sides = self.side("source", table), self.side("backup", table)
        return ServiceSpec(f"{self.name}/{table}", *sides, Rules(of_set=True), Guard())

    @cached_property
    def neighbours(self) -> Sequence[str]:
        """The names of the tables or containers in the same database that are copies of services of the settings."""
        own, is_cosmos = self.side("backup"), self.section.is_cosmos
        beside = (
            spec.backup
            for spec in specs_of(self._settings)
            if spec.backup.connection_string == own.connection_string
            and (not is_cosmos or spec.backup.database == own.database)
        )
        names = (side.container if is_cosmos else side.table or side.default_table for side in beside)
        return [*filter(None, names)]

    def side(self, role: SideName, table: str = "") -> Side:
        """Returns the side of the service of this table; without one, the side of all services."""
        section, is_cosmos = self.section, self.section.is_cosmos
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

    def target(self, connection_string: str) -> Side:
        """Returns the side of all services in the database of the connection string, where a restore writes."""
        side = self.side("source")
        return replace(side, role="target place", setting=TARGET, connection_string=connection_string)

    @contextmanager
    def beside(self) -> Iterator[Store]:
        """A store for what lies beside the backup of the whole set."""
        backup = open_store(self.side("backup", "SyncHistory"), Rules(of_set=True), self.limits)
        try:
            yield backup
        finally:
            backup.close()


def _may_have(listed: Listed | None, column: str) -> bool:
    """Whether the table may have the column: what is said for all tables of a set does not fit each."""
    return listed is None or column.lower() in (existing.name.lower() for existing in listed.columns)


def rules_of(options: TableSection, named: Mapping[str, str], listed: Listed | None) -> Rules:
    """Returns the rules of a table: the key and the version that the file names, else those that the catalogue has.
    `named`: what messages call the options that its sections say."""
    version = options.version or (() if listed is None or listed.row_version is None else (listed.row_version,))
    key: Sequence[str] = ()
    if listed is None or not listed.primary_key:
        key = options.key or unique_key(listed)[1]
    required = {
        **dict.fromkeys(options.where, named.get("where", "")),
        **dict.fromkeys(options.version, named.get("version", "")),
        **dict.fromkeys(options.key, named.get("key", "")),
        **dict.fromkeys((*options.columns.include, *options.columns.exclude), named.get("columns", "")),
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
        partition_paths=options.partition_key,
    )


def unique_key(listed: Listed | None) -> tuple[str, Sequence[str]]:
    """Returns the unique index that stands in for a primary key, and its columns: the one with the fewest columns, the
    first by name of several. Both are empty without one."""
    indexes = sorted((listed.unique_keys if listed else {}).items(), key=lambda item: (len(item[1]), item[0]))
    return indexes[0] if indexes else ("", ())
