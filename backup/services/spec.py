"""A service as data: its name, its two sides, its rules and its limits. Made from the settings; opens nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

from backup.config.given_services import ALL, missing_side
from backup.config.service_settings import ServiceSettings
from backup.config.settings import Settings
from backup.core.conditions import condition_text
from backup.core.errors import BackupError, ConfigError
from backup.core.masks import Masking
from backup.core.model import SideName
from backup.core.run_values import KEEPS_DELETED
from backup.core.suggestions import quoted
from backup.mirror.guard import Guard
from backup.runs.policy import Policy
from backup.runs.set_beginning import SetBeginning
from backup.stores import OnNewColumn, Rules
from backup.stores.sides import Side

LONGEST_NAME = 200
"""How many UTF-16 units a name may have: SyncHistory's column on SQL Server has no more."""


@dataclass(frozen=True)
class ServiceSpec:
    """One thing to back up. `rules` name its version and say which records belong to it; `guard` has its limits and
    its canary.

    `recycle_days` and `on_new_column` are the service's own, or None for those of the settings. A service of a set
    `is_new` when its backup has no table yet, or one that no run has begun; the first sync makes what is missing.
    `refused` is why no run can do it. `renamed_from`: the backup's table under the name that it still has; the next
    sync renames it. `is_consistent`: its set is to be read as of one moment. `full_every_days`: as `Policy` says, of
    the service alone; None for that of the settings. `may_lack_hint`: its set names a column of the last write for all
    tables, which this one does not have. `beginning`: of a set of which nothing is in the backup yet.

    A side without a connection string is missing in the settings; `check` names the setting. Raises ConfigError for a
    name that nobody can type or that SyncHistory cannot keep.
    """

    name: str
    source: Side
    backup: Side
    rules: Rules
    guard: Guard = field(default_factory=Guard)
    recycle_days: float | None = None
    on_new_column: OnNewColumn | None = None
    is_new: bool = False
    refused: BackupError | None = None
    renamed_from: Side | None = None
    is_consistent: bool = False
    full_every_days: float | None = None
    may_lack_hint: bool = False
    beginning: SetBeginning | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        units = len(self.name.encode("utf-16-le", "surrogatepass")) // 2
        if not self.name.isprintable() or self.name.strip() != self.name or not 0 < units <= LONGEST_NAME:
            raise ConfigError(
                f"{quoted(self.name)} cannot be a service's name.",
                hint=f"Use 1 to {LONGEST_NAME} printable characters, without spaces around them.",
            )
        if self.name.lower() == ALL:
            raise ConfigError(f"A service cannot be called {self.name}: this name stands for all services.")

    @cached_property
    def filter_text(self) -> str:
        """The filter that the settings name, in a form that can be compared; empty if they name none."""
        rules = self.rules
        named = [condition_text(name, value) for name, value in rules.where.items() if name in rules.required]
        return "; ".join([*named, *filter(None, [rules.where_sql])])

    @cached_property
    def selection(self) -> str:
        """A mark of what the settings choose to copy: filter, columns, version, transform, and whether the copies of
        deleted records stay. Equal marks mean equal choices."""
        rules = self.rules
        version = [name.lower() for name in rules.version if name in rules.required]
        columns = (sorted(map(str.lower, names)) for names in (rules.include, rules.exclude))
        transform = () if rules.transform is None else (rules.transform.text,)
        mark = sha256(repr((self.filter_text, version, *columns, *transform)).encode()).hexdigest()[:16]
        return f"{mark}{KEEPS_DELETED}" if rules.keeps_deleted else mark

    @property
    def is_plain(self) -> bool:
        """Whether a look that takes many tables together may say that nothing has changed."""
        return self.rules.of_set and self.source.container is None and self.copies_as_it_is

    @property
    def copies_as_it_is(self) -> bool:
        """Whether equal fingerprints of both sides say that nothing has changed.

        They do, if the table has a copy, and its records are copied as they are and need no check of their own. Where
        the copy has the indexes of the source, who looks asks for these, too.
        """
        rules = self.rules
        has_own_rules = (
            rules.masking
            or rules.transform
            or rules.where
            or rules.where_sql
            or rules.key_may_repeat
            or self.guard.canary
        )
        writes_more = self.is_new or self.renamed_from or rules.keeps_deleted
        return not (has_own_rules or writes_more or self.refused)

    def policy(self, settings: Settings) -> Policy:
        """What its runs may do: by its own rules, else by the settings."""
        return Policy(
            self.guard,
            self.on_new_column or settings.on_new_column,
            self.recycle_days or settings.recycle_days,
            overlap_seconds=settings.overlap_seconds,
            full_every_days=settings.full_every_days if self.full_every_days is None else self.full_every_days,
            max_failed_records=settings.max_failed_records,
            history_days=settings.history_days,
            where=self.filter_text,
            selection=self.selection,
            may_count=bool(self.full_every_days),
            of_set=self.rules.of_set,
            needs_hint=self.needs_hint,
        )

    @property
    def needs_hint(self) -> bool:
        """Whether it is to count records on most days, which takes a source that says what was written lately."""
        return bool(self.full_every_days) and not self.may_lack_hint

    def check(self) -> None:
        """Raises ConfigError, which names the setting, when a side is missing."""
        for side in (self.source, self.backup):
            if not side.connection_string:
                raise missing_side(self.name, side.role, f"{side.setting}__ConnectionString")


def specs_of(settings: Settings) -> Sequence[ServiceSpec]:
    """The services that the settings configure: first the presets of the app, then the others by name. Makes them once
    for the same settings: requests ask again and again, and settings do not change."""
    global _made
    made = _made
    if made is None or made[0] is not settings:
        made = _made = settings, tuple(spec_of(settings, name) for name in settings.services)
    return made[1]


_made: tuple[Settings, Sequence[ServiceSpec]] | None = None


def spec_of(settings: Settings, name: str) -> ServiceSpec:
    """The service of this name, as the settings describe it."""
    service = settings.service(name)
    source = _side(settings, service, "source")
    backup = _side(settings, service, "backup")
    if not service.is_known_by_itself:
        # A backup has the names of its source unless the settings name others.
        backup = replace(
            backup,
            table=backup.table or source.table,
            container=backup.container or source.container,
            database=backup.database or source.database,
        )
    rules, guard = _rules(service, settings.mask_key), Guard(**settings.guard(name))
    return ServiceSpec(name, source, backup, rules, guard, full_every_days=service.source.full_every_days)


def _side(settings: Settings, service: ServiceSettings, role: SideName) -> Side:
    side = service.source if role == "source" else service.backup
    is_own = service.own(role, "Table")
    return Side(
        service=service.name,
        role=role,
        setting=service.setting(role, "ConnectionString").partition("__")[0],
        connection_string=side.connection or "",
        table=side.table if is_own else None,
        default_table="" if is_own else side.table or "",
        container=side.container,
        database=side.database,
        emulator_hosts=settings.emulator_hosts,
    )


def _rules(service: ServiceSettings, mask_key: str) -> Rules:
    named = {part: service.setting("source", part) for part in ("Version", "Where") if service.own("source", part)}
    version, where = service.source.version, service.source.where
    required = dict.fromkeys(where, named["Where"]) if "Where" in named else {}
    required |= dict.fromkeys(version, named["Version"]) if "Version" in named else {}
    masks = service.source.mask
    masking = Masking(masks, mask_key) if masks else None
    return Rules(version, where, required, masking=masking, modified_by=service.source.modified_by or "")
