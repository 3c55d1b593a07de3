"""Looks whether the two sides of a service, and those of others, are places of their own, by what their servers say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backup.doctor.findings import Check, Finding, fine
from backup.services.places import Places
from backup.services.sets import ServiceSet
from backup.services.spec import ServiceSpec
from backup.stores import Limits


def places_check(spec: ServiceSpec, specs: Sequence[ServiceSpec], limits: Limits) -> Check:
    """The check of one service whose sides answer, among all that the settings name."""
    others = [other for other in specs if other.name != spec.name]
    return Check(spec.name, "places", lambda: _told_apart(spec.name, spec, others, limits))


def places_check_of_set(service_set: ServiceSet, limits: Limits) -> Check:
    """The same of a set, by its first table: all of them have the same two databases."""

    def work() -> Iterator[Finding]:
        for spec in [*service_set.members.specs.values()][:1]:
            yield from _told_apart(service_set.name, spec, (), limits)

    return Check(service_set.name, "places", work)


def _told_apart(subject: str, spec: ServiceSpec, others: Sequence[ServiceSpec], limits: Limits) -> Iterator[Finding]:
    places = Places(spec, others, limits)
    with places.stores() as (source, backup):
        places.tell_apart(source, backup)
    yield fine(subject, "places", "source and backup are two places")
