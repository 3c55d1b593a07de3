"""Keys and values in a table of the app's storage account, in one partition, so that commits are atomic."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.data.tables import TableClient, TableServiceClient, TableTransactionError, UpdateMode

from backup.config.settings import Settings
from backup.core.retry import Retry
from backup.jobs.key_values import NEW, Anything, Change, Item
from backup.jobs.stored import stored_value
from backup.runs.storage_account import service_client, storage_error

TABLE = "backupjobs"
_PARTITION = "jobs"
_GETS_AT_ONCE = 8
_PART = 30_000  # characters; a property takes 32,768
_CONDITION_FAILED = (404, 409, 412)
_AFTER_ALL = "\x7e"  # sorts after every character that a key may have


class TableKeyValues:
    """A table of the storage account; the first use makes it."""

    def __init__(self, settings: Settings, retry: Retry, table: str = TABLE) -> None:
        self._settings, self._retry, self._name = settings, retry, table
        self._lock = threading.Lock()
        self._service: TableServiceClient | None = None
        self._client: TableClient | None = None

    def get(self, key: str) -> Item | None:
        """As `KeyValues` says."""
        for attempt in self._retry.attempts("read jobs"):
            with attempt, _errors():
                clock = _ServerClock()
                try:
                    entity = self._table().get_entity(_PARTITION, key, raw_response_hook=clock.hear)
                    return _item(entity, clock.now)
                except ResourceNotFoundError:
                    return None
        raise AssertionError("the last try returns or raises")

    def scan(self, prefix: str, *, after: str = "", limit: int) -> list[Item]:
        """As `KeyValues` says."""
        above = "gt" if after >= prefix else "ge"  # one lower bound, where the server begins to read
        query = f"PartitionKey eq @partition and RowKey {above} @first and RowKey lt @last"
        parameters = {"partition": _PARTITION, "first": max(after, prefix), "last": prefix + _AFTER_ALL}
        items: list[Item] = []
        for attempt in self._retry.attempts("read jobs"):
            with attempt, _errors():
                items, clock = [], _ServerClock()
                pages = self._table().query_entities(
                    query, parameters=parameters, results_per_page=min(limit, 1000), raw_response_hook=clock.hear
                )
                for page in pages.by_page():
                    items += [_item(entity, clock.now) for entity in page]
                    if len(items) >= limit:
                        break
        return items[:limit]

    def get_all(self, keys: Sequence[str]) -> list[Item | None]:
        """As `KeyValues` says. The service finds an entity by its key alone, so each is a request of its own."""
        if len(keys) <= 1:
            return list(map(self.get, keys))
        with ThreadPoolExecutor(min(_GETS_AT_ONCE, len(keys)), thread_name_prefix="jobs") as pool:
            return list(pool.map(self.get, keys))

    def commit(self, changes: Sequence[Change]) -> bool:
        """As `KeyValues` says."""
        operations = [_operation(change) for change in changes]
        for attempt in self._retry.attempts("write jobs"):
            with attempt, _errors():
                try:
                    self._table().submit_transaction(operations)
                except TableTransactionError as error:
                    if error.status_code not in _CONDITION_FAILED:
                        raise
                    return False
        return True

    def close(self) -> None:
        """As `KeyValues` says."""
        with self._lock:
            if self._service is not None:
                self._service.close()  # the connections are its own: to close a table's client closes none
            self._service = self._client = None

    def _table(self) -> TableClient:
        with self._lock:
            if self._service is None:
                self._service = service_client(self._settings, "table", TableServiceClient)
            if self._client is None:
                self._client = self._service.create_table_if_not_exists(self._name)
            return self._client


class _ServerClock:
    """The time of the service, as its latest answer says it; None before. At most a second ahead."""

    def __init__(self) -> None:
        self.now: datetime | None = None

    def hear(self, response: Any) -> None:
        """Reads the time of an answer."""
        try:
            now = parsedate_to_datetime(response.http_response.headers["Date"])
            self.now = now + timedelta(seconds=1) if now.tzinfo else None  # it has only whole seconds
        except (KeyError, ValueError, TypeError, OverflowError):  # a proxy has taken it away, or spoilt it
            self.now = None


@contextmanager
def _errors() -> Iterator[None]:
    """Turns the SDK's errors into the app's."""
    try:
        yield
    except AzureError as error:
        raise storage_error(error, "the records of jobs", "table") from None


def _operation(change: Change) -> Any:
    entity: dict[str, Any] = {"PartitionKey": _PARTITION, "RowKey": change.key}
    if change.value is not None:
        text = json.dumps(change.value, separators=(",", ":"))
        entity |= {f"v{n // _PART:02}": text[n : n + _PART] for n in range(0, len(text), _PART)}
    if change.only_if is NEW:
        return "create", entity
    if isinstance(change.only_if, Anything):
        return ("delete", entity) if change.value is None else ("upsert", entity, {"mode": UpdateMode.REPLACE})
    condition = {"etag": change.only_if, "match_condition": MatchConditions.IfNotModified}
    if change.value is None:
        return "delete", entity, condition
    return "update", entity, {"mode": UpdateMode.REPLACE, **condition}


def _item(entity: Any, now: datetime | None) -> Item:
    parts = sorted(name for name in entity if name[0] == "v" and name[1:].isdigit())
    value = stored_value(entity["RowKey"], "".join(str(entity[name]) for name in parts))
    written_at: datetime | None = entity.metadata["timestamp"]
    age = None if now is None or written_at is None else max(timedelta(), now - written_at)
    return Item(entity["RowKey"], value, entity.metadata["etag"], age)
