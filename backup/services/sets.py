"""A set: the services that one entry of backup.toml makes of the tables or containers that exist now."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Lock as ThreadLock

from backup.config.set_settings import SetSection
from backup.config.settings import Settings
from backup.core.errors import BackupError, NotInitialized, StoreError, UnknownService
from backup.core.log import event
from backup.core.model import Now
from backup.core.patterns import is_pattern, same_name
from backup.core.suggestions import did_you_mean, quoted
from backup.core.timeline import AHEAD
from backup.runs.clock import clock_of
from backup.runs.history import History
from backup.runs.of_all_services import newest_starts, services_at_work, services_with_run
from backup.services.set_foreign_keys import SetForeignKeys
from backup.services.set_members import Members, chosen_tables, members_of
from backup.services.set_snapshot import SetSnapshot
from backup.services.set_specs import SetSpecs
from backup.services.spec import ServiceSpec
from backup.stores import Limits
from backup.stores.sides import Side, list_places

AT_ONCE_IN_A_SET = 4
"""How many services of a set run at once, unless the set says another number."""


class ServiceSet:
    """The services of one set. It asks its databases once, when somebody first needs to know. For any thread.

    `specs` makes a service of any name. `foreign_keys` are those of its tables.
    """

    def __init__(self, name: str, section: SetSection, settings: Settings, limits: Limits) -> None:
        self.name, self._section = name, section
        self.specs = SetSpecs(name, section, settings, limits)
        self.foreign_keys = SetForeignKeys(self.specs, lambda: self.members)
        self._asking = ThreadLock()
        self._members: Members | None = None

    @property
    def at_once(self) -> int:
        """How many of its services run at once."""
        return self._section.services_at_once or AT_ONCE_IN_A_SET

    @property
    def is_consistent(self) -> bool:
        """Whether a sync of the whole set reads its source as of one moment."""
        return self._section.consistent

    def snapshot(self) -> SetSnapshot:
        """What holds its source for such a sync. Close it."""
        return SetSnapshot(self.specs, [*self.members.specs])

    def refusals(self) -> list[BackupError]:
        """Why a sync could not read all of it as of one moment, though it should; found by trying, for a short time.
        Empty also where its source cannot be asked, which `members` says."""
        if not (self.is_consistent and self.members.listed):
            return []
        snapshot = self.snapshot()
        try:
            return snapshot.refusals()
        finally:
            snapshot.close()

    @property
    def members(self) -> Members:
        """What the set has now. Costs a handful of statements on each side, once. Raises no error: `errors` has it."""
        with self._asking:
            if self._members is None:
                self._members = members_of(self.specs)
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
        if spec := members.specs.get(same_name(table, members.specs)):
            return spec
        former = [*members.gone, *members.ignored]
        if name := same_name(table, former):
            return self.specs.spec(name, None)
        if any(isinstance(error, StoreError) for error in members.errors):
            return self.specs.spec(table, None)
        raise UnknownService(
            f"The set {self.name} has no service for {quoted(table)}.{did_you_mean(table, [*members.specs, *former])}",
            hint=f"`python -m backup plan {self.name}` lists its services.",
        )

    def with_copies(self) -> list[str]:
        """The names of its services, also of those whose table is gone from the source."""
        members = self.members
        return [*(spec.name for spec in members.specs.values()), *(f"{self.name}/{table}" for table in members.gone)]

    @property
    def named_tables(self) -> Sequence[str]:
        """The tables or containers that the file names one by one; empty if it also has patterns."""
        patterns = self._section.patterns
        return () if any(map(is_pattern, patterns)) or not all("." in name for name in patterns) else patterns

    def tables_in(self, side: Side) -> tuple[list[str], list[BackupError]]:
        """The tables that the set has now, as the login of this side sees them, and why they may not be all. Raises no
        error."""
        try:
            chosen, errors, _ = chosen_tables(self.specs, list_places(side, self.specs.limits))
        except BackupError as error:
            return [], [error]
        return [*chosen], errors

    def without_key(self) -> list[str]:
        """The tables that no run can copy, because nothing tells which row is which."""
        members = self.members
        return [
            name
            for name, spec in members.specs.items()
            if name in members.listed
            and not (self._section.is_cosmos or members.listed[name].primary_key or spec.rules.key)
        ]

    @property
    def patterns_with_schema(self) -> list[str]:
        """The names and patterns of the file that stand for tables of one schema, which they spell."""
        return [name for name in self._section.patterns if "." in name and not is_pattern(name.rpartition(".")[0])]

    def open_services(self) -> list[str] | None:
        """The names of its services with a run in progress, by SyncHistory beside the backup; None if that cannot be
        read now. Costs one query."""
        try:
            with self._history() as history:
                return list(filter(self._is_own, services_at_work(history.entries)))
        except NotInitialized:
            return []
        except StoreError as error:
            event("sync.not_looked_for", level=logging.WARNING, service=self.name, error=error)
            return None

    def with_run(self, text: str, services: Collection[str]) -> set[str] | None:
        """Those of the services, all in small letters, that may have a run whose id is the text, or begins with it, by
        SyncHistory beside the backup; None if that cannot be read now. Costs a query or two."""
        try:
            with self._history() as history:
                return services_with_run(history.entries, text, services)
        except BackupError:  # each service says what is wrong
            return None

    def last_begun(self, now: Now) -> datetime | None:
        """When the newest sync of its services began; None without one. One that lies ahead does not count: its clock
        was wrong. `now` is the clock where the backup has no server. Costs a query or two. Raises what a store
        raises."""
        with self._history() as history:
            starts = newest_starts(history.entries, clock_of(history.backup, now)() + AHEAD)
            return next((at for service, at in starts if self._is_own(service)), None)

    def _is_own(self, service: str) -> bool:
        """Whether the service is one of this set. A table that the file excludes now is none any more."""
        set_name, _, table = service.partition("/")
        return set_name.lower() == self.name.lower() and self.specs.takes(table)

    @contextmanager
    def _history(self) -> Iterator[History]:
        """SyncHistory beside the backup, for questions about no table alone."""
        with self.specs.beside() as backup:
            yield History(backup)
