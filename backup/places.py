"""Whether two sides are one place: told by what their servers say of themselves, not by what the settings call them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backup.errors import BackupError, ConfigError
from backup.log import event
from backup.stores import Store


@dataclass(frozen=True)
class Named:
    """A side as the settings name it: `setting` is their prefix, `open` opens it and connects nowhere yet."""

    setting: str
    open: Callable[[], Store]


def refuse_alike(one: Store, setting: str, other: Store, other_setting: str) -> None:
    """Raises ConfigError for two sides of different products, or of settings that spell the same place. Connects
    nowhere."""
    if one.kind != other.kind:
        raise ConfigError(
            f"{setting} is {one.kind} and {other_setting} is {other.kind}; an exact copy needs two of one kind.",
            hint="Give both sides the same product.",
        )
    if one.location.lower() == other.location.lower():  # no two tables are worth telling apart by case alone
        raise _same(one, setting, other_setting)


def refuse_same(one: Store, setting: str, other: Store, other_setting: str) -> None:
    """Raises ConfigError for two sides that are one place, as their servers say; what the stores raise."""
    refuse_alike(one, setting, other, other_setting)
    if one.is_same_place(other):
        raise _same(one, setting, other_setting)


def refuse_shared(store: Store, setting: str, others: Sequence[Named]) -> None:
    """Raises ConfigError if the store is one place with a side of another service.

    Sides whose tables or containers have other names are not asked. One that does not answer cannot be compared: that
    is logged.
    """
    for named in others:
        other = named.open()
        try:
            if other.kind == store.kind and other.name.lower() == store.name.lower() and store.is_same_place(other):
                raise _same(store, setting, named.setting)
        except ConfigError:
            raise
        except BackupError as error:
            event("place.not_compared", level=logging.WARNING, setting=setting, other=named.setting, error=error)
        finally:
            other.close()


def _same(store: Store, setting: str, other_setting: str) -> ConfigError:
    return ConfigError(
        f"{setting} and {other_setting} name the same place: {store.location}. Nothing was changed.",
        hint="A backup beside nothing but itself is none, and two services in one table delete each other's records:"
        " name another database, table or container.",
    )
