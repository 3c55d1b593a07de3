"""Makes what the backup of one service needs: database, schema, table or container, its new name, and SyncHistory."""

from __future__ import annotations

from backup.core.log import event
from backup.runs import upgrade
from backup.runs.lock import Lock
from backup.runs.policy import Policy
from backup.runs.renaming import take_name
from backup.runs.set_beginning import SetBeginning
from backup.services.places import Places
from backup.stores import Store
from backup.verbs.sync import refuse_expiring


class Setup:
    """What is missing of a service's backup, made. Safe to repeat. For any thread."""

    def __init__(
        self,
        service: str,
        places: Places,
        old_service: str,
        old_places: Places,
        policy: Policy,
        lock: Lock,
        beginning: SetBeginning | None = None,
    ) -> None:
        """`old_service` and `old_places` are those of the backup's table before its renaming; else the same.
        `beginning`: of the service's set, if nothing of it is in the backup yet."""
        self._beginning = beginning
        self._service, self._places, self._policy, self._lock = service, places, policy, lock
        self._old_service, self._old_places = old_service, old_places

    def complete(self, source: Store, backup: Store) -> None:
        """Creates what is missing, and nothing else. Raises the errors of the stores, ConfigError for two sides that
        are one place, and Locked where a run is at work on a table that gets a new name."""
        self._places.try_to_tell_apart(source, backup)
        if self._old_places is not self._places:
            self._rename(backup)
        if self._beginning is not None:
            self._beginning.keep(source, backup, self._service)
        backup.catalog.initialize(source)
        upgrade.create(backup, self._service)
        refuse_expiring(backup, self._policy)
        event("backup.initialized", service=self._service)

    def _rename(self, backup: Store) -> None:
        """Gives the backup's table its new name, if it still has the old one, while no run is at work on either."""
        with (
            self._old_places.stores() as (_, old),
            self._lock(self._service, backup.place.location),
            self._lock(self._old_service, old.place.location),
        ):
            take_name(backup, old, self._service, self._old_service)
        event("backup.renamed", service=self._service, renamed_from=self._old_service)
