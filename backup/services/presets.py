"""The two services that the app knows by itself, as classes. Any other one is a `SyncService` over its spec."""

from __future__ import annotations

from typing import Any

from backup.config.settings import Settings
from backup.services.service import SyncService
from backup.services.spec import spec_of


class CustomerSyncService(SyncService):
    """Customers: a SQL table, its primary key, and the column `Version`. Arguments are those behind the spec."""

    def __init__(self, settings: Settings, *arguments: Any, **named: Any) -> None:
        super().__init__(spec_of(settings, "customer"), settings, *arguments, **named)


class OrderSyncService(SyncService):
    """Orders: documents of type Order by (partition key, id), or rows with JSON columns; by lastModified and status."""

    def __init__(self, settings: Settings, *arguments: Any, **named: Any) -> None:
        super().__init__(spec_of(settings, "order"), settings, *arguments, **named)
