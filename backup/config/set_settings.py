"""What backup.toml may say: its sections as models, checked without a database. Does not read the environment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from backup.config.schedule import CronText, ZoneName
from backup.config.set_products import Misplaced, misplaced, names_its_database
from backup.config.set_values import (
    Conditions,
    Masks,
    Names,
    PartitionKey,
    ServerTypeText,
    SetName,
    SqlCondition,
    TransformSteps,
    Units,
)
from backup.core.patterns import is_pattern


class Section(BaseModel):
    """A part of the file: what it names, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True, strict=True)


class Common(Section):
    """What [defaults], a set and a table may say. The nearest section that says it counts."""

    recycle_days: float | None = Field(default=None, gt=0, le=36_500)
    on_new_column: Literal["add", "fail", "ignore"] | None = None
    deletes: Literal["mirror", "keep"] | None = None
    indexes: bool | None = None
    modified_by: str | None = Field(default=None, min_length=1)
    full_every_days: float | None = Field(default=None, ge=0, le=36_500)
    throughput: Units | None = None
    max_delete_percent: float | None = Field(default=None, ge=0, le=100)
    max_delete_percent_per_week: float | None = Field(default=None, ge=0, le=100)
    delete_guard_floor: int | None = Field(default=None, ge=0)
    max_deletes: int | None = Field(default=None, ge=0)
    max_update_percent: float | None = Field(default=None, ge=0, le=100)


class ColumnList(Section):
    """Which columns are copied: only those that `include` names, if it names any, and none that `exclude` names."""

    include: Names = ()
    exclude: Names = ()


class TableSection(Common):
    """[set.NAME.table."…"] or [set.NAME.container."…"]: what counts for one table or container."""

    where: Conditions = {}
    where_sql: SqlCondition | None = None
    columns: ColumnList = ColumnList()
    mask: Masks = {}
    transform: TransformSteps = ()
    transform_version: str = Field(default="", max_length=100)
    types: Mapping[str, ServerTypeText] = {}
    version: Names = ()
    key: Names = ()
    renamed_from: str | None = Field(default=None, min_length=1)
    partition_key: PartitionKey | None = None

    @property
    def hides(self) -> bool:
        """Whether values of the source are not to be in the copy."""
        return bool(self.mask or self.transform or self.columns.include or self.columns.exclude)

    @model_validator(mode="after")
    def _transforms(self) -> Self:
        if not self.transform and (self.types or self.transform_version):
            raise ValueError("types and transform_version are for a transform, and there is none")
        return self


class Shared(Common):
    """What [defaults] and a set may say."""

    on_new_table: Literal["add", "ignore", "fail"] | None = None
    services_at_once: int | None = Field(default=None, ge=1, le=64)
    schedule: CronText | None = None
    time_zone: ZoneName | None = None
    max_age_hours: float | None = Field(default=None, ge=0, le=87_600)


