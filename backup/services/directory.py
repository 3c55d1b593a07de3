"""Which services there are, and what a name stands for: a service, a set, a pattern or "all". Runs nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from backup.config.given_services import ALL, known_names
from backup.config.settings import Settings
from backup.core.errors import ConfigError, UnknownService
from backup.core.model import SIDES
from backup.core.patterns import is_pattern, matching
from backup.core.suggestions import did_you_mean, quoted
from backup.services.sets import ServiceSet
from backup.services.spec import ServiceSpec, specs_of
from backup.stores import Limits
from backup.stores.sides import Side

_LISTED = "docs/configuration.md lists the settings of each."


class ToLookAfter(NamedTuple):
    """The services that have a setting, and those of a set with a run in progress; and the sets without one."""

    services: list[str]
    quiet_sets: list[str]


class Directory:
    """The services of the settings, and the sets of backup.toml. Case does not count in names. For any thread."""

    def __init__(self, settings: Settings, limits: Limits, specs: Sequence[ServiceSpec] | None = None) -> None:
        """`specs` are the services (default: those of the settings and of the sets). Raises ConfigError for two whose
        names differ only in case."""
        self._specs: dict[str, ServiceSpec] = {}
        for spec in specs_of(settings) if specs is None else specs:
            if self._specs.setdefault(spec.name.lower(), spec) is not spec:
                raise ConfigError(f"Two services are called {quoted(spec.name)}.", hint="Case does not count in names.")
        sections = settings.sets if specs is None else {}
        self.sets: Mapping[str, ServiceSet] = {
            name.lower(): ServiceSet(name, section, settings, limits) for name, section in sections.items()
        }
        """The sets, by their names in small letters."""

        if both := sorted(self.sets.keys() & self._specs.keys()):
            raise ConfigError(
                f"A set of backup.toml and a service of the settings are both called {both[0]}.",
                hint="Give one of them another name.",
            )

    @property
    def own_names(self) -> list[str]:
        """The names of the services that have a setting."""
        return [spec.name for spec in self._specs.values()]

    @property
    def entries(self) -> list[str]:
        """The names of the services that have a setting, and of the sets. Asks no database."""
        return [*self.own_names, *(service_set.name for service_set in self.sets.values())]

    def names(self, but: Collection[str] = ()) -> list[str]:
        """The names of all services: those that have a setting, then those of the sets. Leaves out services and sets in
        `but`.

        A set that is not whole is there with its own name as well; `find` raises the reason. Asks the databases of the
        sets, once.
        """
        sets = (service_set for service_set in self.sets.values() if service_set.name not in but)
        names = [*self.own_names, *(name for service_set in sets for name in service_set.names())]
        return [name for name in names if name not in but]

    def is_group(self, name: str) -> bool:
        """Whether the name stands for any number of services: "all", a set, or a pattern."""
        lowered = name.lower()
        return lowered not in self._specs and (lowered == ALL or lowered in self.sets or is_pattern(name))

    def set_with(self, service: str) -> ServiceSet | None:
        """The set that the service belongs to; None for a service of the settings."""
        return None if service.lower() in self._specs else self.sets.get(service.partition("/")[0].lower())

    def find(self, name: str) -> tuple[ServiceSpec, list[ServiceSpec]]:
        """Returns the service of this name, and the others whose places it must not share.

        Raises UnknownService when neither a setting nor a set names it. For the name of a set that is not whole, raises
        the reason.
        """
        spec, own_set = self._specs.get(name.lower()), None
        if spec is None:
            own_set, table = self.set_with(name), name.partition("/")[2]
            if own_set is None:
                raise self._unknown(name)
            if not table:
                raise next(iter(own_set.members.errors), self._unknown(name))
            spec = own_set.spec_of(table)
        others = [other for other in self._specs.values() if other is not spec]
        place = spec.source.table or spec.source.container or spec.source.default_table
        rivals = (other.specs.rival_of(place) for other in self.sets.values() if other is not own_set)
        return spec, [*others, *(rival for rival in rivals if rival is not None)]

    def chosen(self, name: str, but: Collection[str] = ()) -> list[str]:
        """Returns the names of the services that `name` stands for.

        It is the name of a service or of a set, a pattern such as `chinook/dbo.I*`, or "all". Of "all" it leaves out
        the services and sets in `but`. Raises UnknownService when there is none.
        """
        lowered = name.lower()
        if lowered == ALL:
            if not self.entries:
                raise UnknownService("No service is configured.", hint=_LISTED)
            return self.names(but)
        if not self.is_group(name):
            return [self.find(name)[0].name]
        if service_set := self.sets.get(lowered):
            chosen = service_set.names()
        else:
            chosen = [*matching(name, self.own_names), *self._fitting(name)]
        if not chosen:
            raise UnknownService(
                f"No service fits {quoted(name)}.", hint=f"Configured: {', '.join(self.entries) or 'none'}. {_LISTED}"
            )
        return chosen

    def services(self, name: str) -> list[str]:
        """Returns what `chosen` does, without the names of sets that are not whole: for what reads the past alone. Such
        a set may have no service left: `some_services` says why."""
        return [service for service in self.chosen(name) if service.lower() not in self.sets]

    def some_services(self, name: str) -> list[str]:
        """Returns what `services` does. Raises why a set is not whole if it has no service left."""
        if services := self.services(name):
            return services
        raise next(error for service_set in self._sets_in(name) for error in service_set.members.errors)

    def with_copies(self, name: str) -> list[str]:
        """Returns the services that a set or a pattern stands for, also those whose table is gone from the source: for
        what writes their copies somewhere. Raises UnknownService when there is none, or why a set is not whole."""
        sets = self._sets_in(name)
        services = matching(name, self.own_names)
        services += [service for service_set in sets for service in _of_pattern(name, service_set.with_copies())]
        if not services:
            errors = (error for service_set in sets for error in service_set.members.errors)
            raise next(errors, UnknownService(f"No service fits {quoted(name)}.", hint=_LISTED))
        return services

    def chosen_entries(self, name: str) -> list[str]:
        """Returns what one job each is made for: every name of `entries` for "all"; else the service, the set or the
        pattern itself. Asks the databases of a set only for the name of one of its services.

        Raises UnknownService when there is no such service or set.
        """
        if name.lower() == ALL:
            return self.entries or self.chosen(name)
        if service_set := self.sets.get(name.lower()):
            return [service_set.name]
        return [name] if self.is_group(name) else [self.find(name)[0].name]

    def set_named(self, name: str) -> ServiceSet:
        """Returns the set of this name. Raises UnknownService without one."""
        service_set = self.sets.get(name.lower())
        if service_set is None:
            names = sorted(each.name for each in self.sets.values())
            listed = f"The sets of backup.toml: {', '.join(names)}." if names else "backup.toml names no set."
            raise UnknownService(f"There is no set {quoted(name)}.{did_you_mean(name, names)}", hint=listed)
        return service_set

    def sides_of_sets(self, name: str) -> list[Side]:
        """Both sides of each set that `name` is about. Asks no database."""
        return [service_set.specs.side(role) for service_set in self._sets_in(name) for role in SIDES]

    def open_services(self, name: str) -> list[str]:
        """The services of the sets that `name` stands for that have a run in progress. Costs one query a set."""
        return [
            service
            for service_set in self._sets_in(name)
            for service in _of_pattern(name, service_set.open_services() or [])
        ]

    def with_run(self, text: str, services: Sequence[str]) -> list[str]:
        """Those of the services that may have a run whose id is the text, or begins with it: it leaves out services of
        a set whose SyncHistory has none. Costs a query or two a set."""
        set_of = {service: self.set_with(service) for service in services}
        wanted = frozenset(map(str.lower, services))
        services_of = {each.name: each.with_run(text, wanted) for each in self.sets.values() if each in set_of.values()}

        def may_have(service: str, service_set: ServiceSet | None) -> bool:
            of_set = None if service_set is None else services_of[service_set.name]
            return of_set is None or service.lower() in of_set

        return [service for service, service_set in set_of.items() if may_have(service, service_set)]

    def to_look_after(self, but: Collection[str] = ()) -> ToLookAfter:
        """What every minute may have something to do for. Leaves out the services and sets in `but`. Costs one query a
        set."""
        names, quiet_sets = [*self.own_names], []
        for service_set in self.sets.values():
            services = service_set.open_services() if service_set.name not in but else None
            names += services or ()
            quiet_sets += [service_set.name] if services == [] else []
        return ToLookAfter([name for name in names if name not in but], quiet_sets)

    def _fitting(self, pattern: str) -> list[str]:
        """The services of the sets that fit the pattern."""
        return [
            service
            for service_set in self._sets_in(pattern)
            for service in _of_pattern(pattern, [spec.name for spec in service_set.members.specs.values()])
        ]

    def _sets_in(self, name: str) -> list[ServiceSet]:
        """The sets that a name or a pattern is about."""
        set_names = [service_set.name for service_set in self.sets.values()]
        fitting = set_names if name.lower() == ALL else matching(name.partition("/")[0], set_names)
        return [self.sets[set_name.lower()] for set_name in fitting]

    def _unknown(self, name: str) -> UnknownService:
        names = ", ".join(self.entries) or "none"
        if name.lower() == ALL:
            return UnknownService("This works on one service at a time, not on all.", hint=f"Configured: {names}.")
        if name.lower() in self.sets:
            return UnknownService(
                f"This works on one service at a time, and {name} is a set.",
                hint=f"`python -m backup plan {name}` lists its services.",
            )
        meant = did_you_mean(name, [*self.entries, ALL])
        if not meant and name.lower() in known_names():
            title = name.capitalize()
            prefixes = f"Its settings begin with Source{title}Db__ and Backup{title}Db__"
            hint = f"Configured: {names}. {prefixes}; docs/configuration.md lists them."
            return UnknownService(f"No service {quoted(name)} is configured: it has no setting.", hint=hint)
        return UnknownService(
            f"No service {quoted(name)} is configured.{meant}", hint=f"Configured: {names}. {_LISTED}"
        )


def _of_pattern(name: str, services: Sequence[str]) -> list[str]:
    """Those of a set's services whose table fits what stands behind the slash; all without a slash."""
    _, slash, pattern = name.partition("/")
    by_table = {service.partition("/")[2]: service for service in services}
    return [by_table[table] for table in (matching(pattern, by_table) if slash else by_table)]