class SetSection(Shared):
    """[set.NAME]: a source, its backup, and which of its tables or containers belong to the set."""

    source: str = Field(min_length=1, repr=False)
    backup: str = Field(min_length=1, repr=False)
    database: str | None = Field(default=None, min_length=1)
    backup_database: str | None = Field(default=None, min_length=1)
    tables: Names = ()
    containers: Names = ()
    exclude: Names = ()
    consistent: bool = False
    where: Mapping[str, Conditions] = {}
    table: Mapping[str, TableSection] = {}
    container: Mapping[str, TableSection] = {}

    @property
    def is_cosmos(self) -> bool:
        """Whether the source is a Cosmos DB account."""
        return "accountendpoint" in self.source.lower()

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of the tables, or of the containers."""
        return self.containers if self.is_cosmos else self.tables

    @property
    def sections(self) -> Mapping[str, TableSection]:
        """What counts for single tables or containers, by name."""
        sections = self.container if self.is_cosmos else self.table
        named = {name: TableSection().model_copy(update={"where": where}) for name, where in self.where.items()}
        return {**named, **sections}

    @model_validator(mode="after")
    def _fits_its_product(self) -> Self:
        word, other = ("containers", "tables") if self.is_cosmos else ("tables", "containers")
        if getattr(self, other) or getattr(self, other[:-1]):
            raise ValueError(f"its source has {word}, no {other}")
        if not self.patterns:
            raise ValueError(f'{word} is missing: name patterns, such as {word} = ["*"] for all')
        if self.is_cosmos and not self.database:
            raise ValueError("database is missing: a set of containers needs it")
        _refuse(self, self._misplaced())
        for name, section in self.table.items():
            if section.renamed_from is not None and (is_pattern(name) or is_pattern(section.renamed_from)):
                raise ValueError(
                    f"renamed_from of {name} is from one table to one table: neither name may be a pattern"
                )
        if twice := sorted(name for name in self.where if (self.container if self.is_cosmos else self.table).get(name)):
            raise ValueError(f"where and [{word[:-1]}] both have {twice[0]}; write its where in its section")
        return self

    def _misplaced(self) -> Iterator[Misplaced]:
        is_cosmos, whose = self.is_cosmos, "this source"
        yield from misplaced(self, (), whose, is_cosmos=is_cosmos)
        kind, places = ("container", self.container) if is_cosmos else ("table", self.table)
        for name, place in places.items():
            yield from misplaced(place, (kind, name), whose, is_cosmos=is_cosmos)
            if is_cosmos and place.throughput is not None and place.throughput.shared:
                reason = "shared is the throughput of the whole database; a container cannot have it alone"
                yield Misplaced((kind, name, "throughput"), reason)
        for option, side in (("database", "source"), ("backup_database", "backup")):
            if getattr(self, option) is not None and names_its_database(getattr(self, side)):
                yield Misplaced((option,), f"the connection string in {side} names the database already. Remove it")


class BackupFile(Section):
    """The whole file."""

    defaults: Shared = Shared()
    set: Mapping[SetName, SetSection] = {}

    @model_validator(mode="after")
    def _tells_sets_apart(self) -> Self:
        lowered = [name.lower() for name in self.set]
        if twice := [name for name in self.set if lowered.count(name.lower()) > 1]:
            raise ValueError(f"two sets are called {twice[0]}; case does not count in names")
        return self

    @model_validator(mode="after")
    def _has_no_idle_default(self) -> Self:
        products = {section.is_cosmos for section in self.set.values()}
        if len(products) == 1:
            whose = "every source of the file"
            _refuse(self, misplaced(self.defaults, ("defaults",), whose, is_cosmos=products.pop()))
        return self

    @property
    def sets(self) -> Mapping[str, SetSection]:
        """The sets by name. A set has the value of [defaults] where it has none of its own."""
        return {name: section.model_copy(update=_missing(section, self.defaults)) for name, section in self.set.items()}


def _missing(section: Section, outer: Section) -> dict[str, Any]:
    """The values of the outer section that this section does not have itself."""
    return {name: value for name, value in outer if value is not None and getattr(section, name, value) is None}


def options_of(section: SetSection, table: TableSection) -> TableSection:
    """Returns the table's section, with the set's value of each option that it has no value of."""
    common = Common(**{name: getattr(section, name) for name in Common.model_fields})
    return table.model_copy(update=_missing(table, common))


def names_at(path: tuple[str | int, ...]) -> list[str]:
    """Returns the names that the section at this path may have."""
    kinds: list[type[Section]] = [BackupFile, BackupFile, SetSection, SetSection, TableSection, ColumnList]
    kind = Shared if path[:1] == ("defaults",) else kinds[min(len(path), len(kinds) - 1)]
    return list(kind.model_fields)


def _refuse(section: Section, options: Iterable[Misplaced]) -> None:
    """Raises ValidationError with the place of each of these options, if there are any."""
    faults: list[Any] = [
        {"type": "value_error", "loc": path, "input": None, "ctx": {"error": ValueError(reason)}}
        for path, reason in options
    ]
    if faults:
        raise ValidationError.from_exception_data(type(section).__name__, faults, hide_input=True)
